"""How surely the sound and the pictures of each clip belong together, by a model of audio-visual coincidence.

The filter by which AudioScope's training videos were chosen (Tzinis et al. 2021, section 4.1): a clip whose pictures
have nothing to do with its sound teaches nothing of what is on screen.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from soundssl import files, models
from soundssl.device import Accelerator
from soundssl.files import Features
from soundssl.objectives import coincidence
from soundssl.progress import SILENT, Progress

BATCH = 64  # pictures, and windows about them, that run through the nets at a time


class Pair(nn.Module):
    """Score windows with pictures, one by one."""

    def __init__(self, trained: files.Model) -> None:
        super().__init__()
        try:
            self.image, self.scorer = coincidence.restore_pictures(trained.config, trained.tensors)
        except ValueError as error:
            raise files.FormatError(f"{files.text(trained.path)}: {error}") from error
        self.encoder = models.restore(trained.config, trained.tensors)

    def forward(self, windows: Tensor, images: Tensor) -> Tensor:
        """Return a probability each. Shape: [n, frames, bands], [n, height, width, 3] to [n]."""
        return self.scorer.paired(self.encoder(windows).float(), self.image(images).float()).sigmoid()


def probabilities(
    source: Features,
    trained: files.Model,
    accelerator: Accelerator,
    clips: np.ndarray | None = None,
    progress: Progress = SILENT,
) -> np.ndarray:
    """Return of each clip the mean probability that a picture and the window about it belong together.

    NaN of clips that are not chosen, have no pictures or are shorter than a window. Shape: `[clips]`, float64. Raises
    FormatError for a model that was never trained on pictures, for features of another front end, and for a file
    without pictures.
    """
    source.check_front_end(trained.config["front_end"], trained.path)
    if source.images is None or source.image_offset is None:
        raise files.FormatError(f"{files.text(source.path)} holds no pictures; make it from videos")
    network = accelerator.place(Pair(trained)).eval()
    count, length = np.diff(source.image_offset), trained.config["frames"]
    chosen = np.ones(len(source.clips), bool) if clips is None else clips
    usable = np.flatnonzero(chosen & source.recorded & (count > 0) & (np.diff(source.offset) >= length))
    found = np.full(len(source.clips), np.nan)
    with progress.track("coincidence", len(usable), "clips") as advance:
        for clip in usable:
            found[clip] = _of(source, int(clip), length, network, accelerator)
            advance(1, "")
    return found


@torch.inference_mode()
def _of(source: Features, clip: int, length: int, network: nn.Module, accelerator: Accelerator) -> float:
    images = source.images_of(clip)
    assert images is not None
    centre = np.arange(len(images)) / float(source.attributes["image_rate"]) * float(source.attributes["frame_rate"])
    begin, end = source.offset[clip], source.offset[clip + 1]
    first = begin + np.clip(np.round(centre - length / 2).astype(np.int64), 0, end - begin - length)
    total = 0.0
    for low in range(0, len(images), BATCH):
        windows = torch.from_numpy(source.frames.gather(first[low : low + BATCH], length)).float()
        pictures = torch.from_numpy(np.array(images[low : low + BATCH]))
        with accelerator.autocast():
            found = network(windows.to(accelerator.device), pictures.to(accelerator.device))
        total += float(found.double().sum())
    return total / len(images)

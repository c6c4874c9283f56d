"""Trained networks that separate: a separator, and a separator with its on-screen classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from soundssl import device as hardware
from soundssl import files, models
from soundssl.models import audioscope
from soundssl.models.separator import Separator

NO_CLASSIFIER = "has no on-screen classifier; train one with --objective onscreen"


def read_separator(path: Path, front_end: Mapping[str, object]) -> files.Model:
    """Return a trained separator; raise FormatError for an encoder, or one of another front end."""
    trained = files.read_model(path)
    if trained.config["encoder"] not in models.SEPARATORS:
        raise files.FormatError(f"{files.text(path)} is an encoder, not a separator; train one with --objective mixit")
    wanted = trained.config["front_end"]
    different = [
        f"{name} {front_end[name]} instead of {wanted[name]}" for name in wanted if front_end[name] != wanted[name]
    ]
    if different:
        raise files.FormatError(
            f"{files.text(path)} was trained on other waveforms: {', '.join(different)}; train it again"
        )
    return trained


def place(trained: files.Model, accelerator: hardware.Accelerator) -> Separator:
    """Return the network of a separator, ready to run."""
    network = models.restore_separator(trained.config, trained.tensors)
    return accelerator.place(network).eval()  # type: ignore[return-value]


class Seen(NamedTuple):
    """Hold the tracks of mixtures, the probability that each is on screen, and where it looks.

    Shape: `[n, tracks, samples]`, `[n, tracks]`, `[n, tracks, pictures, h, w]`.
    """

    tracks: np.ndarray
    probability: np.ndarray
    attention: np.ndarray


class OnScreen:
    """Separate waveforms and say which tracks are on screen; raise FormatError for a model that cannot."""

    def __init__(self, trained: files.Model, accelerator: hardware.Accelerator) -> None:
        scope = audioscope.restore(trained.config, trained.tensors)
        if scope is None:
            raise files.FormatError(f"{files.text(trained.path)} {NO_CLASSIFIER}")
        self.accelerator, self.separator = accelerator, place(trained, accelerator)
        self.scope = accelerator.place(scope).eval()

    @torch.inference_mode()
    def __call__(self, waveforms: np.ndarray, images: np.ndarray) -> Seen:
        """Separate. Shape: `[n, samples]`, uint8 `[n, pictures, height, width, 3]`."""
        heard, shown = (torch.from_numpy(each).to(self.accelerator.device) for each in (waveforms, images))
        with self.accelerator.autocast():
            tracks = self.separator(heard.float())
            logits, attention = self.scope(tracks, shown)
        found = [each.float().cpu().numpy() for each in (tracks, logits.sigmoid(), attention)]
        return Seen(*found)


class Segments:
    """Separate the segments of one recording after another, with their pictures where the model can see.

    Of `images` [n, height, width, 3], a memory map, those of a segment are read. Tracks have two kinds then: the track,
    and the track times its probability.
    """

    def __init__(self, trained: files.Model, accelerator: hardware.Accelerator) -> None:
        self.sees = audioscope.restore(trained.config, trained.tensors) is not None
        self.network = OnScreen(trained, accelerator) if self.sees else None
        self.separator = self.network.separator if self.network else place(trained, accelerator)
        self.tracks, self.accelerator = self.separator.tracks, accelerator

    def of(self, images: np.ndarray, rate: float, sample_rate: int) -> Callable[[np.ndarray, int], np.ndarray]:
        """Return what separates a segment, given its first sample, of a recording with these images, `rate` a second.

        Shape: [samples] to [tracks, samples], or [tracks, 2, samples] of a model that sees and a recording with images.
        """
        network = self.network
        if network is None or not len(images):
            return lambda segment, start: self.accelerator.run(self.separator, segment[None])[0]

        def separate(segment: np.ndarray, start: int) -> np.ndarray:
            first = int(np.floor(start / sample_rate * rate + 1e-6))
            count = max(1, round(len(segment) / sample_rate * rate))
            shown = np.array(images[np.clip(first + np.arange(count), 0, len(images) - 1)])
            seen = network(segment[None], shown[None])
            return np.stack([seen.tracks[0], seen.tracks[0] * seen.probability[0][:, None]], 1)

        return separate

"""On-screen sounds: a separator with its on-screen classifier, and its scores on mixtures of clips known to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from soundssl import SoundsslError, files
from soundssl import device as hardware
from soundssl.evaluations import onscreen as task
from soundssl.labels import Index
from soundssl.models import audioscope
from soundssl.separation.mixtures import excerpt
from soundssl.separation.tracks import place, read_separator


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
            raise files.FormatError(
                f"{files.text(trained.path)} has no on-screen classifier; train one with --objective onscreen"
            )
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


def score(
    waves: Path,
    model: Path,
    labels: Path,
    *,
    name: str = "on-screen",
    splits: Sequence[str] | None = None,
    count: int = 100,
    seconds: float = 5.0,
    batch_size: int = 8,
    options: task.Options = task.Options(),
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> list[dict[str, Any]]:
    """Score an on-screen model on `count` on+off mixtures and as many off+off ones, of clips with these labels.

    `name` is the class that says of a clip whether its sound is seen (1) or not (0). Raises FormatError, Missing, and
    SoundsslError where there are no such pairs.
    """
    source, known = files.Features(waves), files.Labels(labels)
    source.require("waveform", "on-screen separation is scored on")
    trained = read_separator(model, source.front_end())
    generator = np.random.default_rng(seed)
    pairs = draw(source, known, name, splits, count, generator)
    measured: dict[bool, list[Mapping[str, np.ndarray]]] = {True: [], False: []}
    with hardware.start(device, precision, threads) as accelerator:
        network = OnScreen(trained, accelerator)
        for on, pair in pairs.items():
            for heard, images in _batches(source, pair, seconds, batch_size, generator):
                seen = network(heard.sum(1), images)
                measured[on].append(task.measure(heard, seen.tracks, seen.probability))
    on_off, off_off = (_joined(measured[on]) for on in (True, False))
    return task.evaluate(on_off, off_off, options, seed)


def draw(
    source: files.Features,
    known: files.Labels,
    name: str,
    splits: Sequence[str] | None,
    count: int,
    generator: np.random.Generator,
) -> dict[bool, np.ndarray]:
    """Draw pairs of clips: seen and unseen (True), and unseen twice (False). Shape: `[count, 2]` rows each."""
    where = files.text(source.path)
    if source.image_offset is None:
        raise files.FormatError(f"{where} holds no pictures; make it from videos")
    if name not in known.classes:
        raise SoundsslError(f"{files.text(known.path)} has no class {name!r}; it has {', '.join(known.classes)}")
    label = Index(known, source.clips.key).of_clips()[:, known.classes.index(name)]
    usable = source.clips.in_splits(splits, source.path) & source.recorded & (np.diff(source.image_offset) > 0)
    recording = source.clips.recording_number()
    seen, unseen = (np.flatnonzero(usable & (label == value)) for value in (1, 0))
    found = {}
    for on, first in ((True, seen), (False, unseen)):
        pairs = np.array([(i, j) for i in first for j in unseen if recording[i] != recording[j]]).reshape(-1, 2)
        if not len(pairs):
            raise SoundsslError(
                f"{where}: {len(seen)} clips with pictures are {name} and {len(unseen)} are not; one of the one and two "
                "of the other are needed, of different recordings"
            )
        found[on] = pairs[generator.choice(len(pairs), count, replace=count > len(pairs))]
    return found


def _batches(
    source: files.Features, pairs: np.ndarray, seconds: float, size: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield sounds at equal energy and the pictures of the first. Shape: `[n, 2, samples]`, `[n, pictures, …]`."""
    length = source.frames_of(seconds)
    pictures = max(1, round(seconds * float(source.attributes["image_rate"])))
    for first in range(0, len(pairs), size):
        sounds, images = [], []
        for one, other in pairs[first : first + size]:
            sound, at = placed(source, int(one), length, generator)
            sounds.append(np.stack([sound, excerpt(source, int(other), length, generator)]))
            images.append(source.images_from(int(one), at, pictures))
        batch = np.stack(sounds)
        energy = np.square(batch, dtype=np.float64).sum(2, keepdims=True)
        gain = np.sqrt(energy[:, :1] / np.maximum(energy, np.finfo(np.float64).tiny))
        yield (batch * gain).astype(np.float32), np.stack(images)


def placed(source: files.Features, row: int, length: int, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return an excerpt of a clip and the second at which it starts, at random. Shape: `[length]`."""
    begin, samples = source.offset[row], int(source.offset[row + 1] - source.offset[row])
    at = int(generator.integers(max(0, samples - length) + 1))
    sound = np.zeros(length, np.float32)
    heard = source.frames[begin + at : begin + at + min(length, samples)]
    sound[: len(heard)] = heard
    return sound, at / int(source.attributes["sample_rate"])


def _joined(measured: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([each[name] for each in measured]) for name in measured[0]}

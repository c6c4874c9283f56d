"""Mixtures of clips whose sound is known to be seen or not, and what an on-screen model makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soundssl import SoundsslError, files
from soundssl import device as hardware
from soundssl.evaluations import onscreen as task
from soundssl.labels import Index, joined
from soundssl.progress import SILENT, Progress
from soundssl.reports import pictures
from soundssl.separation.mixtures import excerpt
from soundssl.separation.networks import OnScreen, read_separator


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
    source = files.Features(waves)
    known = joined(files.Labels(labels), source)
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
                f"{where}: {len(seen)} clips with pictures are {name} and {len(unseen)} are not; one of the one and "
                "two of the other are needed, of different recordings"
            )
        found[on] = pairs[generator.choice(len(pairs), count, replace=count > len(pairs))]
    return found


def _batches(
    source: files.Features, pairs: np.ndarray, seconds: float, size: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield sounds at equal energy and the pictures of the first. Shape: `[n, 2, samples]`, `[n, pictures, …]`."""
    length = source.frames_of(seconds)
    shown = max(1, round(seconds * float(source.attributes["image_rate"])))
    for first in range(0, len(pairs), size):
        sounds, images = [], []
        for one, other in pairs[first : first + size]:
            sound, at = placed(source, int(one), length, generator)
            sounds.append(np.stack([sound, excerpt(source, int(other), length, generator)]))
            images.append(source.images_from(int(one), at, shown))
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


def attend(
    separated: Path,
    model: Path,
    folder: Path,
    *,
    seconds: float = 10.0,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    progress: Progress = SILENT,
) -> int:
    """Plot where the tracks of each recording of a separated file look, a picture each below a folder; return how many.

    The first `seconds` of each are separated again. Recordings without pictures have none. Raises FormatError for a
    model without an on-screen classifier.
    """
    source = files.Features(separated)
    trained = read_separator(model, source.front_end())
    shown = np.zeros(len(source.clips), int) if source.image_offset is None else np.diff(source.image_offset)
    rows = np.flatnonzero(source.recorded & (shown > 0))
    with (
        hardware.start(device, precision, threads) as accelerator,
        progress.track("attention", len(rows), "recordings") as advance,
    ):
        network = OnScreen(trained, accelerator)
        for row in rows:
            begin, end = source.offset[row], min(source.offset[row + 1], source.offset[row] + source.frames_of(seconds))
            sound = np.array(source.frames[begin:end], np.float32)
            length = len(sound) / int(source.attributes["sample_rate"])
            images = source.images_from(int(row), 0.0, max(1, round(length * float(source.attributes["image_rate"]))))
            seen = network(sound[None], images[None])
            names = [f"track {track}: {each:.2f} on screen" for track, each in enumerate(seen.probability[0])]
            below = [part for part in str(source.clips.key[row]).split("/") if part not in ("", ".", "..")]
            place = folder.joinpath(*below[:-1], f"{below[-1]}.png")
            place.parent.mkdir(parents=True, exist_ok=True)
            pictures.attention(place, images, seen.attention[0], names)
            advance(1, "")
    return len(rows)

"""Mixtures of known sources, out of waveform features, and what a separator makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from soundssl import SoundsslError, files
from soundssl import device as hardware
from soundssl.evaluations import separation as task
from soundssl.labels import Index, clips_in_splits, joined
from soundssl.ops.spectrogram import log_mel
from soundssl.reports import pictures
from soundssl.separation.networks import place, read_separator

TRIES = 10  # places at which an excerpt is looked for, until one is heard
AUDIBLE = 1e-6  # mean square of an excerpt that is heard, -60 dB re full scale
PLOTTED = 6  # mixtures in a picture


class Mixtures(NamedTuple):
    """Hold what is to be mixed: rows of clips, as many a mixture, and, where classes are known, their labels.

    `clip` [mixtures, sources]; `label` [mixtures, sources, classes] or None.
    """

    source: files.Features
    clip: np.ndarray
    label: np.ndarray | None
    classes: list[str]


class Scored(NamedTuple):
    """Hold the scores of a separator, and its first mixtures: (sources, tracks), each [sources or tracks, samples]."""

    rows: list[dict[str, Any]]
    examples: list[tuple[np.ndarray, np.ndarray]]


def score(
    waves: Path,
    model: Path,
    *,
    labels: Path | None = None,
    splits: Sequence[str] | None = None,
    sources: Sequence[int] = (2,),
    count: int = 100,
    seconds: float = 5.0,
    batch_size: int = 8,
    options: task.Options = task.Options(),
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> Scored:
    """Mix recordings of a waveform file, `count` times, and say how much a separator gives back of each.

    There are as many mixtures of each number of `sources`, as far as that goes. With `labels` all sources of a mixture
    are of different classes; every source also goes in alone. Raises FormatError, Missing, and SoundsslError where
    there are no such mixtures, or the separator has too few tracks for them.
    """
    generator = np.random.default_rng(seed)
    drawn = read(waves, labels, splits, count, generator, sources)
    trained = read_separator(model, drawn[0].source.front_end())
    if max(sources) > trained.config["tracks"]:
        raise SoundsslError(
            f"{files.text(model)} gives {trained.config['tracks']} tracks, too few for {max(sources)} sources; give no "
            "more than that to --sources, or a separator of more tracks"
        )
    measured: list[dict[str, np.ndarray]] = []
    examples: list[tuple[np.ndarray, np.ndarray]] = []
    with hardware.start(device, precision, threads) as accelerator:
        network = place(trained, accelerator)
        for batch in (batch for each in drawn for batch in excerpts(each, seconds, batch_size, generator)):
            tracks = accelerator.run(network, batch.sum(1))
            alone = batch.reshape(-1, batch.shape[2])
            apart = accelerator.run(network, alone) if batch.shape[1] > 1 else tracks
            measured += [task.measure(batch, tracks, options), task.measure_alone(alone, apart, options)]
            examples += list(zip(batch, tracks, strict=True))[: max(0, PLOTTED - len(examples))]
    known = [each.label.reshape(-1, len(each.classes)) for each in drawn if each.label is not None and _mixed(each)]
    label = np.concatenate(known) if known else None
    return Scored(task.evaluate(measured, label, drawn[0].classes, options, seed), examples)


def _mixed(mixtures: Mixtures) -> bool:
    return mixtures.clip.shape[1] > 1


def read(
    path: Path,
    labels: Path | None,
    splits: Sequence[str] | None,
    count: int,
    generator: np.random.Generator,
    numbers: Sequence[int] = (2,),
) -> list[Mixtures]:
    """Draw mixtures of the recordings of chosen splits, of different classes where labels are given; by number."""
    source = files.Features(path)
    source.require("waveform", "separation is scored on")
    known = joined(files.Labels(labels), source) if labels else None
    chosen = np.flatnonzero(clips_in_splits(known, source.clips, splits, path) & source.recorded)
    label = Index(known, source.clips.key).of_clips()[chosen] if known else None
    recording, classes = source.clips.recording_number()[chosen], known.classes if known else []
    found = []
    for number, share in zip(numbers, np.array_split(np.arange(count), len(numbers)), strict=True):
        if not len(share):
            continue
        try:
            clip = task.draw(recording, label, len(share), generator, number)
        except ValueError as error:
            raise SoundsslError(f"{files.text(path)}: {error}; give more recordings") from error
        found.append(Mixtures(source, chosen[clip], None if label is None else label[clip], classes))
    return found


def excerpts(
    mixtures: Mixtures, seconds: float, batch_size: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield excerpts of the clips, all of the energy of the first, batch by batch. Shape: [n, sources, samples]."""
    length, clips = mixtures.source.frames_of(seconds), mixtures.clip
    for first in range(0, len(clips), batch_size):
        batch = np.stack(
            [
                np.stack([excerpt(mixtures.source, row, length, generator) for row in mixed])
                for mixed in clips[first : first + batch_size]
            ]
        )
        energy = np.square(batch, dtype=np.float64).sum(2, keepdims=True)
        gain = np.sqrt(energy[:, :1] / np.maximum(energy, np.finfo(np.float64).tiny))
        yield (batch * gain).astype(np.float32)


def excerpt(source: files.Features, row: int, length: int, generator: np.random.Generator) -> np.ndarray:
    """Return an excerpt of a clip that is heard; raise SoundsslError where there is none. Shape: [length]."""
    begin, samples = source.offset[row], int(source.offset[row + 1] - source.offset[row])
    for _ in range(TRIES):
        at = begin + generator.integers(max(0, samples - length) + 1)
        found = np.zeros(length, np.float32)
        sound = source.frames[at : at + min(length, samples)]
        found[: len(sound)] = sound
        if np.square(found, dtype=np.float64).mean() > AUDIBLE:
            return found
    raise SoundsslError(
        f"{files.text(source.path)}: {source.clips.key[row]} is next to silent; leave it out, or give longer --seconds"
    )


def plot(path: Path, examples: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Plot mixtures as spectrograms, a row each: the mixture, its sources, its tracks."""
    rows, names = [], []
    for sources, tracks in examples:
        rows.append([log_mel(each) for each in (sources.sum(0), *sources, *tracks)])
        numbered = (f"source {number}" for number in range(1, len(sources) + 1))
        names.append(["mixture", *numbered, *(f"track {number}" for number in range(len(tracks)))])
    pictures.separations(path, rows, names)

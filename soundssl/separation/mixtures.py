"""Mixtures of two known sources, out of waveform features, and what a separator makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from soundssl import SoundsslError, files
from soundssl import device as hardware
from soundssl.evaluations import separation as task
from soundssl.labels import Index
from soundssl.ops.spectrogram import log_mel
from soundssl.reports import pictures
from soundssl.separation.networks import place, read_separator

TRIES = 10  # places at which an excerpt is looked for, until one is heard
AUDIBLE = 1e-6  # mean square of an excerpt that is heard, -60 dB re full scale
PLOTTED = 6  # mixtures in a picture


class Mixtures(NamedTuple):
    """Hold what is to be mixed: rows of clips in pairs, and, where classes are known, their labels.

    `pair` [mixtures, 2]; `label` [mixtures, 2, classes] or None.
    """

    source: files.Features
    pair: np.ndarray
    label: np.ndarray | None
    classes: list[str]


class Scored(NamedTuple):
    """Hold the scores of a separator, and its first mixtures: (sources [2, samples], tracks [tracks, samples]) each."""

    rows: list[dict[str, Any]]
    examples: list[tuple[np.ndarray, np.ndarray]]


def score(
    waves: Path,
    model: Path,
    *,
    labels: Path | None = None,
    splits: Sequence[str] | None = None,
    count: int = 100,
    seconds: float = 5.0,
    batch_size: int = 8,
    options: task.Options = task.Options(),
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> Scored:
    """Mix recordings of a waveform file in pairs, `count` times, and say how much a separator gives back of each.

    With `labels` both sources are of different classes; every source also goes in alone. Raises FormatError, Missing,
    and SoundsslError where there are no such pairs.
    """
    generator = np.random.default_rng(seed)
    drawn = read(waves, labels, splits, count, generator)
    trained = read_separator(model, drawn.source.front_end())
    measured: list[dict[str, np.ndarray]] = []
    examples: list[tuple[np.ndarray, np.ndarray]] = []
    with hardware.start(device, precision, threads) as accelerator:
        network = place(trained, accelerator)
        for pair in sources(drawn, seconds, batch_size, generator):
            tracks = accelerator.run(network, pair.sum(1))
            alone = pair.reshape(-1, pair.shape[2])
            measured += [task.measure(pair, tracks, options)]
            measured += [task.measure_alone(alone, accelerator.run(network, alone), options)]
            examples += list(zip(pair, tracks, strict=True))[: max(0, PLOTTED - len(examples))]
    return Scored(task.evaluate(measured, drawn.label, drawn.classes, options, seed), examples)


def read(
    path: Path, labels: Path | None, splits: Sequence[str] | None, count: int, generator: np.random.Generator
) -> Mixtures:
    """Draw pairs of recordings of the chosen splits, of different classes where labels are given."""
    source = files.Features(path)
    source.require("waveform", "separation is scored on")
    known = files.Labels(labels) if labels else None
    chosen = np.flatnonzero(source.clips.in_splits(splits, path) & source.recorded)
    label = Index(known, source.clips.key).of_clips()[chosen] if known else None
    try:
        pair = task.draw(source.clips.recording_number()[chosen], label, count, generator)
    except ValueError as error:
        raise SoundsslError(f"{files.text(path)}: {error}; give more recordings") from error
    return Mixtures(source, chosen[pair], None if label is None else label[pair], known.classes if known else [])


def sources(
    mixtures: Mixtures, seconds: float, batch_size: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield excerpts of the pairs, both of the energy of the first, batch by batch. Shape: [n, 2, samples] float32."""
    length, pairs = mixtures.source.frames_of(seconds), mixtures.pair
    for first in range(0, len(pairs), batch_size):
        batch = np.stack(
            [
                np.stack([excerpt(mixtures.source, row, length, generator) for row in pair])
                for pair in pairs[first : first + batch_size]
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
    for pair, tracks in examples:
        rows.append([log_mel(each) for each in (pair.sum(0), *pair, *tracks)])
        names.append(["mixture", "source 1", "source 2", *(f"track {number}" for number in range(len(tracks)))])
    pictures.separations(path, rows, names)

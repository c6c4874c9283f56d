"""Synthetic mixtures of two known sources, out of waveform features, and what a separator makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from soundssl import SoundsslError

TRIES = 10  # places at which an excerpt is looked for, until one is heard
AUDIBLE = 1e-6  # mean square of an excerpt that is heard, -60 dB re full scale
DRAWN = 6  # mixtures in a picture


class Mixtures(NamedTuple):
    """Hold what is to be mixed: rows of clips in pairs, and, where classes are known, their labels.

    `pair` [mixtures, 2]; `label` [mixtures, 2, classes] or None.
    """

    source: Any
    pair: Any
    label: Any
    classes: list[str]


def read(path: Path, labels: Path | None, splits: list[str] | None, count: int, generator) -> Mixtures:
    """Draw pairs of recordings of the chosen splits, of different classes where labels are given."""
    import numpy as np

    from soundssl import files
    from soundssl.evaluations import separation as task
    from soundssl.labels import Index

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


def sources(mixtures: Mixtures, seconds: float, batch_size: int, generator) -> Iterator:
    """Yield excerpts of the pairs, both of the energy of the first, batch by batch. Shape: [n, 2, samples] float32."""
    import numpy as np

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


def excerpt(source, row: int, length: int, generator):
    """Return an excerpt of a clip that is heard; raise SoundsslError where there is none. Shape: [length]."""
    import numpy as np

    from soundssl import files

    begin, samples = source.offset[row], int(source.offset[row + 1] - source.offset[row])
    for _ in range(TRIES):
        place = begin + generator.integers(max(0, samples - length) + 1)
        found = np.zeros(length, np.float32)
        part = source.frames[place : place + min(length, samples)]
        found[: len(part)] = part
        if np.square(found, dtype=np.float64).mean() > AUDIBLE:
            return found
    raise SoundsslError(
        f"{files.text(source.path)}: {source.clips.key[row]} is next to silent; leave it out, or give longer --seconds"
    )


def draw(path: Path, kept: list) -> None:
    """Draw the first mixtures as spectrograms: mixture, sources, tracks; `kept` holds (sources, tracks) a mixture."""
    from soundssl.ops.spectrogram import log_mel
    from soundssl.reports import pictures

    rows, names = [], []
    for pair, tracks in kept:
        rows.append([log_mel(each) for each in (pair.sum(0), *pair, *tracks)])
        names.append(["mixture", "source 1", "source 2", *(f"track {number}" for number in range(len(tracks)))])
    pictures.separations(path, rows, names)

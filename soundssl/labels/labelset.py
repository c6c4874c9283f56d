"""Label sets: everything a labels file says, as arrays that the operations of this room take and give back.

A zero is explicit where somebody rated the class, and implicit where it says only that nobody did. Without the column
`rated` every zero is implicit and every other label explicit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from soundssl import files

OF_ROWS = ("key", "start", "end", "weight", "split", "origin", "recording", "uploader", "licence", "subset", "noisy")
MATRICES = ("label", "rated", "truth")
TYPES = {"label": "i1", "truth": "i1", "rated": "u1", "start": "f8", "end": "f8", "weight": "f4", "origin": "u1"}
TYPES |= {"noisy": "u1", "segment": "i4", "class": "i2", "onset": "f8", "offset": "f8"}  # of numbers in the file
BARE = ("weight", "split", "origin")  # columns of rows whose names in the file have no group
BLOCK = 1 << 12  # rows of a matrix taken at once, so that a column of them stays in a core's cache


class Store(Protocol):
    """Take columns; `files.create` yields one on disk."""

    def write(self, name: str, values: Any) -> None:
        """Write a whole column."""


@dataclass(frozen=True)
class LabelSet:
    """Hold labelled segments under the names of `files.Labels`; what a file may lack is None.

    Shape: `label` and `truth` `[segments, classes]` in {1, 0, -1}, `rated` `[segments, classes]` in {1, 0};
    `classes`, `identifiers` and `modality` one a class; else `[segments]`, times in seconds; `events` by name
    `[events]`.
    """

    label: np.ndarray
    classes: list[str]
    key: np.ndarray
    start: np.ndarray
    end: np.ndarray
    weight: np.ndarray | None = None
    split: np.ndarray | None = None
    origin: np.ndarray | None = None
    recording: np.ndarray | None = None
    uploader: np.ndarray | None = None
    licence: np.ndarray | None = None
    subset: np.ndarray | None = None
    noisy: np.ndarray | None = None
    rated: np.ndarray | None = None
    truth: np.ndarray | None = None
    identifiers: list[str] | None = None
    modality: list[str] | None = None
    events: dict[str, np.ndarray] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.key)

    @property
    def explicit(self) -> np.ndarray:
        """Whether somebody rated each entry; without that column, whether it is no zero. Shape: that of `label`."""
        return self.label != 0 if self.rated is None else self.rated == 1

    def rows(self, chosen: np.ndarray) -> LabelSet:
        """Return the set of some segments, with their events. Shape: bool or row numbers `[chosen]`."""
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        of_rows = {name: getattr(self, name) for name in (*OF_ROWS, *MATRICES)}
        taken: dict[str, Any] = {name: each if each is None else each[rows] for name, each in of_rows.items()}
        return replace(self, **taken, events=self._events("segment", rows, len(self)))

    def columns(self, chosen: Sequence[int] | np.ndarray) -> LabelSet:
        """Return the set of some classes, with their events. Shape: column numbers `[chosen]`."""
        columns = np.asarray(chosen, np.int64)
        matrices = {name: getattr(self, name) for name in MATRICES}
        taken: dict[str, Any] = {name: each if each is None else each[:, columns] for name, each in matrices.items()}
        names = [self.classes[i] for i in columns]
        identifiers = self.identifiers and [self.identifiers[i] for i in columns]
        modality = self.modality and [self.modality[i] for i in columns]
        events = self._events("class", columns, len(self.classes))
        return replace(self, **taken, classes=names, identifiers=identifiers, modality=modality, events=events)

    def _events(self, column: str, kept: np.ndarray, count: int) -> dict[str, np.ndarray] | None:
        """Return the events of what is kept of segments or classes, that column numbered anew."""
        if self.events is None:
            return None
        number = np.full(count, -1)
        number[kept] = np.arange(len(kept))
        place = number[self.events[column]]
        events = {name: values[place >= 0] for name, values in self.events.items()}
        return {**events, column: place[place >= 0]}


def of_file(labels: str | os.PathLike | files.Labels) -> LabelSet:
    """Return what a labels file says; raise Missing or FormatError for what is none."""
    source = labels if isinstance(labels, files.Labels) else files.Labels(labels)
    names = [*OF_ROWS, *MATRICES, "classes", "identifiers", "modality", "events"]
    return LabelSet(**{name: getattr(source, name) for name in names})


def write(store: Store, labels: LabelSet) -> None:
    """Write all columns of a labels file that the set has."""
    for name in MATRICES:
        _put(store, name, getattr(labels, name), name)
    for name in OF_ROWS:
        _put(store, name if name in BARE else f"segment/{name}", getattr(labels, name), name)
    store.write("class", list(labels.classes))
    if labels.identifiers is not None:
        store.write("class_id", list(labels.identifiers))
    if labels.modality is not None:
        store.write("modality", list(labels.modality))
    for name, values in (labels.events or {}).items():
        _put(store, f"event/{name}", values, name)


def _put(store: Store, name: str, values: np.ndarray | None, kind: str) -> None:
    if values is not None:
        store.write(name, values.astype(TYPES[kind], copy=False) if kind in TYPES else list(values))


def in_splits(labels: LabelSet, splits: Sequence[str] | None, path: str | os.PathLike = "the labels") -> np.ndarray:
    """Return which segments are of the chosen splits, all where none are named. Shape: bool `[segments]`.

    Raises SoundsslError for a split that no segment has.
    """
    column = np.full(len(labels), "") if labels.split is None else labels.split.astype(str)
    return files.in_splits(column, splits, path)


def class_numbers(labels: LabelSet, names: Sequence[str]) -> list[int]:
    """Return the columns of classes by name or identifier; raise ValueError for one that is not there."""
    number = {name: i for i, name in enumerate(labels.identifiers or []) if name}
    number |= {name: i for i, name in enumerate(labels.classes)}
    if missing := [name for name in names if name not in number]:
        raise ValueError(f"no class is called {missing[0]!r}; there are {', '.join(labels.classes[:20])}")
    return [number[name] for name in names]


def beside(first: LabelSet, second: LabelSet) -> LabelSet:
    """Return the labels of two recognisers of the same clips as one set: the classes of both, of both modalities.

    What one says nothing of is unknown. A name that both have is followed by its modality. Raises ValueError where
    segments are not whole clips, or a class has one name and one modality twice.
    """
    if not all(np.all(each.start == 0) and np.all(np.isinf(each.end)) for each in (first, second)):
        raise ValueError("labels of whole clips stand beside one another; make them with --level clip")
    modality = [name for each in (first, second) for name in each.modality or ["audio"] * len(each.classes)]
    both = set(first.classes) & set(second.classes)
    named = zip([*first.classes, *second.classes], modality, strict=True)
    classes = [f"{name} ({kind})" if name in both else name for name, kind in named]
    if len(set(classes)) < len(classes):
        raise ValueError(f"both name the class {min(both)!r} of one modality; give other --modality to one of them")
    row = {key: number for number, key in enumerate(dict.fromkeys([*first.key, *second.key]))}
    label = np.full((len(row), len(classes)), -1, np.int8)
    split, recording = (np.full(len(row), "", object) for _ in range(2))
    column = 0
    for each in (first, second):
        rows = [row[key] for key in each.key]
        label[rows, column : column + len(each.classes)] = each.label
        column += len(each.classes)
        for kept, given in ((split, each.split), (recording, each.recording)):
            if given is not None:
                kept[rows] = given
    count = len(row)
    return LabelSet(
        label, classes, np.array(list(row), object), np.zeros(count), np.full(count, np.inf), split=split,
        recording=recording, origin=np.full(count, 2), modality=modality,
    )  # fmt: skip

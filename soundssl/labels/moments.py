"""Moments: what a labels file says of a clip, of a window, of a moment.

A labels file says of segments of clips which classes are present (1), absent (0) or unknown (-1). Where several
segments speak of one place the highest word holds: a class that one of them hears is present there, and unknown is
what nobody speaks of. A segment begins at its start and ends just before its end.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from soundssl import files

BLOCK = 1 << 16  # rows of labels copied at once
ENDLESS = 1 << 12  # octaves of an endless segment: more than those of any double


class Said(Protocol):
    """What labelled segments have: those of a file, of a set, or of neither."""

    @property
    def key(self) -> np.ndarray:
        """Keys of the clips."""

    @property
    def start(self) -> np.ndarray:
        """Seconds into the clip."""

    @property
    def end(self) -> np.ndarray:
        """Seconds into the clip."""

    @property
    def label(self) -> np.ndarray:
        """Labels of each segment and class."""


class Segments(NamedTuple):
    """Hold labelled segments that come from no file, under the names of `files.Labels`.

    Shape: `label` `[segments, classes]` in {1, 0, -1}, everything else `[segments]`. `start` and `end` are seconds into
    the clip of that key, `end` infinity for the clip's end.
    """

    key: np.ndarray
    start: np.ndarray
    end: np.ndarray
    label: np.ndarray


def rows_of(keys: Sequence[str] | np.ndarray, known: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return where each key stands among the known ones, -1 where it does not; the last of equal ones.

    Shape: `[keys]`, int64.

    >>> rows_of(["b", "x"], ["a", "b"]).tolist()
    [1, -1]
    """
    row = {key: number for number, key in enumerate(known)}
    return np.fromiter((row.get(key, -1) for key in keys), np.int64, len(keys))


def align(label: np.ndarray, classes: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Return labels with the columns of other classes, unknown where they say nothing of one.

    Shape: `[rows, classes]` to `[rows, wanted]`, int8.
    """
    column = rows_of(wanted, classes)
    aligned = np.full((len(label), len(wanted)), -1, np.int8)
    aligned[:, column >= 0] = label[:, column[column >= 0]]
    return aligned


class Index:
    """Find what labelled segments say of the clips of a table; made once, it answers a batch of windows at once.

    Clips are given by their rows in the table. Clips of one key share what is said of it.
    """

    def __init__(self, segments: Said, keys: Sequence[str] | np.ndarray) -> None:
        number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        self.label, self.clips = np.asarray(segments.label), len(number)
        self.number = np.fromiter((number[key] for key in keys), np.int64, len(keys))
        self.clip = np.fromiter((number.get(key, -1) for key in segments.key), np.int64, len(segments.key))
        self.start, self.end = np.asarray(segments.start, np.float64), np.asarray(segments.end, np.float64)
        self._sort()

    def _sort(self) -> None:
        """Put the segments of a clip and of about one length side by side, in order of their starts.

        Of such a group, the segments that can hold a moment are one short run: from the first that ends after it to
        the last that begins before it. Times are compared by their ranks, so that a place is one integer.
        """
        endless = ~np.isfinite(self.end)
        length = np.frexp(np.where(endless, 1.0, self.end) - np.where(endless, 0.0, self.start))[1]  # in octaves
        length[endless] = ENDLESS
        order = np.lexsort((self.start, length, self.clip))
        order = order[(self.clip[order] >= 0) & (self.end[order] > self.start[order])]
        clip, length = self.clip[order], length[order]
        new = np.diff(clip, prepend=-1).astype(bool) | np.diff(length, prepend=0).astype(bool)
        group = np.cumsum(new) - 1
        self.order = order
        self.starts, self.ends = np.unique(self.start[order]), np.unique(self.end[order])
        begun = np.searchsorted(self.starts, self.start[order])
        ended = np.searchsorted(self.ends, self.end[order])
        self.begins = group * (len(self.starts) + 1) + begun
        self.latest = np.maximum.accumulate(group * (len(self.ends) + 1) + ended)  # the latest end so far in a group
        self.groups = np.searchsorted(clip[new], np.arange(self.clips + 1))  # where the groups of a clip begin

    def of_clips(self) -> np.ndarray:
        """Return the labels of whole clips: a class that any segment hears is present.

        Shape: `[clips, classes]`, int8.
        """
        segment = np.argsort(self.clip, kind="stable")
        segment = segment[np.searchsorted(self.clip, 0, sorter=segment) :]
        return _highest(self.label, segment, self.clip[segment], self.clips)[self.number]

    def of_windows(self, clip: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Return the labels of windows: those of the segments that hold the window's centre.

        Shape: `clip` rows and `centre` (seconds into the clip) `[windows]`; result `[windows, classes]`, int8.
        """
        window, segment = self.holding(clip, centre)
        return _highest(self.label, segment, window, len(clip))

    def holding(self, clip: np.ndarray, moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the segments that hold moments, as pairs of a moment and a segment, in order of moments.

        Shape: `clip` rows and `moment` (seconds into the clip) `[moments]`; two results `[pairs]`.
        """
        number = self.number[clip]
        place, group = _spans(self.groups[number], self.groups[number + 1])
        begun = np.searchsorted(self.starts, moment, side="right")[place]
        ended = np.searchsorted(self.ends, moment, side="right")[place]
        first = np.searchsorted(self.latest, group * (len(self.ends) + 1) + ended)
        last = np.searchsorted(self.begins, group * (len(self.starts) + 1) + begun)
        of, where = _spans(first, last)
        place, segment = place[of], self.order[where]
        held = (self.start[segment] <= moment[place]) & (moment[place] < self.end[segment])
        return place[held], segment[held]

    def at_windows(self, clip: np.ndarray, start: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Return the labels of windows: those of the segment that starts with the window, if each segment has a window.

        Otherwise those of `of_windows`. Labels given to windows do not reach into the windows that overlap them.

        Shape: `clip`, `start` and `centre` `[windows]`; result `[windows, classes]`, int8.
        """
        times, rank = np.unique(np.concatenate([start, self.start]), return_inverse=True)
        place = np.concatenate([self.number[clip], self.clip]) * len(times) + rank.reshape(-1)
        windows, segments = place[: len(clip)], place[len(clip) :]
        order = np.argsort(windows, kind="stable")
        window = np.searchsorted(windows, segments, side="right", sorter=order) - 1
        found = np.full((len(clip), self.label.shape[1]), -1, np.int8)
        if not len(segments):
            return found
        window = order[window] if len(clip) else np.empty(0, np.int64)
        if len(np.unique(window)) < len(segments) or (windows[window] != segments).any():
            return self.of_windows(clip, centre)
        found[window] = self.label
        return found


def splits_of(segments: Any, keys: Sequence[str] | np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return the split of each clip: that of its first segment, where labels with splits have the clip, else another.

    Shape: `otherwise` strings `[clips]`, the splits of the features; result strings `[clips]`.
    """
    if segments is None or segments.split is None:
        return np.asarray(otherwise)
    row = rows_of(keys, segments.key[::-1])
    found = np.asarray(otherwise).astype(object)
    found[row >= 0] = segments.split[::-1][row[row >= 0]]
    return found


def clips_in_splits(segments: Any, clips: Any, splits: Sequence[str] | None, path: str | os.PathLike) -> np.ndarray:
    """Return which clips of a features file at `path` are of the chosen splits (None: all), as `splits_of` says.

    Shape: bool `[clips]`. Raises SoundsslError for a split that none has.
    """
    column = splits_of(segments, clips.key, clips.split).astype(str)
    of_labels = not set(column) <= set(clips.split.astype(str))
    return files.in_splits(column, splits, segments.path if of_labels else path)


def of_segments(segments: Said, keys: Sequence[str] | np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return what segments say of others, at their centres; of one to the clip's end, what they say of the whole clip.

    Shape: all `[others]`; result `[others, classes]`, int8.
    """
    index, rows = Index(segments, keys), np.arange(len(keys))
    whole = ~np.isfinite(end)
    found = index.of_windows(rows, np.where(whole, start, (start + np.where(whole, start, end)) / 2))
    found[whole] = index.of_clips()[whole]
    return found


def _spans(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay spans of numbers end to end: return the span of each number, and the numbers."""
    count = np.maximum(last - first, 0)
    of = np.repeat(np.arange(len(count)), count)
    return of, np.arange(len(of)) + (first - np.cumsum(count) + count)[of]


def _highest(label: np.ndarray, rows: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Return the highest label of each class in groups of rows, -1 where a group has none; `group` is in order.

    Shape: `rows` and `group` `[pairs]`; result `[groups, classes]`, int8.
    """
    found = np.full((groups, label.shape[1]), -1, np.int8)
    for low in range(0, len(rows), BLOCK):
        of, highest = group[low : low + BLOCK], label[rows[low : low + BLOCK]]
        while (of[1:] == of[:-1]).any():  # halve the groups; reduceat takes ten times as long where they are small
            number = np.arange(len(of))
            first = np.maximum.accumulate(np.where(np.diff(of, prepend=-1) != 0, number, 0))
            kept = number[(number - first) % 2 == 0]
            other = np.minimum(kept + 1, len(of) - 1)
            other = np.where(of[other] == of[kept], other, kept)
            of, highest = of[kept], np.maximum(highest[kept], highest[other])
        found[of] = np.maximum(found[of], highest)
    return found

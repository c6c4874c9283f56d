"""Events: from what is heard from when to when to targets of windows, and to labels of whole segments.

An event is of a segment and of a class of it, with onset and offset in seconds into the clip. Where a segment has
events of a class, the class is present at these times and absent at all others of the segment (strong labels); of its
other classes the segment's label holds throughout. A segment with an absent class and no other word, as an explicit
negative of AudioSet's strong evaluation is, says only that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from soundssl.labels.labelset import LabelSet
from soundssl.labels.moments import Index, Said, Segments, spans

Events = dict[str, np.ndarray]  # columns segment, class, onset, offset
NONE: Events = {
    **{"segment": np.empty(0, np.int32), "class": np.empty(0, np.int16)},
    **{"onset": np.empty(0, np.float64), "offset": np.empty(0, np.float64)},
}


class Timeline:
    """Answer what is heard in windows of clips, from labelled segments and their events; made once for many windows."""

    def __init__(self, labels: Said, events: Events | None, keys: Sequence[str] | np.ndarray) -> None:
        found = NONE if events is None else events
        label = np.array(labels.label, np.int8)
        label[found["segment"], found["class"]] = 0  # present only where an event is
        self.index = Index(Segments(labels.key, labels.start, labels.end, label), keys)
        self.clip = self.index.clip[found["segment"]]
        self.column = found["class"].astype(np.int64)
        self.onset, self.offset = found["onset"].astype(np.float64), found["offset"].astype(np.float64)

    def of_windows(self, clip: np.ndarray, start: np.ndarray, end: np.ndarray, share: float = 0.0) -> np.ndarray:
        """Return the labels of windows: present where an event overlaps them, else what segments say at their centres.

        With `share` an overlap must be at least this share of the window or of the event, whichever is the shorter;
        with 0 any will do. An event without length lies in the windows that hold its moment.

        Shape: `clip` rows, `start` and `end` (seconds into the clip) `[windows]`; result `[windows, classes]`, int8.
        Raises ValueError for a share that is not from 0 to 1.
        """
        label = self.index.of_windows(clip, (start + end) / 2)
        window, event = self.overlaps(clip, start, end, share)
        label[window, self.column[event]] = 1
        return label

    def overlaps(
        self, clip: np.ndarray, start: np.ndarray, end: np.ndarray, share: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return windows and events that overlap, in pairs, as `of_windows` has it. Shape: two of `[pairs]`."""
        if not 0 <= share <= 1:
            raise ValueError("an overlap is a share from 0 to 1")
        number = self.index.number[clip]
        event, window = _meeting(self.clip, self.onset, self.offset, number, start, end)
        kept = enough(self.onset[event], self.offset[event], start[window], end[window], share)
        return window[kept], event[kept]


class Moments:
    """Answer what is heard in windows of labelled segments, each with its own events alone; for batches of training."""

    def __init__(self, label: np.ndarray, events: Events | None, rows: np.ndarray) -> None:
        """Take the labels and events of all segments, and the rows of those that are asked about, in their order."""
        found = NONE if events is None else events
        place = np.full(len(label), -1)
        place[rows] = np.arange(len(rows))
        segment = place[found["segment"]]
        order = np.argsort(segment, kind="stable")[int((segment < 0).sum()) :]
        self.segment, self.column = segment[order], found["class"][order].astype(np.int64)
        self.onset, self.offset = found["onset"][order].astype(np.float64), found["offset"][order].astype(np.float64)
        self.first = np.searchsorted(self.segment, np.arange(len(rows) + 1))
        self.label = np.array(label[rows], np.int8)
        self.label[self.segment, self.column] = 0  # present only where an event is

    @property
    def timed(self) -> np.ndarray:
        """Whether a segment has events. Shape: bool `[rows]`."""
        return np.diff(self.first) > 0

    def of_windows(self, row: np.ndarray, start: np.ndarray, end: np.ndarray, share: float = 0.0) -> np.ndarray:
        """Return the labels of windows, as `Timeline.of_windows` has it. Shape: `[windows]` thrice."""
        label = self.label[row]
        window, event = spans(self.first[row], self.first[row + 1])
        kept = enough(self.onset[event], self.offset[event], start[window], end[window], share)
        label[window[kept], self.column[event[kept]]] = 1
        return label


def enough(onset: np.ndarray, offset: np.ndarray, start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """Return whether events overlap windows by any time, or by a share of the shorter of the two; see `Timeline`."""
    until = np.minimum(offset, np.finfo(float).max)
    overlap = np.minimum(until, end) - np.maximum(onset, start)
    least = share * np.minimum(until - onset, end - start)
    moment = (onset == offset) & (start <= onset) & (onset < end)
    return moment | ((overlap > 0) & (overlap >= least * (1 - 1e-9)))  # a share that is met but for rounding is met


def _meeting(
    clip: np.ndarray, onset: np.ndarray, offset: np.ndarray, number: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of an event and a window of one clip that touch, and maybe a few more. Shape: two of `[pairs]`."""
    order = np.lexsort((start, number))
    times, rank = np.unique(np.concatenate([start, end, onset, offset]), return_inverse=True)
    first, second, third = len(start), 2 * len(start), 2 * len(start) + len(onset)
    starts, ends, onsets, offsets = np.split(rank.reshape(-1), [first, second, third])
    begins = number[order] * len(times) + starts[order]
    latest = np.maximum.accumulate(number[order] * len(times) + ends[order])  # the latest end so far, rising
    low = np.searchsorted(latest, clip * len(times) + onsets)
    high = np.searchsorted(begins, clip * len(times) + offsets, side="right")
    event, place = spans(np.where(clip >= 0, low, 0), np.where(clip >= 0, high, 0))
    return event, order[place]


def targets(
    labels: LabelSet,
    keys: Sequence[str] | np.ndarray,
    clip: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    share: float = 0.0,
) -> np.ndarray:
    """Return the labels of windows of a grid; see `Timeline.of_windows`.

    Shape: `keys` of the clips, `clip` rows among them, `start` and `end` `[windows]`; `[windows, classes]`, int8.
    """
    return Timeline(labels, labels.events, keys).of_windows(clip, start, end, share)


def diffuse(labels: LabelSet) -> LabelSet:
    """Return labels whose events are spread over their segments: a class with an event is present throughout."""
    if labels.events is None:
        return labels
    label = labels.label.copy()
    label[labels.events["segment"], labels.events["class"]] = 1
    return replace(labels, label=label, events=None)


def weak(labels: LabelSet) -> LabelSet:
    """Return what labels say of whole segments, without when: their events are left out."""
    return replace(labels, events=None)


def negatives(labels: LabelSet) -> np.ndarray:
    """Return which segments are explicit negatives: a class absent, none present. Shape: bool `[segments]`.

    Of classes that are not rated such a segment says nothing, and none of its labels is implicit.
    """
    absent = (labels.label == 0) & labels.explicit if labels.rated is not None else labels.label == 0
    return absent.any(1) & ~(labels.label == 1).any(1) & (labels.label == -1).any(1)


def from_events(
    keys: Sequence[str],
    names: Sequence[str],
    onset: np.ndarray,
    offset: np.ndarray,
    clips: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> LabelSet:
    """Return strong labels from rows of a table: a segment a clip, an event a row; a class without one is absent.

    `clips` are further clips, in which nothing may be heard, `classes` further classes. Both are sorted.
    """
    clips = sorted({*keys, *clips})
    classes = sorted({*names, *classes})
    place, column = {key: i for i, key in enumerate(clips)}, {name: i for i, name in enumerate(classes)}
    segment = np.fromiter((place[key] for key in keys), np.int32, len(keys))
    number = np.fromiter((column[name] for name in names), np.int16, len(names))
    order = np.lexsort((number, offset, onset, segment))
    label = np.zeros((len(clips), len(classes)), np.int8)
    label[segment, number] = 1
    events: Events = {
        "segment": segment,
        "class": number,
        "onset": np.asarray(onset, float),
        "offset": np.asarray(offset, float),
    }
    return LabelSet(
        label,
        classes,
        np.array(clips, object),
        np.zeros(len(clips)),
        np.full(len(clips), np.inf),
        events={name: values[order] for name, values in events.items()},
    )

"""Recordings: labels that name them by their paths, as those of reviewed events do, brought to the clips of a file."""

from __future__ import annotations

import copy
import os

import numpy as np

from soundssl import files
from soundssl.labels.labelset import MATRICES, OF_ROWS
from soundssl.labels.moments import spans

Source = files.Features | files.Embeddings | files.Clusters


def joined(labels: files.Labels, source: Source) -> files.Labels:
    """Return labels whose segments name the clips of a file where they named its recordings by their paths.

    A segment of a recording becomes one of each clip of it that it overlaps, in seconds into that clip, and so do its
    events. A segment that names a clip by its key, or nothing in the file, stays as it is. Paths are the same where
    they lead to one place from here.
    """
    clips = source.clips
    named = set() if clips is None else set(clips.key)
    if clips is None or clips.source is None or named.issuperset(labels.key):
        return labels
    number = {path: i for i, path in enumerate(dict.fromkeys(map(_place, clips.source)))}
    of_clip = np.array([number[_place(path)] for path in clips.source], np.int64)
    of_segment = np.array([-1 if key in named else number.get(_place(key), -1) for key in labels.key], np.int64)
    if not (of_segment >= 0).any():
        return labels
    order = np.argsort(of_clip, kind="stable")
    edges = np.searchsorted(of_clip[order], np.arange(len(number) + 1))
    low = np.where(of_segment >= 0, edges[of_segment], 0)
    row, place = spans(low, np.where(of_segment >= 0, edges[of_segment + 1], 1))
    clip = np.where(of_segment[row] >= 0, order[place], -1)
    return _moved(labels, row, clip, source)


def _place(path: str) -> str:
    """Return where a path leads from here."""
    return os.path.abspath(path)


def _moved(labels: files.Labels, row: np.ndarray, clip: np.ndarray, source: Source) -> files.Labels:
    """Return some segments, each brought to a clip; those of no clip (-1) as they are, those that miss theirs left out.

    Shape: `row` of the segment and `clip` `[pairs]`.
    """
    clips = source.clips
    begin = np.zeros(len(clips)) if clips.start is None else np.asarray(clips.start, np.float64)
    shift = np.where(clip >= 0, begin[clip], 0.0)
    length = np.where(clip >= 0, lengths(source)[clip], np.inf)
    start, end = labels.start[row] - shift, labels.end[row] - shift
    kept = (clip < 0) | ((end > 0) & (start < length))
    row, clip, shift, start, end = (each[kept] for each in (row, clip, shift, start, end))
    made = copy.copy(labels)
    for name in (*OF_ROWS, *MATRICES):
        if (values := getattr(labels, name)) is not None:
            setattr(made, name, values[row])
    made.key = np.where(clip >= 0, clips.key[clip], made.key)
    made.start, made.end = np.where(clip >= 0, np.maximum(start, 0.0), start), end
    if labels.events is not None:
        moved = _events(labels.events, row, shift)
        held = (moved["offset"] >= 0) & (moved["onset"] <= length[kept][moved["segment"]])
        made.label[moved["segment"][~held], moved["class"][~held]] = 0  # heard in the recording, but not in this clip
        made.events = {name: values[held] for name, values in moved.items()}
        made.label[made.events["segment"], made.events["class"]] = 1
        made.events["onset"] = np.maximum(made.events["onset"], 0.0)
        made.events["offset"] = np.minimum(made.events["offset"], length[kept][made.events["segment"]])
    return made


def _events(events: dict[str, np.ndarray], row: np.ndarray, shift: np.ndarray) -> dict[str, np.ndarray]:
    """Return the events of moved segments, in seconds into their clips, also those that these do not hold."""
    order = np.argsort(events["segment"], kind="stable")
    of = events["segment"][order]
    segment, place = spans(np.searchsorted(of, row), np.searchsorted(of, row, side="right"))
    taken = {name: values[order[place]] for name, values in events.items()}
    onset, offset = (taken[name] - shift[segment] for name in ("onset", "offset"))
    return {**taken, "segment": segment, "onset": onset, "offset": offset}


def lengths(source: Source) -> np.ndarray:
    """Return how long the clips of a file are, by their frames or else by the end of their last window.

    Shape: seconds `[clips]`.
    """
    if isinstance(source, files.Features):
        return np.diff(source.offset) / float(source.attributes["frame_rate"])
    last = np.zeros(len(source.clips))
    np.maximum.at(last, np.asarray(source.clip[:], np.int64), np.asarray(source.start[:], np.float64))
    return last + float(source.attributes["window"])

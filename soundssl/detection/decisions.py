"""From scores of windows to events: thresholds a class, hysteresis, merged gaps and least lengths.

A window stands for what lies nearer its centre than that of its neighbours; the first and the last of a recording
stand also for what lies before and after. So an event reaches from half a hop before the centre of its first window to
half a hop after that of its last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR = 1e-6  # seconds by which times may miss one another through rounding


@dataclass(frozen=True)
class Rule:
    """Say when a class is heard: an event begins where its score reaches `threshold` and lasts while it is `release`.

    `threshold` and `release` are one number or one a class, `[classes]`; `release` None is the threshold. Events of a
    class less than `gap` seconds apart are one; those shorter than `least` seconds are none. Of a window the `top`
    classes count, 0: all. Raises ValueError for a release above its threshold.
    """

    threshold: float | np.ndarray = 0.5
    release: float | np.ndarray | None = None
    gap: float = 0.0
    least: float = 0.0
    top: int = 0

    def __post_init__(self) -> None:
        if self.release is not None and np.any(np.asarray(self.release) > self.threshold):
            raise ValueError("an event would end before it begins; give a release that is not above the threshold")


@dataclass(frozen=True)
class Spans:
    """Hold events by column: class number, start and end in seconds, greatest score. Shape: all `[events]`."""

    number: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.number)


def decide(score: np.ndarray, start: np.ndarray, window: float, rule: Rule) -> Spans:
    """Return the events of one recording, by time and then class.

    `start` are the seconds at which windows begin, rising; `window` is their length. Windows farther apart than any
    hop between others are not neighbours of each other where the time between them is longer than a window.
    Shape: score `[windows, classes]`, start `[windows]`. Raises ValueError for others and for scores that are not
    finite.
    """
    if score.ndim != 2 or start.shape != score.shape[:1]:
        raise ValueError(f"scores {list(score.shape)} and starts {list(start.shape)} do not fit")
    if not np.isfinite(score).all():
        raise ValueError("a score is not finite")
    low, high = extents(start, window)
    on = score >= np.asarray(rule.threshold)
    stays = on if rule.release is None else score >= np.asarray(rule.release)
    if 0 < rule.top < score.shape[1]:
        among = np.zeros_like(on)
        first = np.argsort(-score, axis=1, kind="stable")[:, : rule.top]
        np.put_along_axis(among, first, True, axis=1)
        on, stays = on & among, stays & among
    found = [_of_class(score[:, k], on[:, k], stays[:, k], low, high, rule) for k in range(score.shape[1])]
    number = np.repeat(np.arange(len(found)), [len(each[0]) for each in found])
    columns = [np.concatenate([each[i] for each in found] or [np.empty(0)]) for i in range(3)]
    order = np.lexsort((number, columns[0]))
    return Spans(number[order], *(column[order] for column in columns))


def extents(start: np.ndarray, window: float) -> tuple[np.ndarray, np.ndarray]:
    """Return from when to when each window of a recording stands for its sound. Shape: `[windows]` each."""
    low, high = start.astype(np.float64), start + window
    middle = (high[:-1] + low[1:]) / 2
    joined = low[1:] <= high[:-1] + NEAR
    high[:-1] = np.where(joined, middle, high[:-1])
    low[1:] = np.where(joined, middle, low[1:])
    return low, high


def _of_class(
    score: np.ndarray, on: np.ndarray, stays: np.ndarray, low: np.ndarray, high: np.ndarray, rule: Rule
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start, end and greatest score of the events of one class."""
    apart = np.concatenate([[True], low[1:] > high[:-1] + NEAR]) if len(low) else np.empty(0, bool)
    before = np.concatenate([[False], stays[:-1]]) & ~apart if len(low) else apart
    first = np.flatnonzero(stays & ~before)
    if not len(first):
        return np.empty(0), np.empty(0), np.empty(0)
    ends = stays & ~np.concatenate([before[1:] & stays[1:], [False]])
    last = np.flatnonzero(ends)
    reached = np.maximum.reduceat(np.where(on, score, -np.inf), first)
    # A run ends before the next begins, so what lies between the two is below the release and counts for nothing.
    kept = np.isfinite(reached)
    start, end, most = low[first[kept]], high[last[kept]], reached[kept]
    if rule.gap and len(start):
        begins = np.concatenate([[True], start[1:] - end[:-1] > rule.gap + NEAR])
        group = np.flatnonzero(begins)
        most = np.maximum.reduceat(most, group)
        start, end = start[group], end[np.append(group[1:], len(end)) - 1]
    long = end - start >= rule.least - NEAR
    return start[long], end[long], most[long]

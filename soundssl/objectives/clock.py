"""The clock of a recording: which of its windows and pictures lie near a moment.

Clips that were cut from one source share its clock, so that two sounds, or a sound and a picture, of different clips
can be less than some seconds apart.
"""

from __future__ import annotations

import math

import numpy as np

from soundssl.objectives import Inputs

Ranges = tuple[np.ndarray, np.ndarray, np.ndarray]  # clips, first number, end: windows or pictures of each clip
WINDOW = -1.0  # least distance of two sounds that stands for the length of a window


class Clock:
    """Know which windows and pictures lie near a moment. Times are whole frames on the clock of a clip's source.

    Windows of a clip are numbered: window k starts k steps into the clip, a step being the grid, or a frame where there
    is none. Two sounds of a pair start `least` seconds apart or more; WINDOW: a window, so that they do not overlap.
    Tracks that a separator found in a clip are not in it: they were not heard beside it, they are part of it.

    Clips of one source share a clock; the clocks of two sources of one recording cannot be compared, so pairs across
    them coincide only where `delta` is infinite.
    """

    def __init__(self, inputs: Inputs, delta: float, least: float = WINDOW, grid: float = 0.0) -> None:
        features = inputs.features
        self.length = features.window
        self.first = features.offset[:-1].astype(np.int64)
        self.rate = int(features.attributes["sample_rate"]) / int(features.attributes["hop_length"])  # frames a second
        self.step = max(1, round(grid * self.rate))
        self.least = self.length if least == WINDOW else max(1, math.ceil(round(least * self.rate, 6)))
        chosen = inputs.clips & features.recorded
        starts = np.where(chosen, np.maximum(np.diff(features.offset) - self.length + 1, 0), 0)
        self.windows = -(-starts // self.step)
        self.begin = np.rint(features.clips.start * self.rate).astype(np.int64)
        self.delta = delta * self.rate
        self.recording = features.clips.recording_number()
        self.source = np.unique(features.clips.source.astype(str), return_inverse=True)[1]
        if not self.delta > 1:
            raise ValueError(f"delta is {delta} seconds, less than a frame; nothing coincides")
        order = np.argsort(self.recording, kind="stable")
        self.members = np.split(order, np.flatnonzero(np.diff(self.recording[order])) + 1)
        # All windows, as the ranges that `paired` gives.
        self.every = np.zeros((2, len(self.windows)), np.int64), np.stack([self.windows, np.zeros_like(self.windows)])

    def paired(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of each clip that may be the first of a pair of sounds: two ranges of their numbers.

        All where another clip lies far enough from the whole clip, and near enough; else those that have a partner in
        their own clip, which the middle of a short one lacks. Shape: first number and end, each [2, clips].
        """
        apart = -(-self.least // self.step)  # steps
        alone = self.windows > apart if self.least < self.delta else np.zeros(len(self.windows), bool)
        linked = self._linked()
        whole = linked | (alone & (self.windows >= 2 * apart))
        split = alone & ~whole
        head = np.where(whole, self.windows, np.where(split, self.windows - apart, 0))
        low = np.stack([np.zeros_like(head), np.where(split, apart, 0)])
        return low, np.stack([head, np.where(split, self.windows, 0)])

    def _linked(self) -> np.ndarray:
        """Say which clips have another clip that holds a partner for each of their windows. Shape: [clips]."""
        held = np.flatnonzero(self.windows > 0)
        found = np.zeros(len(self.windows), bool)
        if np.isinf(self.delta):  # sources without a common clock coincide at any distance
            of_source = np.unique(np.stack([self.recording[held], self.source[held]]), axis=1)[0]
            found[held] = np.bincount(of_source, minlength=1)[self.recording[held]] > 1
        last = self.begin + (np.maximum(self.windows, 1) - 1) * self.step
        order = held[np.lexsort((self.begin[held], self.source[held]))]
        found |= self._follows(order, self.begin, last + self.least, self.begin + self.delta)
        order = held[np.lexsort((-last[held], self.source[held]))]
        found |= self._follows(order, -last, self.least - self.begin, self.delta - last)
        return found

    def _follows(self, order: np.ndarray, time: np.ndarray, least: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Say for which clips another of their source, in the order of times, lies from `least` on and before `end`."""
        found = np.zeros(len(time), bool)
        if not len(order):
            return found
        span = float(np.abs(time).max() + np.abs(least[order]).max() + 1)
        place = self.source[order] * (4 * span)
        at = np.searchsorted(place + time[order], place + least[order])
        next_one = order[np.minimum(at, len(order) - 1)]
        same = (at < len(order)) & (self.source[next_one] == self.source[order])
        same &= self.recording[next_one] == self.recording[order]
        found[order] = same & (time[next_one] < end[order])
        return found

    def image_range(self, images: np.ndarray, period: float, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return first number and end of each clip's pictures that have a window of their clip near.

        Shape: `images` (pictures of each clip) and `windows` (those that count up to, 0 for none) [clips] to [clips]
        twice; `period` in frames. Raises ValueError where pictures lie between the windows of a grid.
        """
        if not self.step < 2 * self.delta:
            raise ValueError(
                f"grid is {self.step / self.rate:g} seconds and delta {self.delta / self.rate:g}: pictures between the "
                "windows have none near; take a grid of less than twice delta"
            )
        first, last = self.length / 2, (windows - 1) * self.step + self.length / 2  # centres of the outer windows
        low = np.maximum(np.floor((first - self.delta) / period) + 1, 0)
        high = np.minimum(np.ceil((last + self.delta) / period), images)
        return np.where(windows > 0, low, 0).astype(np.int64), np.where(windows > 0, np.maximum(high, low), 0).astype(
            np.int64
        )

    def near(self, clip: int, time: float, allowed: tuple[np.ndarray, np.ndarray]) -> Ranges:
        """Return the windows, of those that `paired` or `every` allow, that start less than delta from a time."""
        clips = self.members[self.recording[clip]]
        if np.isfinite(self.delta):
            clips = clips[self.source[clips] == self.source[clip]]
        low, high = (numbers[:, clips] for numbers in allowed)
        if np.isfinite(self.delta):
            place = time - self.begin[clips]
            low = np.maximum(np.floor((place - self.delta) / self.step).astype(np.int64) + 1, low)
            high = np.minimum(np.ceil((place + self.delta) / self.step).astype(np.int64), high)
        return np.tile(clips, 2), low.ravel(), np.maximum(low, high).ravel()

    def others(self, clip: int, number: int) -> Ranges:
        """Return the windows that make a pair with window `number` of a clip: near it, and far enough from it."""
        time = self.begin[clip] + number * self.step
        clips, low, high = self.near(clip, time, self.every)
        place, own = time - self.begin[clips], self.source[clips] == self.source[clip]
        below = np.where(own, np.floor_divide(place - self.least, self.step) + 1, low)
        above = np.where(own, -np.floor_divide(-(place + self.least), self.step), low)
        below, above = np.clip(below, low, high), np.clip(above, low, high)
        return np.concatenate([clips, clips]), np.concatenate([low, above]), np.concatenate([below, high])


def draw(ranges: Ranges, generator: np.random.Generator) -> tuple[int, int]:
    """Draw a clip and a number from ranges (clips, first number, end), every number as likely as another.

    >>> draw((np.array([3, 5]), np.array([7, 2]), np.array([7, 3])), np.random.default_rng(0))
    (5, 2)
    """
    clips, low, high = ranges
    ends = np.cumsum(high - low)
    place = generator.integers(ends[-1])
    row = int(np.searchsorted(ends, place, side="right"))
    return int(clips[row]), int(high[row] - (ends[row] - place))

"""The clock of a recording: which of its windows and pictures lie near a moment.

Clips that were cut from one source share its clock, so that two sounds, or a sound and a picture, of different clips
can be less than some seconds apart.
"""

from __future__ import annotations

import numpy as np

from soundssl.objectives import Inputs


class Clock:
    """Know which windows and pictures lie near a moment. Times are whole frames on the clock of a clip's source.

    Tracks that a separator found in a clip are not in it: they were not heard beside it, they are part of it.

    Clips of one source share a clock; the clocks of two sources of one recording cannot be compared, so pairs across
    them coincide only where `delta` is infinite.
    """

    def __init__(self, inputs: Inputs, delta: float) -> None:
        features = inputs.features
        self.length = features.window
        self.first = features.offset[:-1].astype(np.int64)
        chosen = inputs.clips & features.recorded
        self.windows = np.where(chosen, np.maximum(np.diff(features.offset) - self.length + 1, 0), 0)
        self.rate = int(features.attributes["sample_rate"]) / int(features.attributes["hop_length"])  # frames a second
        self.begin = np.rint(features.clips.start * self.rate).astype(np.int64)
        self.delta = delta * self.rate
        self.recording = features.clips.recording_number()
        self.source = np.unique(features.clips.source.astype(str), return_inverse=True)[1]
        if not self.delta > 1:
            raise ValueError(f"delta is {delta} seconds, less than a frame; nothing coincides")
        order = np.argsort(self.recording, kind="stable")
        self.members = np.split(order, np.flatnonzero(np.diff(self.recording[order])) + 1)

    def paired(self) -> np.ndarray:
        """Return the windows of each clip that may be the first of a pair of sounds, 0 where another is lacking."""
        if np.isfinite(self.delta):
            return np.where(self.windows > 1, self.windows, 0)
        total = np.bincount(self.recording, self.windows)
        return np.where(total[self.recording] > 1, self.windows, 0)

    def image_range(self, images: np.ndarray, period: float, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return first number and count of each clip's pictures that have a window of their clip near.

        Shape: `images` (pictures of each clip) and `windows` [clips] to [clips] twice; `period` in frames.
        """
        first, last = self.length / 2, windows - 1 + self.length / 2  # centres of the first and the last window
        low = np.maximum(np.floor((first - self.delta) / period) + 1, 0)
        high = np.minimum(np.ceil((last + self.delta) / period), images)
        return np.where(windows > 0, low, 0).astype(np.int64), np.where(
            windows > 0, np.maximum(high - low, 0), 0
        ).astype(int)

    def near(self, clip: int, time: float, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return clips, and ranges (first number, end) in each, of the windows that start within delta of a time."""
        clips = self.members[self.recording[clip]]
        if np.isfinite(self.delta):
            clips = clips[self.source[clips] == self.source[clip]]
            place = time - self.begin[clips]
            low = np.maximum(np.floor(place - self.delta) + 1, 0)
            high = np.minimum(np.ceil(place + self.delta), allowed[clips])
            return clips, low.astype(np.int64), np.maximum(low, high).astype(np.int64)
        return clips, np.zeros(len(clips), np.int64), allowed[clips]

    def others(self, clip: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ranges as `near` does, of the windows near window `number` of a clip, without that very moment."""
        time = self.begin[clip] + number
        clips, low, high = self.near(clip, time, self.windows)
        same = np.where(self.source[clips] == self.source[clip], time - self.begin[clips], -1)
        below, above = np.clip(same, low, high), np.clip(same + 1, low, high)
        return np.concatenate([clips, clips]), np.concatenate([low, above]), np.concatenate([below, high])


def draw(ranges: tuple[np.ndarray, np.ndarray, np.ndarray], generator: np.random.Generator) -> tuple[int, int]:
    """Draw a clip and a number from ranges (clips, first number, end), every number as likely as another.

    >>> draw((np.array([3, 5]), np.array([7, 2]), np.array([7, 3])), np.random.default_rng(0))
    (5, 2)
    """
    clips, low, high = ranges
    ends = np.cumsum(high - low)
    place = generator.integers(ends[-1])
    row = int(np.searchsorted(ends, place, side="right"))
    return int(clips[row]), int(high[row] - (ends[row] - place))

"""Running statistics: mean and deviation of rows that come in blocks, or of files that are joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CACHED = 1 << 16  # numbers taken at a time: in float64 what a core of today caches for itself, 512 KiB


class Statistics(NamedTuple):
    """Hold what is known of some rows: how many, their mean, their sum of squared deviations. Shape: `[bands]` both."""

    rows: int
    mean: np.ndarray
    squares: np.ndarray

    def merge(self, other: Statistics) -> Statistics:
        """Return the statistics of both sets of rows together.

        The pairwise update of Chan, Golub and LeVeque (1983), stable where the mean is large against the deviation.
        """
        if not other.rows:
            return self
        difference, total = other.mean - self.mean, self.rows + other.rows
        squares = self.squares + other.squares + difference**2 * (self.rows * other.rows / total)
        return Statistics(total, self.mean + difference * (other.rows / total), squares)

    def summary(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation, of no rows zeros. Shape: `[bands]`, float32."""
        return self.mean.astype("f4"), np.sqrt(self.squares / max(self.rows, 1)).astype("f4")


def statistics_of(rows: np.ndarray) -> Statistics:
    """Return the statistics of rows, computed in float64. Shape: `[n, bands]`."""
    bands = rows.shape[1]
    found, step = Statistics(0, np.zeros(bands), np.zeros(bands)), max(1, CACHED // bands)
    held = np.empty((min(step, len(rows)), bands))  # one for all: new memory at each step is touched for the first time
    for first in range(0, len(rows), step):
        some = held[: len(rows) - first]
        some[:] = rows[first : first + step]
        mean = np.einsum("ij->j", some) / len(some)  # half the time of `some.mean(0)`
        some -= mean
        found = found.merge(Statistics(len(some), mean, np.einsum("ij,ij->j", some, some)))
    return found


def merge_summaries(summaries: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Merge (count, mean, deviation) of several files; return mean and deviation of all. Shape: `[bands]`, float32."""
    found = statistics_of(np.empty((0, len(summaries[0][1]))))
    for count, mean, deviation in summaries:
        found = found.merge(Statistics(count, mean.astype("f8"), deviation.astype("f8") ** 2 * count))
    return found.summary()

"""Moments: mean and deviation of rows that come in blocks, or of files that are joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Moments = tuple[int, np.ndarray, np.ndarray]  # count, mean, and sum of squared deviations, both `[bands]`


def moments_of(rows: np.ndarray, room: np.ndarray | None = None) -> Moments:
    """Return the moments of rows in float64, computed as many at a time as `room` has. Shape: `[n, bands]` both."""
    room = np.empty(rows.shape) if room is None else room
    moments: Moments = 0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for first in range(0, len(rows), max(1, len(room))):
        some = rows[first : first + len(room)]
        own = room[: len(some)]
        np.copyto(own, some)
        mean = np.einsum("ij->j", own) / len(own)  # half the time of `own.mean(0)`
        own -= mean
        moments = merge_moments(moments, (len(own), mean, np.einsum("ij,ij->j", own, own)))
    return moments


def merge_moments(moments: Moments, others: Moments) -> Moments:
    """Return the moments of two sets of rows together.

    The pairwise update of Chan, Golub and LeVeque (1983), stable where the mean is large against the deviation.
    """
    (count, mean, squares), (other_count, other_mean, other_squares) = moments, others
    if not other_count:
        return moments
    difference, total = other_mean - mean, count + other_count
    squares = squares + other_squares + difference**2 * (count * other_count / total)
    return total, mean + difference * (other_count / total), squares


def summary_of(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation, of no rows zeros. Shape: `[bands]`, float32."""
    count, mean, squares = moments
    return mean.astype("f4"), np.sqrt(squares / max(count, 1)).astype("f4")


def merge_summaries(parts: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Merge (count, mean, deviation) of several files; return mean and deviation of all. Shape: `[bands]`, float32."""
    moments = moments_of(np.empty((0, len(parts[0][1]))))
    for count, mean, deviation in parts:
        moments = merge_moments(moments, (count, mean.astype("f8"), deviation.astype("f8") ** 2 * count))
    return summary_of(moments)

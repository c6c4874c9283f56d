"""Moments: mean and deviation of rows that come in blocks, or of files that are joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def merge_moments(
    moments: tuple[int, np.ndarray, np.ndarray], rows: np.ndarray, room: np.ndarray | None = None
) -> tuple[int, np.ndarray, np.ndarray]:
    """Merge rows into (count, mean, sum of squared deviations) in float64, computed in `room` if that is given.

    The pairwise update of Chan, Golub and LeVeque (1983), stable where the mean is large against the deviation.
    """
    count, mean, squares = moments
    if not len(rows):
        return moments
    own = np.empty(rows.shape) if room is None else room[: len(rows)]
    np.copyto(own, rows)
    row_mean = own.mean(0)
    difference, total = row_mean - mean, count + len(rows)
    own -= row_mean
    squares = squares + np.einsum("ij,ij->j", own, own) + difference**2 * (count * len(rows) / total)
    return total, mean + difference * (len(rows) / total), squares


def merge_summaries(parts: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Merge (count, mean, deviation) of several files; return mean and deviation of all. Shape: `[bands]`, float32."""
    total, mean, squares = 0, np.zeros(1), np.zeros(1)
    for count, other, deviation in parts:
        if count:
            difference = other.astype(np.float64) - mean
            squares = (
                squares + deviation.astype(np.float64) ** 2 * count + difference**2 * (total * count / (total + count))
            )
            mean = mean + difference * (count / (total + count))
            total += count
    size = len(parts[0][1])
    return np.broadcast_to(mean, size).astype("f4"), np.sqrt(np.broadcast_to(squares, size) / max(total, 1)).astype(
        "f4"
    )

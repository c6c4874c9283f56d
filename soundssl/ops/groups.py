"""Groups: means of the rows of each group, block by block, so that the rows need not fit in memory."""

import numpy as np


class GroupMeans:
    """Average the rows of groups, summed in float64; a group without rows gets zeros."""

    def __init__(self, groups: int) -> None:
        self.count = np.zeros(groups, np.int64)
        self.total = np.zeros((groups, 0))

    def add(self, rows: np.ndarray, group: np.ndarray) -> None:
        """Take a block of rows. Shape: rows [n, d], group [n] in 0 ... groups - 1; raises ValueError for others."""
        group, groups = np.asarray(group), len(self.count)
        if group.shape != (len(rows),):
            raise ValueError(f"{len(rows)} rows need as many group numbers, not {list(group.shape)}")
        if len(group) and not 0 <= group.min() <= group.max() < groups:
            raise ValueError(f"group numbers must lie in 0 ... {groups - 1}, not {group.min()} ... {group.max()}")
        if not self.total.shape[1]:
            self.total = np.zeros((groups, rows.shape[1]))
        if not len(group):
            return
        if (np.diff(group) < 0).any():
            order = np.argsort(group, kind="stable")
            rows, group = rows[order], group[order]
        first = np.flatnonzero(np.diff(group, prepend=-1))
        self.total[group[first]] += np.add.reduceat(rows, first, axis=0, dtype=np.float64)
        self.count += np.bincount(group, minlength=groups)

    def mean(self) -> np.ndarray:
        """Return the means. Shape: [groups, d], float64."""
        return self.total / np.maximum(self.count, 1)[:, None]


def group_means(rows: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Average the rows of each group; a group without rows gets zeros.

    Shape: rows [n, d], group [n] in 0 ... groups - 1; returns [groups, d], float64 for float64 rows, else float32.

    >>> group_means(np.array([[1.0], [3.0], [5.0]]), np.array([2, 2, 0]), 3).ravel().tolist()
    [5.0, 0.0, 2.0]
    """
    means = GroupMeans(groups)
    means.add(rows, group)
    return means.mean().astype(np.float64 if rows.dtype == np.float64 else np.float32)

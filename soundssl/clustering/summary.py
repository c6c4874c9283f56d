"""What is said of clusters: sizes, entropies, a collapse, the largest with the windows nearest to them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from soundssl import files

COLLAPSED = 0.95  # share of one cluster from which it is said to have swallowed the others
UNDECIDED = 0.9  # share of the greatest conditional entropy from which nothing counts as assigned
LARGEST = 10  # clusters whose nearest clips are named
NEAREST = 5  # clips a cluster


@dataclass
class Summary:
    """Hold what is said of an assignment: windows and mean of each cluster, confidences, both entropies in nats.

    Shape: size `[K]`, mean `[K, d]`, each of length one.
    """

    size: np.ndarray
    mean: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    doubtful: int = 0  # windows less than half sure of their cluster
    conditional: float = 0.0
    marginal: float = 0.0
    method: str = "entropy"
    stability: float | None = None  # adjusted Rand index of two runs

    def figures(self) -> dict[str, Any]:
        """Return the figures by name; quantiles are those of clusters in use."""
        used, total = self.size[self.size > 0], int(self.size.sum())
        share = used / total
        low, median, high = np.quantile(used, [0.1, 0.5, 0.9])
        return {
            "method": self.method,
            **({} if self.stability is None else {"stability": self.stability}),
            "windows": total,
            "clusters": len(self.size),
            "active": len(used),
            "effective": float(np.exp(-(share * np.log(share)).sum())),
            "conditional_entropy": self.conditional,
            "marginal_entropy": self.marginal,
            "largest_share": float(share.max()),
            "size_10%": float(low),
            "size_median": float(median),
            "size_90%": float(high),
            "size_largest": int(used.max()),
            "doubtful_share": self.doubtful / total,
        }

    def attributes(self) -> dict[str, Any]:
        """Return what a clusters file says of the assignment."""
        return {
            "conditional_entropy": self.conditional,
            "marginal_entropy": self.marginal,
            "used": int((self.size > 0).sum()),
        }

    def trouble(self) -> str | None:
        """Name a collapse and what to do about it, None where there is none."""
        clusters, share = len(self.size), float(self.size.max() / self.size.sum())
        if share >= COLLAPSED and self.size.sum() > 1:
            return (
                f"collapse: {share:.1%} of the windows are in one of {clusters} clusters; raise --gamma or "
                f"--batch-size, lower --learning-rate, and see whether the embeddings differ at all"
            )
        if self.conditional >= UNDECIDED * np.log(clusters):
            return (
                f"collapse: nothing is assigned, the conditional entropy {self.conditional:.2f} is near that of a "
                f"blind choice, {np.log(clusters):.2f}; raise --scale or --steps, or lower --gamma"
            )
        return None


def largest(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the largest clusters of a clusters file, each with the windows nearest to its mean, one a clip.

    A window is named by its clip with the second in it, and by the file to listen to with the second in that; or by its
    row where the clusters are those of a bare matrix.
    """
    clusters = files.Clusters(path)
    order = np.argsort(-clusters.size, kind="stable")[:LARGEST]
    found = []
    for number in order[clusters.size[order] > 0]:
        rows = np.flatnonzero(clusters.cluster == number)
        rows = rows[np.argsort(-clusters.similarity[rows], kind="stable")]
        if clusters.clip is not None:
            rows = rows[np.sort(np.unique(clusters.clip[rows], return_index=True)[1])]
        near = [_window(clusters, row) for row in rows[:NEAREST].tolist()]
        size = int(clusters.size[number])
        found.append({"cluster": int(number), "windows": size, "share": size / len(clusters.cluster), "nearest": near})
    return found


def _window(clusters: files.Clusters, row: int) -> dict[str, Any]:
    similarity = round(float(clusters.similarity[row]), 4)
    if clusters.clip is None:
        return {"row": row, "similarity": similarity}
    clip, start = clusters.clip[row], clusters.start[row]
    name, second = clusters.clips.heard(clip, start)
    key = files.text(str(clusters.clips.key[clip]))
    return {
        "clip": key, "start": float(start), "file": files.text(str(name)), "second": float(second),
        "similarity": similarity,
    }  # fmt: skip


def table(found: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table of the largest clusters."""
    rows = [
        [str(each["cluster"]), str(each["windows"]), f"{each['share']:.1%}", ", ".join(map(name, each["nearest"]))]
        for each in found
    ]
    return ["cluster", "windows", "share", "nearest windows"], rows


def name(window: dict[str, Any]) -> str:
    """Return how a window is called: the file and the second where it is heard, or its row."""
    return f"{window['file']} at {window['second']:g} s" if "clip" in window else f"row {window['row']}"

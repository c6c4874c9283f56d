"""Clusters: does a cluster hold windows of one class, and a class windows of one cluster?

Conventions
-----------
A window counts where a class is known to be present. One of several classes is left out (`several` = "exclude"), or
counts as a share of a window for each of its classes ("expand"). Entropies are those of the windows' shares, out of a
sparse table of classes and clusters. Chance is the same value after one random exchange of clusters between windows:
with many clusters a V-measure far above 0 may be chance. Sizes, and which clusters are active, take all windows.

Metrics
-------
- `homogeneity` 1 - H(class | cluster) / H(class), 1 where H(class) = 0; `completeness` with the two exchanged;
  `V_measure`, their harmonic mean (Rosenberg and Hirschberg 2007)
- `purity`: share of windows that have the most frequent class of their cluster
- `agreement`: how likely a member of a window's cluster, drawn at random, is to have its class: the pooled precision to
  expect of labels spread the way of Jansen et al. 2020 to all clusters; for each class, the recall to expect
- `active_clusters`: that hold a window; `effective_clusters`: e to the entropy of their sizes; `largest_size`,
  `median_size`, `smallest_size`: windows of active clusters
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from soundssl.evaluations import row
from soundssl.evaluations.table import Table


def adjusted_rand(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far two clusterings agree on which windows are together: 1 for equal ones, 0 to expect of chance.

    The Rand index less its expectation for the same sizes, over what it could be more (Hubert and Arabie 1985,
    equation 5). Shape: cluster numbers `[n]` twice. Raises ValueError where they differ in length.

    >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([5, 5, 3, 3]))
    1.0
    """
    if one.shape != other.shape:
        raise ValueError(f"{len(one)} windows of one clustering cannot be compared with {len(other)} of the other")
    first, second = (np.unique(each, return_inverse=True)[1] for each in (one, other))
    both = np.unique(first.astype(np.int64) * (len(other) + 1) + second, return_counts=True)[1]
    together, rows, columns = (
        float((count.astype(np.float64) * (count - 1)).sum() / 2)
        for count in (both, np.bincount(first), np.bincount(second))
    )
    pairs = len(one) * (len(one) - 1) / 2
    expected = rows * columns / pairs if pairs else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


@dataclass(frozen=True)
class Options:
    """Choose what becomes of windows of several classes."""

    several: Literal["exclude", "expand"] = "exclude"  # leave them out, or count them in part for each class

    def __post_init__(self) -> None:
        if self.several not in ("exclude", "expand"):
            raise ValueError(f"windows of several classes can be left out (exclude) or expand, not {self.several!r}")


@dataclass(frozen=True)
class Contingency:
    """Hold the windows of each class in each cluster, cell by cell where there are any.

    Shape: `of_class`, `of_cluster` (numbers without gaps), `count` `[cells]`.
    """

    of_class: np.ndarray
    of_cluster: np.ndarray
    count: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """Windows of each class."""
        return np.bincount(self.of_class, self.count)

    @property
    def clusters(self) -> np.ndarray:
        """Windows of each cluster."""
        return np.bincount(self.of_cluster, self.count)


def contingency(of_class: np.ndarray, cluster: np.ndarray, weight: np.ndarray) -> Contingency:
    """Count (class, cluster) pairs, of any numbers, by weight. Shape: all `[pairs]`."""
    _, of_class = np.unique(of_class, return_inverse=True)
    used, of_cluster = np.unique(cluster, return_inverse=True)
    cell, place = np.unique(of_class.astype(np.int64) * len(used) + of_cluster, return_inverse=True)
    return Contingency(*np.divmod(cell, len(used)), np.bincount(place, weight))


def entropy(count: np.ndarray) -> float:
    """Return the entropy, in nats, of shares proportional to positive counts."""
    share = count / count.sum()
    return float(-(share * np.log(share)).sum())


def v_measure(table: Contingency) -> tuple[float, float, float]:
    """Return V-measure, homogeneity and completeness.

    >>> v_measure(contingency(np.array([0, 0, 1]), np.array([7, 7, 9]), np.ones(3)))
    (1.0, 1.0, 1.0)
    """
    of_class, of_cluster, joint = (entropy(each) for each in (table.classes, table.clusters, table.count))
    mutual = max(of_class + of_cluster - joint, 0.0)  # rounding of equal entropies
    homogeneity = min(mutual / of_class, 1.0) if of_class > 0 else 1.0
    completeness = min(mutual / of_cluster, 1.0) if of_cluster > 0 else 1.0
    both = homogeneity + completeness
    return (2 * homogeneity * completeness / both if both else 0.0), homogeneity, completeness


def purity(table: Contingency) -> float:
    """Return the share of windows that have the most frequent class of their cluster."""
    largest = np.zeros(len(table.clusters))
    np.maximum.at(largest, table.of_cluster, table.count)
    return float(largest.sum() / table.count.sum())


def agreement(table: Contingency) -> np.ndarray:
    """Return, for the windows of each class, the mean share of their class in their cluster. Shape: `[classes]`."""
    shared = table.count**2 / table.clusters[table.of_cluster]
    return np.bincount(table.of_class, shared) / table.classes


def evaluate(table: Table, options: Options = Options(), seed: int = 0) -> list[dict[str, Any]]:
    """Score the clusters of windows, -1 for none, against the classes of each; the seed serves the chance alone.

    Raises ValueError where no window counts.
    """
    table = table.scored()
    table.require_one_window()
    cluster, label = table.value[table.value >= 0], table.label[table.value >= 0]
    present = label == 1
    several = present.sum(axis=1)
    kept = several == 1 if options.several == "exclude" else several >= 1
    if not kept.any():
        raise ValueError(f"none of {len(cluster)} windows has one class that is known to be present")
    window, of_class = np.nonzero(present[kept])
    weight, cluster_of = 1.0 / several[kept][window], cluster[kept]
    counted = contingency(of_class, cluster_of[window], weight)
    shuffled = np.random.default_rng([seed]).permutation(cluster_of)
    at_random = contingency(of_class, shuffled[window], weight)
    return [
        *_overall(counted, at_random, int(kept.sum())),
        *_sizes(cluster),
        row("left_out_windows", float((~kept).sum()), len(cluster)),
        *_of_classes(counted, at_random, table.classes, np.unique(of_class)),
    ]


def _overall(table: Contingency, at_random: Contingency, windows: int) -> list[dict[str, Any]]:
    names = ("V_measure", "homogeneity", "completeness", "purity", "agreement")
    found, chance = _values(table), _values(at_random)
    return [row(name, found[i], windows, chance=chance[i]) for i, name in enumerate(names)]


def _values(table: Contingency) -> tuple[float, ...]:
    return *v_measure(table), purity(table), float(np.average(agreement(table), weights=table.classes))


def _sizes(cluster: np.ndarray) -> list[dict[str, Any]]:
    size = np.unique(cluster, return_counts=True)[1]
    values = {
        "active_clusters": len(size),
        "effective_clusters": np.exp(entropy(size)),
        "largest_size": size.max(),
        "median_size": np.median(size),
        "smallest_size": size.min(),
    }
    return [row(name, float(value), len(cluster)) for name, value in values.items()]


def _of_classes(
    table: Contingency, at_random: Contingency, classes: list[str], have: np.ndarray
) -> list[dict[str, Any]]:
    found, chance, count = agreement(table), agreement(at_random), table.classes
    return [
        row("agreement", float(found[i]), round(count[i]), name=classes[column], chance=float(chance[i]))
        for i, column in enumerate(have)
    ]

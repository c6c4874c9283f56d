"""Which clusters to ask about, and which of their windows (Jansen et al. 2020).

The paper asks about one member a cluster, drawn at random, and gives its label to all members; which clusters a budget
smaller than their number goes to is not stated (largest first is inferred).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soundssl.labelling.windows import Windows

ORDERS = {
    "size": "largest cluster first (inferred)",
    "diverse": "largest first, then large ones far from all asked about",
    "random": "any order",
}
ASKS = {
    "random": "any member, as likely as another",
    "central": "the member most similar to the centre",
    "confident": "the member surest to belong; among equals the most central",
}


@dataclass(frozen=True)
class Plan:
    """Choose the `order` of clusters, whom to `ask` about in each, and the share of members an answer `spread`s to."""

    order: str
    ask: str
    spread: float


PRESETS = {
    "best": Plan("diverse", "central", 0.5),
    "paper": Plan("size", "random", 1.0),
}
BASELINE = Plan("random", "random", 1.0)  # windows at random, each labelled alone


def order(
    cluster: np.ndarray,
    how: str,
    generator: np.random.Generator,
    mean: np.ndarray | None = None,
    budget: int | None = None,
) -> np.ndarray:
    """Return the clusters that have a member, in the order in which to ask about them.

    By size, equal clusters come by number. The diverse order takes the largest cluster, then ever that whose size times
    its distance (1 less the cosine) to the nearest cluster before it is greatest; it needs the `mean` of each cluster,
    of length one, and goes by size beyond the budget. Clusters of number -1 are nobody's. Raises ValueError for an
    unknown order, and without means for the diverse one.

    >>> order(np.array([3, 0, 3, 0, 3, 1]), "size", np.random.default_rng(0))
    array([3, 0, 1])
    """
    _known("order", how, ORDERS)
    used, size = np.unique(cluster[cluster >= 0], return_counts=True)
    if how == "random":
        return generator.permutation(used)
    largest = np.argsort(-size, kind="stable")
    if how == "size" or len(used) < 3:
        return used[largest]
    if mean is None:
        raise ValueError("the diverse order needs the mean of each cluster")
    first = _apart(np.asarray(mean, np.float32)[used], size, largest[0], min(budget or len(used), len(used)))
    return used[np.concatenate([first, largest[~np.isin(largest, first)]])]


def _apart(mean: np.ndarray, size: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return `count` rows, each the one of greatest size times distance to the nearest row before it."""
    chosen, nearest = [int(first)], mean @ mean[first]
    while len(chosen) < count:
        score = size * np.maximum(1 - nearest, 0)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        np.maximum(nearest, mean @ mean[chosen[-1]], out=nearest)
    return np.array(chosen)


def ask(
    cluster: np.ndarray,
    chosen: np.ndarray,
    how: str,
    similarity: np.ndarray,
    confidence: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return one member of each chosen cluster: the window to ask about.

    With one generator a longer list of clusters begins with the members of a shorter one. Raises ValueError for an
    unknown way and for a cluster without members.

    Shape: cluster, similarity, confidence `[windows]`; chosen `[questions]`; result `[questions]`, rows.
    """
    _known("way to ask", how, ASKS)
    keys = {"random": (), "central": (-similarity,), "confident": (-similarity, -confidence)}[how]
    rows = np.lexsort((*keys, cluster))
    first = np.searchsorted(cluster, chosen, "left", rows)
    count = np.searchsorted(cluster, chosen, "right", rows) - first
    if (count == 0).any():
        raise ValueError(f"cluster {int(chosen[count == 0][0])} has no member to ask about")
    drawn = (generator.random(len(chosen)) * count).astype(np.int64) if how == "random" else 0
    return rows[first + drawn]


def draw(windows: int, generator: np.random.Generator) -> np.ndarray:
    """Return all windows in an order drawn uniformly: the first n are a random sample, the baseline of the paper."""
    return generator.permutation(windows)


def questions(windows: Windows, plan: Plan, budget: int | None = None, seed: int = 0) -> np.ndarray:
    """Return the windows to ask about, one of each cluster, in the order in which to ask; at random without clusters.

    Shape: rows `[questions]`, as many as there are clusters in use. `budget` is what the diverse order looks ahead.
    """
    generator = np.random.default_rng(seed)
    if windows.random:
        return draw(len(windows), generator)
    mean = windows.means() if plan.order == "diverse" else None
    chosen = order(windows.cluster, plan.order, generator, mean, budget)
    return ask(windows.cluster, chosen, plan.ask, windows.similarity, windows.confidence, generator)


def _known(what: str, name: str, table: dict[str, str]) -> None:
    if name not in table:
        raise ValueError(f"no {what} is called {name!r}; there are {', '.join(table)}")

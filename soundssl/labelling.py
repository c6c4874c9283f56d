"""Labels from clusters: which clusters to ask about, whom to show, how an answer spreads (Jansen et al. 2020).

The paper asks about one member a cluster, drawn at random, and gives its label to all members; which clusters a budget
smaller than their number goes to is not stated (largest first is inferred). An answer is None for "cannot tell", else
the classes that are heard, `()` for "none of these".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def spread(
    cluster: np.ndarray, asked: np.ndarray, similarity: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the windows that take the answers, in rising order, and for each the number of the question it takes.

    Of every cluster that was asked about these are the window asked about and the members most similar to the centre,
    `share` of the members in all, rounded up. Raises ValueError unless 0 < share <= 1 and clusters differ.

    Shape: cluster, similarity `[windows]`; asked `[questions]`, rows; results `[labelled windows]`.
    """
    if not 0 < share <= 1:
        raise ValueError(f"an answer spreads to a share of a cluster between 0 and 1, not {share:g}")
    if len(np.unique(cluster[asked])) < len(asked):
        clusters = len(np.unique(cluster[asked]))
        raise ValueError(f"{len(asked)} questions went to {clusters} clusters; a cluster takes one")
    if not len(asked):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    question = np.full(int(cluster.max()) + 2, -1)  # its last place is that of cluster -1
    question[cluster[asked]] = np.arange(len(asked))
    rows = np.flatnonzero(question[cluster] >= 0)
    of = question[cluster[rows]]
    nearest = np.lexsort((-similarity[rows], rows != asked[of], of))
    rows, of = rows[nearest], of[nearest]
    size = np.bincount(of, minlength=len(asked))
    rank = np.arange(len(rows)) - (np.cumsum(size) - size)[of]
    kept = rank < np.ceil(share * size - 1e-9)[of]  # 0.07 * 100 is more than 7
    rows, of = rows[kept], of[kept]
    rising = np.argsort(rows)
    return rows[rising], of[rising]


def encode(answers: Sequence[tuple[str, ...] | None], classes: Sequence[str]) -> np.ndarray:
    """Return answers as labels: 1 for a class named, 0 for one not named, -1 throughout for "cannot tell".

    Shape: `[questions, classes]`, int8.

    >>> encode([("cat",), (), None], ["cat", "dog"]).tolist()
    [[1, 0], [0, 0], [-1, -1]]
    """
    column = {name: i for i, name in enumerate(classes)}
    label = np.zeros((len(answers), len(classes)), np.int8)
    for row, answer in zip(label, answers, strict=True):
        if answer is None:
            row[:] = -1
        for name in answer or ():
            row[column[name]] = 1
    return label


def spent(named: np.ndarray, budget: int, free: bool) -> int:
    """Return how many questions, in their order, a budget pays for; where `free`, only those that gave a class cost.

    Shape: named `[questions]`, whether the answer names a class.

    >>> spent(np.array([True, False, True, True]), 2, free=True)
    3
    """
    if not free:
        return min(budget, len(named))
    ends = np.flatnonzero(np.cumsum(named) >= budget)
    return int(ends[0]) + 1 if len(ends) else len(named)


def _known(what: str, name: str, table: dict[str, str]) -> None:
    if name not in table:
        raise ValueError(f"no {what} is called {name!r}; there are {', '.join(table)}")

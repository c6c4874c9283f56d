"""Decisions that agree with each other: over time by a chain a class, over classes by a taxonomy.

Scores count as probabilities. Over time, a class is a chain of two states, absent and present, whose potentials say how
much likelier it is to stay than to change. Over classes, a child that is present implies its parent. What comes out are
the marginals given all windows of a recording, or all classes of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from soundssl.datasets.ontology import Ontology
from soundssl.detection.decisions import NEAR, extents
from soundssl.labels import LabelSet, Timeline
from soundssl.ops import chains, factors

LEAST = 1e-6  # probability that no score falls below, so that a saturated score can still be outvoted
PRIOR = 1.0  # windows added to each count of stays and changes


@dataclass(frozen=True)
class Revision:
    """Say how scores are revised: potentials of change `[classes or 1, 2, 2]`, and (child, parent) columns."""

    change: np.ndarray | None = None
    edges: tuple[tuple[int, int], ...] = ()

    def __call__(self, score: np.ndarray, start: np.ndarray, window: float) -> np.ndarray:
        """Return the revised scores of the windows of one recording. Shape: `[windows, classes]`, `[windows]`."""
        revised = score if self.change is None else smooth(score, start, window, self.change)
        return imply(revised, self.edges) if self.edges else revised


def staying(potential: float) -> np.ndarray:
    """Return the potentials of a chain in which staying is `potential` nats likelier than changing; 0 is neutral."""
    return np.array([[[potential, 0.0], [0.0, potential]]])


def learn(labels: LabelSet, classes: Sequence[str], hop: float, window: float) -> np.ndarray:
    """Return potentials of change from labels with events, counted on windows of a grid over the clips.

    They are a quarter of the logarithm of the odds ratio of neighbouring states, for staying and against changing, so
    that what is frequent, which scores know already, does not count twice; and a step of a hop counts as that share of
    a window, since windows that overlap have most of their sound in common (both inferred). A class without events is
    neutral.

    Shape: `[classes, 2, 2]`. Raises ValueError for labels without any event of the classes.
    """
    found = {name: labels.classes.index(name) for name in classes if name in labels.classes}
    events = labels.events
    if events is None or not set(events["class"].tolist()) & set(found.values()):
        raise ValueError("the labels have no event of the classes of the recogniser; give strong labels")
    end = np.where(np.isfinite(labels.end), labels.end, 0.0)
    np.maximum.at(end, events["segment"], events["offset"])
    count = np.maximum(np.ceil((end - window) / hop).astype(int) + 1, 1)
    clip = np.repeat(np.arange(len(labels)), count)
    start = (np.arange(len(clip)) - np.repeat(np.cumsum(count) - count, count)) * hop
    keys = np.array([f"{row}" for row in range(len(labels))], object)  # a segment each, also where clips share a key
    rows = LabelSet(labels.label, labels.classes, keys, np.zeros(len(labels)), np.full(len(labels), np.inf))
    present = Timeline(rows, events, keys).of_windows(clip, start, start + window) == 1
    next_ = clip[1:] == clip[:-1]
    change = np.zeros((len(classes), 2, 2))
    for number, name in enumerate(classes):
        if name in found and (events["class"] == found[name]).any():
            own = present[:, found[name]].astype(int)
            pairs = np.log(np.bincount(2 * own[:-1][next_] + own[1:][next_], minlength=4) + PRIOR)
            tie = (pairs[0] + pairs[3] - pairs[1] - pairs[2]) / 4
            change[number] = np.array([[tie, -tie], [-tie, tie]]) * min(1.0, hop / window)
    return change


def smooth(score: np.ndarray, start: np.ndarray, window: float, change: np.ndarray) -> np.ndarray:
    """Return the probability of each class in each window given all windows of a recording that hang together.

    Neutral potentials change nothing. Shape: `[windows, classes]`, `[windows]`, change `[classes or 1, 2, 2]`.
    """
    moved = np.flatnonzero(np.ptp(np.broadcast_to(change, (score.shape[1], 2, 2)), axis=(1, 2)) > 0)
    if not len(moved) or not len(score):
        return score
    chance = np.clip(score[:, moved].astype(np.float64), LEAST, 1 - LEAST)
    observed = torch.from_numpy(np.log(np.stack([1 - chance, chance], 2)).transpose(1, 0, 2).copy())
    own = torch.from_numpy(np.array(change if len(change) == 1 else change[moved]))
    low, high = extents(start, window)
    edges = np.flatnonzero(low[1:] > high[:-1] + NEAR) + 1
    revised = score.copy()
    for first, last in zip([0, *edges], [*edges, len(score)], strict=True):
        found = chains.marginals(observed[:, first:last], own).marginals[:, :, 1]
        revised[first:last, moved] = found.numpy().T
    return revised


def edges(classes: Sequence[str], ontology: Ontology) -> tuple[tuple[int, int], ...]:
    """Return the columns of child and parent of each edge between classes, past nodes that are none of them.

    Raises ValueError where the ontology knows none of the classes.
    """
    node = [ontology.find(name) for name in classes]
    column = {one: number for number, one in enumerate(node) if one}
    if not column:
        raise ValueError(f"the ontology has none of {len(classes)} classes of the recogniser; is it theirs?")
    return tuple(
        (number, column[parent]) for number, one in enumerate(node) if one for parent in ontology.above(one, column)
    )


def imply(score: np.ndarray, edges: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the probabilities of classes where each child implies its parent; no child's is above its parent's.

    Exact where no class has several ways up, by loopy messages elsewhere. Classes without an edge stay as they are.
    Shape: `[windows, classes]`.
    """
    if not edges or not len(score):
        return score
    related = sorted({number for edge in edges for number in edge})
    place = {number: i for i, number in enumerate(related)}
    chance = np.clip(score[:, related].astype(np.float64), LEAST, 1 - LEAST)
    potentials = torch.from_numpy(np.log(np.stack([1 - chance, chance], 2)))
    both = torch.tensor([[0.0, 0.0], [-torch.inf, 0.0]])  # a child without its parent cannot be
    own = [factors.Factor((i,), potentials[:, i]) for i in range(len(related))]
    own += [factors.Factor((place[child], place[parent]), both) for child, parent in edges]
    found = factors.sum_product(factors.Graph([2] * len(related), own)).marginals
    revised = score.copy()
    revised[:, related] = torch.stack([each[:, 1] for each in found], 1).numpy()
    for _ in range(len(related)):  # rounding, and loopy messages, may leave a child a little above
        before = revised.copy()
        for child, parent in edges:
            revised[:, parent] = np.maximum(revised[:, parent], revised[:, child])
        if np.array_equal(before, revised):
            break
    return revised

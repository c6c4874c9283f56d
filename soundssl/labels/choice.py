"""Choice: labels of the classes a recogniser is surest of, and segments drawn from a set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from soundssl.labels.labelset import LabelSet


def top(score: np.ndarray, count: int = 0, threshold: float | None = None) -> np.ndarray:
    """Return labels: 1 for the `count` classes of highest score (all, if 0) that reach the threshold, else 0.

    Of equal scores the first classes are taken. Shape: `[rows, classes]` to `[rows, classes]`, int8.

    >>> top(np.array([[0.9, 0.2, 0.6]]), 2, 0.5).tolist()
    [[1, 0, 1]]
    """
    chosen = np.ones(score.shape, bool)
    if count and count < score.shape[1]:
        least = -np.partition(-score, count - 1, axis=1)[:, count - 1 : count]
        least = np.fmax(least, -np.inf)  # where fewer than `count` are numbers
        chosen = score >= least
        crowded = np.flatnonzero(chosen.sum(1) > count)  # by classes of equal score
        tied = score[crowded] == least[crowded]
        room = count - (chosen[crowded] & ~tied).sum(1, keepdims=True)
        chosen[crowded] &= ~tied | (tied.cumsum(1) <= room)
    if threshold is not None:
        chosen &= score >= threshold
    return chosen.astype(np.int8)


def threshold_for(blocks: Iterable[np.ndarray], rows: int, count: int, mean: float) -> float:
    """Return the threshold at which `top` takes `mean` classes a row on average, or as near as scores allow.

    The scores of `rows` rows come block by block; no more are held than labels that will be taken. Infinity where there
    are none. Shape: `[n, classes]` each. Raises ValueError for a mean that no threshold reaches.

    >>> threshold_for([np.array([[0.9, 0.2, 0.6], [0.1, 0.5, 0.3]])], 2, 2, 1.5)
    0.5
    """
    wanted, best = max(1, round(mean * rows)), np.empty(0)
    for score in blocks:
        most = min(count or score.shape[1], score.shape[1])
        if not 0 < mean <= most:
            raise ValueError(
                f"{mean:g} labels a clip cannot be: at most {most} are taken; give another --mean, or --top"
            )
        best = np.concatenate([best, score[top(score, count) == 1]])
        if len(best) > wanted:
            best = np.partition(best, -wanted)[-wanted:]
    return float(best.min(initial=np.inf))


@dataclass(frozen=True)
class Draw:
    """Say what is drawn: of the `classes` most frequent classes (0: all), `per_class` segments each (0: all), a
    `fraction`, and `skew`: of the i-th class by frequency at most 1 / i^skew of what the first has.
    """

    classes: int = 0
    per_class: int = 0
    fraction: float = 1.0
    skew: float = 0.0


def sample(labels: LabelSet, draw: Draw, chosen: np.ndarray | None = None, seed: int = 0) -> LabelSet:
    """Return the segments that are drawn; those not `chosen` stay as they are.

    With `per_class` or `skew` a class gets its segments in turn, rare ones first; one drawn keeps all its labels, so
    that a class may have more. Raises ValueError for shares outside 0 to 1 and negative numbers.

    Shape: bool `[segments]`.
    """
    if not 0 < draw.fraction <= 1 or min(draw.classes, draw.per_class, draw.skew) < 0:
        raise ValueError(f"{draw} cannot be drawn; the fraction is above 0 to 1, the rest is not negative")
    generator = np.random.default_rng([seed])
    chosen = np.ones(len(labels), bool) if chosen is None else chosen
    present = (labels.label == 1) & chosen[:, None]
    order = np.argsort(-present.sum(0), kind="stable")
    if draw.classes:
        columns = np.sort(order[: draw.classes])
        labels = labels.columns(columns)
        had = present.any(1)
        present = present[:, columns]
        stay = ~had | present.any(1)  # a segment of other classes alone goes
        labels, chosen, present = labels.rows(stay), chosen[stay], present[stay]
        order = np.argsort(-present.sum(0), kind="stable")
    drawn = _drawn(present, _wanted(present.sum(0), order, draw), order[::-1], generator)
    if not (draw.per_class or draw.skew):
        drawn = chosen.copy()
    rows = np.flatnonzero(drawn)
    drawn = np.zeros(len(labels), bool)
    drawn[generator.choice(rows, round(draw.fraction * len(rows)), replace=False)] = True
    return labels.rows(drawn | ~chosen)


def _wanted(count: np.ndarray, order: np.ndarray, draw: Draw) -> np.ndarray:
    """Return how many segments each class shall have. Shape: `[classes]`."""
    wanted = np.minimum(count, draw.per_class) if draw.per_class else count.copy()
    if draw.skew:
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(1, len(order) + 1)
        most = wanted.max(initial=0)
        wanted = np.minimum(wanted, np.maximum(np.round(most / rank**draw.skew), 1)).astype(np.int64)
    return wanted


def _drawn(present: np.ndarray, wanted: np.ndarray, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    drawn = np.zeros(len(present), bool)
    for column in order:
        having = np.flatnonzero(present[:, column])
        free = having[~drawn[having]]
        lacking = max(0, int(wanted[column]) - int(drawn[having].sum()))
        drawn[generator.choice(free, min(lacking, len(free)), replace=False)] = True
    return drawn

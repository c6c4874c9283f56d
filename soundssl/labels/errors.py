"""Errors: labels that are missing or wrong, suspected by the scores of a recogniser, or put in to measure their harm.

Flags follow the skeptical teacher (Fonseca et al. 2020, SPL), pruning the loss-based instance selection of Fonseca et
al. 2019 (WASPAA); what `compare` prints is the empirical characterisation of label noise (Fonseca 2021, thesis).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from soundssl.labels.labelset import LabelSet

COLUMNS = 16  # classes whose scores are sorted at once
CONFIDENCE = 1.959963984540054  # standard deviations of a two-sided interval of 95 %
LEAST_PROBABILITY = 1e-8  # added to a probability before its power, as the code of Fonseca et al. 2019 does


def flag(labels: LabelSet, score: np.ndarray, share: float, teacher: np.ndarray | None = None) -> LabelSet:
    """Make unknown, of each class, the top `share` (0 to 1) of its implicit negatives by score; explicit ones never.

    Ranks decide, so that ties never exceed the share; of equal scores the first segments go. A segment with a score
    that is not a number is left as it is. `teacher` numbers which recogniser scored each segment: those of one are
    ranked among themselves.

    Shape: score `[segments, classes]`, teacher `[segments]`.
    """
    if not 0 <= share < 1:
        raise ValueError(f"a share of {share:g} is flagged; it lies from 0 to below 1")
    if score.shape != labels.label.shape:
        raise ValueError(f"scores {list(score.shape)} do not fit labels {list(labels.label.shape)}")
    teacher = np.zeros(len(labels), np.int64) if teacher is None else teacher
    label = labels.label.copy()
    for low in range(0, label.shape[1], COLUMNS):
        block = slice(low, low + COLUMNS)
        values = np.ascontiguousarray(score[:, block].T)
        rated = 0 if labels.rated is None else labels.rated[:, block]
        implicit = np.ascontiguousarray(((labels.label[:, block] == 0) & (rated == 0)).T)
        for i in range(len(values)):
            for one in range(int(teacher.max(initial=-1)) + 1):
                rows = np.flatnonzero(implicit[i] & (teacher == one) & ~np.isnan(values[i]))
                label[_top(values[i], rows, int(share * len(rows) + 1e-9)), low + i] = -1
    return replace(labels, label=label)


def _top(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` rows of highest value, of equal ones the first."""
    if not count:
        return rows[:0]
    own = values[rows]
    least = np.partition(own, len(own) - count)[len(own) - count]
    above = rows[own > least]
    return np.concatenate([above, rows[own == least][: count - len(above)]])


def prune(labels: LabelSet, loss: np.ndarray, percentile: float, chosen: np.ndarray) -> np.ndarray:
    """Return which segments stay: of those `chosen` the ones whose loss is not above a percentile of theirs.

    The percentile is the lower of two losses that it lies between; a loss that is not a number stays. Shape: loss
    `[segments]`, chosen bool `[segments]` to bool `[segments]`.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile {percentile:g} lies above 0 to 100")
    counted = chosen & ~np.isnan(loss)
    if not counted.any():
        return np.ones(len(loss), bool)
    bound = np.percentile(loss[counted], percentile, method="lower")
    return ~(counted & (loss > bound))


def lq_loss(probability: np.ndarray, label: np.ndarray, q: float = 0.7) -> np.ndarray:
    """Return the L_q loss (1 - p^q) / q of probabilities by the labels of each row, p that of its classes together.

    The cross-entropy where q is 0. Rows without a present class are not numbers. Shape: `[rows, classes]` twice.

    >>> lq_loss(np.array([[0.25, 0.75]]), np.array([[1, 0]]), 1.0).round(4).tolist()
    [0.75]
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q is {q:g}; it lies from 0 to 1")
    present = label == 1
    given = np.where(present, probability, 0).sum(1) + LEAST_PROBABILITY
    loss = -np.log(given) if q == 0 else (1 - given**q) / q
    return np.where(present.any(1), loss, np.nan)


class Noise(NamedTuple):
    """Say what is put in: shares of segments with a wrong label, of these from outside the vocabulary, of labels lost.

    `confusion` [classes, classes] has in row c the chances of what c becomes; by default all others alike.
    """

    wrong: float = 0.0
    outside: float = 0.0
    missing: float = 0.0
    confusion: np.ndarray | None = None


def add_noise(
    labels: LabelSet,
    noise: Noise,
    vocabulary: Sequence[int] | None = None,
    chosen: np.ndarray | None = None,
    seed: int = 0,
) -> LabelSet:
    """Put errors into labels; the column `truth` keeps what they were, all zeros of a sound out of the vocabulary.

    Of the segments `chosen` (all, by default) exactly the share `wrong`, rounded, gets another class; the share
    `outside` of these are segments without any class of the vocabulary, one class each given. Others of the kind are
    left out; without `vocabulary` there are none. Of all labels present the share `missing` becomes zero. Raises
    ValueError where a segment has not one class though errors are wanted, and for too few sounds from outside.

    Shape: `chosen` bool `[segments]`.
    """
    generator = np.random.default_rng([seed])
    chosen = np.ones(len(labels), bool) if chosen is None else chosen
    kept = labels if vocabulary is None else labels.columns(vocabulary)
    before = kept.label
    label = before.copy()
    inside = chosen & (before == 1).any(1)
    foreign = np.flatnonzero(chosen & ~(before == 1).any(1) & (labels.label == 1).any(1))
    for name, value in zip(noise._fields[:3], noise[:3], strict=True):
        if not 0 <= value <= 1:
            raise ValueError(f"the share {name} is {value:g}; it lies from 0 to 1")
    if noise.wrong and ((before[inside] == 1).sum(1) != 1).any():
        raise ValueError(
            "wrong labels are put into segments of one class each; only missing ones where some have several"
        )
    rows = np.flatnonzero(inside)
    from_outside = round(noise.wrong * noise.outside * len(rows) / max(1 - noise.wrong * noise.outside, 1e-9))
    if from_outside > len(foreign):
        raise ValueError(f"{from_outside} sounds from outside the vocabulary are wanted, there are {len(foreign)}")
    swapped = round(noise.wrong * (1 - noise.outside) * (len(rows) + from_outside))
    _swap(label, generator.choice(rows, min(swapped, len(rows)), replace=False), noise.confusion, generator)
    taken = generator.choice(foreign, from_outside, replace=False)
    label[taken] = 0
    label[taken, generator.integers(0, label.shape[1], len(taken))] = 1
    _lose(label, chosen, noise.missing, generator)
    stay = np.ones(len(labels), bool)
    if vocabulary is not None:
        stay = (label == 1).any(1) | (before != 0).any(1) | ~(labels.label == 1).any(1)
    truth = before if labels.truth is None else kept.truth
    return replace(kept, label=label, truth=truth, rated=None).rows(stay)


def _swap(label: np.ndarray, rows: np.ndarray, confusion: np.ndarray | None, generator: np.random.Generator) -> None:
    """Give each row another class than its own, in place."""
    classes = label.shape[1]
    if len(rows) and classes < 2:
        raise ValueError("one class cannot be taken for another; name two or more")
    chance = np.ones((classes, classes)) if confusion is None else np.array(confusion, np.float64)
    if chance.shape != (classes, classes):
        raise ValueError(f"a confusion {list(chance.shape)} does not fit {classes} classes")
    np.fill_diagonal(chance, 0)
    own = (label[rows] == 1).argmax(1)
    if lost := [int(i) for i in np.unique(own) if not chance[i].sum() > 0]:
        raise ValueError(f"the confusion says nothing of what class number {lost[0]} becomes")
    bounds = chance.cumsum(1)
    drawn = generator.random(len(rows)) * bounds[own, -1]
    other = (drawn[:, None] >= bounds[own]).sum(1)
    label[rows] = np.where(label[rows] == 1, 0, label[rows])
    label[rows, other] = 1


def _lose(label: np.ndarray, chosen: np.ndarray, share: float, generator: np.random.Generator) -> None:
    """Let a share of the labels present become zero, in place."""
    rows, columns = np.nonzero((label == 1) & chosen[:, None])
    lost = generator.choice(len(rows), round(share * len(rows)), replace=False)
    label[rows[lost], columns[lost]] = 0


class Compared(NamedTuple):
    """Say of one class how its given labels stand against a checked sample: shares with intervals of 95 %.

    `right`; `inside`, the class is wrong and another of the vocabulary is there; `outside`, none of it is; `missing`,
    of the segments that have the class those not given it; each a (share, low, high), not a number where there is none.
    `given`, `present` count segments; `kappa` is Cohen's.
    """

    name: str
    given: int
    present: int
    right: tuple[float, float, float]
    inside: tuple[float, float, float]
    outside: tuple[float, float, float]
    missing: tuple[float, float, float]
    kappa: float


def compare(given: np.ndarray, checked: np.ndarray, classes: Sequence[str]) -> list[Compared]:
    """Set given labels against a checked sample of them, a class at a time, the last row over all labels.

    A segment counts for a class where both say something of it; it has none of the vocabulary where the check found no
    class at all. Shape: `[segments, classes]` in {1, 0, -1} twice.
    """
    if given.shape != checked.shape or given.shape[1] != len(classes):
        raise ValueError(f"labels {list(given.shape)} and {list(checked.shape)} do not fit {len(classes)} classes")
    known = (given >= 0) & (checked >= 0)
    said, has = (given == 1) & known, (checked == 1) & known
    any_class = (checked == 1).any(1)[:, None]
    parts = [said, has, said & has, said & ~has & any_class, said & ~has & ~any_class, has & ~said, known]
    counts = np.array([part.sum(0) for part in parts]).T
    rows = [*zip(classes, counts, strict=True), ("all", counts.sum(0))]
    return [_compared(name, *map(int, count)) for name, count in rows]


def _compared(
    name: str, said: int, has: int, both: int, inside: int, outside: int, missing: int, known: int
) -> Compared:
    agreed = both + known - said - has + both
    chance = (said * has + (known - said) * (known - has)) / known if known else np.nan
    kappa = (agreed - chance) / (known - chance) if known and known != chance else np.nan
    right, within, without = (proportion(count, said) for count in (both, inside, outside))
    return Compared(name, said, has, right, within, without, proportion(missing, has), float(kappa))


def proportion(count: int, total: int) -> tuple[float, float, float]:
    """Return a share and its interval of 95 % (Wilson 1927); not numbers where there is nothing to share.

    >>> tuple(round(value, 3) for value in proportion(5, 10))
    (0.5, 0.237, 0.763)
    """
    if not total:
        return np.nan, np.nan, np.nan
    share, square = count / total, CONFIDENCE**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = CONFIDENCE * np.sqrt(share * (1 - share) / total + square / (4 * total**2)) / (1 + square / total)
    return share, float(max(0.0, middle - half)), float(min(1.0, middle + half))

"""Agreement of several annotators: Krippendorff's alpha, majority, and annotators' reliability (Dawid and Skene 1979).

Labels are 1 present, 0 absent, -1 not said, `[annotators, items, classes]`; classes are decided each alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ROUNDS = 200  # of expectation and maximisation
TOLERANCE = 1e-6  # change of a probability below which they have settled
PRIOR = 1.0  # right answers an annotator starts with, against PRIOR / 4 wrong ones: a vote of few items is not believed


class Reliability(NamedTuple):
    """Hold what the model of Dawid and Skene says."""

    probability: np.ndarray  # [items, classes], of being present; NaN where nobody said anything
    sensitivity: np.ndarray  # [annotators], share of what is present that they say
    specificity: np.ndarray  # [annotators], share of what is absent that they say is


def alpha(label: np.ndarray) -> np.ndarray:
    """Return Krippendorff's alpha of each class for nominal labels, NaN where all that is comparable is alike.

    Items with fewer than two answers do not count. Shape: `[annotators, items, classes]` to `[classes]`.
    """
    present, absent = (label == 1).sum(0).astype(float), (label == 0).sum(0).astype(float)
    said = present + absent
    counted = said >= 2
    present, absent = np.where(counted, present, 0), np.where(counted, absent, 0)
    pairs = np.divide(present * absent, said - 1, out=np.zeros_like(said), where=counted).sum(0)  # of unlike answers
    ones, zeros = present.sum(0), absent.sum(0)
    total = ones + zeros
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ones * zeros > 0, 1 - (total - 1) * pairs / (ones * zeros), np.nan)


def majority(label: np.ndarray) -> np.ndarray:
    """Return what most annotators say, -1 where as many say one as the other. Shape: `[items, classes]`, int8."""
    lead = (label == 1).sum(0) - (label == 0).sum(0)
    return np.where(lead > 0, 1, np.where(lead < 0, 0, -1)).astype(np.int8)


def dawid_skene(label: np.ndarray) -> Reliability:
    """Return how likely each class is present, and how reliable each annotator is, by expectation and maximisation.

    An annotator has one sensitivity and one specificity for all classes, so that few answers suffice, and a class has
    its own frequency. It starts from the shares of annotators. Shape: `[annotators, items, classes]`.
    """
    one, zero = (label == 1).astype(float), (label == 0).astype(float)
    said = (one + zero).sum(0)
    known = said > 0
    share = np.divide(one.sum(0), said, out=np.full(said.shape, 0.5), where=known)
    for _ in range(ROUNDS):
        weight = np.where(known, share, 0.0), np.where(known, 1 - share, 0.0)
        right, wrong = (one * weight[0]).sum((1, 2)) + PRIOR, (zero * weight[0]).sum((1, 2)) + PRIOR / 4
        sensitivity = right / (right + wrong)
        right, wrong = (zero * weight[1]).sum((1, 2)) + PRIOR, (one * weight[1]).sum((1, 2)) + PRIOR / 4
        specificity = right / (right + wrong)
        frequency = (weight[0].sum(0) + PRIOR / 2) / (known.sum(0) + PRIOR)
        odds = posterior_odds(label, sensitivity, specificity, frequency)
        revised = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
        settled = np.abs(revised - share)[known].max(initial=0.0) < TOLERANCE
        share = revised
        if settled:
            break
    return Reliability(np.where(known, share, np.nan), sensitivity, specificity)


def posterior_odds(
    label: np.ndarray, sensitivity: np.ndarray, specificity: np.ndarray, frequency: np.ndarray
) -> np.ndarray:
    """Return the log odds of presence given the answers, which depend on nothing else than what is so.

    Shape: `[annotators, items, classes]`, `[annotators]` twice, `[classes]`; result `[items, classes]`.
    """
    yes, no = np.log(sensitivity / (1 - specificity)), np.log((1 - sensitivity) / specificity)
    evidence = np.einsum("a,aic->ic", yes, (label == 1).astype(float))
    evidence += np.einsum("a,aic->ic", no, (label == 0).astype(float))
    return evidence + np.log(frequency / (1 - frequency))

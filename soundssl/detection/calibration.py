"""Thresholds and probabilities from labelled recordings: what a score is worth, a class at a time.

Estimates are honest: a threshold is chosen on recordings drawn with replacement and judged on those left out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

LEAST = 2  # recordings with a class, and without it, below which nothing is said of it
BINS = 10  # of the reliability figure
PREDICTED = 3  # windows above a threshold at least, where a precision is asked for
EPSILON = 1e-6  # scores are kept so far from 0 and 1 before their log odds are taken


class Chosen(NamedTuple):
    """Hold what was chosen for a class: its threshold, and precision, recall and F1 there, each with its interval.

    `scale` and `offset` turn the log odds of a score into those of a probability. Intervals are `(low, high)`, 95 %.
    Without enough recordings all but the counts are not-a-number.
    """

    threshold: float
    precision: float
    recall: float
    f1: float
    precision_interval: tuple[float, float]
    recall_interval: tuple[float, float]
    scale: float
    offset: float
    positives: int
    windows: int


def choose(
    score: np.ndarray,
    label: np.ndarray,
    recording: np.ndarray,
    precision: float | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Chosen:
    """Choose the threshold of one class: that of best F1, or the lowest at which a wanted precision is reached.

    Labels are 1, 0, or -1 for unknown, which count for nothing. Shape: all `[windows]`.
    """
    known = label >= 0
    score, true, recording = score[known].astype(np.float64), label[known] == 1, recording[known]
    unknown, open_ = math.nan, (math.nan, math.nan)
    nothing = Chosen(unknown, unknown, unknown, unknown, open_, open_, unknown, unknown, int(true.sum()), len(true))
    names, of = np.unique(recording, return_inverse=True)
    with_it = np.bincount(of, true, len(names)) > 0
    if min(with_it.sum(), (np.bincount(of, ~true, len(names)) > 0).sum()) < LEAST:
        return nothing
    threshold = best_threshold(score, true, precision)
    generator, found = np.random.default_rng(seed), []
    for _ in range(draws):
        weight = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))[of]
        inside, outside = np.repeat(np.arange(len(of)), weight), weight == 0
        if true[inside].any() and not true[inside].all() and true[outside].any():
            found.append(
                at_threshold(score[outside], true[outside], best_threshold(score[inside], true[inside], precision))
            )
    here = at_threshold(score, true, threshold)
    values = np.array(found or [(math.nan, math.nan, math.nan)])
    means = [
        float(np.nanmean(column)) if np.isfinite(column).any() else one
        for column, one in zip(values.T, here, strict=True)
    ]
    right, recall = (_interval(values[:, i]) for i in (0, 1))
    scale, offset = fit_logistic(score, true)
    chosen = nothing._replace(threshold=threshold, scale=scale, offset=offset, precision=means[0], recall=means[1])
    return chosen._replace(f1=means[2], precision_interval=right, recall_interval=recall)


def _interval(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def best_threshold(score: np.ndarray, true: np.ndarray, precision: float | None = None) -> float:
    """Return the threshold of best F1, or the lowest at which a precision is reached; the highest score where none is.

    Halfway between the score that is the last to count and the next below it. Shape: both `[windows]`.
    """
    order = np.argsort(-score, kind="stable")
    sorted_score, hits = score[order], np.cumsum(true[order])
    count = np.arange(1, len(order) + 1)
    last = np.append(sorted_score[1:] < sorted_score[:-1], True)  # equal scores count together
    right, recall = hits / count, hits / max(1, hits[-1])
    if precision is None:
        measure = np.where(last & (hits > 0), 2 * right * recall / np.maximum(right + recall, EPSILON), -1)
        place = int(np.argmax(measure))
    else:
        good = np.flatnonzero(last & (right >= precision) & (count >= min(PREDICTED, len(order))))
        place = int(good[-1]) if len(good) else int(np.flatnonzero(last)[0])
    below = sorted_score[place + 1] if place + 1 < len(order) else sorted_score[place]
    middle = float((sorted_score[place] + below) / 2)
    return middle if below < middle else float(sorted_score[place])


def at_threshold(score: np.ndarray, true: np.ndarray, threshold: float) -> tuple[float, float, float]:
    """Return precision (not-a-number where nothing is predicted), recall and F1. Shape: both `[windows]`."""
    said = score >= threshold
    hits, predicted, real = int((said & true).sum()), int(said.sum()), int(true.sum())
    right, recall = hits / predicted if predicted else math.nan, hits / real if real else math.nan
    return right, recall, 2 * hits / (predicted + real) if predicted + real else math.nan


def log_odds(score: np.ndarray) -> np.ndarray:
    """Return the log odds of scores from 0 to 1, finite also at both ends."""
    inside = np.clip(score, EPSILON, 1 - EPSILON)
    return np.log(inside / (1 - inside))


def fit_logistic(score: np.ndarray, true: np.ndarray, steps: int = 50) -> tuple[float, float]:
    """Return scale and offset by which log odds of scores become those of probabilities (Platt 1999).

    Targets are drawn in as Platt has them, so that classes that are told apart without a fault stay finite. A scale
    below zero is not taken: the score then says nothing, and the probability is the share of the class.
    Shape: both `[windows]`.
    """
    real, other = int(true.sum()), int((~true).sum())
    target = np.where(true, (real + 1) / (real + 2), 1 / (other + 2))
    odds = log_odds(score)
    middle, width = float(odds.mean()), max(float(odds.std()), EPSILON)
    design = np.stack([(odds - middle) / width, np.ones(len(score))], axis=1)
    weight = np.asarray([0.0, math.log((real + 1) / (other + 1))])
    step: np.ndarray = np.zeros(2)
    loss = math.inf
    for _ in range(steps):  # Newton's method, with steps halved until the loss falls
        logits = design @ (weight + step)
        now = float((np.logaddexp(0, logits) - target * logits).sum())
        if now > loss:
            step = step / 2
            continue
        weight[:] += step
        loss = now
        chance = 1 / (1 + np.exp(-logits))
        curvature = design.T @ ((chance * (1 - chance))[:, None] * design) + EPSILON * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (target - chance))
        if np.abs(step).max() < EPSILON:
            break
    if weight[0] <= 0:
        return 0.0, math.log((real + 1) / (other + 1))
    return float(weight[0] / width), float(weight[1] - weight[0] * middle / width)


def probability(score: np.ndarray, scale: np.ndarray | float, offset: np.ndarray | float) -> np.ndarray:
    """Return calibrated probabilities of scores; rising with them."""
    return 1 / (1 + np.exp(-(np.asarray(scale) * log_odds(score) + np.asarray(offset))))


def reliability(chance: np.ndarray, true: np.ndarray) -> float:
    """Return the mean gap between what is said and what is so, over ten bins of probability (0: none).

    The expected calibration error (Naeini et al. 2015). Shape: both `[windows]`.
    """
    place = np.minimum((chance * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    gap = np.abs(np.bincount(place, chance, BINS) - np.bincount(place, true, BINS))
    return float(gap[count > 0].sum() / max(1, len(chance)))


def cross_fitted(score: np.ndarray, true: np.ndarray, recording: np.ndarray, folds: int = 5) -> np.ndarray:
    """Return probabilities of windows, each by a calibration without its recording. Shape: all `[windows]`."""
    names, of = np.unique(recording, return_inverse=True)
    found = np.full(len(score), math.nan)
    for fold in range(min(folds, len(names))):
        held = of % min(folds, len(names)) == fold
        if true[~held].any() and not true[~held].all():
            found[held] = probability(score[held], *fit_logistic(score[~held], true[~held]))
    return found

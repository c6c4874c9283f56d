"""Query by example: rank pairs of clips by cosine and see whether pairs of one class come first.

Conventions
-----------
The vector of a clip is the mean of its windows, zero where it has none. For each class n clips having it and as many
(m, if fewer exist) known not to have it are drawn at random. Targets are the n(n-1)/2 unordered pairs of clips having
the class, non-targets the n m pairs of one with and one without; pairs of two clips without are not used. With 100 +
100 clips chance is 4950/14950 = 0.331 (Jansen et al. 2018, query by example; the kinds of pair are inferred from that
number). A clip whose vector is zero has cosine 0 with every clip. Similarities are rounded to 2^-20, so that copies of
a clip tie whatever the order of summation; ties are grouped. The draw depends only on the seed, the number of the draw
and of the class.

Metrics
-------
- `AP` of a class: average precision of the pairs in order of falling cosine
- `mAP`: its unweighted mean over classes with two positives and one negative or more; the others are skipped and
  counted in the row `skipped_classes`
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from soundssl.evaluations import row
from soundssl.evaluations.table import Table
from soundssl.ops import metrics, neighbors

GRID = float(1 << 20)  # similarities are multiples of 2^-20, coarser than float32 rounding, finer than a ranking needs
PAIR_BLOCK = 1 << 22  # pair weights held at once by the bootstrap


@dataclass(frozen=True)
class Options:
    """Choose how many clips are drawn, how often, and whether intervals are wanted."""

    per_class: int = 100  # clips drawn with, and as many without, each class
    draws: int = 1  # random draws of clips to average over
    bootstrap: int = 0  # replicates over clips for 95 % intervals; 0: none

    def __post_init__(self) -> None:
        if self.per_class < 2 or self.draws < 1 or self.bootstrap < 0:
            raise ValueError(f"needs per_class >= 2, draws >= 1, bootstrap >= 0: {self}")


def draw_clips(label: np.ndarray, per_class: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows of up to `per_class` clips having a class, and as many known not to have it, without repeats.

    Shape: label [clips] of one class in {1, 0, -1}; returns sorted row numbers [n] and [m].
    """
    positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    if len(positive) > per_class:
        positive = np.sort(generator.choice(positive, per_class, replace=False))
    if len(negative) > len(positive):
        negative = np.sort(generator.choice(negative, len(positive), replace=False))
    return positive, negative


def chance(positives: int, negatives: int) -> float:
    """Return the share of targets among the pairs of n clips with and m without a class: what a random order gets.

    >>> round(chance(100, 100), 3)
    0.331
    """
    return ((positives - 1) / 2) / ((positives - 1) / 2 + negatives)


def pair_similarities(vectors: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rounded cosines of all target pairs and of all non-target pairs, by one matrix product.

    Shape: vectors [clips, size] of length one or zero; returns [n (n - 1) / 2] and [n m].
    """
    chosen = vectors[np.concatenate([positive, negative])]
    cosine = chosen[: len(positive)] @ chosen.T
    cosine *= GRID
    np.rint(cosine, out=cosine)
    cosine /= GRID
    targets = cosine.ravel()[_upper(len(positive), cosine.shape[1])]
    return targets, cosine[:, len(positive) :].ravel()


@lru_cache(maxsize=8)
def _upper(count: int, width: int) -> np.ndarray:
    """Flat places of the pairs i < j among the first `count` columns of rows `width` wide."""
    first, second = np.triu_indices(count, 1)
    return first * width + second


def class_average_precision(vectors: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the average precision of the pairs of one class.

    Shape: vectors [clips, size] of length one or zero, positive [n] and negative [m] row numbers.
    """
    return metrics.pair_average_precision(*pair_similarities(vectors, positive, negative))


def class_replicates(vectors: np.ndarray, positive: np.ndarray, negative: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the average precision of one class in every bootstrap replicate of the clips.

    A pair of clips occurs as often as the product of their multiplicities; a clip is never paired with its own copy.

    Shape: weight [replicates, clips]; returns [replicates], NaN where a replicate has no target pair.
    """
    targets, others = pair_similarities(vectors, positive, negative)
    first, second = np.triu_indices(len(positive), 1)
    step = max(1, PAIR_BLOCK // (len(targets) + len(others)))
    values = []
    for start in range(0, len(weight), step):
        inside, outside = weight[start : start + step, positive], weight[start : start + step, negative]
        across = (inside[:, :, None] * outside[:, None, :]).reshape(len(inside), -1)
        within = inside[:, first] * inside[:, second]
        values.append(metrics.weighted_pair_average_precision(targets, others, within, across))
    return np.concatenate(values)


def evaluate(table: Table, options: Options = Options(), seed: int = 0) -> list[dict[str, Any]]:
    """Score embeddings by query by example: mAP over classes, then AP of every class with its chance.

    Only the clips to test are used. Raises ValueError where a vector is not finite, or no class has two positives and a
    negative.
    """
    table = table.scored()
    vectors, classes = table.clip_means(), table.classes
    if not np.isfinite(vectors).all():
        raise ValueError(f"{int((~np.isfinite(vectors)).any(axis=1).sum())} clip vectors are not finite")
    vectors, columns = neighbors.unit(vectors), np.ascontiguousarray(table.label.T)
    weight = np.zeros((0, len(vectors)), np.int64)
    if options.bootstrap:
        weight = metrics.multiplicities(len(vectors), options.bootstrap, np.random.default_rng([seed]))
    kept, values, chances, replicates = [], [], [], []
    for column, of_class in enumerate(columns):
        if (of_class == 1).sum() < 2 or not (of_class == 0).any():
            continue
        generators = [np.random.default_rng([seed, draw, column]) for draw in range(options.draws)]
        drawn = [draw_clips(of_class, options.per_class, generator) for generator in generators]
        kept.append(column)
        chances.append(chance(*map(len, drawn[0])))
        values.append(float(np.mean([class_average_precision(vectors, *pair) for pair in drawn])))
        if options.bootstrap:
            replicates.append(metrics.mean_known(np.array([class_replicates(vectors, *p, weight) for p in drawn])))
    if not kept:
        raise ValueError(f"none of {len(classes)} classes has two positive clips and a negative one")
    return _rows(
        classes, columns, kept, values, chances, np.array(replicates).reshape(len(replicates), options.bootstrap)
    )


def _rows(
    classes: list[str],
    columns: np.ndarray,
    kept: list[int],
    values: list[float],
    chances: list[float],
    replicates: np.ndarray,
) -> list[dict[str, Any]]:
    """Lay out the overall rows, then a row a class; replicates is [kept classes or 0, replicates]."""
    overall = metrics.percentile_interval(metrics.mean_known(replicates))
    intervals = [metrics.percentile_interval(one) for one in replicates] or [(None, None)] * len(kept)
    rows = [
        row("mAP", float(np.mean(values)), len(kept), chance=float(np.mean(chances)), interval=overall),
        row("skipped_classes", float(len(classes) - len(kept)), len(classes)),
    ]
    for column, value, base, interval in zip(kept, values, chances, intervals, strict=True):
        positives = int((columns[column] == 1).sum())
        rows.append(row("AP", value, positives, name=classes[column], chance=base, interval=interval))
    return rows

"""Comparison: two score files, row by row: how much better is the second, overall and for each class by its size?

Score files hold nothing of clips, so there classes are the units: scores of classes are paired, and replicates draw
classes. Scores of clips are paired over recordings. The slope says by how much the difference grows from one class to
another of twice its clips: whether what was gained was gained by the rare ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from soundssl.evaluations import BOOKKEEPING, row, tagging
from soundssl.evaluations.table import Table
from soundssl.ops import metrics

Key = tuple[str, str | None, str]


def compare_clips(first: Table, second: Table, replicates: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of differences between scores of the same clips by two recognisers, those of `compare` among them.

    The intervals of 95 % of mAP and top1 are those of replicates over recordings, drawn for both alike. Shape: as
    `tagging.evaluate` takes tables. Raises ValueError where the two differ in their clips, labels or classes.
    """
    if sorted(first.classes) != sorted(second.classes):
        raise ValueError("the two score other classes; compare recognisers of the same classes")
    if first.label.shape != second.label.shape or (first.recording != second.recording).any():
        raise ValueError("the two score other clips; embed the same features with both")
    columns = [second.classes.index(name) for name in first.classes]
    label, scores = first.label, (first.clip_means(), second.clip_means()[:, columns])
    if (second.label[:, columns] != label).any():
        raise ValueError("the labels of the two differ; compare them by the same")
    options = tagging.Options()
    one, other = (tagging.evaluate(Table(score, label, first.classes), options, seed) for score in scores)
    number = np.unique(first.recording, return_inverse=True)[1].reshape(-1)
    drawn = metrics.multiplicities(int(number.max()) + 1, replicates, np.random.default_rng([seed]))[:, number]
    present = label == 1
    known = present.any(1)
    hit = [present[np.arange(len(label)), score.argmax(1)] for score in scores]
    with np.errstate(invalid="ignore", divide="ignore"):
        top = (drawn @ (hit[1][:, None] * 1.0 - hit[0][:, None]))[:, 0] / (drawn @ known)
    precision = [metrics.mean_average_precision_replicates(score, label, drawn) for score in scores]
    interval = {
        "mAP": metrics.percentile_interval(precision[1] - precision[0]),
        "top1": metrics.percentile_interval(top[np.isfinite(top)]),
    }
    rows = compare(one, other, replicates, seed)
    found = ((each, interval.get(each["metric"]) if each["class"] is None else None) for each in rows)
    return [{**each, "low": own[0], "high": own[1]} if own else each for each, own in found]


def compare(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], replicates: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Return rows of differences, second - first, with both values: overall, mean over classes, slope, each class.

    The intervals of 95 % of mean and slope are those of replicates over classes. Means over folds are left out where
    the folds are there. Raises ValueError where the two have no score in common.
    """
    one, other = _by_key(first), _by_key(second)
    common = [key for key in one if key in other]
    if not common:
        raise ValueError("the two have no score in common; compare the same evaluation on the same classes")
    rows = [_difference(key, one[key], other[key]) for key in common if key[1] is None]
    for metric in dict.fromkeys(key[0] for key in common if key[1] is not None):
        keys = [key for key in common if key[0] == metric and key[1] is not None]
        rows += _over_classes(metric, [one[key] for key in keys], [other[key] for key in keys], replicates, seed)
    return rows + [_difference(key, one[key], other[key]) for key in common if key[1] is not None]


def _by_key(rows: Sequence[dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    folds = any(each.get("split") not in (None, "mean") for each in rows)
    kept = [each for each in rows if not (folds and each.get("split") == "mean")]
    return {
        (each["metric"], each["class"], each.get("split") or ""): each
        for each in kept
        if each["metric"] not in BOOKKEEPING
    }


def _difference(key: Key, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    made = row(key[0], other["value"] - one["value"], int(one.get("count") or 0), name=key[1])
    return {**made, **({"split": key[2]} if key[2] else {}), "first": one["value"], "second": other["value"]}


def _over_classes(
    metric: str, one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], replicates: int, seed: int
) -> list[dict[str, Any]]:
    """Rows of the mean difference over classes, and of its slope by the logarithm to base 2 of their sizes."""
    difference = np.array([b["value"] - a["value"] for a, b in zip(one, other, strict=True)])
    size = np.log2(np.maximum([float(a.get("count") or 1) for a in one], 1))
    drawn = np.random.default_rng([seed]).integers(0, len(size), (replicates, len(size)))
    interval = metrics.percentile_interval(difference[drawn].mean(axis=1))
    values = {"first": float(np.mean([a["value"] for a in one])), "second": float(np.mean([b["value"] for b in other]))}
    rows = [{**row(f"mean {metric}", float(difference.mean()), len(size), interval=interval), **values}]
    if np.ptp(size) > 0:
        slopes = np.array([_slope(size[some], difference[some]) for some in drawn])
        interval = metrics.percentile_interval(slopes[~np.isnan(slopes)])
        rows.append(row(f"{metric} by doubling of the class", _slope(size, difference), len(size), interval=interval))
    return rows


def _slope(size: np.ndarray, difference: np.ndarray) -> float:
    """Return the slope of the straight line of least squares, not a number where all sizes are equal."""
    centred = size - size.mean()
    square = float(centred @ centred)
    return float(centred @ difference) / square if square > 0 else float("nan")

"""Folds: every split of a table in its turn is scored against all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from soundssl.evaluations import row
from soundssl.evaluations.table import Table


def cross_validate(evaluate: Callable[..., list[dict[str, Any]]], table: Table, options, seed: int = 0) -> list[dict]:
    """Score every split against the rest by an evaluation; rows carry their split, the means over splits come last.

    Clips without a split are in nobody's test. Raises ValueError where there are not two splits.
    """
    splits = sorted({str(split) for split in table.split} - {""})
    if len(splits) < 2:
        raise ValueError(f"folds need two splits or more, here are {len(splits)}")
    found = []
    for split in splits:
        test = table.split == split
        found += [{**one, "split": split} for one in evaluate(table.sides(test, ~test), options, seed)]
    return found + means(found)


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each metric and class, the mean over the splits that have it; counts are added up."""
    found = []
    for metric, name in dict.fromkeys((one["metric"], one["class"]) for one in rows):
        same = [one for one in rows if (one["metric"], one["class"]) == (metric, name)]
        chance = [one["chance"] for one in same if one["chance"] is not None]
        value, count = float(np.mean([one["value"] for one in same])), sum(one["count"] for one in same)
        mean = row(metric, value, count, name, float(np.mean(chance)) if chance else None)
        found.append({**mean, "split": "mean"})
    return found

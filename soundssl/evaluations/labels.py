"""Labels: how many of the labels given are right, and how many windows of a class got it (Jansen et al. 2020, Table 2).

Conventions
-----------
A window received a class where it was given as present. Windows whose truth is unknown of a class are left out of its
precision, those known to have it are the whole of its recall, whether a label was given to them or not. Chance is what
the same number of labels gets on windows drawn at random: of precision the share of the class among windows where it is
known, of recall the share of those windows that received the class.

Metrics
-------
- `precision`, `recall`: means over the classes that have one: that were given to a window whose truth is known, or that
  a window has; `pooled_precision`, `pooled_recall` over all labels at once; rows of classes follow
- `coverage`: share of windows with any label that is not unknown
- `classes_without_label`: classes that a window has and no window received
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from soundssl.evaluations import row
from soundssl.evaluations.table import Table


@dataclass(frozen=True)
class Options:
    """Leave nothing to choose."""


def evaluate(table: Table, options: Options = Options(), seed: int = 0) -> list[dict[str, Any]]:
    """Score the labels given to windows: class means, pooled values, then precision and recall of every class.

    The values of the table are the labels given, in {1, 0, -1}, its labels the truth. There is no chance in it. Raises
    ValueError where they do not fit or the truth has no class.
    """
    table = table.scored()
    given, truth, classes = table.value, table.label, table.classes
    if given.shape != truth.shape:
        raise ValueError(f"labels {list(given.shape)} do not fit truth {list(truth.shape)} of {len(classes)} classes")
    table.require_one_window()
    if not (truth == 1).any():
        raise ValueError(f"none of {len(truth)} windows is known to have one of {len(classes)} classes")
    received, has, known = given == 1, truth == 1, truth >= 0
    right, named = (received & has).sum(axis=0), (received & known).sum(axis=0)
    have, asked = has.sum(axis=0), known.sum(axis=0)
    precision, recall = _ratio(right, named), _ratio(right, have)
    prevalence, rate = _ratio(have, asked), _ratio(named, asked)
    covered = (given >= 0).any(axis=1)
    rows = [
        *_overall("precision", precision, prevalence, right, named),
        *_overall("recall", recall, rate, right, have),
        row("coverage", float(covered.mean()), len(given)),
        row("classes_without_label", float(((have > 0) & ~received.any(axis=0)).sum()), int((have > 0).sum())),
    ]
    for metric, value, chance, count in (("precision", precision, prevalence, named), ("recall", recall, rate, have)):
        rows += [
            row(metric, float(value[i]), int(count[i]), name=classes[i], chance=float(chance[i]))
            for i in np.flatnonzero(count)
        ]
    return rows


def _overall(
    metric: str, value: np.ndarray, chance: np.ndarray, right: np.ndarray, count: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of the class mean and of the pooled value; none where no class has one."""
    have = count > 0
    if not have.any():
        return []
    pooled = float(np.average(chance[have], weights=count[have]))
    return [
        row(metric, float(value[have].mean()), int(have.sum()), chance=float(chance[have].mean())),
        row(f"pooled_{metric}", float(right.sum() / count.sum()), int(count.sum()), chance=pooled),
    ]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)

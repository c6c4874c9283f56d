"""Evaluations by name: what each one asks of a set of embeddings, and the rows in which all of them answer.

Every evaluation is a module with a frozen dataclass `Options` and a function `evaluate(table, options, seed)` that
returns rows made by `row`: overall rows (`class` is None) first, then rows of single classes. A `table.Table` holds
values of windows and the labels of their clips; `reading` makes one of files, `folds` divides it. Separation alone
takes what was measured of mixtures, batch by batch. `recovery` sets rows against those of a baseline and a topline
(Jansen et al. 2018, the columns "recovery" of its tables).
"""

import difflib
import importlib
from types import ModuleType
from typing import Any

EVALUATIONS: dict[str, str] = {
    "retrieval": "query by example: are two clips of a class nearer each other than clips of other classes?",
    "knn": "nearest neighbours: do the clips nearest to a clip, outside its own recording, have its class?",
    "tagging": "clip scores of a classifier: do they rank clips within classes, and classes within clips?",
    "strong": "window scores of a classifier: do they tell when a class is heard, and when not?",
    "shallow": "a small classifier trained on frozen embeddings, with all labels or a few per class",
    "linear": "one linear layer on frozen embeddings: clips of one class each, decided by the mean of their windows",
    "clusters": "does a cluster hold windows of one class, and a class windows of one cluster?",
    "separation": "mixtures of two known sources: how much of each do the tracks give back?",
    "onscreen": "sounds that are seen and sounds that are not: what is kept of either?",
    "consistency": "does the class of a clip stay when its input is shifted by a few frames or bands?",
    "labels": "labels given to windows: how many are right, and how many windows of a class got it?",
}

BOOKKEEPING = frozenset(  # counts, not scores: nothing to recover
    {"skipped_classes", "training_clips", "left_out_windows", "classes_without_label", "questions", "labelled_windows"}
    | {
        "over_separation",
        "over_separation_alone",
        "consistency_error",
        "active_clusters",
        "effective_clusters",
        "largest_size",
        "median_size",
        "smallest_size",
    }
)


def load(name: str) -> ModuleType:
    """Import the evaluation of that name; ValueError naming the nearest one when there is none."""
    if name not in EVALUATIONS:
        near = difflib.get_close_matches(name, EVALUATIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(EVALUATIONS)}"
        raise ValueError(f"no evaluation is called {name!r}: {hint}")
    return importlib.import_module(f"{__name__}.{name}")


def row(
    metric: str,
    value: float,
    count: int,
    name: str | None = None,
    chance: float | None = None,
    interval: tuple[float | None, float | None] = (None, None),
) -> dict[str, Any]:
    """Make one row of results.

    `name` is the class, None for an overall row; `interval` a 95 % bootstrap interval over clips; `chance` what random
    scores would get; `count` what the value averages: classes for means over classes, clips for the rest, positive
    clips in the row of a class.
    """
    low, high = interval
    return {
        "metric": metric,
        "class": name,
        "value": value,
        "low": low,
        "high": high,
        "chance": chance,
        "count": count,
    }


def recovery(
    rows: list[dict[str, Any]], baseline_rows: list[dict[str, Any]], topline_rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Add to each overall metric that all three have its recovery, (value - baseline) / (topline - baseline).

    Returns new rows; rows without a counterpart come back as they are. None where baseline and topline are equal.

    >>> score = lambda value: [row("mAP", value, 527)]
    >>> round(recovery(score(0.562), score(0.423), score(0.790))[0]["recovery"], 3)
    0.379
    """
    baseline, topline = _overall(baseline_rows), _overall(topline_rows)
    result = []
    for one in rows:
        one, metric = dict(one), one["metric"]
        if metric in _overall([one]) and metric in baseline and metric in topline:
            span = topline[metric] - baseline[metric]
            one["recovery"] = (one["value"] - baseline[metric]) / span if span else None
        result.append(one)
    return result


def _overall(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {one["metric"]: one["value"] for one in rows if one["class"] is None and one["metric"] not in BOOKKEEPING}

"""Tagging: how well do the scores of a classifier rank clips within classes, and classes within clips?

Conventions
-----------
A clip's score of a class is the mean of its windows' probabilities. Labels are 1, 0 or -1 (unknown, left out). A class
counts where it has a positive and a negative, the others are counted in `skipped_classes`. Given several sets of scores
of the same clips, as of several draws or seeds, values are means over them.

Metrics
-------
- `mAP`, `AUC`: means over classes; `dprime`: mean over classes of each d-prime (Fonseca et al.), `dprime_of_mean_auc`:
  d-prime of the mean AUC (Hershey et al. 2017)
- `lwlrap`, `top1`, `top5` (with five classes or more); `AP` of each class
- in presets also `MAP@3`, `accuracy`, `balanced_accuracy`, and `lwlrap` of each class
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from soundssl.evaluations import row
from soundssl.evaluations.table import Table
from soundssl.ops import metrics


@dataclass(frozen=True)
class Options:
    """Choose whether intervals are wanted."""

    bootstrap: int = 0  # replicates over clips for 95 % intervals; 0: none
    metrics: tuple[str, ...] = ()  # names of those to give, by default those that come without a preset


# Protocols by name: what is given, and how the windows of a clip are averaged where nobody says.
PRESETS: dict[str, tuple[str, ...]] = {
    "none": (),
    "fsd50k": ("mAP", "dprime", "lwlrap", "AP", "skipped_classes"),
    "fsdnoisy18k": ("accuracy", "balanced_accuracy"),
    "dcase2018": ("MAP@3",),
    "dcase2019": ("lwlrap", "lwlrap of classes"),
    "audioset": ("mAP", "AUC", "dprime", "dprime_of_mean_auc", "lwlrap", "top1", "top5", "AP", "skipped_classes"),
}
GEOMETRIC = ("fsdnoisy18k",)  # Fonseca et al. 2019
AT = 3  # classes of MAP@3


def evaluate(table: Table, options: Options = Options(), seed: int = 0) -> list[dict[str, Any]]:
    """Score the clips to test by their scores of the classes: overall metrics, then AP of every class.

    Raises ValueError where there is not a score a class, a clip has no window, or a score is not finite.
    """
    table = table.scored()
    label, classes = table.label, table.classes
    if table.value.shape[1:] != (len(classes),):
        raise ValueError(f"scores {list(table.value.shape)} do not fit {len(classes)} classes")
    if (table.windows == 0).any():
        raise ValueError(f"{int((table.windows == 0).sum())} clips have no window")
    score = table.clip_means()
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).any(axis=1).sum())} clips have a score that is not finite")
    weight = np.zeros((0, len(score)), np.int64)
    if options.bootstrap:
        weight = metrics.multiplicities(len(score), options.bootstrap, np.random.default_rng([seed]))
    if not options.metrics:
        return [*overall_rows([score], label, weight), *class_rows([score], label, classes)]
    return chosen_rows(score, label, classes, weight, options.metrics)


def chosen_rows(
    score: np.ndarray, label: np.ndarray, classes: list[str], weight: np.ndarray, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Rows of the metrics that are named, overall ones first. Shape: as `scores_of`, weight [replicates, clips]."""
    rows = [*overall_rows([score], label, weight), *class_rows([score], label, classes)]
    if "accuracy" in names:
        rows += decision_rows(score.argmax(axis=1), label, weight)
    if "MAP@3" in names:
        value, ranks = metrics.average_precision_at(score, label, AT), np.arange(1, min(AT, label.shape[1]) + 1)
        clips = int((label == 1).any(axis=1).sum())
        rows.append(row("MAP@3", value, clips, chance=float((1 / ranks).sum() / label.shape[1])))
    kept = [one for one in rows if one["metric"] in names]
    if "lwlrap of classes" in names:
        found = metrics.lwlrap_per_class(score, label)
        count = (label == 1).sum(axis=0)
        kept += [
            row("lwlrap", float(value), int(count[column]), name=classes[column])
            for column, value in zip(found.column, found.value, strict=True)
        ]
    return kept


def scores_of(score: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Return every overall metric of clip scores, by name.

    Shape: score and label [clips, classes].
    """
    values = {
        "mAP": metrics.per_class(score, label).mean,
        "AUC": metrics.per_class(score, label, metrics.roc_auc).mean,
        "dprime": metrics.mean_d_prime(score, label),
        "dprime_of_mean_auc": metrics.d_prime_of_mean_auc(score, label),
        "lwlrap": metrics.lwlrap(score, label),
        "top1": metrics.top_n(score, label, 1),
    }
    if score.shape[1] >= 5:
        values["top5"] = metrics.top_n(score, label, 5)
    return values


def overall_rows(scores: list[np.ndarray], label: np.ndarray, weight: np.ndarray) -> list[dict[str, Any]]:
    """Rows of every overall metric, means over draws, and of the classes skipped; an interval for mAP."""
    values = [scores_of(score, label) for score in scores]
    replicates = metrics.mean_known(
        np.array([metrics.mean_average_precision_replicates(score, label, weight) for score in scores])
    )
    kept, chances = _class_chances(label)
    clips = int((label == 1).any(axis=1).sum())
    chance = {"mAP": float(np.mean(chances)), "AUC": 0.5, "dprime": 0.0, "dprime_of_mean_auc": 0.0}
    chance |= {"lwlrap": metrics.lwlrap_chance(label), "top1": metrics.top_n_chance(label, 1)}
    if "top5" in values[0]:
        chance["top5"] = metrics.top_n_chance(label, 5)
    rows = []
    for metric in values[0]:
        mean = float(np.mean([one[metric] for one in values]))
        count = clips if metric in ("lwlrap", "top1", "top5") else len(kept)
        interval = metrics.percentile_interval(replicates) if metric == "mAP" else (None, None)
        rows.append(row(metric, mean, count, chance=chance[metric], interval=interval))
    return [*rows, row("skipped_classes", float(label.shape[1] - len(kept)), label.shape[1])]


def class_rows(scores: list[np.ndarray], label: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """A row of AP for each class that can be scored, the mean over draws."""
    values = np.mean([metrics.per_class(score, label).value for score in scores], axis=0)
    kept, chances = _class_chances(label)
    positives = (label == 1).sum(axis=0)
    return [
        row("AP", float(value), int(positives[column]), name=classes[column], chance=chance)
        for column, value, chance in zip(kept, values, chances, strict=True)
    ]


def _class_chances(label: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Columns that can be scored, and the average precision of a random order in each."""
    positives, known = (label == 1).sum(axis=0), (label >= 0).sum(axis=0)
    kept = np.flatnonzero((positives > 0) & (known > positives))
    return kept, [metrics.average_precision_chance(int(positives[i]), int(known[i])) for i in kept]


def decision_rows(decision: np.ndarray, label: np.ndarray, weight: np.ndarray) -> list[dict[str, Any]]:
    """Rows of decided classes: accuracies, the balanced one only where every clip has one class at most.

    Shape: decision [clips] class numbers, label [clips, classes], weight [replicates, clips] of the bootstrap.
    """
    present = label == 1
    labelled = present.any(axis=1)
    value = metrics.accuracy(decision, label)
    right = present & (decision[:, None] == np.arange(label.shape[1]))
    interval = metrics.percentile_interval(_ratio(weight @ right.any(axis=1), weight @ labelled))
    chance = float(present[labelled].mean(axis=0).max())
    rows = [row("accuracy", value, int(labelled.sum()), chance=chance, interval=interval)]
    if (present.sum(axis=1) <= 1).all():
        recalls = _ratio(weight @ right, weight @ present)  # [replicates, classes]
        interval = metrics.percentile_interval(metrics.mean_known(recalls.T))
        value, count = metrics.balanced_accuracy(decision, label), int(present.any(axis=0).sum())
        rows.append(row("balanced_accuracy", value, count, chance=1.0 / label.shape[1], interval=interval))
    return rows


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def ranking_rows(score: np.ndarray, label: np.ndarray, classes: list[str], weight: np.ndarray) -> list[dict[str, Any]]:
    """Rows of scores: mAP, classes skipped, then AP of each class. Shape: score and label [clips, classes]."""
    precision = metrics.per_class(score, label)
    if not len(precision.value):
        return [row("skipped_classes", float(precision.skipped), len(classes))]
    positives, known = (label == 1).sum(axis=0), (label >= 0).sum(axis=0)
    chances = [metrics.average_precision_chance(int(positives[i]), int(known[i])) for i in precision.column]
    interval = metrics.percentile_interval(metrics.mean_average_precision_replicates(score, label, weight))
    count = len(precision.value)
    rows = [
        row("mAP", precision.mean, count, chance=float(np.mean(chances)), interval=interval),
        row("skipped_classes", float(precision.skipped), len(classes)),
    ]
    for column, value, chance in zip(precision.column, precision.value, chances, strict=True):
        rows.append(row("AP", float(value), int(positives[column]), name=classes[column], chance=chance))
    return rows

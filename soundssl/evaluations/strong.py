"""Strong: do the scores of windows tell when a class is heard from when it is not?

Conventions
-----------
A row of the table is a window. Its label of a class is 1 or 0, or -1 where nothing is known: where labels have explicit
negatives, a class is scored on the windows that were rated present or not present, and on no others (Hershey et al.
2021). A class counts where it has enough of both, the others are counted in `skipped_classes`. Values near 1 are usual
for windows, where those of clips are near 2.5; the two are not to be compared.

Metrics
-------
- `frame_dprime`, `frame_AUC`: means over classes of each; `frame_mAP`
- intervals are over recordings, whose windows stay together
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from soundssl.evaluations import row
from soundssl.evaluations.table import Table
from soundssl.ops import metrics

BLOCK = 50  # replicates at once


@dataclass(frozen=True)
class Options:
    """Choose which classes count, and whether intervals are wanted."""

    least: int = 5  # windows present, and absent, that a class needs (inferred)
    bootstrap: int = 0  # replicates over recordings for 95 % intervals; 0: none


def evaluate(table: Table, options: Options = Options(), seed: int = 0) -> list[dict[str, Any]]:
    """Score windows: overall metrics, then d-prime of every class.

    Raises ValueError where there is not a score a class, a score is not finite, or no class has enough windows.
    """
    table = table.scored()
    table.require_one_window()
    score, label, classes = table.value, table.label, table.classes
    if score.shape[1:] != (len(classes),):
        raise ValueError(f"scores {list(score.shape)} do not fit {len(classes)} classes")
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).any(axis=1).sum())} windows have a score that is not finite")
    positives, negatives = (label == 1).sum(axis=0), (label == 0).sum(axis=0)
    kept = np.flatnonzero((positives >= max(options.least, 1)) & (negatives >= max(options.least, 1)))
    if not len(kept):
        raise ValueError(f"none of {len(classes)} classes has {options.least} windows with it and as many without")
    score, label = score[:, kept], label[:, kept]
    areas, precisions = metrics.per_class(score, label, metrics.roc_auc), metrics.per_class(score, label)
    primes = np.asarray(metrics.d_prime(areas.value))
    replicates = _replicates(score, label, table.recording, options.bootstrap, seed)
    low_high = metrics.percentile_interval(metrics.mean_known(np.asarray(metrics.d_prime(replicates))))
    known = positives[kept] + negatives[kept]
    chance = [metrics.average_precision_chance(int(p), int(n)) for p, n in zip(positives[kept], known, strict=True)]
    return [
        row("frame_dprime", float(primes.mean()), len(kept), chance=0.0, interval=low_high),
        row("frame_AUC", areas.mean, len(kept), chance=0.5,
            interval=metrics.percentile_interval(metrics.mean_known(replicates))),
        row("frame_mAP", precisions.mean, len(kept), chance=float(np.mean(chance))),
        row("skipped_classes", float(len(classes) - len(kept)), len(classes)),
        *(
            row("frame_dprime", float(value), int(positives[column]), name=classes[column], chance=0.0)
            for column, value in zip(kept, primes, strict=True)
        ),
    ]  # fmt: skip


def _replicates(score: np.ndarray, label: np.ndarray, recording: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the AUC of each class in each bootstrap replicate of the recordings. Shape: `[classes, replicates]`."""
    names, of = np.unique(recording.astype(str), return_inverse=True)
    drawn = metrics.multiplicities(len(names), count, np.random.default_rng([seed]))
    found = np.empty((score.shape[1], count))
    for column in range(score.shape[1]):
        known = np.flatnonzero(label[:, column] >= 0)
        for first in range(0, count, BLOCK):
            weight = drawn[first : first + BLOCK, of.reshape(-1)[known]]
            found[column, first : first + BLOCK] = metrics.weighted_roc_auc(
                score[known, column], label[known, column], weight
            )
    return found

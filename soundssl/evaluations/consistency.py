"""Consistency: does the class that a classifier gives a clip stay when its input is shifted a little?

Conventions
-----------
Fonseca et al. 2021, "Increasing shift invariance in convolutional neural networks": shifts by 1, 3 and 5 frames and by
as many bands. Inferred: a shift in time moves the windows along the clip's own frames; a shift in frequency moves bands
upwards, and the fill rule says what comes in below (and behind a clip that is too short to move along). A clip's scores
are the means of its windows'; of windows each is scored on its own.

Metrics
-------
- `consistency_frames_N`, `consistency_bands_N`: share of clips, or windows, whose highest class stays
- `consistency_frames`, `consistency_bands`: means over the shifts
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from soundssl.evaluations import row
from soundssl.ops import metrics

AXES = ("frames", "bands")


@dataclass(frozen=True)
class Options:
    """Choose whether intervals are wanted."""

    bootstrap: int = 0  # replicates over clips for 95 % intervals; 0: none


class Shifted(NamedTuple):
    """Hold the scores of classes of each item, as it is and shifted by (axis, number), and the clip of each.

    Shape: all scores `[items, classes]`, `clip` `[items]`, from 0 on.
    """

    score: np.ndarray
    shifted: dict[tuple[str, int], np.ndarray]
    clip: np.ndarray


def evaluate(table: Shifted, options: Options = Options(), seed: int = 0) -> list[dict[str, Any]]:
    """Return the share of items whose highest class stays, for every shift and in the mean over those of an axis.

    Intervals are over clips. Raises ValueError where there is no item.
    """
    if not len(table.score):
        raise ValueError("there is no window to shift")
    clips = int(table.clip.max()) + 1
    weight = np.zeros((0, clips), np.int64)
    if options.bootstrap:
        weight = metrics.multiplicities(clips, options.bootstrap, np.random.default_rng([seed]))
    weight = weight[:, table.clip]
    best, rows = table.score.argmax(1), []
    stays = {shift: score.argmax(1) == best for shift, score in table.shifted.items()}
    for axis in AXES:
        own = {number: same for (name, number), same in stays.items() if name == axis}
        rows += [_row(f"consistency_{axis}_{number}", same.astype(float), weight) for number, same in own.items()]
        if len(own) > 1:
            rows.append(_row(f"consistency_{axis}", np.mean(list(own.values()), axis=0), weight))
    return rows


def _row(metric: str, same: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    replicates = weight @ same / np.maximum(weight.sum(1), 1)
    return row(metric, float(same.mean()), len(same), interval=metrics.percentile_interval(replicates))

"""Thresholds of classes as a table: detect --calibrate writes it, people may edit it, detect --threshold reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from soundssl import tables
from soundssl.detection.calibration import Chosen, probability
from soundssl.tables import TableError

COLUMNS = (
    *("class", "threshold", "precision", "precision_low", "precision_high", "recall", "recall_low", "recall_high"),
    *("f1", "scale", "offset", "positives", "windows"),
)


class Thresholds(NamedTuple):
    """Hold what was chosen for each class, the precision that was wanted, and how far scores are from what is so.

    `before` is the expected calibration error of the scores, `after` that of calibrated probabilities on recordings
    held out; not-a-number where nothing was measured.
    """

    classes: list[str]
    chosen: list[Chosen]
    precision: float | None = None
    before: float = math.nan
    after: float = math.nan

    def of(self, classes: Sequence[str]) -> np.ndarray:
        """Return the thresholds of classes, infinity for those that have none. Shape: `[classes]`."""
        known = {name: each.threshold for name, each in zip(self.classes, self.chosen, strict=True)}
        found = np.array([known.get(name, math.inf) for name in classes])
        return np.where(np.isnan(found), math.inf, found)

    @property
    def calibrated(self) -> bool:
        """Whether scores become probabilities."""
        return any(math.isfinite(each.scale) for each in self.chosen)

    def probability(self, classes: Sequence[str], number: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Return the probabilities that scores stand for; scores of classes without a calibration stay as they are.

        `number` is the class of each score. Shape: both `[n]`.
        """
        known = {name: (each.scale, each.offset) for name, each in zip(self.classes, self.chosen, strict=True)}
        scale, offset = (np.array([known.get(name, (math.nan,) * 2)[i] for name in classes])[number] for i in (0, 1))
        return np.where(np.isfinite(scale), probability(score, np.nan_to_num(scale), np.nan_to_num(offset)), score)

    def rows(self) -> list[list[str]]:
        """Return the cells of the table, a row a class."""
        return [[name, *map(_cell, _figures(each))] for name, each in zip(self.classes, self.chosen, strict=True)]

    def text(self) -> str:
        """Return the table as CSV."""
        return ",".join(COLUMNS) + "\n" + "".join(map(tables.row_text, self.rows()))


def _figures(each: Chosen) -> list[float]:
    return [
        *(each.threshold, each.precision, *each.precision_interval, each.recall, *each.recall_interval, each.f1),
        *(each.scale, each.offset, each.positives, each.windows),
    ]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def read(content: bytes, name: str) -> Thresholds:
    """Read a table with the columns class and threshold; the others may be left out. Raises TableError."""
    table = tables.read(content, name)
    for column in ("class", "threshold"):
        if column not in table.columns:
            raise TableError(f"{name} has no column {column!r}; its columns are {', '.join(table.columns)}")
    chosen = [_chosen(row, name) for row in table.rows]
    if not chosen:
        raise TableError(f"{name} names no class; write one with soundssl detect --calibrate")
    return Thresholds([row.cells["class"] for row in table.rows], chosen)


def _chosen(row: tables.Row, name: str) -> Chosen:
    value = {}
    for column in COLUMNS[1:]:
        cell = row.cells.get(column, "")
        try:
            value[column] = tables.number(cell) if cell else math.nan
        except ValueError:
            raise TableError(f"{name} line {row.number}: {column} {cell!r} is no number; write it as digits") from None
    interval = {side: (value[f"{side}_low"], value[f"{side}_high"]) for side in ("precision", "recall")}
    figures = value["threshold"], value["precision"], value["recall"], value["f1"]
    count = (0 if math.isnan(value[column]) else int(value[column]) for column in ("positives", "windows"))
    return Chosen(*figures, interval["precision"], interval["recall"], value["scale"], value["offset"], *count)

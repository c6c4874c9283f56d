"""Shifts: what a classifier makes of clips that are moved by some frames or bands."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from soundssl import files
from soundssl.evaluations.consistency import Shifted
from soundssl.files import Features
from soundssl.model import BATCH, Model
from soundssl.ops.spectrogram import silence
from soundssl.progress import SILENT, Progress
from soundssl.reports import pictures

Fill = Literal["floor", "edge", "circular"]
FARTHEST = 12  # frames or bands either way of a curve


class Curve(NamedTuple):
    """Hold the probability of a clip's highest class against the shift along an axis."""

    clip: str
    of_class: str
    axis: str
    shift: list[int]
    probability: list[float]


def shifted(
    source: Features,
    model: Model,
    shifts: Sequence[int] = (1, 3, 5),
    *,
    clips: np.ndarray | None = None,
    fill: Fill = "floor",
    level: Literal["clip", "window"] = "clip",
    progress: Progress = SILENT,
) -> Shifted:
    """Return what a model with a classifier makes of clips, as they are and shifted upwards.

    `clips` (boolean, `[clips]`) chooses some; `fill` says what comes in at a border. Raises FormatError for features of
    another front end and ValueError where the model has no classifier.
    """
    source.check_front_end(model.config["front_end"], model.path)
    output, most = model.output("probabilities"), max(shifts)
    moves = [("frames", 0), *((axis, number) for axis in ("frames", "bands") for number in shifts)]
    found: dict[tuple[str, int], list[np.ndarray]] = {move: [] for move in moves}
    owner: list[int] = []
    chosen = np.flatnonzero(np.ones(len(source.clips), bool) if clips is None else clips)
    with progress.track("shift", len(chosen), "clips") as advance:
        for number, clip in enumerate(chosen):
            frames = _frames(source, int(clip))
            for move in moves:
                scores = output_of(output, _moved(frames, source, model, move, (0, most), fill))
                found[move].append(scores.mean(0, keepdims=True) if level == "clip" else scores)
            owner += [number] * len(found[moves[0]][-1])
            advance(1)
    joined = {move: np.concatenate(scores) for move, scores in found.items() if scores}
    score = joined.pop(moves[0], np.empty((0, output.width), np.float32))
    return Shifted(score, joined, np.array(owner, np.int64))


def curves(
    source: Features, model: Model, clips: Sequence[int], fill: Fill = "floor", farthest: int = FARTHEST
) -> list[Curve]:
    """Return how the probability of the highest class of some clips changes with shifts along either axis."""
    source.check_front_end(model.config["front_end"], model.path)
    output, found = model.output("probabilities"), []
    steps = list(range(-farthest, farthest + 1))
    for clip in clips:
        frames = _frames(source, clip)
        around = (-farthest, farthest)
        best = int(output_of(output, _moved(frames, source, model, ("frames", 0), around, fill)).mean(0).argmax())
        for axis in ("frames", "bands"):
            moved = (_moved(frames, source, model, (axis, step), around, fill) for step in steps)
            values = [float(output_of(output, windows)[:, best].mean()) for windows in moved]
            found.append(Curve(str(source.clips.key[clip]), output.classes[best], axis, steps, values))
    return found


def write_curves(path: str | os.PathLike, found: Sequence[Curve]) -> None:
    """Write curves: as a table where the name ends in .csv, else as a picture (extra plot)."""
    path = Path(path)
    if path.suffix.lower() == ".csv":
        with files.replace(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["clip", "class", "axis", "shift", "probability"])
            for curve in found:
                points = zip(curve.shift, curve.probability, strict=True)
                lines.writerows([curve.clip, curve.of_class, curve.axis, shift, value] for shift, value in points)
        return
    named = [(f"{curve.of_class}, {curve.axis}: {curve.clip}", curve.shift, curve.probability) for curve in found]
    pictures.shifts(path, named)


def output_of(output, windows: np.ndarray) -> np.ndarray:
    """Return the vectors of windows, some at a time. Shape: `[n, frames, bands]` to `[n, width]`."""
    return np.concatenate([output(windows[first : first + BATCH]) for first in range(0, len(windows), BATCH)])


def _frames(source: Features, clip: int) -> np.ndarray:
    return np.concatenate([np.asarray(block, np.float32) for block in source.blocks(clip)])


def _moved(
    frames: np.ndarray, source: Features, model: Model, move: tuple[str, int], around: tuple[int, int], fill: Fill
) -> np.ndarray:
    """Return the windows of a clip moved along an axis; `around` are the shifts in time that must fit them all.

    Shape: `[frames, bands]` to `[n, window, bands]`.
    """
    (axis, number), length = move, model.config["frames"]
    value = silence(float(source.attributes["floor"]), str(source.attributes["logarithm"]))
    lacking = length + around[1] - around[0] - len(frames)
    if lacking > 0:
        behind = ((0, lacking), (0, 0))
        if fill == "floor":
            frames = np.pad(frames, behind, constant_values=value)
        else:
            frames = np.pad(frames, behind, "edge" if fill == "edge" else "wrap")
    first = -around[0]
    starts = range(first, len(frames) - length - around[1] + 1, source.window_hop)
    step = number if axis == "frames" else 0
    windows = np.stack([frames[start + step : start + step + length] for start in starts])
    return windows if axis == "frames" or not number else _across(windows, number, fill, value)


def _across(windows: np.ndarray, number: int, fill: Fill, value: float) -> np.ndarray:
    """Return windows whose bands moved up, or down where the number is negative."""
    moved = np.roll(windows, number, axis=2)
    if fill == "circular":
        return moved
    freed = slice(0, number) if number > 0 else slice(windows.shape[2] + number, None)
    edge = windows[:, :, :1] if number > 0 else windows[:, :, -1:]
    moved[:, :, freed] = value if fill == "floor" else edge
    return moved

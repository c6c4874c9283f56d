"""Fitting: centres of many clusters, learnt by entropy in the training loop, or found by k-means."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from soundssl import SoundsslError, curriculum, device, files, objectives, training
from soundssl.clustering.assign import Centres, evenly_spaced, nearness
from soundssl.clustering.rows import BLOCK, Rows
from soundssl.curriculum import Curriculum
from soundssl.device import Accelerator
from soundssl.evaluations.clusters import adjusted_rand
from soundssl.objectives.clustering import Identity
from soundssl.ops import entropy, kmeans
from soundssl.progress import SILENT, Progress

Method = Literal["entropy", "kmeans"]
Preset = Literal["steady", "rising", "paper"]
Optimiser = Literal["adam", "rowwise"]

PRESETS: dict[Preset, dict[str, Any]] = {
    "steady": {"scale": 20.0, "rise": 0.0, "start": "data"},
    "rising": {"scale": 60.0, "rise": 0.67, "start": "data"},
    "paper": {"scale": 60.0, "rise": 0.0, "start": "random"},
}
CONTEXT: dict[Preset, float] = {"steady": 5.0, "rising": 5.0, "paper": 0.0}  # seconds
LEAST_STEPS = 300  # of a small collection, whatever its epochs
UNSURE = 0.35  # share of log K that the rows' entropy is to have at the start of `steady`; examples/RESULTS.md
JUDGED = 4096  # rows that it is measured on, and by which one of several starts is chosen
SEED_STEP = 1_000_003  # between the seeds of one command's starts
FEW = 5  # rows a cluster below which `steady` takes the paper's scale: a cluster of two or three has to be narrow


@dataclass(frozen=True)
class Options:
    """Say how centres are found. What is None is the preset's, or follows from the number of rows.

    `gamma` goes from `gamma_start` to its value over two thirds of the steps. `batch_size` is that of one process.
    """

    method: Method = "entropy"
    preset: Preset = "steady"
    gamma: float = 1.1
    gamma_start: float | None = None
    scale: float | None = None
    momentum: float | None = None
    steps: int | None = None
    epochs: float = 10.0
    batch_size: int = 1024
    learning_rate: float = 0.01
    optimiser: Optimiser = "adam"
    starts: int = 1


def plan_of(rows: Rows, k: int, options: Options, seed: int, processes: int = 1) -> Curriculum:
    """Return the training of one stage by which centres are learnt; raise ValueError for options out of range."""
    given = {name: getattr(options, name) for name in ("gamma", "gamma_start", "scale", "momentum")}
    if options.preset == "steady" and options.scale is None:
        given["scale"] = _scale(rows, k, seed)
    objective = PRESETS[options.preset] | {name: value for name, value in given.items() if value is not None}
    usual = round(options.epochs * len(rows) / (options.batch_size * processes))
    stage = {
        "steps": options.steps or max(LEAST_STEPS, usual),
        **{name: getattr(options, name) for name in ("batch_size", "learning_rate", "optimiser")},
        "objective": {"clustering": {"clusters": k, **objective}},
    }
    plan = curriculum.from_data({"stage": [stage]}, "the command line")
    return dataclasses.replace(plan, encoder="identity", size=rows.size)


def _scale(rows: Rows, k: int, seed: int) -> float:
    """Return the scale of the preset `steady` for these rows and so many clusters."""
    if len(rows) < FEW * k:
        return float(PRESETS["paper"]["scale"])
    usual = PRESETS["steady"]["scale"]
    return entropy.modest_scale(torch.from_numpy(rows.sample(JUDGED, seed)), k, usual, UNSURE)


class Stopped(SoundsslError):
    """Somebody asked the learning to stop; what it has is saved."""


@dataclass
class Runs:
    """Learn centres in the training loop, from one start or several.

    With an output, the state and the figures of every start lie beside it, and a run goes on where it was stopped: a
    state is saved every so many seconds, for what `made_from` stands for. Without one nothing is kept. Raises Stopped
    where `stop` said so.
    """

    plan: Curriculum
    starts: int = 1
    output: Path | None = None
    made_from: str = ""
    every: float = 300.0
    stop: Callable[[], bool] = lambda: False  # asked between two steps
    best: int = 0  # the start whose centres were taken

    def fit(self, rows: Rows, seed: int, accelerator: Accelerator, progress: Progress = SILENT) -> Centres:
        """Return the centres of the start whose rows lie nearest to the means of their clusters."""
        found = [self._learn(rows, number, seed, accelerator, progress) for number in range(self.starts)]
        if self.starts > 1:
            sample = rows.sample(JUDGED, seed)
            near = [nearness(sample, centres.chooser(accelerator)(sample)[0]) for centres in found]
            self.best = near.index(max(near))
        return found[self.best]

    def _learn(self, rows: Rows, number: int, seed: int, accelerator: Accelerator, progress: Progress) -> Centres:
        seed += SEED_STEP * number
        device.seed(seed)
        log = files.Log(self._log(number) if self.output and accelerator.main else None)
        with progress.track("cluster", self.plan.stage[0].steps, "steps") as advance:
            found = training.train(
                self.plan, accelerator.place(Identity(rows.size)), objectives.Inputs(None, None, embeddings=rows),
                accelerator, seed=seed, workers=0, checkpoint=self._checkpoint(number), log=log, advance=advance,
                stop=self.stop,
            )  # fmt: skip
        if not found.finished:
            raise Stopped("stopped, the state is saved; the same command goes on from there")
        weight = found.heads["clustering"]["head.weight"].numpy()
        return Centres(weight, scale=self.plan.stage[0].objective["clustering"]["scale"])

    def forget(self) -> None:
        """Remove the states of all starts."""
        for number in range(self.starts):
            self._checkpoint(number).remove()

    def clear_finished(self) -> None:
        """Remove states of the same command, left by a run that was killed between its output and clearing up."""
        for number in range(self.starts):
            self._checkpoint(number).clear_finished()

    def finish(self) -> None:
        """Remove the states, and of the figures of several starts keep those of the best."""
        self.forget()
        if self.output and self.starts > 1:
            os.replace(self._log(self.best), self._log(0))
            for number in range(1, self.starts):
                self._log(number).unlink(missing_ok=True)

    def _place(self, number: int) -> Path:
        """Return what the state and the figures of a start are named by."""
        output = self.output or Path("nowhere")
        return output.with_name(f"{output.name}.start-{number + 1}") if number else output

    def _log(self, number: int) -> Path:
        place = self._place(number)
        return place.with_name(place.name + ".metrics.jsonl")

    def _checkpoint(self, number: int) -> training.Checkpoint:
        kept = self.output is not None
        return training.Checkpoint(self._place(number), self.made_from, self.every) if kept else _Unsaved()


class _Unsaved(training.Checkpoint):
    """Keep no state: that of centres which are nobody's output."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"), "", math.inf)

    def load(self) -> dict[str, Any] | None:
        return None

    def save(self, **state: Any) -> None:
        return None

    def remove(self) -> None:
        return None


def fit_by_distance(rows: Rows, k: int, seed: int = 0, progress: Progress = SILENT) -> Centres:
    """Return the centres that k-means finds in a sample of rows; raise SoundsslError where faiss is not installed."""
    sample = rows.sample(kmeans.POINTS * k, seed)
    progress.say(f"k-means on {len(sample)} of {len(rows)} rows")
    return Centres(kmeans.fit(sample, k, seed, torch.get_num_threads()), "kmeans", "euclidean", 0.0)


def stability(rows: Rows, one: Centres, other: Centres, accelerator: Accelerator) -> float:
    """Return how far two sets of centres put the same rows together: the adjusted Rand index, chance 0, equal 1.

    Of rows evenly spaced, where there are many.
    """
    chosen = evenly_spaced(rows)
    found = np.empty((2, len(chosen)), np.int64)
    choosers = [centres.chooser(accelerator) for centres in (one, other)]
    for first in range(0, len(chosen), BLOCK):
        block = np.array(rows[chosen[first : first + BLOCK]], np.float32)
        for cluster, choose in zip(found, choosers, strict=True):
            cluster[first : first + BLOCK] = choose(block)[0]
    return adjusted_rand(*found)

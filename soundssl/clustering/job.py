"""From rows to clusters: which rows, whose centres, how they are found, and what stands for all of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from soundssl import device, files
from soundssl.clustering.assign import Centres, read_centres
from soundssl.clustering.fit import CONTEXT, Options, Runs, fit_by_distance, plan_of
from soundssl.clustering.rows import Rows, read_rows
from soundssl.device import Accelerator
from soundssl.progress import SILENT, Progress

EVERY = 300.0  # seconds between saved states


class Job:
    """Say which rows are put into which clusters: k to be found, or those of a clusters file or model `known`.

    Rows are averaged over `context` seconds of their clip; by default as the preset or the known clusters have it, not
    at all those of a bare matrix. Clusters are found in the clips of `splits`, and all rows are assigned. With
    `stability` they are found twice. `made_from` stands for all of it. Raises ValueError for options out of range,
    Missing and FormatError for files that hold no clusters, SoundsslError for a split or a context that rows lack.
    """

    def __init__(
        self,
        rows: Rows,
        accelerator: Accelerator,
        *,
        k: int | None = None,
        known: str | os.PathLike | None = None,
        options: Options | None = None,
        splits: Sequence[str] | None = None,
        context: float | None = None,
        seed: int = 0,
        stability: bool = False,
        progress: Progress = SILENT,
    ) -> None:
        if (k is None) == (known is None):
            raise ValueError("say how many clusters to find, or whose to use")
        self.accelerator, self.k, self.seed, self.stability = accelerator, k, seed, stability
        self.options, self.inputs = options or Options(), [rows.identity]
        self.centres = read_centres(known) if known else None
        if self.centres is not None and known is not None:
            self.centres.check(rows, files.text(known))
            self.inputs.append(_identity_of(known))
        self.rows = rows.averaged(self._context(rows, progress) if context is None else context)
        self.chosen = self.rows.choose(splits)
        self.plan = None
        if k and self.options.method == "entropy":
            self.plan = plan_of(self.chosen, k, self.options, seed, accelerator.world_size)
        starts = self.options.starts
        facts = [k, self.plan and self.plan.as_dict(), self.rows.context, splits and ",".join(splits), seed]
        facts += [str(accelerator.dtype), accelerator.world_size]
        facts += [f"{starts} starts"] * (starts > 1) + ["stability"] * stability
        self.made_from = files.digest("clusters", self.inputs, self.options.method, *facts)

    def _context(self, rows: Rows, progress: Progress) -> float:
        usual = CONTEXT[self.options.preset] if self.centres is None else self.centres.context
        if self.centres is not None and usual and not rows.file:
            progress.say("a bare matrix has no times; its rows are assigned without context")
        return usual if rows.file else 0.0

    def runs(
        self, output: Path | None = None, every: float = EVERY, stop: Callable[[], bool] = lambda: False
    ) -> list[Runs]:
        """Return the runs by which centres are learnt, none where they are not; beside an output they keep states."""
        if self.plan is None:
            return []
        again = output and output.with_name(output.name + ".again")
        places = [output, again] if self.stability else [output]
        return [Runs(self.plan, self.options.starts, place, self.made_from, every, stop) for place in places]

    def fit(self, runs: Sequence[Runs], progress: Progress = SILENT) -> list[Centres]:
        """Return the centres: those that are known, those that k-means finds, or those that each of the runs learns."""
        if self.centres is not None:
            found = [self.centres]
        elif self.plan is None:
            found = [fit_by_distance(self.chosen, self.k or 0, self.seed, progress)]
        else:
            seeds = range(self.seed, self.seed + len(runs))
            found = [
                run.fit(self.chosen, seed, self.accelerator, progress) for run, seed in zip(runs, seeds, strict=True)
            ]
        return [dataclasses.replace(each, context=self.rows.context) for each in found]


def _identity_of(path: str | os.PathLike) -> dict[str, str]:
    """Return what the output says of the clusters file or model that it was assigned by."""
    if files.kind_of(path) is not None:
        return files.identity("clusters", path, files.Clusters(path).attributes)
    return files.identity("model", path, files.read_model(path).attributes)


def fit(
    rows: Rows | np.ndarray | str | os.PathLike,
    k: int,
    options: Options | None = None,
    *,
    splits: Sequence[str] | None = None,
    context: float | None = None,
    seed: int = 0,
    accelerator: Accelerator | None = None,
    progress: Progress = SILENT,
) -> Centres:
    """Return the centres of k clusters of rows: a matrix `[n, d]`, an embeddings file, or an NPY matrix.

    Nothing is written. `splits` and `context` are those of `Job`. Raises what `Job` and `read_rows` do.

    >>> fit(np.eye(4, dtype=np.float32).repeat(8, 0), k=4, options=Options(steps=5)).weight.shape
    (4, 4)
    """
    accelerator = accelerator or device.choose()
    job = Job(
        read_rows(rows), accelerator, k=k, options=options, splits=splits, context=context, seed=seed, progress=progress
    )
    return job.fit(job.runs(), progress)[0]

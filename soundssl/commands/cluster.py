"""soundssl cluster: embeddings to categories, up to a million of them."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from soundssl.commands.interrupts import Signals
from soundssl.commands.options import (
    Device,
    Force,
    NoClobber,
    NoProvenance,
    Precision,
    Quiet,
    Seed,
    Split,
    Threads,
    beside,
    words,
)
from soundssl.commands.target import Target, aim, check_ending
from soundssl.commands.terminal import Terminal, print_table

if TYPE_CHECKING:
    from soundssl.clustering import Centres, Job, Rows, Runs, Summary


def cluster(
    embeddings: Annotated[
        Path, typer.Argument(help="Embeddings file, NPY matrix, or - for a matrix on standard input.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Clusters file to write. Default: STEM.clusters.h5 beside the input."),
    ] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", min=2, help="Number of clusters; a million will do.")] = None,
    assign: Annotated[
        Path | None,
        typer.Option(help="Learn nothing: take the clusters of this clusters file, or model with a clustering head."),
    ] = None,
    method: Annotated[
        Literal["entropy", "kmeans"], typer.Option(help="By entropy, or kmeans, the yardstick, by faiss (an extra).")
    ] = "entropy",
    preset: Annotated[
        Literal["steady", "rising", "paper"],
        typer.Option(
            help="steady: from data points, at a scale of 20, less where rows would be sure of their first centres, "
            "60 with fewer than five rows a cluster; rising: from data points, the scale rises from 6 to 60 over two "
            "thirds of the steps; both over a context of 5 seconds; paper: from random centres, at a scale of 60, "
            "without context (Jansen et al. 2020)."
        ),
    ] = "steady",
    gamma: Annotated[
        float, typer.Option(min=0, help="Weight of the entropy of the mean; 1: mutual information (inferred).")
    ] = 1.1,
    gamma_start: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Gamma at the first step; over two thirds of the steps it goes to --gamma along a line (inferred). "
            "Default: --gamma throughout.",
        ),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Factor of the cosine in the logits. Default: the preset's.")
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(min=0, max=0.9999, help="Of a running average of the mean, 0: none (inferred). Default: 0."),
    ] = None,
    context: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds of a clip over which embeddings are averaged first, as what is heard together belongs "
            "together; 0: none. Default: the preset's, 0 for a bare matrix, with --assign that of the clusters.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps. Default: those of the epochs, at least 300.")] = None,
    epochs: Annotated[float, typer.Option(min=0, help="Times that each row is seen (inferred).")] = 10.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows a step and process (inferred).")] = 1024,
    learning_rate: Annotated[float, typer.Option(min=0, help="Largest rate of Adam (inferred).")] = 0.01,
    starts: Annotated[
        int,
        typer.Option(
            min=1, help="Learn from so many starts, and keep the clusters whose windows lie nearest to their means."
        ),
    ] = 1,
    optimiser: Annotated[
        Literal["adam", "rowwise"],
        typer.Option(help="adam, or rowwise, which keeps a quarter as much in memory: a second moment a cluster."),
    ] = "adam",
    stability: Annotated[
        bool,
        typer.Option(help="Learn again with the next seed and say how far the two agree, which takes twice the time."),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Plot sizes, confidences and the largest clusters here, as PNG.")
    ] = None,
    split: Split = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    checkpoint_every: Annotated[float, typer.Option(min=0, help="Seconds between saved states.")] = 300.0,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Find categories in embeddings, and put every window into one.

    Each row is to be surely in one cluster, and all together in many: the mean entropy of the rows' distributions over
    clusters, less gamma times the entropy of their mean, is made small. The embeddings stay as they are; to change them
    too, use train --objective clustering. A file may be larger than memory. With --split the clusters are learnt on
    some clips, and all windows are assigned. Started by torchrun, each process computes for its share of the clusters,
    over the rows of all: torchrun --nproc-per-node 4 -m soundssl cluster …

    Beside the output, OUTPUT.metrics.jsonl has both entropies and the active clusters of a batch, a line every ten
    steps. A run that was stopped or killed goes on from its last saved state when the same command is given again. What
    was found is printed, a table, or with --output a line of JSON where standard output is no terminal: clusters in
    use, their sizes, both entropies, the share of windows less than half sure of their cluster, and of the ten largest
    clusters the clips nearest to their means. With --stability also the adjusted Rand index of two runs, 0 by chance
    and 1 for equal clusters.

    Examples:

    soundssl cluster embeddings.h5 --k 1000000

    soundssl cluster embeddings.h5 --k 50 --preset paper --seed 1 -o clusters.h5

    soundssl embed features.h5 -m model.safetensors -o - | soundssl cluster - --k 1000 -o clusters.h5

    soundssl cluster new.embeddings.h5 --assign clusters.h5 -o new.clusters.h5
    """
    from soundssl import clustering, files
    from soundssl import device as hardware

    _check(embeddings, output, k, assign)
    _check_learnt(bool(assign) or method != "entropy", stability=stability, starts=starts > 1)
    given = [path for path in (embeddings, assign) if path]
    flags = {"force": force, "no_clobber": no_clobber, "no_provenance": no_provenance, "quiet": quiet}
    target = aim("cluster", output, beside(embeddings, "clusters"), given, **flags)
    _guard_picture(picture, [*given, target.path])
    options = clustering.Options(
        method, preset, gamma, gamma_start, scale, momentum, steps, epochs, batch_size, learning_rate, optimiser, starts
    )
    with (
        _rows(embeddings) as rows,
        hardware.start(device, precision, threads) as accelerator,
        files.alone(target.path, accelerator.main),
    ):
        signals, target = Signals(), target.of_process(accelerator.main)
        told = target.terminal
        job = clustering.Job(
            rows, accelerator, k=k, known=assign, options=options, splits=words(split), context=context, seed=seed,
            stability=stability, progress=told,
        )  # fmt: skip
        runs = job.runs(target.path, checkpoint_every, signals.asked)
        if target.stands(job.made_from):
            if accelerator.main:
                _clear(runs, target.path, picture)
            return
        told.say(accelerator.reason)
        for run in runs if force and accelerator.main else ():
            run.forget()
        accelerator.barrier()
        found = _fit(job, runs, told, signals)
        if accelerator.main:
            summary = _write(target, job, found)
            for run in runs:
                run.finish()
            _report(summary, target, picture)
            target.finish()


def _clear(runs: list[Runs], path: Path, picture: Path | None) -> None:
    """Remove states of clusters that stand, and plot their picture: it may be new."""
    from soundssl import clustering

    for run in runs:
        run.clear_finished()
    if picture:
        from soundssl.clustering.picture import plot

        plot(picture, path, clustering.largest(path))


def _fit(job: Job, runs: list[Runs], told: Terminal, signals: Signals) -> list[Centres]:
    """Return the centres; end the command where a signal stopped the learning, the state saved."""
    from soundssl import clustering

    with signals:
        try:
            return job.fit(runs, told)
        except clustering.Stopped as stopped:
            told.warn(str(stopped))
            raise SystemExit(signals.status) from None


def _check(embeddings: Path, output: Path | None, k: int | None, assign: Path | None) -> None:
    """Raise BadParameter for options that do not go together."""
    if (k is None) == (assign is None):
        raise typer.BadParameter("say how many clusters to find, or with --assign whose to use", param_hint="--k")
    if str(embeddings) == "-" and output is None:
        raise typer.BadParameter("standard input has no name to make one from", param_hint="--output")


def _check_learnt(otherwise: bool, **again: bool) -> None:
    """Raise BadParameter for options that learn again, where clusters are found otherwise."""
    for name, given in again.items():
        if given and otherwise:
            raise typer.BadParameter(
                "only clusters that are learnt by entropy are learnt again", param_hint=f"--{name}"
            )


def _guard_picture(picture: Path | None, others: Collection[Path]) -> None:
    from soundssl import files

    if picture:
        files.guard(picture, no_clobber=False)
        files.guard_inputs(picture, others)
        check_ending(picture, "PNG", option="--picture")


@contextlib.contextmanager
def _rows(path: Path) -> Iterator[Rows]:
    """Yield the rows of a file, or for `-` of the matrix on standard input, spooled to a temporary file."""
    from soundssl import clustering, files

    if str(path) != "-":
        yield clustering.read_rows(path)
        return
    if (begin := sys.stdin.buffer.read(len(clustering.MAGIC))) != clustering.MAGIC:
        raise files.FormatError(
            "standard input is not an NPY matrix; write one with soundssl embed -o -" if begin
            else "standard input is empty; pipe an NPY matrix into it"
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder) / "rows.npy"
        with open(spool, "wb") as file:
            file.write(begin)
            shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        yield clustering.read_rows(spool, "standard input")


def _write(target: Target, job: Job, found: list[Centres]) -> Summary:
    """Assign every row and write the clusters file; compare both sets of centres where there are two."""
    from soundssl import clustering

    attributes = clustering.attributes(job.rows, found[0])
    with target.create("clusters", job.inputs, job.made_from, attributes) as sink:
        summary = clustering.write(sink, job.rows, found[0], job.accelerator, target.terminal)
        attributes |= summary.attributes()
    if job.stability:
        summary.stability = clustering.stability(job.rows, found[0], found[1], job.accelerator)
    return summary


def _report(summary: Summary, target: Target, picture: Path | None) -> None:
    """Print what was found: tables for people, a line of JSON elsewhere; plot it; warn of a collapse."""
    from soundssl import clustering, files

    figures, shows = summary.figures(), sys.stdout.isatty() and not target.quiet
    largest = clustering.largest(target.path) if shows or picture or not target.implied else []
    if picture:
        from soundssl.clustering.picture import plot  # with it come codecs, which nothing else here needs

        plot(picture, target.path, largest)
    if shows:
        shown = [[name, f"{value:.4g}" if isinstance(value, float) else str(value)] for name, value in figures.items()]
        print_table(["figure", "value"], shown)
        print_table(*clustering.table(largest))
    elif not target.implied:
        print(json.dumps({**figures, "largest": largest, "output": files.text(target.path.name)}), flush=True)
    if trouble := summary.trouble():
        target.terminal.warn(trouble)

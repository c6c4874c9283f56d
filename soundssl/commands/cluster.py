"""soundssl cluster: embeddings to categories, up to a million of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from soundssl.commands import assigning, describing, target, terminal
from soundssl.commands.assigning import Head, Source, Tally
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

METHODS = ("entropy", "kmeans")
OPTIMISERS = ("adam", "rowwise")
PRESETS: dict[str, dict[str, Any]] = {
    "steady": {"scale": 20.0, "rise": 0.0, "start": "data", "context": 5.0},
    "rising": {"scale": 60.0, "rise": 0.67, "start": "data", "context": 5.0},
    "paper": {"scale": 60.0, "rise": 0.0, "start": "random", "context": 0.0},
}
LEAST_STEPS = 300  # of a small collection, whatever its epochs
UNSURE = 0.35  # share of log K that the rows' entropy is to have at the start of `steady`; examples/RESULTS.md
JUDGED = 4096  # rows that it is measured on
STARTS, FEW_CLUSTERS = 3, 32  # starts where there are no more clusters than these: of few, one start settles much
SEED_STEP = 1_000_003  # between the seeds of one command's starts
FEW = 5  # rows a cluster below which `steady` takes the paper's scale: a cluster of two or three has to be narrow


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
    method: Annotated[str, typer.Option(help="entropy, or kmeans, the yardstick, by faiss (an extra).")] = "entropy",
    preset: Annotated[
        str,
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
        int | None,
        typer.Option(
            min=1,
            help="Learn from so many starts, and keep the clusters whose windows lie nearest to their means. Default: "
            "3 for 32 clusters or fewer, 1 for more and for the preset paper.",
        ),
    ] = None,
    optimiser: Annotated[
        str,
        typer.Option(help="adam, or rowwise, which keeps a quarter as much in memory: a second moment a cluster."),
    ] = "adam",
    stability: Annotated[
        bool,
        typer.Option(help="Learn again with the next seed and say how far the two agree, which takes twice the time."),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Draw sizes, confidences and the largest clusters here, as PNG.")
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
    import dataclasses

    from soundssl import device as hardware
    from soundssl import files

    for value, legal, name in (
        (method, METHODS, "--method"),
        (preset, tuple(PRESETS), "--preset"),
        (optimiser, OPTIMISERS, "--optimiser"),
    ):
        if value not in legal:
            raise typer.BadParameter(f"choose {' or '.join(legal)}", param_hint=name)
    if (k is None) == (assign is None):
        raise typer.BadParameter("say how many clusters to find, or with --assign whose to use", param_hint="--k")
    if str(embeddings) == "-" and output is None:
        raise typer.BadParameter("standard input has no name to make one from", param_hint="--output")
    implied, output = output is None, output or beside(embeddings, "clusters")
    files.guard(output, no_clobber)
    given = [path for path in (embeddings, assign) if path and str(path) != "-"]
    files.guard_inputs(output, given)
    if picture:
        files.guard(picture, no_clobber=False)
        files.guard_inputs(picture, [*given, output])
    for given_it, name in ((stability, "--stability"), (starts, "--starts")):
        if given_it and (assign or method != "entropy"):
            raise typer.BadParameter("only clusters that are learnt by entropy are learnt again", param_hint=name)
    starts = starts or (STARTS if k and k <= FEW_CLUSTERS and preset != "paper" else 1)
    with (
        assigning.read(embeddings) as source,
        hardware.start(device, precision, threads) as accelerator,
        files.alone(output, accelerator.main),
    ):
        quiet = quiet or not accelerator.main
        inputs, plan = [source.identity], None
        if assign:
            head = assigning.head_of(assign)
            head.check(source, assign)
        if context is None:
            usual = head.context if assign else PRESETS[preset]["context"]
            context = usual if source.file else 0.0
            if assign and usual and not context:
                terminal.say("cluster", "a bare matrix has no times; its rows are assigned without context", quiet)
        source = source.averaged(context)
        chosen = source.choose(words(split))
        if assign:
            inputs.append(_identity_of(assign))
        elif method == "entropy":
            own = {"clusters": k, "gamma": gamma, "gamma_start": gamma_start, "scale": scale, "momentum": momentum}
            fitted = {"scale": _scale(chosen, k or 0, seed)} if preset == "steady" and scale is None else {}
            chosen_preset = {name: value for name, value in PRESETS[preset].items() if name != "context"}
            options = chosen_preset | fitted | {name: value for name, value in own.items() if value is not None}
            count = steps or max(LEAST_STEPS, round(epochs * len(chosen) / (batch_size * accelerator.world_size)))
            plan = _plan(source.size, options, count, batch_size, learning_rate, optimiser)
        facts = [k, plan and plan.as_dict(), context, split, seed, str(accelerator.dtype), accelerator.world_size]
        facts += [f"{starts} starts"] * (starts > 1) + ["stability"] * stability
        made_from = files.digest("clusters", inputs, method, *facts)
        runs = _Runs(plan, chosen, accelerator, made_from, checkpoint_every, quiet)
        if terminal.done_before("cluster", output, made_from, force, quiet, implied and accelerator.main):
            if plan and accelerator.main:
                runs.clear_finished(output, starts, stability)
            return
        terminal.say("cluster", accelerator.reason, quiet)
        if plan:
            if force and accelerator.main:
                runs.forget(output, starts, stability)
            accelerator.barrier()
            head = runs.best(output, starts, seed)
            if stability:
                other = runs.best(_again(output), starts, seed + 1)
        elif k:
            head = _k_means(chosen, k, seed, quiet)
        head = dataclasses.replace(head, context=context)
        if accelerator.main:
            origin = {"inputs": inputs, "made_from": made_from, "command": target.provenance_of(no_provenance)}
            tally = _write(source, head, accelerator, output, origin, quiet)
            if stability:
                tally.facts["stability"] = describing.stability(source, head, other, accelerator)
            if plan:
                runs.forget(output, starts, stability)
                runs.keep_figures(starts)
            _report(tally, output, implied, quiet, picture)
            terminal.print_path(output, implied)


def _scale(source: Source, k: int, seed: int) -> float:
    """Return the scale of the preset `steady` for these rows and so many clusters."""
    import torch

    from soundssl.ops import entropy

    if len(source) < FEW * k:
        return float(PRESETS["paper"]["scale"])
    usual = PRESETS["steady"]["scale"]
    return entropy.modest_scale(torch.from_numpy(source.sample(JUDGED, seed)), k, usual, UNSURE)


def _identity_of(path: Path) -> dict[str, str]:
    """Return what the output says of the clusters file or model that it was assigned by."""
    from soundssl import files

    if files.kind_of(path) is not None:
        return files.identity("clusters", path, files.Clusters(path).attributes)
    return files.identity("model", path, files.read_model(path).attributes)


def _plan(size: int, options: dict[str, Any], steps: int, batch_size: int, learning_rate: float, optimiser: str):
    """Return a curriculum of one stage, its options checked."""
    import dataclasses

    from soundssl import curriculum as curricula

    data = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "optimiser": optimiser}
    plan = curricula.from_data({"stage": [{**data, "objective": {"clustering": options}}]}, "the command line")
    return dataclasses.replace(plan, encoder="identity", size=size)


def _again(output: Path) -> Path:
    """Return the name of the second run of --stability."""
    return output.with_name(output.name + ".again")


def _places(output: Path, starts: int) -> list[Path]:
    """Return what the starts of a run are named by: their states and figures lie beside it."""
    return [output.with_name(f"{output.name}.start-{number + 1}") if number else output for number in range(starts)]


def _log(output: Path) -> Path:
    return output.with_name(output.name + ".metrics.jsonl")


@dataclass
class _Runs:
    """Learn centres in the training loop, on fixed embeddings; every run goes on where it was stopped."""

    plan: Any
    source: Source
    accelerator: Any
    made_from: str
    every: float
    quiet: bool
    chosen: dict[Path, Path] = field(default_factory=dict)

    def _states(self, output: Path, starts: int, stability: bool) -> Iterator[Any]:
        from soundssl import training

        for place in _places(output, starts) + (_places(_again(output), starts) if stability else []):
            yield training.Checkpoint(place, self.made_from, self.every)

    def forget(self, output: Path, starts: int, stability: bool) -> None:
        """Remove the states of all runs."""
        for state in self._states(output, starts, stability):
            state.remove()

    def clear_finished(self, output: Path, starts: int, stability: bool) -> None:
        """Remove states of the same command, left by a run that was killed between its output and clearing up."""
        for state in self._states(output, starts, stability):
            state.clear_finished()

    def keep_figures(self, starts: int) -> None:
        """Keep, of the figures of several starts, those of the best."""
        for output, best in self.chosen.items():
            os.replace(_log(best), _log(output))
            for place in _places(output, starts)[1:]:
                _log(place).unlink(missing_ok=True)

    def best(self, output: Path, starts: int, seed: int) -> Head:
        """Return the centres of the start whose rows lie nearest to the means of their clusters."""
        places = _places(output, starts)
        heads = [self._learn(place, seed + SEED_STEP * number) for number, place in enumerate(places)]
        if starts == 1:
            return heads[0]
        rows = self.source.sample(JUDGED, seed)
        near = [assigning.nearness(rows, head.chooser(self.accelerator)(rows)[0]) for head in heads]
        best = near.index(max(near))
        self.chosen[output] = places[best]
        return heads[best]

    def _learn(self, place: Path, seed: int) -> Head:
        from soundssl import device as hardware
        from soundssl import files, objectives, training
        from soundssl.models import heads

        hardware.seed(seed)
        log = files.Log(_log(place) if self.accelerator.main else None)
        checkpoint = training.Checkpoint(place, self.made_from, self.every)
        with terminal.progress("cluster", self.plan.stage[0].steps, "steps", self.quiet) as advance:
            found = training.train(
                self.plan, self.accelerator.place(heads.Identity(self.source.size)),
                objectives.Inputs(None, None, embeddings=self.source), self.accelerator,
                seed=seed, workers=0, checkpoint=checkpoint, log=log, advance=advance,
            )  # fmt: skip
        return Head(
            found["clustering"]["head.weight"].numpy(), scale=self.plan.stage[0].objective["clustering"]["scale"]
        )


def _k_means(source: Source, k: int, seed: int, quiet: bool) -> Head:
    """Return the centres that k-means finds in a sample."""
    import torch

    from soundssl.ops import kmeans

    rows = source.sample(kmeans.POINTS * k, seed)
    terminal.say("cluster", f"k-means on {len(rows)} of {len(source)} rows", quiet)
    return Head(kmeans.fit(rows, k, seed, torch.get_num_threads()), "kmeans", "euclidean", 0.0)


def _write(source: Source, head: Head, accelerator, output: Path, origin: dict[str, Any], quiet: bool) -> Tally:
    """Assign every row and write the clusters file; `origin` says what it was made from."""
    from soundssl import files

    facts: dict[str, Any] = {"method": head.method, "metric": head.metric, "scale": head.scale}
    facts["context"] = head.context
    facts["window"] = float(source.file.attributes["window"]) if source.file else 0.0
    with files.create(output, "clusters", attributes=facts, **origin) as sink:
        with terminal.progress("assign", len(source), "windows", quiet) as advance:
            tally = assigning.assign(source, head, accelerator, sink, advance)
        if head.metric == "cosine":
            with terminal.progress("compare", len(source), "windows", quiet) as advance:
                assigning.compare(source, tally.mean, sink, advance)
        with terminal.progress("entropies", len(assigning.sampled(source)), "windows", quiet) as advance:
            tally.conditional, tally.marginal = assigning.entropies(source, head, accelerator, tally.size, advance)
        sink.write("size", tally.size)
        sink.write("weight", head.weight)
        if source.file:
            sink.write("window/clip", source.file.clip)
            sink.write("window/start", source.file.start)
            for name in ("key", "recording", "split"):
                sink.write(f"clip/{name}", getattr(source.file.clips, name))
        facts |= {"conditional_entropy": tally.conditional, "marginal_entropy": tally.marginal}
        facts["used"] = int((tally.size > 0).sum())
    tally.facts = {"method": head.method}
    return tally


def _report(tally: Tally, output: Path, implied: bool, quiet: bool, picture: Path | None) -> None:
    """Print what was found: tables for people, a line of JSON elsewhere; draw it; warn of a collapse."""
    from soundssl import files

    found, shows = tally.summary(), sys.stdout.isatty() and not quiet
    largest = describing.largest(output) if shows or picture or not implied else []
    if picture:
        describing.draw(picture, output, largest)
    if shows:
        shown = [[name, f"{value:.4g}" if isinstance(value, float) else str(value)] for name, value in found.items()]
        terminal.print_table(["figure", "value"], shown)
        terminal.print_table(*describing.table(largest))
    elif not implied:
        print(json.dumps({**found, "largest": largest, "output": files.text(output.name)}), flush=True)
    if trouble := tally.trouble():
        terminal.say("cluster", trouble)

"""soundssl label-clusters: clusters and a few answers to labels of many windows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundssl import SoundsslError
from soundssl.commands import target, terminal
from soundssl.commands.options import Force, NoClobber, NoProvenance, Quiet, Seed, Split, beside, words

if TYPE_CHECKING:
    from soundssl.commands.answering import Answers, Windows


def label_clusters(
    clusters: Annotated[
        Path, typer.Argument(help="Clusters file written by cluster; with --random also an embeddings file.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Labels file to write. Default: STEM.spread.labels.h5 beside the clusters, printed."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Labels file that answers, by what it says of the window's centre.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Write the questions to this CSV sheet, with an empty column class, and stop.")
    ] = None,
    answers: Annotated[Path | None, typer.Option(help="Read the answers from this sheet, filled in.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Labels file by which to report precision and recall; --labels is one already.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Questions to ask at most. Default: one for every cluster in use.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="best: clusters in diverse order, the central member, its answer for the nearest half; paper: the "
            "largest clusters first, a random member, its answer for all (Jansen et al. 2020). Default: best."
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="Which clusters come first: size (the largest; inferred), diverse (large ones far from those before) "
            "or random."
        ),
    ] = None,
    ask: Annotated[str | None, typer.Option(help="Which member to ask about: random, central or confident.")] = None,
    spread: Annotated[
        float | None, typer.Option(max=1, help="Share of a cluster's members, the nearest, that takes the answer.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="The baseline: ask about windows drawn at random and label no others.")
    ] = False,
    unanswered: Annotated[
        str,
        typer.Option(
            help="What an answer that names no class costs: spend, a question (inferred); free, none: another is asked."
        ),
    ] = "spend",
    split: Split = None,
    seed: Seed = 0,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Ask one question a cluster and label its members with the answer.

    With few questions, three times as many clusters go farthest: answers then reach fewer windows, but the right ones.

    Without --labels, --questions or --answers the questions are asked in the terminal. Every answer is kept at once in
    OUTPUT.answers.csv, a sheet, so that after Ctrl-C the same command goes on with the next question; remove that file
    to begin afresh. In a sheet the column class takes the name of a class, or several separated by ;, or none for none
    of these, or ? for cannot tell; a line left empty is a question that was not asked.

    The labels file has a segment a window: origin 0 and weight 1 for those asked about, origin 1 and the confidence of
    the clustering for those labelled with them. Where the truth is known, precision and recall are printed as by
    soundssl evaluate labels.

    Examples:

    soundssl label-clusters clusters.h5 --labels labels.h5 --budget 40 -o spread.h5

    soundssl label-clusters clusters.h5 --labels labels.h5 --budget 40 --random -o random.h5

    soundssl label-clusters clusters.h5 --budget 40 --questions q.csv

    soundssl label-clusters clusters.h5 --answers q.csv -o spread.h5

    soundssl label-clusters clusters.h5 --budget 40 -o spread.h5
    """
    from soundssl import files, labelling
    from soundssl.commands import answering

    _check(labels, questions, answers, truth, unanswered)
    plan = _plan(preset, {"order": order, "ask": ask, "spread": spread}, random)
    implied, output = output is None, output or beside(clusters, "random.labels" if random else "spread.labels")
    files.guard(questions or output, no_clobber)
    files.guard_inputs(questions or output, [path for path in (clusters, labels, answers, truth) if path])
    windows = _windows(clusters, random, words(split))
    if budget is None and windows.clusters is None:
        raise typer.BadParameter("say how many windows to ask about", param_hint="--budget")
    asked = _asked(windows, plan, budget, seed)
    cost = answering.Cost(min(budget or windows.clusters or 0, len(asked)), unanswered == "free")
    if questions:
        answering.write_sheet(questions, windows, asked[: cost.budget], force, quiet)
        return
    known: Any = files.Labels(path) if (path := labels or truth) else None
    if labels:
        found = answering.consult(windows, known, asked, cost)
    elif answers:
        found = answering.read(windows, answers, cost)
    else:
        found = answering.converse(windows, asked, cost, output, quiet)
    inputs = [files.identity(windows.kind, clusters, windows.source.attributes)]
    inputs += [files.identity("labels", labels, known.attributes)] if labels else []
    facts = {"questions": len(found.asked), **vars(plan), "random": random, "split": split or ""}
    made_from = files.digest("labels", inputs, facts, found.asked.tolist(), found.label.tolist(), found.classes)
    if terminal.done_before("label-clusters", output, made_from, force, quiet, implied):
        return
    rows, of = labelling.spread(windows.cluster, found.asked, windows.similarity, plan.spread)
    scores = _scores(windows, found, rows, of, known)
    with files.create(
        output,
        "labels",
        inputs=inputs,
        made_from=made_from,
        attributes=facts,
        command=target.provenance_of(no_provenance),
    ) as sink:
        _write(sink, windows, found, rows, of)
    terminal.say("label-clusters", _summary(scores, len(windows.clip)), quiet)
    if not quiet and (sys.stdout.isatty() or not implied):
        _print(scores, output)
    terminal.print_path(output, implied)


def _check(labels, questions, answers, truth, unanswered: str) -> None:
    """Raise BadParameter for options that exclude one another."""
    ways = {"--labels": labels, "--questions": questions, "--answers": answers}
    chosen = [name for name, path in ways.items() if path]
    if len(chosen) > 1:
        raise typer.BadParameter(f"answers come from one place; give {' or '.join(chosen)}")
    if truth and (labels or questions):
        raise typer.BadParameter(f"goes with answers of people, not with {chosen[0]}", param_hint="--truth")
    if unanswered not in ("spend", "free"):
        raise typer.BadParameter("choose spend or free", param_hint="--unanswered")
    if questions and unanswered == "free":
        raise typer.BadParameter("a sheet has its questions at once; they all cost", param_hint="--unanswered")


def _plan(preset: str | None, chosen: dict[str, Any], random: bool):
    """Return the preset with what was chosen in its place; for the baseline, a plan of windows at random."""
    import dataclasses

    from soundssl import labelling

    chosen = {name: value for name, value in chosen.items() if value is not None}
    if random:
        if preset or chosen:
            superfluous = "preset" if preset else next(iter(chosen))
            raise typer.BadParameter(f"knows no clusters; leave out --{superfluous}", param_hint="--random")
        return labelling.Plan("random", "random", 1.0)
    tables: dict[str, Any] = {"preset": labelling.PRESETS, "order": labelling.ORDERS, "ask": labelling.ASKS}
    for name, value in {"preset": preset or "best", **chosen}.items():
        if name in tables and value not in tables[name]:
            raise typer.BadParameter(f"choose from {', '.join(tables[name])}", param_hint=f"--{name}")
    if not chosen.get("spread", 1) > 0:
        raise typer.BadParameter(f"{chosen['spread']:g} is not above 0", param_hint="--spread")
    return dataclasses.replace(labelling.PRESETS[preset or "best"], **chosen)


def _windows(path: Path, random: bool, splits: list[str] | None) -> Windows:
    """Read the windows of the chosen splits that are in a cluster; for the baseline, all of them, of embeddings too."""
    import numpy as np

    from soundssl import files
    from soundssl.commands.answering import Windows

    kind = files.kind_of(path) or ""
    source: Any = files.Embeddings(path) if random and kind == "embeddings" else files.Clusters(path)
    if source.clip is None:
        raise files.FormatError(
            f"{files.text(path)} holds clusters of a bare matrix, without clips and times to ask about; "
            f"make clusters of an embeddings file (.h5) with soundssl cluster"
        )
    if "window" not in source.attributes:
        raise files.FormatError(f"{files.text(path)} does not say how long a window is; make it again")
    chosen = source.clips.in_splits(splits, path)[source.clip]
    if not random:
        chosen &= source.cluster >= 0
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise SoundsslError(f"{files.text(path)} has no window in a cluster" + " of the chosen splits" * bool(splits))
    clusters = None if kind == "embeddings" else len(np.unique(source.cluster[rows]))
    given: tuple[Any, Any, Any] = np.arange(len(rows)), np.zeros(len(rows), "f4"), np.ones(len(rows), "f4")
    if not random:
        given = source.cluster[rows].astype("i8"), source.similarity[rows], source.confidence[rows].astype("f4")
    return Windows(source, kind, *given, source.clip[rows].astype("i8"), source.start[rows], clusters, random)


def _asked(windows: Windows, plan, budget: int | None, seed: int):
    """Return the windows to ask about, one of each cluster, in the order in which to ask."""
    import numpy as np

    from soundssl import labelling

    generator = np.random.default_rng(seed)
    if windows.random:
        return labelling.draw(len(windows.clip), generator)
    mean = windows.source.mean[:] if plan.order == "diverse" else None
    chosen = labelling.order(windows.cluster, plan.order, generator, mean, budget)
    return labelling.ask(windows.cluster, chosen, plan.ask, windows.similarity, windows.confidence, generator)


def _write(sink, windows: Windows, found: Answers, rows, of) -> None:
    """Write a segment for each labelled window."""
    import numpy as np

    clip, start = windows.clip[rows], windows.start[rows]
    asked = rows == found.asked[of]
    sink.write("label", found.label[of])
    sink.write("segment/key", windows.source.clips.key[clip])
    sink.write("segment/start", start)
    sink.write("segment/end", start + windows.length)
    sink.write("class", found.classes)
    sink.write("weight", np.where(asked, 1, np.clip(windows.confidence[rows], 0, 1)).astype("f4"))
    sink.write("split", windows.source.clips.split[clip])
    sink.write("origin", np.where(asked, 0, 1).astype("u1"))


def _scores(windows: Windows, found: Answers, rows, of, known) -> list[dict[str, Any]]:
    """Return how many questions were spent and windows labelled, and precision and recall where the truth is known."""
    import numpy as np

    from soundssl.evaluations import labels as task
    from soundssl.evaluations import row
    from soundssl.evaluations.table import Table
    from soundssl.labels import align

    label = found.label[of]
    labelled = int((label >= 0).any(1).sum())
    counts = [
        row("questions", float(len(found.asked)), len(found.asked)),
        row("labelled_windows", float(labelled), len(windows.clip)),
    ]
    if known is None:
        return counts
    classes = list(dict.fromkeys([*known.classes, *found.classes]))
    given = np.full((len(windows.clip), len(classes)), -1, np.int8)
    given[rows] = align(label, found.classes, classes)
    return counts + task.evaluate(Table(given, align(windows.labels(known), known.classes, classes), classes))


def _summary(scores: list[dict], windows: int) -> str:
    """Return the scores in a sentence."""
    value = {one["metric"]: one["value"] for one in scores if one["class"] is None}
    parts = [f"{value['questions']:.0f} questions, {value['labelled_windows']:.0f} of {windows} windows labelled"]
    parts += [
        f"{name} {value[name]:.3f} (pooled {value[f'pooled_{name}']:.3f})"
        for name in ("precision", "recall")
        if name in value
    ]
    return ", ".join(parts)


def _print(scores: list[dict], output: Path) -> None:
    """Print a table for people, JSON lines elsewhere."""
    from soundssl import files

    if not sys.stdout.isatty():
        for one in scores:
            print(json.dumps({"evaluation": "labels", **one, "input": files.text(output.name)}))
        return
    columns = ["metric", "class", "value", "chance", "count"]
    rows = []
    for one in scores:
        chance = "" if one["chance"] is None else f"{one['chance']:.3f}"
        rows.append([one["metric"], one["class"] or "", f"{one['value']:.3f}", chance, str(one["count"])])
    terminal.print_table(columns, rows)

"""soundssl label-clusters: clusters and a few answers to labels of many windows."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from soundssl.commands.asking import converse
from soundssl.commands.options import Force, NoClobber, NoProvenance, Quiet, Seed, Split, beside, words
from soundssl.commands.reviewing import review_events, write_page
from soundssl.commands.target import Target, aim
from soundssl.commands.terminal import print_table

if TYPE_CHECKING:
    import numpy as np

    from soundssl.files import Labels
    from soundssl.labelling import Answers, Cost, Panel, Plan, Windows

TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt", ".json")  # endings of tables of events
OTHERS = (
    "labels",
    "questions",
    "truth",
    "preset",
    "order",
    "ask",
    "spread",
    "random",
    "split",
    "unanswered",
    "answers more than once",
)
SHEET = ("CSV", "text")  # formats of a sheet


def label_clusters(
    clusters: Annotated[
        Path,
        typer.Argument(
            help="Clusters file written by cluster; with --random also an embeddings file. Or a table of events "
            "written by detect or search, to review them."
        ),
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
    page: Annotated[
        Path | None,
        typer.Option(
            help="Write the questions to this HTML file, to be answered by ear and eye in a browser without a network; "
            "the sheet that it saves is for --answers. Then stop."
        ),
    ] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option(help="Read the answers from this sheet, filled in; several, of annotators, become one."),
    ] = None,
    agree: Annotated[
        Literal["majority", "dawid-skene"],
        typer.Option(
            help="Of several sheets: the answer of most, or the likelier one by how reliable each annotator is (Dawid "
            "and Skene 1979)."
        ),
    ] = "majority",
    disagreements: Annotated[
        Path | None,
        typer.Option(help="Of several sheets: write a sheet of the questions that they answer differently."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Labels file by which to report precision and recall; --labels is one already.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Questions to ask at most. Default: one for every cluster in use.")
    ] = None,
    preset: Annotated[
        Literal["best", "paper"] | None,
        typer.Option(
            help="best: clusters in diverse order, the central member, its answer for the nearest half; paper: the "
            "largest clusters first, a random member, its answer for all (Jansen et al. 2020). Default: best."
        ),
    ] = None,
    order: Annotated[
        Literal["size", "diverse", "random"] | None,
        typer.Option(
            help="Which clusters come first: size (the largest; inferred), diverse (large ones far from those before) "
            "or random."
        ),
    ] = None,
    ask: Annotated[
        Literal["random", "central", "confident"] | None, typer.Option(help="Which member of a cluster to ask about.")
    ] = None,
    spread: Annotated[
        float | None, typer.Option(max=1, help="Share of a cluster's members, the nearest, that takes the answer.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="The baseline: ask about windows drawn at random and label no others.")
    ] = False,
    unanswered: Annotated[
        Literal["spend", "free"],
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

    Several annotators may answer one sheet each: their answers become one, what they disagree on is listed, and how far
    they agree is Krippendorff's alpha.

    The labels file has a segment a window: origin 0 and weight 1 for those asked about, origin 1 and the confidence of
    the clustering for those labelled with them. Where the truth is known, precision and recall are printed as by
    soundssl evaluate labels.

    A table of events, as detect and search write them, is reviewed: --page asks whether each is what it is said to be
    (1 yes, 0 no), or --budget of them drawn at random, as many of each class; --answers with the sheet that the page
    saves writes labels of these spans: 1 for yes, 0 for no. detect --calibrate reads them; what was never detected they
    do not know, so that recall is that among the events reviewed.

    Examples:

    soundssl label-clusters clusters.h5 --labels labels.h5 --budget 40 -o spread.h5

    soundssl label-clusters clusters.h5 --labels labels.h5 --budget 40 --random -o random.h5

    soundssl label-clusters clusters.h5 --budget 40 --questions q.csv

    soundssl label-clusters clusters.h5 --budget 40 --page questions.html

    soundssl label-clusters clusters.h5 --answers q.csv -o spread.h5

    soundssl label-clusters clusters.h5 --answers ann.csv --answers ben.csv --agree dawid-skene -o spread.h5

    soundssl label-clusters clusters.h5 --budget 40 -o spread.h5

    soundssl label-clusters detections.csv --page review.html
    """
    from soundssl import files, labelling
    from soundssl.labels import joined

    flags = {"force": force, "no_clobber": no_clobber, "no_provenance": no_provenance, "quiet": quiet}
    if clusters.suffix.lower() in TABLES:
        others = [labels, questions, truth, preset, order, ask, spread, random, split, unanswered != "spend"]
        others.append(len(answers or ()) > 1)
        given: dict[str, object] = dict(zip(OTHERS, others, strict=True))
        review_events(clusters, output, page, answers[0] if answers else None, budget, seed, flags, given)
        return
    sheet = questions or page
    _check(labels, questions, page, answers, truth, unanswered, disagreements)
    plan = _plan(preset, {"order": order, "ask": ask, "spread": spread}, random)
    usual = beside(clusters, "random.labels" if random else "spread.labels")
    read = [path for path in (clusters, labels, *(answers or ()), truth) if path]
    formats = SHEET if questions else ("HTML",) if page else ("HDF5",)
    target = aim("label-clusters", sheet or output, usual, read, *formats, through=bool(sheet), **flags)
    known = files.Labels(path) if (path := labels or truth) else None
    windows = labelling.read_windows(clusters, words(split), random, known)
    if budget is None and windows.used is None:
        raise typer.BadParameter("say how many windows to ask about", param_hint="--budget")
    asked = labelling.questions(windows, plan, budget, seed)
    cost = labelling.Cost(min(budget or windows.used or 0, len(asked)), unanswered == "free")
    if sheet:
        _ask_elsewhere(target, windows, asked[: cost.budget], questions)
        return
    known = joined(known, windows.source) if known else None
    panel = _panel(target, windows, answers, disagreements)
    found = panel.answers(agree, cost) if panel else None
    found = found or _answers(target, windows, asked, cost, known if labels else None, answers[0] if answers else None)
    inputs = [files.identity(windows.kind, clusters, windows.source.attributes)]
    splitting = known is not None and split is not None and known.split is not None
    inputs += [files.identity("labels", known.path, known.attributes)] if known and (labels or splitting) else []
    facts = {"questions": len(found.asked), **vars(plan), "random": random, "split": split or ""}
    made_from = files.digest("labels", inputs, facts, found.asked.tolist(), found.label.tolist(), found.classes)
    if not target.stands(made_from):
        labelled = labelling.Labelling(windows, found, plan.spread)
        with target.create("labels", inputs, made_from, facts) as sink:
            labelled.write(sink)
        _finish(target, labelled.scores(known) + (panel.scores() if panel else []), len(windows))


def _finish(target: Target, scores: Sequence[Mapping[str, Any]], windows: int) -> None:
    """Say what was labelled, and print the scores."""
    from soundssl import labelling

    target.terminal.say(labelling.summary(scores, windows))
    if not target.quiet and (sys.stdout.isatty() or not target.implied):
        _print(scores, target.path)
    target.finish()


def _panel(target: Target, windows: Windows, answers: list[Path] | None, disagreements: Path | None) -> Panel | None:
    """Return what several annotators say, None of one; say how reliable they are, and list where they disagree."""
    from soundssl import files, labelling

    if len(answers or ()) < 2:
        return None
    panel = labelling.read_panel(answers or (), windows)
    for name, sensitivity, specificity in panel.reliability():
        target.terminal.say(f"{name}: sensitivity {sensitivity:.2f}, specificity {specificity:.2f} (Dawid and Skene)")
    for one in panel.scores()[:1]:
        target.terminal.say(f"Krippendorff's alpha {one['value']:.3f}, mean over {one['count']} classes")
    count = len(panel.disagreed())
    if disagreements:
        with files.replace(disagreements) as partial:
            partial.write_text(panel.disagreements(windows), "utf-8")
        target.terminal.say(f"{count} questions that they answer differently in {files.text(disagreements)}")
    elif count:
        target.terminal.say(f"{count} questions that they answer differently; --disagreements FILE lists them")
    return panel


def _ask_elsewhere(target: Target, windows: Windows, asked: np.ndarray, sheet: Path | None) -> None:
    """Write the questions to a sheet, or to a page to be answered in a browser."""
    from soundssl import files, labelling
    from soundssl.labelling import page

    if sheet:
        labelling.write_sheet(sheet, windows, asked, target.force)
        target.terminal.say(f"{len(asked)} questions in {files.text(target.path)}; fill in the column class")
        return
    write_page(target, page.groups(windows, asked))


def _check(
    labels: Path | None,
    questions: Path | None,
    page: Path | None,
    answers: list[Path] | None,
    truth: Path | None,
    unanswered: str,
    disagreements: Path | None,
) -> None:
    """Raise BadParameter for options that exclude one another."""
    ways = {"--labels": labels, "--questions": questions, "--page": page, "--answers": answers}
    chosen = [name for name, path in ways.items() if path]
    if disagreements and len(answers or ()) < 2:
        raise typer.BadParameter("give --answers twice or more", param_hint="--disagreements")
    if len(chosen) > 1:
        raise typer.BadParameter(f"answers come from one place; give {' or '.join(chosen)}")
    if truth and (labels or questions or page):
        raise typer.BadParameter(f"goes with answers of people, not with {chosen[0]}", param_hint="--truth")
    if (questions or page) and unanswered == "free":
        raise typer.BadParameter("a sheet has its questions at once; they all cost", param_hint="--unanswered")


def _plan(preset: str | None, chosen: dict[str, Any], random: bool) -> Plan:
    """Return the preset with what was chosen in its place; for the baseline, a plan of windows at random."""
    from soundssl import labelling

    chosen = {name: value for name, value in chosen.items() if value is not None}
    if random:
        if preset or chosen:
            superfluous = "preset" if preset else next(iter(chosen))
            raise typer.BadParameter(f"knows no clusters; leave out --{superfluous}", param_hint="--random")
        return labelling.BASELINE
    if not chosen.get("spread", 1) > 0:
        raise typer.BadParameter(f"{chosen['spread']:g} is not above 0", param_hint="--spread")
    return dataclasses.replace(labelling.PRESETS[preset or "best"], **chosen)


def _answers(
    target: Target, windows: Windows, asked: np.ndarray, cost: Cost, known: Labels | None, sheet: Path | None
) -> Answers:
    """Return the answers of a labels file or a sheet, or those given in the terminal."""
    from soundssl import labelling

    if known:
        return labelling.consult(windows, known, asked, cost)
    if sheet:
        return labelling.read_sheet(sheet, windows, cost)
    conversation = labelling.Conversation(windows, asked, cost, target.path)
    if len(conversation):
        target.terminal.say(f"going on: {len(conversation)} answers in {conversation.journal.name}")
    converse(conversation)
    if conversation.upcoming():
        target.terminal.say("stopped; the same command goes on with the questions left")
    return conversation.answers()


def _print(scores: Sequence[Mapping[str, Any]], output: Path) -> None:
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
    print_table(columns, rows)

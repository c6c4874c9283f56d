"""What the subcommands of evaluate share: options, the input, the splits to score, and reports of scores."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeAlias

import typer

from soundssl.commands import terminal
from soundssl.commands.target import check_ending

if TYPE_CHECKING:
    from soundssl.evaluations.table import Table

Input = Annotated[
    Path,
    typer.Argument(
        help="Embeddings file; a features file (its log-mel windows are the baseline); an NPY matrix or - for one on "
        "standard input, with a row for each segment of the labels."
    ),
]
LabelsFile = Annotated[Path, typer.Option(help="Labels file, as featurize --dataset writes it.")]
TrainLabels = Annotated[
    Path | None,
    typer.Option(
        help="Labels file of the clips that are learnt from, stopped by or taken as neighbours; those that are scored "
        "keep --labels. Default: --labels for all."
    ),
]
Scores = Annotated[Path | None, typer.Option("-o", "--output", help="Write the scores here as JSON lines.")]
Baseline = Annotated[Path | None, typer.Option(help="Score file of the baseline, for the recovery.")]
Topline = Annotated[Path | None, typer.Option(help="Score file of the topline, for the recovery.")]
Bootstrap = Annotated[int, typer.Option(min=0, help="Bootstrap replicates over clips, for 95 % intervals; 0: none.")]
Classes = Annotated[bool, typer.Option("--classes", help="Show the score of every class too.")]
Folds = Annotated[bool, typer.Option("--folds", help="Every split in turn against all others; the means come last.")]

Splits: TypeAlias = "list[str] | None"
Sides: TypeAlias = tuple[Splits, Splits, Splits]  # splits to test, to train on and to validate on


class Report(NamedTuple):
    """Say where scores go and what they are set against."""

    evaluation: str
    input: Path
    output: Path | None
    baseline: Path | None
    topline: Path | None
    classes: bool
    labels: Path | None = None


def load(
    path: Path,
    labels: Path,
    *,
    level: Literal["clip", "window"] = "window",
    hop: float | None = None,
    splits: list[str] | None = None,
    taught: Path | None = None,
) -> Table:
    """Read what has labels of an input, which may be standard input; other labels to learn from may be given."""
    from soundssl import files
    from soundssl.evaluations import reading

    source = io.BytesIO(sys.stdin.buffer.read()) if str(path) == "-" else path
    other = files.Labels(taught) if taught else None
    return reading.read_embeddings(source, files.Labels(labels), level=level, hop=hop, splits=splits, taught=other)


def evaluate(task, table: Table, options, seed: int, sides: Sides | None, report: Report) -> list[dict]:
    """Score a table by an evaluation, divided by splits; without sides every split in turn."""
    from soundssl.evaluations import folds, reading

    if sides is None:
        return folds.cross_validate(task.evaluate, table, options, seed)
    return task.evaluate(reading.choose_sides(table, *sides, _said_by(report, table, sides)), options, seed)


def _said_by(report: Report, table: Table, sides: Sides) -> Path:
    """Return the file that lacks a split which nothing of the table has: the input, or the labels.

    The splits of a bare matrix are those of the labels, and so is a lack of labels in a split that the input has.
    """
    from soundssl import files

    path, labels = report.input, report.labels or report.input
    if str(path) == "-" or files.kind_of(path) is None:
        return labels
    clips = (files.Embeddings if files.kind_of(path) == "embeddings" else files.Features)(path).clips
    asked = {split for side in sides for split in side or []}
    return labels if asked - set(table.split.tolist()) <= set(clips.split.astype(str).tolist()) else path


def begin(report: Report, labels: Path | None, taught: Path | None = None) -> Report:
    """Refuse, before any work, an output that cannot be written and score files that are none."""
    from soundssl import files

    if report.output:
        files.guard(report.output, no_clobber=False, through=True)
        given = [path for path in (report.input, labels, taught, report.baseline, report.topline) if path]
        files.guard_inputs(report.output, given)
        check_ending(report.output, "JSON lines", "JSON", "text")
    if bool(report.baseline) != bool(report.topline):
        raise typer.BadParameter("the recovery needs both --baseline and --topline")
    for path in (report.baseline, report.topline):
        if path:
            files.read_scores(path)
    return report._replace(labels=labels)


def show(rows: list[dict], report: Report) -> None:
    """Print a table for people, JSON lines elsewhere; write the score file."""
    from soundssl import evaluations, files

    if report.baseline and report.topline:
        rows = evaluations.recovery(rows, files.read_scores(report.baseline), files.read_scores(report.topline))
    rows = [{name: None if _unknown(value) else value for name, value in row.items()} for row in rows]
    lines = [{"evaluation": report.evaluation, **row, "input": files.text(report.input.name)} for row in rows]
    if report.output:
        with files.replace(report.output, through=True) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    if not sys.stdout.isatty():
        if not report.output:
            print("\n".join(json.dumps(line) for line in lines))
        return
    shown = [line for line in lines if report.classes or line["class"] is None]
    optional = [name for name in ("split", "recovery") if any(name in line for line in shown)]
    columns = ["metric", *(["class"] if report.classes else []), *optional, "value", "95 % interval", "chance", "count"]
    terminal.print_table(columns, [_cells(line, columns) for line in shown])


def _unknown(value: object) -> bool:
    """Return whether a figure is NaN or infinite, which JSON has no word for."""
    return isinstance(value, float) and not math.isfinite(value)


def _cells(line: dict, columns: list[str]) -> list[str]:
    def number(value) -> str:
        return "" if value is None else f"{value:.3f}"

    cells = {
        **{name: line.get(name) or "" for name in ("metric", "class", "split")},
        "recovery": "" if line.get("recovery") is None else f"{line['recovery']:.0%}",
        "value": number(line["value"]),
        "95 % interval": f"{line['low']:.3f} … {line['high']:.3f}" if line["low"] is not None else "",
        "chance": number(line["chance"]),
        "count": str(line["count"]),
    }
    return [cells[name] for name in columns]

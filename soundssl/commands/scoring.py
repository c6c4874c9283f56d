"""What the evaluations share: labelled windows or clip means read from files, and reports of scores."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import typer

from soundssl import SoundsslError
from soundssl.commands import terminal


class Table(NamedTuple):
    """Hold windows of clips with the labels of the clips. `clip` [windows]; `label` [clips, classes]."""

    embedding: Any
    clip: Any
    label: Any
    classes: list[str]
    recording: Any
    split: Any


class Report(NamedTuple):
    """Say where scores go and what they are set against."""

    evaluation: str
    input: Path
    output: Path | None
    baseline: Path | None
    topline: Path | None
    classes: bool


def members(table: Table, splits: list[str] | None, path: Path):
    """Return which clips are of the splits; an unknown split is named with those there are."""
    import numpy as np

    known = sorted(set(table.split))
    for split in splits or []:
        if split not in known:
            raise SoundsslError(f"{os.fsdecode(path)} has no split {split!r}; it has {', '.join(map(repr, known))}")
    return np.isin(table.split, splits) if splits else np.ones(len(table.split), bool)


def two_sides(table: Table, asked: list[str] | None, others: list[str] | None, path: Path):
    """Return the clips asked about, and those they are set against: by default all that are not asked about."""
    first = members(table, asked, path)
    if others:
        return first, members(table, others, path)
    return first, (~first if not first.all() else first)


def over_folds(table: Table, score) -> list[dict]:
    """Score every split against the rest; rows carry their split, and the means over splits come last."""
    import numpy as np

    from soundssl import evaluations

    splits = sorted(set(table.split) - {""})
    if len(splits) < 2:
        raise SoundsslError(f"--folds needs two splits or more, here are {len(splits)}")
    found = [{**row, "split": split} for split in splits for row in score(table.split == split, table.split != split)]
    means = []
    for metric, name in dict.fromkeys((row["metric"], row["class"]) for row in found):
        rows = [row for row in found if (row["metric"], row["class"]) == (metric, name)]
        chance = [row["chance"] for row in rows if row["chance"] is not None]
        value, count = float(np.mean([row["value"] for row in rows])), sum(row["count"] for row in rows)
        mean = evaluations.row(metric, value, count, name, float(np.mean(chance)) if chance else None)
        means.append({**mean, "split": "mean"})
    return found + means


def load(path: Path, labels: Path, hop: float, splits: list[str] | None, means: bool) -> Table:
    """Read windows (or clip means) of the clips that have labels."""
    import numpy as np

    from soundssl import files

    known = files.Labels(labels)
    if str(path) == "-" or files.kind_of(path) is None:
        table = _load_matrix(path, known)
        rows = members(table, splits, path)
        clip = np.arange(rows.sum())
        return Table(
            table.embedding[rows], clip, table.label[rows], table.classes, table.recording[rows], table.split[rows]
        )
    kind = files.kind_of(path)
    if kind not in ("embeddings", "features"):
        raise files.FormatError(
            f"{files.text(path)} holds {kind}; evaluate takes embeddings, features or an NPY matrix"
        )
    source = files.Embeddings(path) if kind == "embeddings" else files.Features(path)
    if isinstance(source, files.Features):
        source.require("logmel", "the baseline is that of")
    label = known.of_clips(source.clips.key)
    chosen = source.clips.in_splits(splits, path) & (label >= 0).any(1)
    if not chosen.any():
        raise SoundsslError(
            f"no clip of {files.text(path)} has a label in {files.text(labels)}; are their keys the same?"
        )
    embedding, clip = files.read_windows(source, chosen, hop, means)
    rows = np.flatnonzero(np.isin(np.arange(len(chosen)), clip))
    number = np.full(len(chosen), -1)
    number[rows] = np.arange(len(rows))
    return Table(
        embedding, number[clip], label[rows], known.classes,
        source.clips.recording[rows].astype(str), source.clips.split[rows].astype(str),
    )  # fmt: skip


def _load_matrix(path: Path, known) -> Table:
    """Read a bare matrix, a row for each segment of the labels."""
    import io

    import numpy as np

    from soundssl import files

    matrix = files.read_matrix(path if str(path) != "-" else io.BytesIO(sys.stdin.buffer.read()))
    if len(matrix) != len(known.key):
        raise files.FormatError(
            f"{files.text(path)} has {len(matrix)} rows and the labels {len(known.key)} segments; a bare matrix "
            f"needs a row a segment, write an embeddings file instead"
        )
    rows = np.arange(len(matrix))
    splits = known.split.astype(str) if known.split is not None else np.full(len(matrix), "")
    return Table(np.asarray(matrix, np.float32), rows, known.label, known.classes, known.key.astype(str), splits)


def load_scores(path: Path, labels: Path, splits: list[str] | None) -> Table:
    """Read clip scores of classes, the labels brought into the order of the scores' classes."""
    import numpy as np

    from soundssl import files

    spoken = json.loads(files.Embeddings(path).attributes["class"])
    if not spoken:
        raise files.FormatError(
            f"{files.text(path)} holds embeddings, not scores of classes; "
            f"make them with soundssl embed --layer probabilities"
        )
    table = load(path, labels, 0.96, splits, means=True)
    label = np.full((len(table.label), len(spoken)), -1, np.int8)
    for column, name in enumerate(spoken):
        if name in table.classes:
            label[:, column] = table.label[:, table.classes.index(name)]
    return table._replace(label=label, classes=spoken)


def begin(report: Report, labels: Path | None) -> Report:
    """Refuse, before any work, an output that cannot be written and score files that are none."""
    from soundssl import files

    if report.output:
        files.guard(report.output, no_clobber=False, through=True)
        given = [path for path in (report.input, labels, report.baseline, report.topline) if path]
        files.guard_inputs(report.output, given)
    if bool(report.baseline) != bool(report.topline):
        raise typer.BadParameter("the recovery needs both --baseline and --topline")
    for path in (report.baseline, report.topline):
        if path:
            files.read_scores(path)
    return report


def show(rows: list[dict], report: Report) -> None:
    """Print a table for people, JSON lines elsewhere; write the score file."""
    from soundssl import evaluations, files

    if report.baseline and report.topline:
        rows = evaluations.recovery(rows, files.read_scores(report.baseline), files.read_scores(report.topline))
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

"""soundssl evaluate: embeddings and labels to scores; features stand in for embeddings as the log-mel baseline."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from soundssl import SoundsslError
from soundssl.commands import terminal
from soundssl.commands.options import Hop, Seed, words

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Score embeddings against labels.")

Input = Annotated[
    Path,
    typer.Argument(
        help="Embeddings file; a features file (its log-mel windows are the baseline); an NPY matrix or - for one on "
        "standard input, with a row for each segment of the labels."
    ),
]
LabelsFile = Annotated[Path, typer.Option(help="Labels file, as featurize --dataset writes it.")]
Scores = Annotated[Path | None, typer.Option("-o", "--output", help="Write the scores here as JSON lines.")]
Baseline = Annotated[Path | None, typer.Option(help="Score file of the baseline, for the recovery.")]
Topline = Annotated[Path | None, typer.Option(help="Score file of the topline, for the recovery.")]
Bootstrap = Annotated[int, typer.Option(min=0, help="Bootstrap replicates over clips, for 95 % intervals; 0: none.")]
Classes = Annotated[bool, typer.Option("--classes", help="Show the score of every class too.")]
Folds = Annotated[bool, typer.Option("--folds", help="Every split in turn against all others; the means come last.")]


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


@app.command("retrieval")
def retrieval(
    embeddings: Input,
    labels: LabelsFile,
    split: Annotated[str | None, typer.Option(help="Only clips of these splits, separated by commas.")] = None,
    per_class: Annotated[int, typer.Option(min=2, help="Clips drawn with, and as many without, each class.")] = 100,
    draws: Annotated[int, typer.Option(min=1, help="Random draws of clips to average over.")] = 1,
    bootstrap: Bootstrap = 0,
    hop: Hop = 0.96,
    seed: Seed = 0,
    output: Scores = None,
    baseline: Baseline = None,
    topline: Topline = None,
    classes: Classes = False,
) -> None:
    """Query by example: are two clips of a class nearer each other than clips of other classes?

    Clip vectors are means over windows; the average precision of within-class pairs is averaged over classes (Jansen et
    al. 2018). Chance is printed beside it: 0.331 with 100 clips.

    Example:

    soundssl evaluate retrieval embeddings.h5 --labels labels.h5 --split 5
    """
    from soundssl.evaluations import retrieval as task

    table = _load(embeddings, labels, hop, words(split), means=True)
    options = task.Options(per_class=per_class, draws=draws, bootstrap=bootstrap)
    rows = task.evaluate(table.embedding, table.label, table.classes, options, seed)
    _report(rows, Report("retrieval", embeddings, output, baseline, topline, classes))


@app.command("knn")
def knn(
    embeddings: Input,
    labels: LabelsFile,
    query: Annotated[str | None, typer.Option(help="Splits whose clips are asked about. Default: all.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Splits whose clips are the neighbours. Default: all others, or all.")
    ] = None,
    folds: Folds = False,
    k: Annotated[int, typer.Option(min=1, help="Neighbours that vote (inferred).")] = 5,
    unit: Annotated[str, typer.Option(help="What is compared: clip (means over windows) or window.")] = "clip",
    vote: Annotated[
        str,
        typer.Option(
            help="How neighbours vote: share, or majority; with --unit window and --k 200 as Fonseca et al. 2021."
        ),
    ] = "share",
    bootstrap: Bootstrap = 0,
    hop: Hop = 0.96,
    seed: Seed = 0,
    output: Scores = None,
    baseline: Baseline = None,
    topline: Topline = None,
    classes: Classes = False,
) -> None:
    """Nearest neighbours: do the clips nearest to a clip, outside its own recording, have its class?

    Example:

    soundssl evaluate knn embeddings.h5 --labels labels.h5 --query 5
    """
    from soundssl.evaluations import knn as task

    if unit not in ("clip", "window") or vote not in ("share", "majority"):
        raise typer.BadParameter("--unit is clip or window, --vote is share or majority")
    table = _load(embeddings, labels, hop, None, means=unit == "clip")
    options = task.Options(k=k, unit=unit, vote=vote, bootstrap=bootstrap)

    def score(query_clips, base_clips) -> list[dict]:
        return task.evaluate(
            table.embedding,
            table.clip,
            table.label,
            table.classes,
            table.recording,
            query_clips,
            base_clips,
            options,
            seed,
        )

    rows = _over_folds(table, score) if folds else score(*_two_sides(table, words(query), words(base), embeddings))
    _report(rows, Report("knn", embeddings, output, baseline, topline, classes))


@app.command("shallow")
def shallow(
    embeddings: Input,
    labels: LabelsFile,
    train: Annotated[str | None, typer.Option(help="Splits to train on. Default: all others than --test.")] = None,
    test: Annotated[str | None, typer.Option(help="Splits to score.")] = None,
    validation: Annotated[str | None, typer.Option(help="Splits to stop by: the epoch of best mAP is kept.")] = None,
    folds: Folds = False,
    hidden: Annotated[
        str, typer.Option(help="Units of the hidden layers, separated by commas; 0: a linear classifier.")
    ] = "512",
    per_class: Annotated[
        int, typer.Option(min=0, help="Training clips drawn for each class; 0: all (20: lightly supervised).")
    ] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Draws of training clips to average over.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Rate of Adam (inferred).")] = 1e-3,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training windows at most (inferred).")] = 40,
    bootstrap: Bootstrap = 0,
    hop: Hop = 0.96,
    seed: Seed = 0,
    output: Scores = None,
    baseline: Baseline = None,
    topline: Topline = None,
    classes: Classes = False,
) -> None:
    """A small classifier trained on frozen embeddings, with all labels or a few per class.

    One hidden layer of 512 units as Jansen et al. 2018; --per-class 20 is their lightly supervised test.

    Example:

    soundssl evaluate shallow embeddings.h5 --labels labels.h5 --test 5
    """
    from soundssl.evaluations import shallow as task

    try:
        layers = tuple(int(width) for width in words(hidden) or [] if int(width))
    except ValueError:
        raise typer.BadParameter(f"{hidden!r} is not a list of numbers", param_hint="--hidden") from None
    table = _load(embeddings, labels, hop, None, means=False)
    options = task.Options(
        hidden=layers, per_class=per_class, draws=draws, learning_rate=learning_rate, epochs=epochs, bootstrap=bootstrap
    )
    held = _members(table, words(validation), embeddings) if validation else None

    def score(test_clips, train_clips) -> list[dict]:
        train_clips = train_clips & ~held if held is not None else train_clips
        return task.evaluate(
            table.embedding, table.clip, table.label, table.classes, train_clips, test_clips, held, options, seed
        )

    if not folds and not test:
        raise typer.BadParameter("say which splits to score with --test, or give --folds")
    rows = _over_folds(table, score) if folds else score(*_two_sides(table, words(test), words(train), embeddings))
    _report(rows, Report("shallow", embeddings, output, baseline, topline, classes))


def _members(table: Table, splits: list[str] | None, path: Path):
    """Return which clips are of the splits; an unknown split is named with those there are."""
    import numpy as np

    known = sorted(set(table.split))
    for split in splits or []:
        if split not in known:
            raise SoundsslError(f"{path} has no split {split!r}; it has {', '.join(map(repr, known))}")
    return np.isin(table.split, splits) if splits else np.ones(len(table.split), bool)


def _two_sides(table: Table, asked: list[str] | None, others: list[str] | None, path: Path):
    first = _members(table, asked, path)
    if others:
        return first, _members(table, others, path)
    return first, (~first if not first.all() else first)


def _over_folds(table: Table, score) -> list[dict]:
    """Score every split against the rest; rows carry their split, and the means over splits come last."""
    import numpy as np

    splits = sorted(set(table.split) - {""})
    if len(splits) < 2:
        raise SoundsslError(f"--folds needs two splits or more, here are {len(splits)}")
    found = [{**row, "split": split} for split in splits for row in score(table.split == split, table.split != split)]
    means = []
    for metric, name in dict.fromkeys((row["metric"], row["class"]) for row in found):
        rows = [row for row in found if (row["metric"], row["class"]) == (metric, name)]
        chance = [row["chance"] for row in rows if row["chance"] is not None]
        means.append({
            "metric": metric, "class": name, "value": float(np.mean([row["value"] for row in rows])), "low": None, "high": None,
            "chance": float(np.mean(chance)) if chance else None, "count": sum(row["count"] for row in rows), "split": "mean",
        })  # fmt: skip
    return found + means


def _load(path: Path, labels: Path, hop: float, splits: list[str] | None, means: bool) -> Table:
    """Read windows (or clip means) of the clips that have labels."""
    import numpy as np

    from soundssl import files

    known = files.Labels(labels)
    if str(path) == "-" or files.kind_of(path) is None:
        return _load_matrix(path, known)
    kind = files.kind_of(path)
    if kind not in ("embeddings", "features"):
        raise files.FormatError(
            f"{files.text(path)} holds {kind}; evaluate takes embeddings, features or an NPY matrix"
        )
    source = files.Embeddings(path) if kind == "embeddings" else files.Features(path)
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
            f"{files.text(path)} has {len(matrix)} rows and the labels {len(known.key)} segments; a bare matrix needs a row "
            f"a segment, write an embeddings file instead"
        )
    rows = np.arange(len(matrix))
    splits = known.split.astype(str) if known.split is not None else np.full(len(matrix), "")
    return Table(np.asarray(matrix, np.float32), rows, known.label, known.classes, known.key.astype(str), splits)


def _report(rows: list[dict], report: Report) -> None:
    """Print a table for people, JSON lines elsewhere; write the score file."""
    from soundssl import evaluations, files

    if report.baseline and report.topline:
        rows = evaluations.recovery(rows, files.read_scores(report.baseline), files.read_scores(report.topline))
    elif report.baseline or report.topline:
        raise typer.BadParameter("the recovery needs both --baseline and --topline")
    lines = [{"evaluation": report.evaluation, **row, "input": files.text(report.input.name)} for row in rows]
    if report.output:
        with files.replace(report.output) as partial:
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
        "recovery": f"{line['recovery']:.0%}" if "recovery" in line else "",
        "value": number(line["value"]),
        "95 % interval": f"{line['low']:.3f} … {line['high']:.3f}" if line["low"] is not None else "",
        "chance": number(line["chance"]),
        "count": str(line["count"]),
    }
    return [cells[name] for name in columns]

"""soundssl evaluate: embeddings and labels to scores; features stand in for embeddings as the log-mel baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from soundssl import presets
from soundssl.commands import comparison, evaluate_video, scoring, strong_scoring
from soundssl.commands.consistency import consistency
from soundssl.commands.evaluate_separation import separation
from soundssl.commands.options import Hop, Seed, words
from soundssl.commands.scoring import (
    Baseline,
    Bootstrap,
    Classes,
    Folds,
    Input,
    LabelsFile,
    Scores,
    Topline,
    TrainLabels,
)
from soundssl.commands.tagging import tagging
from soundssl.commands.terminal import Terminal

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Score embeddings against labels.")


@app.command("retrieval")
def retrieval(
    embeddings: Input,
    labels: LabelsFile,
    split: Annotated[str | None, typer.Option(help="Only clips of these splits, separated by commas.")] = None,
    per_class: Annotated[int, typer.Option(min=2, help="Clips drawn with, and as many without, each class.")] = 100,
    draws: Annotated[int, typer.Option(min=1, help="Random draws of clips to average over.")] = 1,
    bootstrap: Bootstrap = 0,
    hop: Hop = None,
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

    report = scoring.begin(scoring.Report("retrieval", embeddings, output, baseline, topline, classes), labels)
    table = scoring.load(embeddings, labels, level="clip", hop=hop, splits=words(split))
    options = task.Options(per_class=per_class, draws=draws, bootstrap=bootstrap)
    scoring.show(task.evaluate(table, options, seed), report)


@app.command("knn")
def knn(
    embeddings: Input,
    labels: LabelsFile,
    query: Annotated[str | None, typer.Option(help="Splits whose clips are asked about. Default: all.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Splits whose clips are the neighbours. Default: all others, or all.")
    ] = None,
    train_labels: TrainLabels = None,
    folds: Folds = False,
    k: Annotated[int | None, typer.Option(min=1, help="Neighbours that vote. Default: 5 (inferred).")] = None,
    level: Annotated[
        Literal["clip", "window"] | None,
        typer.Option(
            "--level",
            "--unit",
            help="What is compared: clips (means over windows) or windows; once called --unit. Default: clip.",
        ),
    ] = None,
    vote: Annotated[
        Literal["share", "majority"] | None,
        typer.Option(
            help="How neighbours vote: the share that has a class, or one vote a window for the majority. Default: "
            "share."
        ),
    ] = None,
    leave_out: Annotated[
        Literal["recording", "clip"] | None,
        typer.Option(
            help="What gives no neighbours to itself: all clips of a recording, or the clip alone. Default: recording."
        ),
    ] = None,
    ties: Annotated[
        Literal["nearer", "first"] | None,
        typer.Option(
            help="Which of the classes with equal votes is decided for: the nearer, or the first by number. Default: "
            "nearer."
        ),
    ] = None,
    preset: Annotated[
        Literal["none", "sound-events"],
        typer.Option(
            help="sound-events: the protocol of Fonseca et al. 2021, as far as nothing else is given: --level window, "
            "--k 200, --vote majority, --leave-out clip, --ties first, --hop 0.5; made for embed --layer projection "
            "--hop 0.5."
        ),
    ] = "none",
    bootstrap: Bootstrap = 0,
    hop: Hop = None,
    seed: Seed = 0,
    output: Scores = None,
    baseline: Baseline = None,
    topline: Topline = None,
    classes: Classes = False,
) -> None:
    """Nearest neighbours: do the clips nearest to a clip, outside its own recording, have its class?

    Examples:

    soundssl evaluate knn embeddings.h5 --labels labels.h5 --query 5

    soundssl evaluate knn projections.h5 --labels labels.h5 --preset sound-events
    """
    from soundssl.evaluations import knn as task

    report = scoring.begin(scoring.Report("knn", embeddings, output, baseline, topline, classes), labels, train_labels)
    if folds and (query or base):
        raise typer.BadParameter("--folds takes every split in turn; leave out --query and --base")
    given = {"k": k, "level": level, "vote": vote, "leave_out": leave_out, "ties": ties}
    options = task.Options(bootstrap=bootstrap, **presets.in_force(task.PRESETS[preset], given))
    hop = task.HOPS[preset] if hop is None else hop
    table = scoring.load(embeddings, labels, level=options.level, hop=hop, taught=train_labels)
    sides = None if folds else (words(query), words(base), None)
    scoring.show(scoring.evaluate(task, table, options, seed, sides, report), report)


@app.command("shallow")
def shallow(
    embeddings: Input,
    labels: LabelsFile,
    train: Annotated[str | None, typer.Option(help="Splits to train on. Default: all others than --test.")] = None,
    test: Annotated[str | None, typer.Option(help="Splits to score.")] = None,
    validation: Annotated[str | None, typer.Option(help="Splits to stop by: the epoch of best mAP is kept.")] = None,
    train_labels: TrainLabels = None,
    folds: Folds = False,
    hidden: Annotated[
        str, typer.Option(help="Units of the hidden layers, separated by commas; 0: a linear classifier.")
    ] = "512",
    per_class: Annotated[
        int, typer.Option(min=0, help="Training clips drawn for each class; 0: all (20: lightly supervised).")
    ] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Draws of training clips to average over.")] = 3,
    learning_rate: Annotated[float | None, typer.Option(help="Rate of Adam (inferred). Default: 0.001.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training windows at most (inferred).")] = 40,
    pool: Annotated[
        Literal["none", "mean", "concat"] | None,
        typer.Option(help="One example a clip: the mean of its windows, or all side by side. Default: none, a window."),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(min=0, max=0.99, help="Share dropped before the last layer, in training. Default: 0."),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0, help="L2 penalty of Adam. Default: 0.")] = None,
    preset: Annotated[
        Literal["none", "esc50", "tut18", "audioset"],
        typer.Option(
            help="Transfer of MM-Videos, as far as nothing else is given: a rate of 0.0002, batches of 128, --pool "
            "concat, --dropout 0.3, --weight-decay 0.00001 (inferred); esc50: --folds; tut18: --train train --test "
            "test; audioset: --train balanced_train --test eval."
        ),
    ] = "none",
    bootstrap: Bootstrap = 0,
    hop: Hop = None,
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

    soundssl evaluate shallow embeddings.h5 --labels labels.h5 --preset esc50
    """
    from soundssl.evaluations import shallow as task

    report = scoring.begin(
        scoring.Report("shallow", embeddings, output, baseline, topline, classes), labels, train_labels
    )
    folds = folds or (preset == "esc50" and not test)
    sides_ = {"train": train, "test": test}
    train, test = (presets.in_force({} if folds else task.SPLITS[preset], sides_).get(name) for name in sides_)
    _check_sides(folds, train, test, validation)
    try:
        layers = tuple(int(width) for width in words(hidden) or [] if int(width))
    except ValueError:
        raise typer.BadParameter(f"{hidden!r} is not a list of numbers", param_hint="--hidden") from None
    given: dict[str, Any] = {
        "learning_rate": learning_rate,
        "pool": pool,
        "dropout": dropout,
        "weight_decay": weight_decay,
    }
    given |= {"hidden": layers, "per_class": per_class, "draws": draws, "epochs": epochs, "bootstrap": bootstrap}
    options = task.Options(**presets.in_force(task.PRESETS[preset], given))
    table = scoring.load(embeddings, labels, hop=task.HOPS[preset] if hop is None else hop, taught=train_labels)
    sides = None if folds else (words(test), words(train), words(validation))
    scoring.show(scoring.evaluate(task, table, options, seed, sides, report), report)


@app.command("linear")
def linear(
    embeddings: Input,
    labels: LabelsFile,
    train: Annotated[str | None, typer.Option(help="Splits to train on. Default: all others than --test.")] = None,
    test: Annotated[str | None, typer.Option(help="Splits to score.")] = None,
    validation: Annotated[
        str | None, typer.Option(help="Splits to choose the epoch by: that of best balanced accuracy.")
    ] = None,
    train_labels: TrainLabels = None,
    folds: Folds = False,
    learning_rate: Annotated[float | None, typer.Option(help="Rate of SGD in the first epochs. Default: 0.1.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training clips. Default: 200.")] = None,
    standardise: Annotated[
        bool | None,
        typer.Option(
            "--standardise/--no-standardise",
            help="Scale embeddings by mean and deviation of the training windows first, the default; or do not.",
        ),
    ] = None,
    preset: Annotated[
        Literal["none", "sound-events"],
        typer.Option(
            help="sound-events: the protocol of Fonseca et al. 2021, as far as nothing else is given: "
            "--no-standardise, --learning-rate 0.1, --epochs 200, --hop 0.5; made for embed --raw --hop 0.5."
        ),
    ] = "none",
    bootstrap: Bootstrap = 0,
    hop: Hop = None,
    seed: Seed = 0,
    output: Scores = None,
    baseline: Baseline = None,
    topline: Topline = None,
    classes: Classes = False,
) -> None:
    """One linear layer on frozen embeddings: clips of one class each, decided by the mean of their windows.

    As Fonseca et al. 2021: SGD, 200 epochs of one window a clip, mean softmax, balanced accuracy. Embeddings are scaled
    by the training windows first, which --preset sound-events leaves out.

    Examples:

    soundssl evaluate linear embeddings.h5 --labels labels.h5 --test 5

    soundssl evaluate linear raw.h5 --labels labels.h5 --test 5 --preset sound-events
    """
    from soundssl.evaluations import linear as task

    report = scoring.begin(
        scoring.Report("linear", embeddings, output, baseline, topline, classes), labels, train_labels
    )
    _check_sides(folds, train, test, validation)
    given = {"learning_rate": learning_rate, "epochs": epochs, "standardise": standardise}
    options = task.Options(bootstrap=bootstrap, **presets.in_force(task.PRESETS[preset], given))
    hop = task.HOPS[preset] if hop is None else hop
    table = scoring.load(embeddings, labels, hop=hop, taught=train_labels)
    if not options.standardise and table.of_length_one:
        Terminal("evaluate").warn(
            "the embeddings have length one; without --standardise those of embed --raw are wanted, which learn faster"
        )
    sides = None if folds else (words(test), words(train), words(validation))
    scoring.show(scoring.evaluate(task, table, options, seed, sides, report), report)


app.command("tagging")(tagging)
app.command("strong")(strong_scoring.strong)
app.command("compare")(comparison.compare)


@app.command("clusters")
def clusters(
    clusters: Annotated[Path, typer.Argument(help="Clusters file.")],
    labels: LabelsFile,
    split: Annotated[str | None, typer.Option(help="Only clips of these splits, separated by commas.")] = None,
    several: Annotated[
        Literal["exclude", "expand"],
        typer.Option(help="Windows of several classes: exclude them, or expand: a part of each for every class."),
    ] = "exclude",
    seed: Seed = 0,
    output: Scores = None,
    classes: Classes = False,
) -> None:
    """Clusters against classes: V-measure, homogeneity, completeness, purity, clusters in use and their sizes.

    A window has the classes of the segments that contain its centre. Chance is printed beside every value: with many
    clusters a V-measure far above 0 may be chance.

    Example:

    soundssl evaluate clusters clusters.h5 --labels labels.h5
    """
    from soundssl import files
    from soundssl.evaluations import clusters as task
    from soundssl.evaluations import reading

    report = scoring.begin(scoring.Report("clusters", clusters, output, None, None, classes), labels)
    source, known = files.Clusters(clusters), files.Labels(labels)
    if split and source.clip is None:
        raise typer.BadParameter("clusters of a bare matrix have no splits", param_hint="--split")
    table = reading.read_clusters(source, known, words(split))
    scoring.show(task.evaluate(table, task.Options(several), seed), report)


@app.command("labels")
def labels(
    labels: Annotated[Path, typer.Argument(help="Labels file to score, as label-clusters writes it.")],
    truth: Annotated[Path, typer.Option(help="Labels file that is right.")],
    windows: Annotated[
        Path | None,
        typer.Option(
            help="Clusters or embeddings file of all windows, for recall and coverage. Default: the one that they "
            "were spread from, where it lies beside them."
        ),
    ] = None,
    output: Scores = None,
    classes: Classes = False,
) -> None:
    """Labels against the truth: how many are right, and how many windows of a class got it.

    Precision and recall are means over classes, and pooled over all labels (Jansen et al. 2020, table 2).

    Example:

    soundssl evaluate labels spread.h5 --truth labels.h5
    """
    from soundssl import files
    from soundssl.evaluations import labels as task
    from soundssl.evaluations import reading

    report = scoring.begin(scoring.Report("labels", labels, output, None, None, classes), truth)
    table = reading.read_labels(files.Labels(labels), files.Labels(truth), windows, Terminal("evaluate"))
    scoring.show(task.evaluate(table), report)


app.command("separation")(separation)
app.command("onscreen")(evaluate_video.onscreen)
app.command("coincidence")(evaluate_video.coincidence)
app.command("consistency")(consistency)


def _check_sides(folds: bool, train: str | None, test: str | None, validation: str | None) -> None:
    """Raise BadParameter unless either the splits to score are named, or every split takes its turn."""
    if folds and (test or train or validation):
        raise typer.BadParameter("--folds takes every split in turn; leave out --test, --train and --validation")
    if not folds and not test:
        raise typer.BadParameter("say which splits to score with --test, or give --folds")

"""soundssl evaluate tagging: clip scores of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from soundssl.commands import scoring
from soundssl.commands.options import Seed, words
from soundssl.commands.scoring import Baseline, Bootstrap, Classes, LabelsFile, Scores, Topline


def tagging(
    embeddings: Annotated[Path, typer.Argument(help="Embeddings file written by embed --layer probabilities.")],
    labels: LabelsFile,
    split: Annotated[str | None, typer.Option(help="Only clips of these splits, separated by commas.")] = None,
    mean: Annotated[
        Literal["arithmetic", "geometric"] | None,
        typer.Option(
            help="Mean of the windows' probabilities that is the score of a clip. Default: arithmetic; with --preset "
            "fsdnoisy18k geometric."
        ),
    ] = None,
    preset: Annotated[
        Literal["none", "fsd50k", "fsdnoisy18k", "dcase2018", "dcase2019", "audioset"],
        typer.Option(
            help="What is given: fsd50k mAP, d', lwlrap; fsdnoisy18k accuracy and balanced accuracy (Fonseca et al. "
            "2019); dcase2018 MAP@3; dcase2019 lwlrap, of classes too; audioset mAP, AUC, d', lwlrap, top 1 and 5."
        ),
    ] = "none",
    bootstrap: Bootstrap = 0,
    seed: Seed = 0,
    output: Scores = None,
    baseline: Baseline = None,
    topline: Topline = None,
    classes: Classes = False,
) -> None:
    """Clip scores of a classifier: do they rank clips within classes, and classes within clips?

    The score of a clip is the mean of its windows' probabilities; each clip counts once, however long it is.

    Examples:

    soundssl evaluate tagging probabilities.h5 --labels labels.h5

    soundssl evaluate tagging probabilities.h5 --labels fsd50k.labels.h5 --split eval --preset fsd50k
    """
    from soundssl import files
    from soundssl.evaluations import reading
    from soundssl.evaluations import tagging as task

    report = scoring.begin(scoring.Report("tagging", embeddings, output, baseline, topline, classes), labels)
    mean = mean or ("geometric" if preset in task.GEOMETRIC else "arithmetic")
    table = reading.read_scores(embeddings, files.Labels(labels), words(split), mean)
    scoring.show(task.evaluate(table, task.Options(bootstrap, task.PRESETS[preset]), seed), report)

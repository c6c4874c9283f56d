"""soundssl evaluate compare: two score files, paired."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from soundssl.commands import scoring
from soundssl.commands.options import Seed, Split, words


def compare(
    first: Annotated[
        Path,
        typer.Argument(
            help="Score file, as the other evaluations write it with -o; or scores of clips, as embed --layer "
            "probabilities writes them, with --labels."
        ),
    ],
    second: Annotated[
        Path, typer.Argument(help="Score file of the same evaluation: its values less those of the first.")
    ],
    labels: Annotated[Path | None, typer.Option(help="Labels file, where scores of clips are compared.")] = None,
    split: Split = None,
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0,
            help="Bootstrap replicates over classes, and with --labels over recordings, for 95 % intervals; 0: none.",
        ),
    ] = 1000,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the rows here as JSON lines.")] = None,
    classes: Annotated[bool, typer.Option("--classes", help="Show the difference of every class too.")] = False,
) -> None:
    """Two score files, paired: what is the difference, overall and by the size of a class?

    Where the files have scores of classes, their mean difference has an interval by bootstrap over classes, and so has
    its slope: what a class of twice the clips gained more than another. They hold no scores of clips: for intervals
    over recordings give the probabilities themselves, which two recognisers gave to the same clips, and the labels;
    mAP and top1 then are compared on replicates that are the same for both.

    Examples:

    soundssl evaluate compare natural.jsonl balanced.jsonl --classes

    soundssl evaluate compare natural.h5 balanced.h5 --labels labels.h5 --split eval
    """
    from soundssl import SoundsslError, files
    from soundssl.evaluations import comparison as task
    from soundssl.evaluations import reading

    report = scoring.begin(scoring.Report("compare", second, output, None, None, classes), labels)
    if output:
        files.guard_inputs(output, [first])
    of_clips = _of_clips(first, second, labels, split)
    try:
        if of_clips and labels:
            pair = reading.read_pair(first, second, files.Labels(labels), words(split))
            rows = task.compare_clips(*pair, bootstrap, seed)
        else:
            rows = task.compare(files.read_scores(first), files.read_scores(second), bootstrap, seed)
    except ValueError as error:
        raise SoundsslError(f"{files.text(first)} and {files.text(second)}: {error}") from error
    scoring.show(rows, report)


def _of_clips(first: Path, second: Path, labels: Path | None, split: str | None) -> bool:
    """Return whether scores of clips are compared; refuse what does not go together."""
    from soundssl import files

    kinds = [files.kind_of(files.require(path)) == "embeddings" for path in (first, second)]
    if any(kinds) and not all(kinds):
        raise typer.BadParameter("one file holds scores of clips, the other scores a metric; give two of one kind")
    if all(kinds) and not labels:
        raise typer.BadParameter("scores of clips are compared by labels; give --labels")
    if not any(kinds) and (labels or split):
        given = "--labels" if labels else "--split"
        raise typer.BadParameter(
            f"{given} goes with scores of clips, and score files hold none; give what embed --layer probabilities wrote"
        )
    return all(kinds)

"""soundssl evaluate compare: two score files, paired."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from soundssl.commands import scoring
from soundssl.commands.options import Seed


def compare(
    first: Annotated[Path, typer.Argument(help="Score file, as the other evaluations write it with -o.")],
    second: Annotated[
        Path, typer.Argument(help="Score file of the same evaluation: its values less those of the first.")
    ],
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Bootstrap replicates over classes, for 95 % intervals; 0: none.")
    ] = 1000,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the rows here as JSON lines.")] = None,
    classes: Annotated[bool, typer.Option("--classes", help="Show the difference of every class too.")] = False,
) -> None:
    """Two score files, paired: what is the difference, overall and by the size of a class?

    Where the files have scores of classes, their mean difference has an interval by bootstrap over classes, and so has
    its slope: what a class of twice the clips gained more than another.

    Example:

    soundssl evaluate compare natural.jsonl balanced.jsonl --classes
    """
    from soundssl import SoundsslError, files
    from soundssl.evaluations import comparison as task

    report = scoring.begin(scoring.Report("compare", second, output, first, first, classes), None)
    try:
        rows = task.compare(files.read_scores(first), files.read_scores(second), bootstrap, seed)
    except ValueError as error:
        raise SoundsslError(f"{files.text(first)} and {files.text(second)}: {error}") from error
    scoring.show(rows, report._replace(baseline=None, topline=None))

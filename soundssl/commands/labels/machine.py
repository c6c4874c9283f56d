"""soundssl labels top: a recogniser's scores as labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from soundssl.commands.labels.remaking import Flags, Made, remake
from soundssl.commands.options import Force, NoClobber, NoProvenance, Quiet
from soundssl.commands.target import Target

if TYPE_CHECKING:
    from soundssl.files import Embeddings
    from soundssl.labels import LabelSet


def top(
    scores: Annotated[Path, typer.Argument(help="Scores, as embed --layer probabilities writes them.")],
    count: Annotated[int, typer.Option("--top", min=0, help="Classes of highest score to take; 0: all.")] = 10,
    threshold: Annotated[
        float | None, typer.Option(help="Least score of a class that is taken. Default: none.")
    ] = None,
    level: Annotated[
        Literal["clip", "window"],
        typer.Option(help="What is labelled: clips, by the mean score of their windows, or windows."),
    ] = "clip",
    output: Made = None,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Take the classes that a recogniser is surest of as labels, of origin 2; all others are absent, unrated.

    Example:

    soundssl labels top probabilities.h5 --top 5 --threshold 0.3 -o machine.labels.h5
    """

    def make(target: Target, given: Embeddings) -> tuple[LabelSet, str]:
        from soundssl.labels.scores import machine_labels

        made = machine_labels(given, count, threshold, level)
        return made, f"{int((made.label == 1).sum())} labels of {len(made)} {level}s"

    flags = Flags(force, no_clobber, no_provenance, quiet)
    options = {"top": count, "threshold": threshold, "level": level}
    remake("top", scores, output, {}, options, flags, make)

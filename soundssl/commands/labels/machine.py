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
    mean: Annotated[
        float | None,
        typer.Option(
            min=0, help="Labels a clip on average: the threshold is chosen for it; MM-Videos has about 3 of sound."
        ),
    ] = None,
    modality: Annotated[
        Literal["audio", "visual"] | None, typer.Option(help="What the recogniser looked at, noted of every class.")
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(help="Labels of another recogniser of the same clips: the classes of both are written."),
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

    soundssl labels top pictures.h5 --top 10 --modality visual -o visual.labels.h5

    soundssl labels top sounds.h5 --top 5 --mean 3 --modality audio --beside visual.labels.h5 -o machine.labels.h5
    """
    if mean is not None and (threshold is not None or level == "window"):
        raise typer.BadParameter("a mean chooses the threshold of clips; leave out --threshold", param_hint="--mean")

    def make(target: Target, given: Embeddings) -> tuple[LabelSet, str]:
        from soundssl.labels import labelset
        from soundssl.labels.scores import machine_labels

        made = machine_labels(given, count, threshold, level, mean, modality)
        if beside:
            made = labelset.beside(labelset.of_file(beside), made)
        return made, f"{int((made.label == 1).sum())} labels of {len(made)} {level}s"

    flags = Flags(force, no_clobber, no_provenance, quiet)
    options = {"top": count, "threshold": threshold, "level": level, "mean": mean, "modality": modality}
    options = {name: value for name, value in options.items() if value is not None or name == "threshold"}
    remake("top", scores, output, {"beside": beside}, options, flags, make)

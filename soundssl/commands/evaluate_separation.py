"""soundssl evaluate separation: waveforms and a separator to how much of each source its tracks give back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from soundssl.commands import scoring
from soundssl.commands.options import Device, Precision, Seed, Threads, words
from soundssl.commands.scoring import Bootstrap, Classes, Scores
from soundssl.commands.target import check_ending


def separation(
    waves: Annotated[Path, typer.Argument(help="Features file of waveforms.")],
    model: Annotated[Path, typer.Option("-m", "--model", help="Separator written by train --objective mixit.")],
    labels: Annotated[Path | None, typer.Option(help="Labels file: the sources are of different classes.")] = None,
    split: Annotated[str | None, typer.Option(help="Only clips of these splits, separated by commas.")] = None,
    sources: Annotated[
        str, typer.Option(metavar="N or N-N", help="Sources of a mixture; 1-4: as many mixtures of one to four each.")
    ] = "2",
    count: Annotated[int, typer.Option(min=1, help="Mixtures drawn.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the mixtures.")] = 5.0,
    heard: Annotated[
        float, typer.Option(max=0, help="Level in dB re the quietest source from which a track is heard (inferred).")
    ] = -20.0,
    picture: Annotated[Path | None, typer.Option(help="Draw the first mixtures and their tracks here, as PNG.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Mixtures in one batch.")] = 8,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    bootstrap: Bootstrap = 0,
    seed: Seed = 0,
    output: Scores = None,
    classes: Classes = False,
) -> None:
    """Mixtures of known sources: how much of each do the tracks give back?

    Recordings are mixed, two or as many as --sources says, at equal energy, and separated; ratios are scale-invariant,
    in dB. Every source also goes in alone: a good separator leaves it whole.

    Example:

    soundssl evaluate separation waves.h5 -m separator.safetensors --labels labels.h5 --split 5 --picture tracks.png
    """
    from soundssl import files, separation
    from soundssl.evaluations.separation import Options

    report = scoring.begin(scoring.Report("separation", waves, output, None, None, classes), labels)
    if picture:
        files.guard(picture, no_clobber=False)
        files.guard_inputs(picture, [path for path in (waves, model, labels, output) if path])
        check_ending(picture, "PNG", option="--picture")
    scored = separation.score(
        waves,
        model,
        labels=labels,
        splits=words(split),
        sources=_numbers(sources, "--sources"),
        count=count,
        seconds=seconds,
        batch_size=batch_size,
        options=Options(heard=heard, bootstrap=bootstrap),
        seed=seed,
        device=device,
        precision=precision,
        threads=threads,
    )
    if picture:
        separation.plot(picture, scored.examples)
    scoring.show(scored.rows, report)


def _numbers(text: str, option: str) -> range:
    """Return the numbers of `3` or `1-4`; raise BadParameter for others."""
    low, dash, high = text.partition("-")
    if low.isdecimal() and (high.isdecimal() if dash else True):
        found = range(int(low), int(high or low) + 1)
        if found and found[0] >= 1:
            return found
    raise typer.BadParameter(
        f"{text!r} is neither a number from 1 nor a range of them; give 2 or 1-4", param_hint=option
    )

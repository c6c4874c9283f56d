"""soundssl evaluate consistency: features and a classifier to the share of clips whose class stays under a shift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from soundssl.commands import scoring
from soundssl.commands.options import Device, Precision, Quiet, Seed, Threads, words
from soundssl.commands.target import check_ending
from soundssl.commands.terminal import Terminal


def consistency(
    features: Annotated[Path, typer.Argument(help="Features file written by featurize.")],
    model: Annotated[Path, typer.Option("-m", "--model", help="Model with a classifier.")],
    split: Annotated[str | None, typer.Option(help="Only clips of these splits, separated by commas.")] = None,
    shifts: Annotated[str, typer.Option(help="Frames, and bands, to shift by, separated by commas.")] = "1,3,5",
    fill: Annotated[
        Literal["floor", "edge", "circular"],
        typer.Option(help="What comes in at a border: silence, the value there, or what went out (inferred: floor)."),
    ] = "floor",
    level: Annotated[
        Literal["clip", "window"], typer.Option(help="Whose highest class counts: of clips, or of every window.")
    ] = "clip",
    curve: Annotated[
        list[Path],
        typer.Option(help="Write the probability of a class against the shift here: .csv a table, .png a picture."),
    ] = [],  # noqa: B006 (typer needs the value)
    clips: Annotated[
        str | None, typer.Option(help="With --curve: keys of clips, separated by commas. Default: the first three.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Bootstrap replicates over clips, for 95 % intervals; 0: none.")
    ] = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the scores here as JSON lines.")] = None,
    quiet: Quiet = False,
) -> None:
    """Shifted clips: does the class that a classifier gives stay?

    As Fonseca et al. 2021, shift invariance: shifts by 1, 3 and 5 frames and bands. A shift in time moves the windows
    along the clip.

    Example:

    soundssl evaluate consistency features.h5 -m model.safetensors --split 5 --curve curve.csv --curve curve.png
    """
    from soundssl import device as hardware
    from soundssl import files
    from soundssl import model as models
    from soundssl import shifts as task
    from soundssl.evaluations import consistency as kernel

    report = scoring.begin(scoring.Report("consistency", features, output, None, None, False), None)
    numbers = _numbers(shifts)
    for path in curve:
        files.guard(path, no_clobber=False)
        files.guard_inputs(path, [each for each in (features, model, output) if each])
        check_ending(path, "CSV", "PNG", option="--curve")
    if clips and not curve:
        raise typer.BadParameter("they are those of --curve; give it, or leave them out", param_hint="--clips")
    source, trained, terminal = files.Features(features), files.read_model(model), Terminal("evaluate", quiet)
    chosen = source.clips.in_splits(words(split), source.path)
    rows = _rows(source, clips, chosen) if curve else []
    with hardware.start(device, precision, threads) as accelerator:
        net = models.Model(trained, accelerator)
        table = task.shifted(source, net, numbers, clips=chosen, fill=fill, level=level, progress=terminal)
        found = task.curves(source, net, rows, fill) if curve else []
    for path in curve:
        task.write_curves(path, found)
    scores = kernel.evaluate(table, kernel.Options(bootstrap), seed)
    scoring.show([{**row, "fill": fill, "level": level} for row in scores], report)


def _numbers(text: str) -> list[int]:
    """Return the shifts that an option names; raise BadParameter for what is none."""
    try:
        numbers = [int(word) for word in words(text) or []]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise typer.BadParameter(f"{text!r} is not a list of numbers from 1 on, each once", param_hint="--shifts")
    return numbers


def _rows(source, clips: str | None, chosen) -> list[int]:
    """Return the rows of the clips of a curve; raise BadParameter for a key that is not there."""
    keys = source.clips.key.astype(str).tolist()
    if clips is None:
        return [int(row) for row in chosen.nonzero()[0][:3]]
    wanted = words(clips) or []
    for key in wanted:
        if key not in keys:
            raise typer.BadParameter(f"{source.path} has no clip {key!r}", param_hint="--clips")
    return [keys.index(key) for key in wanted]

"""Where events are written and in which format: a file, a folder with a file a recording, or standard output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import typer

from soundssl.commands.target import Target, aim

Format = Literal[
    "csv", "tsv", "jsonl", "parquet", "raven", "audacity", "label-studio", "aoef", "dcase", "audioset", "labels"
]


def event_target(
    command: str, output: str | None, default: Path, inputs: list[Path], force: bool, no_clobber: bool, quiet: bool
) -> tuple[Target, bool]:
    """Return where to write, and whether that is a folder with a file for each recording."""
    from soundssl import files

    folder = output is not None and (output.endswith(("/", os.sep)) or Path(output).is_dir())
    place = None if output is None else Path(output)
    if folder and place is not None:
        if place.exists() and not place.is_dir():
            raise files.Unusable(f"{files.text(place)} is a file; name a folder")
        return Target(command, place, False, force, True, quiet), folder
    target = aim(command, place, default, inputs, force=force, no_clobber=no_clobber, quiet=quiet, through=True)
    return target, folder


def event_format(target: Target, folder: bool, name: str | None) -> str:
    """Return the format to write; refuse, before any work, one that the output cannot take."""
    from soundssl.detection import formats

    if name is None and not folder and target.path.suffix.lower() in (".h5", ".hdf5"):
        name = "labels"
    if folder or target.piped:
        name = name or "csv"
    if name == "labels":
        if folder or target.piped:
            raise typer.BadParameter("labels are one file; name it", param_hint="--output")
        return name
    name = formats.choose(target.path, name)
    if name == "audacity" and not folder:
        raise typer.BadParameter("a label track holds one recording; end the output with / for a folder of them")
    if name == "parquet" and target.piped:
        raise typer.BadParameter("Parquet cannot be sent through a pipe; name a file", param_hint="--output")
    return name

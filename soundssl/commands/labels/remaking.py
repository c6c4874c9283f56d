"""Remaking: one labels file to another, guarded, compared with what stands there, and named when it is done."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from soundssl.commands.options import beside
from soundssl.commands.target import Target, aim
from soundssl.commands.terminal import print_table

if TYPE_CHECKING:
    from soundssl.labels import LabelSet

Given = Annotated[Path, typer.Argument(help="Labels file.")]
Made = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", help="Labels file to write; without it, STEM.VERB.labels.h5 beside the input, printed."
    ),
]

OF_SCORES = ("top",)  # verbs whose input is no labels file


class Flags(NamedTuple):
    """Hold the options of every verb that writes."""

    force: bool
    no_clobber: bool
    no_provenance: bool
    quiet: bool


def remake(
    verb: str,
    given: Path,
    output: Path | None,
    others: Mapping[str, Path | Sequence[Path] | None],
    options: Mapping[str, Any],
    flags: Flags,
    make: Callable[[Target, Any], tuple[LabelSet, str]],
) -> None:
    """Write what a verb makes of a labels file or of scores, unless it stands.

    `make` is given the target and the labels, or the scores as they are, and returns labels and a line about them.

    `others` are the further files that it reads, by their roles.
    """
    from soundssl import files
    from soundssl.labels import labelset

    read = {role: [paths] if isinstance(paths, Path) else list(paths or ()) for role, paths in others.items()}
    every = [files.require(path) for path in (given, *(path for paths in read.values() for path in paths))]
    target = aim(f"labels {verb}", output, beside(given, f"{verb}.labels"), every, **flags._asdict())
    source = files.Embeddings(given) if verb in OF_SCORES else files.Labels(given)
    inputs = [files.identity("scores" if verb in OF_SCORES else "labels", given, source.attributes)]
    inputs += [_identity(role, path) for role, paths in read.items() for path in paths]
    made_from = files.digest("labels", verb, inputs, dict(options))
    if target.stands(made_from):
        return
    labels, said = make(target, source if isinstance(source, files.Embeddings) else labelset.of_file(source))
    about = {"verb": verb, "options": json.dumps(dict(options))}
    with target.create("labels", inputs, made_from, about) as sink:
        labelset.write(sink, labels)
    target.finish(said)


def _identity(role: str, path: Path) -> dict[str, str]:
    """Return what `inputs` says of a file: of one that is not ours a digest of its bytes."""
    from soundssl import files

    attributes = files.attributes_of(path)
    if "uuid" in attributes:
        return files.identity(role, path, attributes)
    return files.identity(role, path, {"uuid": files.digest(path.read_bytes().hex())})


def report(rows: Sequence[Mapping[str, Any]], target: Target | None = None) -> None:
    """Print rows: a table for people, JSON lines elsewhere, unless the path of the output is printed there."""
    if sys.stdout.isatty() and rows:
        shown = [[_cell(value) for value in row.values()] for row in rows]
        print_table(list(rows[0]), shown)
    elif not (target and target.implied):
        for row in rows:
            print(json.dumps(row))


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def number_or_none(value: float) -> float | None:
    """Return a number for JSON, which knows no other than finite ones."""
    return None if value != value else round(float(value), 6)

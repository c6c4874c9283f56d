"""soundssl info: what is in a file, what it was made from, and whether it is sound."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from soundssl.commands import terminal

SHOWN = 20  # skipped inputs named in a table; JSON names all


def info(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="File of soundssl: HDF5, or a model; or a folder of parts.")
    ],
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read all of it; check that numbers are finite, and offsets and rows in range."),
    ] = False,
    as_json: Annotated[
        bool | None,
        typer.Option("--json/--table", help="How to print. Default: a table on a terminal, JSON elsewhere."),
    ] = None,
) -> None:
    """Say what is in a file, what it was made from, and which inputs gave nothing.

    Of a folder it says which parts of a larger file, made with --part, are there, and which are missing.

    The chain of what it was made from goes on as long as the files lie beside one another. A file that --verify finds
    damaged ends with status 4.

    Examples:

    soundssl info features.h5

    soundssl info features.h5 --verify --json

    soundssl info parts/
    """
    from soundssl import files

    tabular = not as_json if as_json is not None else sys.stdout.isatty()
    if path.is_dir():
        if verify:
            raise typer.BadParameter("reads one file, not a folder; name the file", param_hint="--verify")
        _print_parts(files.parts(path), tabular)
        return
    found = files.inspect(path)
    chain, skipped = files.chain(path), files.skipped(path)
    faults = files.verify(path) if verify else []
    if not tabular:
        about = {**found, "made_of": chain, "skipped_inputs": skipped, **({"faults": faults} if verify else {})}
        print(json.dumps(about))
    else:
        _print(found, chain, skipped)
        if verify and not faults:
            print("\nall of it was read, and is sound")
    if faults:
        raise files.FormatError(f"{files.text(path)} is damaged: {'; '.join(faults)}; make it again")


def _print_parts(found: list[dict], tabular: bool) -> None:
    if not tabular:
        print(json.dumps({"parts": found}))
        return
    names = ("there", "missing", "twice")
    rows = [[each["kind"], str(each["of"]), *(_ranges(each[name]) for name in names)] for each in found]
    terminal.print_table(["kind", "parts", *names], rows)


def _ranges(numbers: list[int]) -> str:
    """Return rising numbers in words.

    >>> _ranges([1, 2, 3, 5])
    '1-3, 5'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) or "none"


def _print(found: dict, chain: list[dict], skipped: list[dict]) -> None:
    inner = {name: found.pop(name, {}) for name in ("attributes", "config", "datasets")}
    terminal.print_table(["fact", "value"], [[name, _word(value)] for name, value in found.items()])
    for name, table in inner.items():
        if table:
            print()
            terminal.print_table([name, "value"], [[key, _word(value)] for key, value in table.items()])
    if chain:
        print()
        rows = [
            ["  " * (row["depth"] - 1) + row["role"], row["file"], row["state"], row.get("command", "")]
            for row in chain
        ]
        terminal.print_table(["made of", "file", "state", "command"], rows)
    if skipped:
        print()
        rows = [[row["path"], row["reason"]] for row in skipped[:SHOWN]]
        terminal.print_table(["skipped", "reason"], rows)
        if len(skipped) > SHOWN:
            print(f"and {len(skipped) - SHOWN} more; --json names all")


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

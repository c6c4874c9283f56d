"""What a person sees: messages and progress on standard error, tables and results on standard output."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


def say(command: str, message: str, quiet: bool = False) -> None:
    """Print one message line on standard error."""
    if not quiet:
        print(f"soundssl {command}: {' '.join(message.splitlines())}", file=sys.stderr, flush=True)


def done_before(command: str, output: Path, made_from: str, force: bool, quiet: bool, implied: bool) -> bool:
    """Return whether `output` already stands for the same inputs and options; then touch it, for make, and say so."""
    from soundssl import files

    if force or files.made_from(output) != made_from:
        return False
    up_to_date(command, output, quiet, implied)
    return True


def up_to_date(command: str, output: Path, quiet: bool, implied: bool) -> None:
    """Touch a finished output, for make, and say that nothing was to be done."""
    os.utime(output)
    say(command, f"{os.fsdecode(output)} is up to date; --force makes it again", quiet)
    print_path(output, implied)


def print_path(output: Path, implied: bool) -> None:
    """Print the path of an output whose name was not given, for `$(soundssl …)`."""
    if implied:
        print(output, flush=True)


@contextlib.contextmanager
def progress(description: str, total: int | None, unit: str, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Yield `advance(steps, note)`; draw a bar with rate and remaining time, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda steps=1, note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Show steps a second."""

        def render(self, task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:,.1f} {unit}/s", style="progress.data.speed")

    columns = [
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn()),
        *(TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}")),
    ]
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=60) as bars:
        task = bars.add_task(description, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bars.advance(task, steps)
            if note:
                bars.update(task, note=note)

        yield advance


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on standard output: ruled on a terminal, aligned columns that are never wrapped elsewhere."""
    if not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    Console().print(table)

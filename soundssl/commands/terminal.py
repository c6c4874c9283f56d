"""What a person sees: messages and progress on standard error, tables and results on standard output."""

from __future__ import annotations

import collections
import contextlib
import datetime
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from soundssl.progress import Advance, Progress

TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}  # of text: embeddings, overrides
MINUTE = 60.0  # seconds over which the pace of work is taken
SPOKEN = 30.0  # seconds between lines about long work, where there is no terminal


def say(command: str, message: str, quiet: bool = False) -> None:
    """Print one message line on standard error."""
    if not quiet:
        print(f"soundssl {command}: {printable(' '.join(message.splitlines()))}", file=sys.stderr, flush=True)


def printable(message: str) -> str:
    """Return a message with control characters escaped: in a name of a file they would speak to the terminal.

    >>> printable("a\\x1b[2J.wav")
    'a\\\\x1b[2J.wav'
    """
    return "".join(ascii(each)[1:-1] if _controls(each) else each for each in message)


def _controls(character: str) -> bool:
    """Return whether a character is not shown but obeyed: control codes, and marks that turn the direction of text."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in TURNING


@dataclass(frozen=True)
class Terminal(Progress):
    """Tell a person at standard error what a command does; only warnings where it is `quiet`."""

    command: str
    quiet: bool = False

    def say(self, message: str) -> None:
        """Print a message of one line."""
        say(self.command, message, self.quiet)

    def warn(self, message: str) -> None:
        """Print a message of one line, also where the command is quiet."""
        say(self.command, message)

    def track(self, description: str, total: int | None, unit: str) -> contextlib.AbstractContextManager[Advance]:
        """Draw a bar with rate and remaining time, on a terminal only."""
        return progress(description, total, unit, self.quiet, self.command)


def done_before(command: str, output: Path, made_from: str, force: bool, quiet: bool, implied: bool) -> bool:
    """Return whether `output` already stands for the same inputs and options; then touch it, for make, and say so."""
    from soundssl import files

    if force or files.made_from(output) != made_from:
        return False
    files.clear_finished(output, made_from)
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
def progress(
    description: str, total: int | None, unit: str, quiet: bool = False, command: str = ""
) -> Iterator[Callable[..., None]]:
    """Yield `advance(steps, note)`; draw a bar, or away from a terminal say now and then how far it is."""
    if quiet:
        yield lambda steps=1, note="": None
    elif not sys.stderr.isatty():
        yield _lines(command or description, description, total, unit)
    else:
        with _bar(description, total, unit) as advance:
            yield advance


def _lines(command: str, description: str, total: int | None, unit: str) -> Callable[..., None]:
    """Return what says every half minute how much is done, how fast it goes and how long it will take."""
    pace, said, notes = Pace(unit), [time.monotonic()], [""]

    def advance(steps: int = 1, note: str = "") -> None:
        now = time.monotonic()
        pace.add(steps, now)
        notes[0] = note or notes[0]
        if now - said[0] >= SPOKEN:
            said[0] = now
            of = "" if total is None else f" of {total}"
            parts = [f"{description} {pace.done}{of} {unit}", pace.rate(), f"left {pace.left(total)}", notes[0]]
            say(command, ", ".join(part for part in parts if part))

    return advance


@contextlib.contextmanager
def _bar(description: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = [
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")),
        *(TimeElapsedColumn(), TextColumn("left {task.fields[left]}"), TextColumn("{task.fields[note]}")),
    ]
    pace = Pace(unit)
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(description, total=total, note="", rate=pace.rate(), left=pace.left(total))

        def advance(steps: int = 1, note: str = "") -> None:
            pace.add(steps, time.monotonic())
            bars.update(task, advance=steps, rate=pace.rate(), left=pace.left(total))
            if note:
                bars.update(task, note=note)

        yield advance


class Pace:
    """Tell how fast work goes, from what was done in the last minute; slow steps of many seconds count as well.

    The first report says where the work begins: a run that goes on reports at once all that was done before. What is
    done next takes memory and opens files too, and is not counted once more is known.
    """

    def __init__(self, unit: str) -> None:
        self.unit, self.done, self.reports = unit, 0, 0
        self.seen: collections.deque[tuple[float, int]] = collections.deque()

    def add(self, steps: int, now: float) -> None:
        """Note that so many steps are done, at a time in seconds."""
        if self.seen and not steps:  # a note, no progress
            return
        self.done, self.reports = self.done + steps, self.reports + 1
        self.seen.append((now, self.done))
        while len(self.seen) > 2 and (self.reports == 3 or now - self.seen[1][0] > MINUTE):
            self.seen.popleft()

    def speed(self) -> float:
        """Return steps a second, 0 where it is not known yet."""
        if not self.seen or self.seen[-1][0] <= self.seen[0][0]:
            return 0.0
        return (self.seen[-1][1] - self.seen[0][1]) / (self.seen[-1][0] - self.seen[0][0])

    def rate(self) -> str:
        """Return the speed in words, as seconds a step where that is the greater number.

        >>> pace = Pace("steps")
        >>> for now in (0, 8):
        ...     pace.add(1, now)
        >>> pace.rate(), pace.left(451)
        ('8.0 s/step', '0:59:52')
        """
        speed = self.speed()
        if not speed:
            return f"- {self.unit}/s"
        return f"{speed:,.1f} {self.unit}/s" if speed >= 1 else f"{1 / speed:,.1f} s/{self.unit.removesuffix('s')}"

    def left(self, total: int | None) -> str:
        """Return the time that is left at this speed, as hours, minutes and seconds."""
        speed = self.speed()
        if not speed or total is None:
            return "-:--:--"
        return str(datetime.timedelta(seconds=round(max(0, total - self.done) / speed)))


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on standard output: ruled on a terminal, aligned columns that are never wrapped elsewhere."""
    columns, rows = [printable(cell) for cell in columns], [[printable(cell) for cell in row] for row in rows]
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

"""What the scripts of examples share: running a tool in this process, tables, and a file of results kept as sections.

A section lies between two markers, so that a run replaces its own and no other.
"""

import argparse
import contextlib
import datetime
import io
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import soundssl
from soundssl import SoundsslError, commands, files

HEADER = (
    "# Results of our own runs\n\nA section is written by the command it names, and replaced when that is run again.\n"
)


def tool(*words: object) -> None:
    """Run a soundssl command in this process, what it prints aside; raise SoundsslError where it fails."""
    line = [str(word) for word in words]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            commands.main(line)
        except SystemExit as end:
            if end.code not in (0, None):
                raise SoundsslError(f"soundssl {' '.join(line)} ended with status {end.code}") from None


def commit() -> str:
    """Return the commit that this file lies in, with a mark where the tree differs from it."""
    words = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def circumstances(command: str) -> list[str]:
    """Return the lines that say when, with what and where a table was made."""
    import torch

    return [
        f"{datetime.date.today().isoformat()}, commit {commit()}, soundssl {soundssl.__version__},",
        f"torch {torch.__version__}, {platform.machine()} with {os.cpu_count()} processors.",
        f"Command: `{command}`.",
    ]


def put(path: Path, name: str, text: str) -> None:
    """Replace the section of that name in a file of sections, or append it."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text("utf-8") if path.exists() else HEADER
    if begin in old and end in old:
        before, after = old[: old.index(begin)], old[old.index(end) + len(end) :].lstrip("\n")
        after = "\n" + after if after else ""
    else:
        before, after = old.rstrip("\n") + "\n\n", ""
    with files.replace(path) as partial:
        partial.write_text(f"{before}{begin}\n{text}{end}\n{after}", "utf-8")


def rows(lines: Iterable[Sequence[str]]) -> str:
    """Return lines of cells, the head and the rule below it among them, as the rows of a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def publish(table: str, options: argparse.Namespace, notes: Sequence[str] = ()) -> None:
    """Write a table to `output`, with its title, circumstances and notes into `results` where that is named; print it.

    `options` are those of the script's command line.
    """
    if options.results:
        words = [f"## {options.title}", "", *circumstances(options.command), *notes]
        put(options.results, options.section, "\n".join(words) + "\n\n" + table)
    with files.replace(options.output) as partial:
        partial.write_text(table, "utf-8")
    print(table, end="")

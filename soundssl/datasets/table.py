"""Tables with a header, as spreadsheets write them, that name files, and spans of them, with classes and splits."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from soundssl import tables
from soundssl.datasets.clips import Clip
from soundssl.tables import Row, Table, TableError

PATH = ("path", "file", "filename", "fname")
CLASS = ("class", "classes", "label", "labels")
SPLIT = ("split", "fold")

LAYOUT = (
    f"a table with a header, its columns {' or '.join(PATH)}, and where they are known {' or '.join(CLASS)} (several "
    f"by ;), {' or '.join(SPLIT)}, recording, start, end (seconds)"
)


def clips(path: Path, root: Path | None = None) -> Iterator[Clip]:
    """Yield the clips of a table with a header.

    Columns: `path` (relative to `root`, else to the table's folder); optional `class` (several separated by `;`, an
    empty cell says nothing), `split`, `recording`, `start` and `end` in seconds, also with decimal commas; LAYOUT has
    their other names. Raises TableError for a table that cannot be read or has no column for the path, an empty path,
    a line break in a class, or a time that is no number or ends before it begins.
    """
    root = root or path.parent
    table = read(path)
    if not any(name in table.columns for name in PATH):
        columns = ", ".join(filter(None, table.columns))
        raise TableError(f"{path} line {table.line} has no column {' or '.join(PATH)}; its columns are {columns}")
    for row in table.rows:
        place = f"{path} line {row.number}"
        if not (name := row.first(PATH)):
            raise TableError(f"{place}: the path is empty; name a file")
        start, end = _span(row, place)
        span = f"@{start:.12g}-{'' if end is None else f'{end:.12g}'}" if start or end is not None else ""
        key = os.path.normpath(name).replace(os.sep, "/").lstrip("/")
        split, recording = row.first(SPLIT) or "", row.cells.get("recording") or key
        yield Clip(key + span, root / name, start, end, _classes(row, place), recording, split)


def read(path: Path) -> Table:
    """Return the table of a file; its cells may hold names of files in any coding. Raises TableError."""
    return tables.read(path.read_bytes(), os.fspath(path), "surrogateescape")


def _classes(row: Row, place: str) -> tuple[str, ...] | None:
    if not (cell := row.first(CLASS)):
        return None
    if "\n" in cell:  # a quote left open has swallowed lines, to the next one that is open or closed
        raise TableError(f"{place}: the class {cell!r} holds a line break; look for a lone quotation mark above")
    return tuple(word.strip() for word in cell.split(";") if word.strip())


def _span(row: Row, place: str) -> tuple[float, float | None]:
    """Return start and end in seconds, None where the end is that of the file."""
    given = [row.cells.get(name, "") for name in ("start", "end")]
    try:
        start = tables.number(given[0] or "0")
        end = math.inf if given[1].casefold() in ("", "inf") else tables.number(given[1])
    except ValueError:
        start, end = math.nan, math.nan
    if not 0 <= start < end:
        raise TableError(f"{place}: start and end are seconds, and end is the later, not {given[0]!r}, {given[1]!r}")
    return start, None if math.isinf(end) else end

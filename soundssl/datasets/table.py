"""Tables with a header, as spreadsheets write them, that name files, and spans of them, with classes and splits."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from soundssl import tables
from soundssl.datasets.clips import Clip
from soundssl.tables import Row, Table, TableError

PATH = ("path", "file", "filename", "fname")
CLASS = ("class", "classes", "label", "labels")
SPLIT = ("split", "fold")

LAYOUT = (
    f"a table with a header, its columns {' or '.join(PATH)}, and where they are known {' or '.join(CLASS)} (several "
    f"by ;), {' or '.join(SPLIT)}, recording, uploader, licence, subset, noisy (1 or 0), start, end (seconds); with "
    f"onset and offset a row is an event, and a file has several"
)
LICENCE = ("licence", "license")
FLAGS = {"": None, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def clips(path: Path, root: Path | None = None) -> Iterator[Clip]:
    """Yield the clips of a table with a header.

    Columns: `path` (relative to `root`, else to the table's folder); optional `class` (several separated by `;`, an
    empty cell says nothing), `split`, `recording`, `uploader`, `licence`, `subset`, `noisy` (1 or 0), `start` and `end`
    in seconds, also with decimal commas; LAYOUT has their other names. With `onset` and `offset`, seconds from the
    clip's start, a row is an event of its classes, and the rows of one clip are one; where both are empty it has none.
    Raises TableError for a table that cannot be read or has no column for the path, an empty path, a line break in a
    class, a time that is no number or ends before it begins, and a flag that is none.
    """
    root = root or path.parent
    table = read(path)
    if not any(name in table.columns for name in PATH):
        columns = ", ".join(filter(None, table.columns))
        raise TableError(f"{path} line {table.line} has no column {' or '.join(PATH)}; its columns are {columns}")
    timed = "onset" in table.columns
    if timed and "offset" not in table.columns:
        raise TableError(f"{path} line {table.line} has a column onset and none offset; an event has both")
    together: dict[str, Clip] = {}
    for row in table.rows:
        place = f"{path} line {row.number}"
        clip = _clip(row, root, place)
        if not timed:
            yield clip
            continue
        clip = replace(clip, classes=clip.classes or (), events=_events(row, clip.classes, place))
        before = together.get(clip.key)
        if before is not None:
            classes = tuple(dict.fromkeys([*(before.classes or ()), *(clip.classes or ())]))
            clip = replace(before, classes=classes, events=before.events + clip.events)
        together[clip.key] = clip
    yield from together.values()


def _clip(row: Row, root: Path, place: str) -> Clip:
    """Return the clip of a row, without its events."""
    if not (name := row.first(PATH)):
        raise TableError(f"{place}: the path is empty; name a file")
    start, end = _span(row, place)
    span = f"@{start:.12g}-{'' if end is None else f'{end:.12g}'}" if start or end is not None else ""
    key = os.path.normpath(name).replace(os.sep, "/").lstrip("/")
    flag = row.cells.get("noisy", "").casefold()
    if flag not in FLAGS:
        raise TableError(f"{place}: noisy is {flag!r}; it is 1 or 0")
    return Clip(
        key + span,
        root / name,
        start,
        end,
        _classes(row, place),
        row.cells.get("recording") or key,
        row.first(SPLIT) or "",
        uploader=row.cells.get("uploader", ""),
        licence=row.first(LICENCE) or "",
        subset=row.cells.get("subset", ""),
        noisy=FLAGS[flag],
    )


def _events(row: Row, classes: tuple[str, ...] | None, place: str) -> tuple[tuple[str, float, float], ...]:
    """Return an event for each class of a row, none where onset and offset are empty."""
    given = [row.cells["onset"], row.cells["offset"]]
    if not any(given):
        return ()
    try:
        onset, offset = map(tables.number, given)
    except ValueError:
        onset = offset = math.nan
    if not 0 <= onset < offset:
        raise TableError(
            f"{place}: onset and offset are seconds, and offset is the later, not {given[0]!r}, {given[1]!r}"
        )
    if not classes:
        raise TableError(f"{place}: an event has no class; name it, or leave onset and offset empty")
    return tuple((name, onset, offset) for name in classes)


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

"""Tables: CSV or TSV with a header, which name files, and spans of them, with classes and splits."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path

from soundssl.datasets.clips import Clip

LAYOUT = "a table with columns path, class (several by ;), split or fold, and optional start, end, recording"

_PATH, _CLASS, _SPLIT = (
    ("path", "file", "filename", "fname"),
    ("class", "classes", "label", "labels"),
    ("split", "fold"),
)


def clips(path: Path, root: Path | None = None) -> Iterator[Clip]:
    """Yield the clips of a CSV or TSV table with a header.

    Columns: `path` (relative to `root`, else to the table's folder); optional `class` or `classes` (several separated
    by `;`, an empty cell says nothing), `split` or `fold`, `recording`, `start` and `end` in seconds. Raises ValueError
    for a table without a path column, an empty path, or a time that is no number or ends before it begins.
    """
    root = root or path.parent
    for number, row in rows(path, set()):
        name = _first(row, _PATH)
        if name is None:
            raise ValueError(f"{path} has no column named path; its columns are {', '.join(row)}")
        if not name:
            raise ValueError(f"{path}, line {number}: the path is empty")
        start, end = _span(row, f"{path}, line {number}")
        span = f"@{start:.12g}-{'' if end is None else f'{end:.12g}'}" if start or end is not None else ""
        cell = _first(row, _CLASS)
        classes = tuple(word.strip() for word in cell.split(";") if word.strip()) if cell else None
        key = os.path.normpath(name).replace(os.sep, "/").lstrip("/")
        yield Clip(key + span, root / name, start, end, classes, row.get("recording") or key, _first(row, _SPLIT) or "")


def _span(row: dict[str, str], place: str) -> tuple[float, float | None]:
    try:
        start, end = float(row.get("start") or 0), float(row.get("end") or "inf")
    except ValueError:
        start, end = math.nan, math.nan
    if not 0 <= start < end or math.isinf(start):
        raise ValueError(
            f"{place}: start and end are seconds, and end is the later, not {row.get('start')!r}, {row.get('end')!r}"
        )
    return start, None if math.isinf(end) else end


def rows(path: Path, required: set[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) of a table; a cell that is missing at the end of a line is empty."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter="\t" if header.count("\t") > header.count(",") else ",")
        try:
            reader.fieldnames = [(name or "").strip() for name in reader.fieldnames or []]
            missing = required - set(reader.fieldnames)
            if missing:
                raise ValueError(f"{path} has no column {', '.join(sorted(missing))}; its columns are {header.strip()}")
            for row in reader:
                cells = {name: (cell or "").strip() for name, cell in row.items() if isinstance(cell, str | None)}
                yield reader.line_num, cells
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num + 1}: {error}; write it as UTF-8 CSV or TSV") from error


def _first(row: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((row[name] for name in names if name in row), None)

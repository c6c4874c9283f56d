"""Checking: what the head of a file says is of the type and in the range that its schema has, before it is used.

The schema is the one place that says so; a file that another program wrote, or that is torn, may say anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from soundssl.files.schema import ENDLESS, Attribute, Column, Kind
from soundssl.files.trust import items

SAID = {
    "text": "text",
    "names": "a JSON list of names",
    "files": "a JSON list of files with role, file and uuid",
    "models": "a JSON list of models with file and uuid",
    "any": "text or a number",
    "integer": "a whole number",
    "number": "a number",
}
BLOCK = 1 << 22  # numbers looked at a time
ENTRIES = {"files": ("role", "file", "uuid"), "models": ("file", "uuid")}  # what JSON text says of each
SQUEEZED = 1100  # times that compressed data may be larger than what the file holds; deflate reaches 1,032


def check_attributes(known: Mapping[str, Attribute], found: Mapping[str, object]) -> None:
    """Raise ValueError for an attribute that is missing, of another type, or out of its range.

    >>> check_attributes({"hop": Attribute("seconds", "number", 0, 10)}, {"hop": -1.0})
    Traceback (most recent call last):
    ValueError: attribute hop is -1.0, not a number from 0 to 10
    """
    for name, what in known.items():
        if name not in found:
            if what.needed:
                raise ValueError(f"attribute {name} is missing")
            continue
        value = plain(found[name])
        if not _fits(what, value):
            raise ValueError(f"attribute {name} is {_shown(value)}, not {_wanted(what)}")


def plain(value: Any) -> Any:
    """Return an attribute as a value of Python.

    >>> plain(np.int64(3)), plain("x")
    (3, 'x')
    """
    return value.item() if isinstance(value, np.generic) else value


def _fits(what: Attribute, value: object) -> bool:
    if what.what == "any":
        return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))
    if what.what in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return what.low <= value <= what.high and (what.what == "number" or value == int(value))
    if not isinstance(value, str):
        return False
    return what.what == "text" or listed(value, what.what) is not None


def listed(text: str, what: str) -> list | None:
    """Return the list that JSON text holds, of names or of files (role, file, uuid); None where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    if what == "names":
        return found if all(isinstance(each, str) for each in found) else None
    return found if all(isinstance(each, dict) and _says(each, ENTRIES[what]) for each in found) else None


def _says(entry: dict, names: Sequence[str]) -> bool:
    return all(isinstance(entry.get(name), str) for name in names)


def _wanted(what: Attribute) -> str:
    said = SAID[what.what]
    if math.isfinite(what.low):
        return (
            f"{said} from {what.low:g} to {what.high:.10g}" if math.isfinite(what.high) else f"{said} from {what.low:g}"
        )
    return said


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


def check_storage(file: h5py.File, size: int) -> None:
    """Raise ValueError for a dataset that claims more than a file of `size` bytes can hold."""

    for name, item in items(file):
        if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
            continue
        claimed = math.prod(item.shape or (0,)) * item.dtype.itemsize
        if claimed > (size if item.chunks is None else SQUEEZED * size):
            raise ValueError(f"dataset {name} would take {claimed} bytes, the file has {size}")


def check_columns(kind: Kind, file: h5py.File) -> None:
    """Raise ValueError for a column with numbers out of range, or with rows that are not there."""
    for name, column in kind.columns.items():
        if name in file:
            if column.ends:
                _check_ends(name, file[name][:], len(file[column.ends]), column.ends)
            elif column.types != "str" and _is_table(column):
                _check_range(name, column, file)


def _is_table(column: Column) -> bool:
    """Return whether numbers are looked at when a file is opened: not rows of vectors, which are when they are used."""
    return "," not in column.shape or (column.low, column.high) != (-math.inf, math.inf)


def _check_ends(name: str, ends: np.ndarray, length: int, rows: str) -> None:
    if ends[0] != 0 or ends[-1] != length or (np.diff(ends) < 0).any():
        raise ValueError(f"{name} does not cover {rows}")


def _check_range(name: str, column: Column, file: h5py.File) -> None:
    high = len(file[column.rows]) - 1 if column.rows else column.high
    for block in _blocks(file[name]):
        if not block.size:
            continue
        least, most = plain(block.min()), plain(block.max())  # NaN where there is any
        fine = column.low <= least and most <= high
        if block.dtype.kind == "f":
            fine = fine and (name in ENDLESS or (math.isfinite(least) and math.isfinite(most)))
        if not fine:
            raise ValueError(f"{name} has numbers from {least} to {most}, {_range(column, high)}")


def _range(column: Column, high: float) -> str:
    if column.rows:
        return f"{column.rows} has {int(high) + 1} rows"
    if (column.low, high) == (-math.inf, math.inf):
        return "not finite ones"
    return f"not {column.low:g} to {high:.10g}"


def _blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    step = max(1, BLOCK // max(1, math.prod(dataset.shape[1:])))
    for first in range(0, dataset.shape[0], step):
        yield dataset[first : first + step]

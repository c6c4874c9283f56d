"""One row an event: tables with commas or tabs, lines of JSON, and Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from soundssl import tables
from soundssl.detection.events import Event, Recording
from soundssl.detection.formats.text import Files, FormatError, digits, number

COLUMNS = ("path", "start_s", "end_s", "class", "score", "low_hz", "high_hz", "model")


def _fields(event: Event) -> list[str]:
    times = digits(event.start), digits(event.end)
    return [event.path, *times, event.name, *map(digits, (event.score, event.low, event.high)), event.model]


def writer(delimiter: str) -> Callable[[Path, Sequence[Event], Sequence[Recording]], Files]:
    """Return the writer of tables with this delimiter."""

    def write_table(path: Path, events: Sequence[Event], recordings: Sequence[Recording]) -> Files:
        lines = [delimiter.join(COLUMNS) + "\n", *(tables.row_text(_fields(event), delimiter) for event in events)]
        yield path, "".join(lines).encode("utf-8", "surrogateescape")

    return write_table


def read(content: bytes, name: str, recording: str) -> list[Event]:
    """Read a table; the columns start_s, end_s and class must be there."""
    table = tables.read(content, name, "surrogateescape")
    needed = [column for column in ("start_s", "end_s", "class") if column not in table.columns]
    if needed:
        raise FormatError(f"{name} has no column {needed[0]!r}; its columns are {', '.join(table.columns)}")
    return [_event_of(row, name, recording) for row in table.rows]


def _event_of(row: tables.Row, name: str, recording: str) -> Event:
    given = {column: row.cells.get(column, "") for column in COLUMNS}
    path = given["path"] or recording
    if not path:
        raise FormatError(f"{name} line {row.number} names no recording; fill in the column path")
    numbers = {column: number(given[column], column, row.number, name) for column in COLUMNS[4:7] if given[column]}
    start, end = (number(given[column], column, row.number, name) for column in ("start_s", "end_s"))
    score, low, high = (numbers.get(column) for column in ("score", "low_hz", "high_hz"))
    return Event(path, start, end, given["class"], score, low, high, given["model"])


def write_jsonl(path: Path, events: Sequence[Event], recordings: Sequence[Recording]) -> Files:
    """Write one event a line."""
    lines = (json.dumps(dict(zip(COLUMNS, event, strict=True)), ensure_ascii=True) + "\n" for event in events)
    yield path, "".join(lines).encode()


def read_jsonl(content: bytes, name: str, recording: str) -> list[Event]:
    """Read one event a line."""
    events = []
    for place, line in enumerate(tables.decode(content, name).split("\n"), 1):
        if line.strip():
            try:
                row = _cells(json.loads(line))
            except (ValueError, AttributeError):
                raise FormatError(f"{name} line {place} is no JSON object; write one event a line") from None
            events.append(_event_of(tables.Row(place, row), name, recording))
    return events


def _cells(row: dict[str, object]) -> dict[str, str]:
    return {key: "" if value is None else str(value) for key, value in row.items()}


def _parquet():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise FormatError("Parquet needs pyarrow, which is not installed; pip install 'soundssl[parquet]'") from error
    return pyarrow


def write_parquet(path: Path, events: Sequence[Event], recordings: Sequence[Recording]) -> Files:
    """Write a Parquet table, one row an event."""
    arrow = _parquet()
    types = {column: arrow.string() if column in ("path", "class", "model") else arrow.float64() for column in COLUMNS}
    columns = dict(zip(COLUMNS, zip(*events, strict=True), strict=True)) if events else dict.fromkeys(COLUMNS, ())
    table = arrow.table({name: arrow.array(values, types[name]) for name, values in columns.items()})
    sink = arrow.BufferOutputStream()
    arrow.parquet.write_table(table, sink)
    yield path, sink.getvalue().to_pybytes()


def read_parquet(content: bytes, name: str, recording: str) -> list[Event]:
    """Read a Parquet table."""
    arrow = _parquet()
    try:
        rows = arrow.parquet.read_table(arrow.BufferReader(content)).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise FormatError(f"{name} is not a Parquet file: {error}") from error
    return [_event_of(tables.Row(place, _cells(row)), name, recording) for place, row in enumerate(rows, 1)]

"""Selection tables of Raven: a row a selection; one for many recordings runs on over a sorted list of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from soundssl.detection.events import Event, Recording
from soundssl.detection.formats.text import Files, FormatError, digits, number, tabbed, unbroken

COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Class", "Score", "Begin Path", "File Offset (s)"),
)
TIMES = ("begin time (s)", "end time (s)")
CLASS = ("class", "species", "annotation", "common name", "label", "tag", "tags")


def write(path: Path, events: Sequence[Event], recordings: Sequence[Recording]) -> Files:
    """Write a selection table; over several recordings Begin Time runs on, and the list of them stands beside it."""
    ends = itertools.accumulate((recording.duration for recording in recordings), initial=0.0)
    begin = {recording.path: end for recording, end in zip(recordings, ends, strict=False)}
    nyquist = {recording.path: recording.rate / 2 for recording in recordings}
    lines = ["\t".join(COLUMNS) + "\n"]
    for selection, event in enumerate(events, 1):
        event = unbroken(event, "a Raven table")
        offset, high = begin[event.path], nyquist[event.path] if event.high is None else event.high
        cells = (
            *(str(selection), "Spectrogram 1", "1", digits(offset + event.start), digits(offset + event.end)),
            *(digits(event.low or 0.0), digits(high), event.name, digits(event.score), event.path),
            digits(event.start),
        )
        lines.append("\t".join(cells) + "\n")
    yield path, "".join(lines).encode("utf-8", "surrogateescape")
    if len(recordings) > 1:
        names = "".join(f"{recording.path}\n" for recording in recordings)
        yield path.with_name(f"{path.stem}.files.txt"), names.encode("utf-8", "surrogateescape")


def read(content: bytes, name: str, recording: str) -> list[Event]:
    """Read a selection table; a selection that stands in several views counts once."""
    rows = tabbed(content, name)
    head = [cell.strip().casefold() for cell in next(rows, (0, [""]))[1]]
    for column in TIMES:
        if column not in head:
            raise FormatError(f"{name} has no column {column!r}; it is no selection table of Raven")
    events: dict[str, Event] = {}
    for line, cells in rows:
        row = dict(zip(head, (cell.strip() for cell in cells), strict=False))
        begin, end = (number(row.get(column, ""), column, line, name) for column in TIMES)
        path = row.get("begin path") or row.get("begin file") or recording
        if not path:
            raise FormatError(f"{name} line {line} names no recording; export the column Begin Path")
        start = number(row["file offset (s)"], "file offset", line, name) if row.get("file offset (s)") else begin
        about = [row.get(column, "") for column in ("score", "low freq (hz)", "high freq (hz)")]
        score, low, high = (number(cell, "frequency or score", line, name) if cell else None for cell in about)
        label = next((row[column] for column in CLASS if row.get(column)), "")
        key = row.get("selection") or str(line)
        events.setdefault(key, Event(path, start, start + end - begin, label, score, low, high))
    return list(events.values())

"""Tables of strong annotations: DCASE's and DESED's, and AudioSet's, a row an event between tabs.

DCASE and DESED: `filename onset offset event_label`; a recording in which nothing is heard has a row without event.
AudioSet strong: `segment_id start_time_seconds end_time_seconds label`, the segment being video id, underscore and
start in milliseconds; on its evaluation grid a fifth column says PRESENT or NOT_PRESENT (Hershey et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from soundssl.detection.events import Event, Recording
from soundssl.detection.formats.text import Files, FormatError, digits, number, tabbed, unbroken

DCASE = ("filename", "onset", "offset", "event_label")
AUDIOSET = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
PRESENT = {"PRESENT": True, "NOT_PRESENT": False}
EMPTY = ("", "nan")


class Rating(NamedTuple):
    """Say whether somebody heard a class between two times of a clip."""

    path: str
    start: float
    end: float
    name: str
    present: bool


def write_dcase(path: Path, events: Sequence[Event], recordings: Sequence[Recording]) -> Files:
    """Write a row an event; a recording without any has a row of its own."""
    return _write(path, DCASE, events, [recording.path for recording in recordings], str)


def write_audioset(path: Path, events: Sequence[Event], recordings: Sequence[Recording]) -> Files:
    """Write a row an event; segments are named as their files, without folder and ending. Raises FormatError."""
    stems: dict[str, str] = {}
    for recording in recordings:
        stem = PurePath(recording.path).stem
        if stems.setdefault(stem, recording.path) != recording.path:
            raise FormatError(f"{stems[stem]} and {recording.path} would be one segment {stem}; rename one")
    return _write(path, AUDIOSET, events, [], lambda name: PurePath(name).stem)


def _write(
    path: Path, columns: Sequence[str], events: Sequence[Event], silent: Sequence[str], named: Callable[[str], str]
) -> Files:
    lines = ["\t".join(columns) + "\n"]
    for event in events:
        event = unbroken(event, "a table with tabs")
        lines.append("\t".join([named(event.path), digits(event.start), digits(event.end), event.name]) + "\n")
    heard = {event.path for event in events}
    for name in silent:
        if name not in heard:
            unbroken(Event(name, 0.0, 0.0, ""), "a table with tabs")
            lines.append(f"{named(name)}\t\t\t\n")
    yield path, "".join(lines).encode("utf-8", "surrogateescape")


def reader(columns: Sequence[str]) -> Callable[[bytes, str, str], list[Event]]:
    """Return the reader of tables with these columns: what is rated present."""

    def read(content: bytes, name: str, recording: str) -> list[Event]:
        return [Event(*each[:4]) for each in ratings(content, name, columns) if each.present and each.name]

    return read


def ratings(content: bytes, name: str, columns: Sequence[str] = AUDIOSET) -> list[Rating]:
    """Return the rows of a table; that of a clip in which nothing is heard has an empty class. Raises FormatError."""
    rows = tabbed(content, name)
    head = [cell.strip().casefold() for cell in next(rows, (0, []))[1]]
    if lacking := [column for column in columns if column not in head]:
        raise FormatError(f"{name} has no column {lacking[0]!r}; its columns are {', '.join(head) or 'none'}")
    place = [head.index(column) for column in columns]
    verdict = head.index("present") if "present" in head else None
    found = []
    for line, cells in rows:
        cells = [cell.strip() for cell in cells] + [""] * (len(head) - len(cells))
        path, *times, label = (cells[i] for i in place)
        if not path:
            raise FormatError(f"{name} line {line} names no recording; fill in the column {columns[0]}")
        if all(cell.casefold() in EMPTY for cell in (*times, label)):
            found.append(Rating(path, 0.0, 0.0, "", True))
            continue
        start, end = (number(cell, column, line, name) for cell, column in zip(times, columns[1:3], strict=True))
        if not label:
            raise FormatError(f"{name} line {line}: an event has no class; name what is heard")
        said = "PRESENT" if verdict is None else cells[verdict].upper()
        if said not in PRESENT:
            raise FormatError(f"{name} line {line}: present is {cells[verdict or 0]!r}; give PRESENT or NOT_PRESENT")
        found.append(Rating(path, start, end, label, PRESENT[said]))
    return found

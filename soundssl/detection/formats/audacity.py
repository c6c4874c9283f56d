"""Label tracks of Audacity: start, end and name between tabs; a second line for frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from soundssl.detection.events import Event, Recording
from soundssl.detection.formats.text import Files, FormatError, number, tabbed, unbroken


def write(path: Path, events: Sequence[Event], recordings: Sequence[Recording]) -> Files:
    """Write a label track; it has no place for the name of its recording, so it holds one."""
    if len({event.path for event in events} | {recording.path for recording in recordings}) > 1:
        raise FormatError("a label track of Audacity holds one recording; name a folder as output, with / at its end")
    lines = []
    for event in events:
        event = unbroken(event, "a label track")
        lines.append(f"{event.start:.6f}\t{event.end:.6f}\t{event.name}\n")
        if event.low is not None and event.high is not None:
            lines.append(f"\\\t{event.low:.6f}\t{event.high:.6f}\n")
    yield path, "".join(lines).encode("utf-8", "surrogateescape")


def read(content: bytes, name: str, recording: str) -> list[Event]:
    """Read a label track of a recording that is named."""
    if not recording:
        raise FormatError(f"{name} is a label track, which does not name its recording; name it")
    events: list[Event] = []
    for line, cells in tabbed(content, name):
        if cells[0] == "\\" and events and len(cells) >= 3:
            low, high = (number(cell, "frequency", line, name) for cell in cells[1:3])
            events[-1] = events[-1]._replace(low=low if low >= 0 else None, high=high if high >= 0 else None)
        elif len(cells) < 2:
            raise FormatError(f"{name} line {line} has no tab; a label is start, end and name between tabs")
        else:
            start, end = (number(cell, "time", line, name) for cell in cells[:2])
            events.append(Event(recording, start, end, "\t".join(cells[2:]).strip()))
    return events

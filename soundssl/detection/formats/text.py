"""What several formats share: errors, numbers, lines without quotes, JSON, identities that follow from names."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from soundssl import SoundsslError, tables
from soundssl.detection.events import Event, Recording

NAMESPACE = uuid.UUID("6d1c9a3e-52a5-5b8e-9d3f-0a1b6f6f0c11")  # of identities that follow from what they name

Files = Iterator[tuple[Path, bytes]]


class FormatError(SoundsslError):
    """A file of events cannot be read, or a format cannot hold what is to be written."""


def digits(value: float | None) -> str:
    """Return a number with one decimal place at least, by which readers know its type; empty for None."""
    if value is None:
        return ""
    text = f"{value:.6f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def number(cell: str, column: str, line: int, name: str) -> float:
    """Return the number in a cell; raise FormatError with its line and column."""
    try:
        return tables.number(cell)
    except ValueError:
        raise FormatError(f"{name} line {line}: {column} {cell!r} is no number; write it as digits") from None


def unbroken(event: Event, kind: str) -> Event:
    """Return an event; raise FormatError where its names would break a line of a format without quotes."""
    for word in (event.name, event.path):
        if any(character in word for character in "\t\n\r"):
            raise FormatError(f"{word!r} has a tab or a line break, which {kind} cannot hold; choose csv or jsonl")
    return event


def tabbed(content: bytes, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of lines separated by tabs, without quoting."""
    for number, line in enumerate(tables.decode(content, name, "surrogateescape").split("\n"), 1):
        if line.strip():
            yield number, line.split("\t")


def identity(*names: object) -> str:
    """Return an identity that follows from names, so that equal runs give equal bytes."""
    return str(uuid.uuid5(NAMESPACE, json.dumps(names)))


def by_recording(events: Sequence[Event], recordings: Sequence[Recording]) -> Iterator[tuple[Recording, list[Event]]]:
    """Yield every recording with its own events."""
    own: dict[str, list[Event]] = {recording.path: [] for recording in recordings}
    for event in events:
        own[event.path].append(event)
    yield from ((recording, own[recording.path]) for recording in recordings)


def parse_json(content: bytes, name: str, kind: type) -> Any:
    """Return what a JSON file holds, a list or an object; raise FormatError for anything else."""
    try:
        found = json.loads(content)
    except ValueError as error:
        raise FormatError(f"{name} is no JSON: {error}") from None
    if not isinstance(found, kind):
        raise FormatError(f"{name} holds no {'list' if kind is list else 'object'}; is it of another format?")
    return found

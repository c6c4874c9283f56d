"""Events in the formats of the field: a module each, with a writer and a reader, found by its row here.

A writer yields the files to write, with their content; a reader returns events. Both raise FormatError in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from soundssl.detection.events import Event, Recording
from soundssl.detection.formats import aoef, audacity, label_studio, raven, rows, strong
from soundssl.detection.formats.text import Files, FormatError


class Format(NamedTuple):
    """Say what a format is, the ending of a file for one recording, and how it is written and read."""

    summary: str
    suffix: str
    write: Callable[[Path, Sequence[Event], Sequence[Recording]], Files]
    read: Callable[[bytes, str, str], list[Event]]


def choose(path: Path, name: str | None) -> str:
    """Return the format that is asked for by `name`, else by the ending of a path; raise FormatError where none is."""
    if name is not None:
        if name not in FORMATS:
            raise FormatError(f"no format is called {name!r}; there are {', '.join(FORMATS)}")
        return name
    found = ENDINGS.get(path.suffix.lower(), ())
    if len(found) == 1:
        return found[0]
    if found:
        raise FormatError(f"{path.name} may be {' or '.join(found)}; say which with --format")
    raise FormatError(f"{path.name} names no format; give --format, one of {', '.join(FORMATS)}")


def write(path: Path, events: Iterable[Event], recordings: Iterable[Recording], name: str | None = None) -> Files:
    """Yield the files, with their content, in which events stand in a format; the first is `path`.

    Events are sorted by recording, time and class. `recordings` are all that were listened to, also those in which
    nothing was heard. Raises FormatError.
    """
    found = sorted(events, key=lambda event: (event.path, event.start, event.end, event.name))
    return FORMATS[choose(path, name)].write(path, found, sorted(recordings))


def read(content: bytes, path: Path, name: str | None = None, recording: str = "") -> list[Event]:
    """Return the events in a file of a format; `recording` is the one that they lie in where the file does not say.

    Raises FormatError or TableError with the line.
    """
    events = FORMATS[choose(path, name)].read(content, path.name, recording)
    for event in events:
        if not 0 <= event.start <= event.end:
            raise FormatError(
                f"{path.name}: {event.name!r} is said to last from {event.start:g} to {event.end:g} s; times are "
                f"seconds from 0, and the end is not the earlier"
            )
    return events


FORMATS: dict[str, Format] = {
    "csv": Format("a table with commas, a row an event", ".csv", rows.writer(","), rows.read),
    "tsv": Format("a table with tabs, a row an event", ".tsv", rows.writer("\t"), rows.read),
    "jsonl": Format("a line of JSON an event", ".jsonl", rows.write_jsonl, rows.read_jsonl),
    "parquet": Format("a Parquet table (an extra)", ".parquet", rows.write_parquet, rows.read_parquet),
    "raven": Format("a selection table of Raven", ".selections.txt", raven.write, raven.read),
    "audacity": Format("a label track of Audacity, one recording each", ".labels.txt", audacity.write, audacity.read),
    "label-studio": Format(
        "tasks of Label Studio with predictions", ".tasks.json", label_studio.write, label_studio.read
    ),
    "aoef": Format("Acoustic Objects Exchange Format, of soundevent", ".aoef.json", aoef.write, aoef.read),
    "dcase": Format("a table of DCASE and DESED", ".events.tsv", strong.write_dcase, strong.reader(strong.DCASE)),
    "audioset": Format(
        "a table of AudioSet's strong labels",
        ".strong.tsv",
        strong.write_audioset,
        strong.reader(strong.AUDIOSET),
    ),
}
ENDINGS: dict[str, tuple[str, ...]] = {
    **{f".{name}": (name,) for name in ("csv", "tsv", "jsonl", "parquet")},
    **{".txt": ("raven", "audacity"), ".json": ("label-studio", "aoef")},
}


def beside(recording: str, name: str) -> PurePath:
    """Return the relative name of the file of one recording: its path below a folder, with the ending of the format.

    >>> beside("/data/../a/b.wav", "raven").as_posix()
    'data/a/b.wav.selections.txt'
    """
    parts = [part for part in PurePath(recording).parts if part not in ("/", "..", ".")]
    return PurePath(*parts[:-1], parts[-1] + FORMATS[name].suffix)


def recording_of(path: str, name: str | None) -> str:
    """Return the recording that the name of a file of events says: what `beside` put the ending of the format to.

    >>> recording_of("a/b.wav.selections.txt", "raven"), recording_of("b.txt", "audacity")
    ('a/b.wav', 'b')
    """
    for suffix in [FORMATS[name].suffix] if name in FORMATS else [each.suffix for each in FORMATS.values()]:
        if path.endswith(suffix):
            return path.removesuffix(suffix)
    return PurePath(path).with_suffix("").as_posix()

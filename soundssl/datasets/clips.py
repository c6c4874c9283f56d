"""Clips: spans of media files, and the files below folders that may be media."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Files that lie beside media and are none; in a folder everything else is tried, and its content decides.
BESIDE = {
    *(".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".md", ".html", ".pdf", ".log"),
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".srt", ".vtt", ".ass", ".lrc", ".m3u", ".cue", ".nfo"),
    *(".h5", ".hdf5", ".npy", ".npz", ".safetensors", ".pt", ".zip", ".gz", ".tar", ".py", ".sh", ".ini", ".db"),
    *(".part", ".tmp", ".partial", ".resume", ".textgrid", ".selections", ".md5", ".sha256"),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """Name a span of a media file: `start`, `end` in seconds (None: its end); `classes` None where nothing is said.

    `absent` are classes that somebody heard not to be there, None where all others are; those unrated are in neither,
    and absent too, or unknown if the clip is `partial`.
    `identifiers` are pairs of a class and what the collection calls it; `events` (class, onset, offset) in seconds from
    the clip's start; `noisy` whether nobody verified the classes, None where the collection does not say.
    """

    key: str
    path: Path
    start: float = 0.0
    end: float | None = None
    classes: tuple[str, ...] | None = None
    recording: str = ""
    split: str = ""
    absent: tuple[str, ...] | None = ()
    identifiers: tuple[tuple[str, str], ...] = ()
    uploader: str = ""
    licence: str = ""
    subset: str = ""
    noisy: bool | None = None
    partial: bool = False
    events: tuple[tuple[str, float, float], ...] = ()

    def said(self) -> list[object]:
        """Return what is said of its classes, for a digest; of a clip with nothing but classes these alone."""
        plain = Clip(self.key, self.path)
        more = {
            name: getattr(self, name)
            for name in ("absent", "identifiers", "uploader", "licence", "subset", "noisy", "partial", "events")
            if getattr(self, name) != getattr(plain, name)
        }
        return [self.key, self.classes, *([more] if more else [])]


@dataclass(frozen=True)
class Collection:
    """Name a reader of clips that has no module of its own, as COLLECTIONS wants it."""

    LAYOUT: str
    clips: Callable[[Path], Iterator[Clip]]


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that may be media, in a stable order; a loop of links is walked once.

    A folder that cannot be listed is yielded itself, to be named with its reason.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [folder]  # the next one last; no recursion, for folders may be nested as deep as a path is long
    while waiting:
        path = waiting.pop()
        if os.path.isdir(path):
            try:
                waiting += reversed(_entries(path, seen))
            except OSError:
                yield path
        elif path.suffix.lower() not in BESIDE and not _is_special(path):
            yield path


def _entries(folder: Path, seen: set[tuple[int, int]]) -> list[Path]:
    """Return what lies in a folder, hidden entries and spools apart, sorted; nothing where it was `seen` before."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return []
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        names = sorted((entry.name for entry in entries if not entry.name.startswith(".")), key=os.fsencode)
    return [path for path in map(folder.joinpath, names) if not _is_spool(path)]


def _is_spool(folder: Path) -> bool:
    """Return whether a folder is what an interrupted featurize left beside its output."""
    return folder.suffix == ".parts" and os.path.isfile(folder / "journal.jsonl")


def _is_special(path: Path) -> bool:
    """Return whether a path is a pipe, a socket or a device; what cannot be looked at is none, and will be named."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def paths(inputs: Iterable[Path]) -> Iterator[Clip]:
    """Yield a clip for each file, and for each file below each folder; keys are relative to the folder given."""
    for path in inputs:
        own = os.path.normpath(path).replace(os.sep, "/").lstrip("/")
        for file in walk(path) if os.path.isdir(path) else [path]:
            yield Clip(own if file == path else file.relative_to(path).as_posix(), file)

"""Clips: spans of media files, and the files below folders that may be media."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
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
    """Name a span of a media file: `start`, `end` in seconds (None: its end); `classes` None where nothing is said."""

    key: str
    path: Path
    start: float = 0.0
    end: float | None = None
    classes: tuple[str, ...] | None = None
    recording: str = ""
    split: str = ""


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that may be media, in a stable order; a loop of links is walked once."""
    seen: set[tuple[int, int]] = set()

    def enter(place: Path) -> Iterator[Path]:
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        for entry in sorted(os.scandir(place), key=lambda entry: os.fsencode(entry.name)):
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if path.is_dir():
                if not _is_spool(path):
                    yield from enter(path)
            elif path.suffix.lower() not in BESIDE and not _is_special(path):
                yield path

    yield from enter(folder)


def _is_spool(folder: Path) -> bool:
    """Return whether a folder is what an interrupted featurize left beside its output."""
    return folder.suffix == ".parts" and (folder / "journal.jsonl").is_file()


def _is_special(path: Path) -> bool:
    """Return whether a path is a pipe, a socket or a device; a link to nowhere is none, and will be named."""
    return path.exists() and not stat.S_ISREG(path.stat().st_mode)


def paths(inputs: Iterable[Path]) -> Iterator[Clip]:
    """Yield a clip for each file, and for each file below each folder; keys are relative to the folder given."""
    for path in inputs:
        if path.is_dir():
            for file in walk(path):
                yield Clip(file.relative_to(path).as_posix(), file)
        else:
            yield Clip(os.path.normpath(path).replace(os.sep, "/").lstrip("/"), path)

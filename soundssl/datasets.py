"""Collections: one generator each, from what lies on disk to clips with their classes and splits.

A generator takes the root (a folder or a table) and yields Clip; no sound is read here.
"""

from __future__ import annotations

import csv
import math
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


def esc50(root: Path) -> Iterator[Clip]:
    """Yield the clips of a folder in the layout of ESC-50 (Piczak 2015): `meta/esc50.csv` or `meta.csv`, and `audio/`.

    The split is the fold; the recording is the original upload that several clips may come from.
    Raises ValueError when the table is missing.
    """
    tables = [table for table in (root / "meta" / "esc50.csv", root / "meta.csv") if table.is_file()]
    if not tables:
        raise ValueError(
            f"{root} has neither meta/esc50.csv nor meta.csv; name the folder that ESC-50 was unpacked into"
        )
    for line, row in _rows(tables[0], {"filename", "fold", "category"}):
        name = row["filename"]
        source = row.get("src_file") or "".join(name.split("-")[1:2])  # FOLD-SOURCE-TAKE-TARGET.wav
        if not source:
            raise ValueError(f"{tables[0]}, line {line}: no column src_file, and {name!r} does not name its source")
        yield Clip(name, root / "audio" / name, classes=(row["category"],), recording=source, split=row["fold"])


_PATH, _CLASS, _SPLIT = (
    ("path", "file", "filename", "fname"),
    ("class", "classes", "label", "labels"),
    ("split", "fold"),
)


def table(path: Path, root: Path | None = None) -> Iterator[Clip]:
    """Yield the clips of a CSV or TSV table with a header.

    Columns: `path` (relative to `root`, else to the table's folder); optional `class` or `classes` (several separated
    by `;`, an empty cell says nothing), `split` or `fold`, `recording`, `start` and `end` in seconds. Raises ValueError
    for a table without a path column, an empty path, or a time that is no number or ends before it begins.
    """
    root = root or path.parent
    for number, row in _rows(path, set()):
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


def folders(root: Path) -> Iterator[Clip]:
    """Yield the clips of a folder that holds one folder a class."""
    for clip in paths([root]):
        name, slash, _ = clip.key.partition("/")
        yield Clip(clip.key, clip.path, classes=(name,) if slash else None)


def _rows(path: Path, required: set[str]) -> Iterator[tuple[int, dict[str, str]]]:
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


DATASETS = {
    "esc50": "a folder in the layout of ESC-50 or ESC-10: meta/esc50.csv or meta.csv, and audio/",
    "csv": "a table with columns path, class (several by ;), split or fold, and optional start, end, recording",
    "folders": "a folder that holds one folder a class",
}


def load(name: str, root: Path, media_root: Path | None = None) -> list[Clip]:
    """Return the clips of a collection by its name in DATASETS; raise ValueError for an unknown name."""
    if name not in DATASETS:
        raise ValueError(f"no collection is called {name!r}; there are {', '.join(DATASETS)}")
    if name == "csv":
        return list(table(root, media_root))
    return list({"esc50": esc50, "folders": folders}[name](root))

"""AudioSet: ten seconds of videos in 527 classes; weak labels, strong ones, and those of 0.96 s (Gemmeke et al. 2017).

Sound lies anywhere below the folder, a file a segment, its name the eleven letters of the video, perhaps after a Y and
before _ and times. Segments without a file are clips that will be skipped.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from soundssl.datasets.clips import Clip, Collection, walk
from soundssl.datasets.table import read
from soundssl.tables import TableError, decode, number

NAME = 11  # letters of the name of a video
SEGMENTS = {
    "balanced_train": "balanced_train_segments.csv",
    "unbalanced_train": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
STRONG = {"train": "audioset_train_strong.tsv", "eval": "audioset_eval_strong.tsv"}
FRAMED = {"train": "audioset_train_strong_framed_posneg.tsv", "eval": "audioset_eval_strong_framed_posneg.tsv"}
NAMES = ("class_labels_indices.csv", "mid_to_display_name.tsv")
LAYOUT = f"a folder with {', '.join(SEGMENTS.values())} (any of them), class_labels_indices.csv, and sound below it"
PRESENCE = {"PRESENT": True, "NOT_PRESENT": False}


class Quality(NamedTuple):
    """Hold of a class how many labels were rated in a check, and how many of them were right."""

    rated: int
    right: int


def clips(root: Path) -> Iterator[Clip]:
    """Yield the segments of the tables that are there, with their weak labels; the split is the name of the table.

    Raises TableError where none is there, and for a line that is no segment or names an unknown class.
    """
    tables, names, media = _tables(root, SEGMENTS), _names(root), _media(root)
    for split, path in tables.items():
        for line, cells in _segment_lines(path):
            place = f"{path} line {line}"
            if len(cells) != 4:
                raise TableError(
                    f"{place} has {len(cells)} cells; a segment is YTID, start, end and its labels in quotes"
                )
            video, start = cells[0], _seconds(cells[1], place)
            ids = [one.strip() for one in cells[3].split(",") if one.strip()]
            yield _clip(root, media, video, start, split, _named(ids, names, place))


def strong(root: Path) -> Iterator[Clip]:
    """Yield the segments of the tables of strong labels, each with its events. Raises TableError."""
    tables, names, media = _tables(root, STRONG), _names(root), _media(root)
    for split, path in tables.items():
        events: dict[str, list[tuple[str, float, float]]] = {}
        for cells, place in _timed(path, ("segment_id", "start_time_seconds", "end_time_seconds", "label")):
            begin, end = (_seconds(cells[name], place) for name in ("start_time_seconds", "end_time_seconds"))
            if not begin < end:
                raise TableError(f"{place}: an event ends after it begins, not from {begin:g} to {end:g}")
            events.setdefault(cells["segment_id"], []).append((cells["label"], begin, end))
            _named([cells["label"]], names, place)
        for segment, some in events.items():
            video, start = _segment(segment, str(path))
            pairs = _named([one for one, *_ in some], names, str(path))
            name = {identifier: shown for shown, identifier in pairs}
            timed = tuple((name[one], begin, end) for one, begin, end in some)
            yield _clip(root, media, video, start, split, pairs, events=timed)


def framed(root: Path) -> Iterator[Clip]:
    """Yield the rated spans of 0.96 s: classes PRESENT or NOT_PRESENT, all others unknown. Raises TableError."""
    tables, names, media = _tables(root, FRAMED), _names(root), _media(root)
    columns = ("segment_id", "start_time_seconds", "end_time_seconds", "label", "present")
    for split, path in tables.items():
        spans: dict[tuple[str, float, float], dict[str, bool]] = {}
        for cells, place in _timed(path, columns):
            if cells["present"] not in PRESENCE:
                raise TableError(f"{place}: present is {cells['present']!r}; it is PRESENT or NOT_PRESENT")
            begin, end = (_seconds(cells[name], place) for name in ("start_time_seconds", "end_time_seconds"))
            _named([cells["label"]], names, place)
            spans.setdefault((cells["segment_id"], begin, end), {})[cells["label"]] = PRESENCE[cells["present"]]
        for (segment, begin, end), said in spans.items():
            video, start = _segment(segment, str(path))
            pairs = _named(list(said), names, str(path))
            present = tuple(name for name, identifier in pairs if said[identifier])
            absent = tuple(name for name, identifier in pairs if not said[identifier])
            whole = _clip(root, media, video, start, split, pairs)
            yield Clip(
                f"{whole.key}@{begin:.12g}-{end:.12g}", whole.path, begin, end, present, whole.recording, split, absent,
                whole.identifiers, partial=True,
            )  # fmt: skip


def quality(root: Path) -> dict[str, Quality]:
    """Return by identifier how right the labels of each class are, by the table of checks. Raises TableError."""
    path = root / "qa_true_counts.csv"
    if not path.is_file():
        raise TableError(f"{root} has no qa_true_counts.csv; take it from AudioSet's page")
    table = read(path)
    if missing := [name for name in ("label_id", "num_rated", "num_true") if name not in table.columns]:
        raise TableError(f"{path} line {table.line} has no column {missing[0]}; take the table as published")
    found = {}
    for line, cells in table.rows:
        try:
            found[cells["label_id"]] = Quality(int(cells["num_rated"]), int(cells["num_true"]))
        except ValueError:
            raise TableError(f"{path} line {line}: num_rated and num_true are whole numbers") from None
    return found


def _tables(root: Path, known: dict[str, str]) -> dict[str, Path]:
    found = {split: root / name for split, name in known.items() if (root / name).is_file()}
    if not found:
        raise TableError(f"{root} has none of {', '.join(known.values())}; name the folder with AudioSet's tables")
    return found


def _names(root: Path) -> dict[str, str]:
    """Return the names of classes by identifier: those of the class index, and of the list that strong labels have."""
    names: dict[str, str] = {}
    if (root / NAMES[1]).is_file():
        lines = decode((root / NAMES[1]).read_bytes(), str(root / NAMES[1])).split("\n")
        names |= {one: name for one, _, name in (line.partition("\t") for line in lines) if name}
    if (root / NAMES[0]).is_file():
        table = read(root / NAMES[0])
        if missing := [name for name in ("mid", "display_name") if name not in table.columns]:
            raise TableError(f"{root / NAMES[0]} line {table.line} has no column {missing[0]}; take it as published")
        names |= {cells["mid"]: cells["display_name"] for _, cells in table.rows}
    if not names:
        raise TableError(f"{root} has neither {' nor '.join(NAMES)}; put the index of classes beside the segments")
    return names


def _named(ids: list[str], names: dict[str, str], place: str) -> tuple[tuple[str, str], ...]:
    if unknown := [one for one in ids if one not in names]:
        raise TableError(f"{place}: {unknown[0]!r} is in no index of classes; take {' or '.join(NAMES)} as published")
    return tuple((names[one], one) for one in dict.fromkeys(ids))


def _media(root: Path) -> dict[str, Path]:
    """Return the media files below a folder by the names of videos that theirs may mean."""
    found: dict[str, Path] = {}
    for path in walk(root):
        stem = path.stem
        for first in (0, 1) if stem.startswith("Y") else (0,):
            if len(stem) >= first + NAME and stem[first + NAME : first + NAME + 1] in ("", "_"):
                found.setdefault(stem[first : first + NAME], path)
    return found


def _clip(
    root: Path,
    media: dict[str, Path],
    video: str,
    start: float,
    split: str,
    pairs: tuple[tuple[str, str], ...],
    events: tuple[tuple[str, float, float], ...] = (),
) -> Clip:
    path = media.get(video, root / f"{video}.wav")
    classes = tuple(name for name, _ in pairs)
    key = f"{video}_{round(start * 1000)}"  # as strong labels name a segment
    return Clip(key, path, classes=classes, recording=video, split=split, identifiers=pairs, events=events)


def _segment(name: str, place: str) -> tuple[str, float]:
    video, _, start = name.rpartition("_")
    if not video or not start.isdecimal():
        raise TableError(f"{place}: {name!r} is no segment; it is YTID_MILLISECONDS")
    return video, int(start) / 1000


def _segment_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a table of segments, without the remarks before them."""
    for line, text in enumerate(decode(path.read_bytes(), str(path)).split("\n"), 1):
        if text.strip() and not text.startswith("#"):
            yield line, next(csv.reader([text], skipinitialspace=True))


def _timed(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[dict[str, str], str]]:
    table = read(path)
    if missing := [name for name in columns if name not in table.columns]:
        raise TableError(f"{path} line {table.line} has no column {missing[0]}; take the table as published")
    for line, cells in table.rows:
        yield cells, f"{path} line {line}"


def _seconds(cell: str, place: str) -> float:
    try:
        value = number(cell)
    except ValueError:
        value = -1.0
    if value < 0:
        raise TableError(f"{place}: {cell!r} is no time; times are seconds from 0 on")
    return value


def _collection(clips: Callable[[Path], Iterator[Clip]], tables: dict[str, str], what: str) -> Collection:
    return Collection(f"as audioset, with {' or '.join(tables.values())}: {what}", clips)


audioset_strong = _collection(strong, STRONG, "events")
audioset_framed = _collection(framed, FRAMED, "spans of 0.96 s, rated present or not")

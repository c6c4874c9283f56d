"""Question sheets: CSV tables that people fill in, and the journal of answers, which is a sheet that grows by a line.

A sheet names a window by its clip and its time, so that it can be read without the options it was written with; its
columns may stand in another order. Answers are class names separated by `;`, `none` for "none of these", `?` for
"cannot tell".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from soundssl import SoundsslError, files, tables

COLUMNS = ("cluster", "file", "clip", "start", "end", "class")
NONE = ("none", "none of these")
UNKNOWN = ("?", "cannot tell")
NEAR = 0.006  # seconds: times rounded to hundredths by a spreadsheet still name their window


class SheetError(SoundsslError):
    """A sheet cannot be read, or does not fit the clusters it is read with."""


class Question(NamedTuple):
    """Say what to listen to: seconds `start` to `end` of `file`, of the clip `clip`; `cluster` None where random."""

    cluster: int | None
    file: str
    clip: str
    start: float
    end: float


class Line(NamedTuple):
    """Hold one line of a sheet: its number in the file, what it asks about, and the words of the answer."""

    number: int
    cluster: int | None
    clip: str
    start: float
    answer: str


def write_line(question: Question, answer: str = "") -> str:
    """Return one line of a sheet, with its end."""
    cluster = "" if question.cluster is None else question.cluster
    times = (f"{time:.6f}".rstrip("0").rstrip(".") for time in (question.start, question.end))
    return tables.row_text([cluster, question.file, question.clip, *times, answer])


def write(questions: Iterable[Question]) -> str:
    """Return a sheet of unanswered questions."""
    return tables.row_text(COLUMNS) + "".join(map(write_line, questions))


def read(content: bytes, name: str) -> list[Line]:
    """Return the lines of a sheet; raise SheetError naming the line, what is wrong with it and what to do."""
    if not content.strip():
        raise SheetError(f"{name} is empty; write a sheet with --questions")
    try:
        table = tables.read(content, name)
    except tables.TableError as error:
        raise SheetError(str(error)) from None
    if missing := [column for column in COLUMNS if column not in table.columns and column not in ("file", "end")]:
        raise SheetError(
            f"{name} line {table.line} has no column {missing[0]!r}; keep the first line as --questions wrote it"
        )
    return [_line(number, cells, name) for number, cells in table.rows]


def _line(number: int, cells: Mapping[str, str], name: str) -> Line:
    if not cells["clip"]:
        raise SheetError(f"{name} line {number} names no clip; keep that column as --questions wrote it")
    cluster = _number(cells["cluster"], "cluster", number, name) if cells["cluster"] else None
    start = _number(cells["start"], "start", number, name)
    if cluster is not None and cluster != int(cluster):
        raise SheetError(f"{name} line {number}: cluster {cells['cluster']!r} is no whole number; write it as it was")
    return Line(number, None if cluster is None else int(cluster), cells["clip"], start, cells["class"])


def _number(cell: str, column: str, number: int, name: str) -> float:
    try:
        return tables.number(cell)
    except ValueError:
        place = f"{name} line {number}: {column} {cell!r}"
    raise SheetError(f"{place} is no number; write it as it was, in a column of text")


def parse(words: str, classes: Sequence[str] = ()) -> tuple[str, ...] | None:
    """Return an answer: class names, `()` for "none of these", None for "cannot tell".

    A name that differs from one of `classes` in capitals only is that one. Raises ValueError for an answer that is
    empty, or says that a class is heard and that none is.

    >>> parse("Dog; cat", ["dog"])
    ('dog', 'cat')
    >>> parse("none"), parse("?")
    ((), None)
    """
    names = list(dict.fromkeys(word.strip() for word in words.split(";") if word.strip()))
    plain = [name.casefold() for name in names]
    if not names:
        raise ValueError("there is no answer")
    if len(names) > 1 and any(name in (*NONE, *UNKNOWN) for name in plain):
        raise ValueError(f"{words!r} says both a class and none; write the classes, or none, or ?")
    if plain[0] in UNKNOWN:
        return None
    if plain[0] in NONE:
        return ()
    known = {name.casefold(): name for name in reversed(classes)}
    return tuple(dict.fromkeys(known.setdefault(name.casefold(), name) for name in names))


def parse_all(answers: Iterable[str]) -> tuple[list[tuple[str, ...] | None], list[str]]:
    """Return answers in turn, and the classes in them in order of their first appearance; ValueError as of `parse`."""
    given: list[tuple[str, ...] | None] = []
    classes: dict[str, None] = {}
    for words in answers:
        given.append(parse(words, list(classes)))
        classes |= dict.fromkeys(given[-1] or ())
    return given, list(classes)


class Finder:
    """Find windows by clip and time. `clip`, `start` (seconds into the file) and `cluster` are those of each window."""

    def __init__(self, keys: Sequence[str], clip: np.ndarray, start: np.ndarray, cluster: np.ndarray | None) -> None:
        self.row = {key.strip(): i for i, key in enumerate(keys)}
        self.order = np.lexsort((start, clip))
        self.start, self.cluster = start[self.order], cluster
        self.bound = np.searchsorted(clip, np.arange(len(keys) + 1), "left", self.order)

    def find(self, line: Line) -> int:
        """Return the row of the window a line asks about; raise ValueError where there is none."""
        if line.clip not in self.row:
            raise ValueError(f"no clip is called {line.clip!r}")
        first, end = self.bound[self.row[line.clip] :][:2]
        near = np.abs(self.start[first:end] - line.start)
        if not len(near) or near.min() > NEAR:
            raise ValueError(f"none of the chosen windows of {line.clip!r} starts at {line.start:g} s")
        row = int(self.order[first + near.argmin()])
        asked = None if self.cluster is None else int(self.cluster[row])
        if line.cluster != asked:
            names = ["no cluster" if number is None else f"cluster {number}" for number in (line.cluster, asked)]
            raise ValueError(f"it names {names[0]}, the window is asked about for {names[1]}")
        return row

    def match(self, lines: Iterable[Line], name: str, remedy: str) -> dict[int, Line]:
        """Return answered lines by the row of their window, in their order.

        Raises SheetError, with the remedy, for a line that fits no window, and for a second answer to a question.
        """
        found: dict[int, Line] = {}
        seen: dict[int, int] = {}
        for line in lines:
            try:
                parse(line.answer)
                row = self.find(line)
            except ValueError as error:
                raise SheetError(f"{name} line {line.number}: {error}; {remedy}") from None
            group = row if line.cluster is None else line.cluster
            if group in seen:
                raise SheetError(
                    f"{name} lines {seen[group]} and {line.number} answer one question; delete one of them"
                )
            found[row], seen[group] = line, line.number
        return found


class Journal:
    """Keep answers in a sheet beside an output: a line an answer, on the disk before the next question is asked.

    What a crash of the machine left of a last line is cut off. Raises SheetError where the sheet cannot be read.
    """

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(output.name + ".answers.csv")
        self.name = files.text(self.path)
        self.lines: list[Line] = []
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        if whole:
            self.lines = read(whole, self.name)

    def add(self, question: Question, answer: str) -> None:
        """Append an answer."""
        fresh = not self.path.is_file() or not self.path.stat().st_size
        line = write_line(question, answer)
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write((write([]) if fresh else "") + line)
            file.flush()
            os.fsync(file.fileno())
        number = (self.lines[-1].number if self.lines else 1) + line.count("\n")
        self.lines.append(Line(number, question.cluster, question.clip, question.start, answer))

    def undo(self) -> Line:
        """Take back the last answer and return its line."""
        last = self.lines.pop()
        kept = self.lines[-1].number if self.lines else 1
        content = self.path.read_bytes().splitlines(keepends=True)[:kept]
        with files.replace(self.path) as partial:
            partial.write_bytes(b"".join(content))
        return last

"""Question sheets: CSV tables that people fill in, and the journal of answers, which is a sheet that grows by a line.

A sheet names a window by its clip and its time, so that it can be read without the options it was written with. What
spreadsheets do to it is undone: byte order marks, semicolons or tabs for commas, commas for decimal points, CRLF,
columns in another order. Answers are class names separated by `;`, `none` for "none of these", `?` for "cannot tell".
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from soundssl import SoundsslError, files

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
    text = io.StringIO()
    cluster = "" if question.cluster is None else question.cluster
    times = (f"{time:.6f}".rstrip("0").rstrip(".") for time in (question.start, question.end))
    csv.writer(text, lineterminator="\n").writerow([cluster, question.file, question.clip, *times, answer])
    return text.getvalue()


def write(questions: Iterable[Question]) -> str:
    """Return a sheet of unanswered questions."""
    return ",".join(COLUMNS) + "\n" + "".join(map(write_line, questions))


def read(content: bytes, name: str) -> list[Line]:
    """Return the lines of a sheet; raise SheetError naming the line, what is wrong with it and what to do."""
    rows = list(_rows(content, name))
    if not rows:
        raise SheetError(f"{name} is empty; write a sheet with --questions")
    head = [cell.strip().casefold() for cell in rows[0][1]]
    missing = [column for column in COLUMNS if column not in head and column not in ("file", "end")]
    if missing:
        raise SheetError(
            f"{name} line {rows[0][0]} has no column {missing[0]!r}; keep the first line as --questions wrote it"
        )
    place = {column: head.index(column) for column in COLUMNS if column in head}
    return [_line(number, cells, place, len(head), name) for number, cells in rows[1:]]


def _rows(content: bytes, name: str) -> Iterable[tuple[int, list[str]]]:
    """Yield line number and cells of every line that is not empty."""
    coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(coding)
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise SheetError(f"{name} line {number} is not UTF-8; save the sheet as CSV in UTF-8") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first = text.lstrip("\n").partition("\n")[0]
    skipped = 1 if first.startswith("sep=") else 0  # a line with which Excel names the delimiter
    delimiter = first[4:5] if skipped else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or ",", strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if skipped:
                    skipped = 0
                    continue
                yield reader.line_num, cells
    except csv.Error as error:
        raise SheetError(f"{name} line {reader.line_num} is no CSV: {error}; look for a lone quotation mark") from None


def _line(number: int, cells: list[str], place: dict[str, int], width: int, name: str) -> Line:
    if len(cells) > width and any(cell.strip() for cell in cells[width:]):
        raise SheetError(
            f"{name} line {number} has {len(cells)} cells, not {width}; put a class with a comma in quotes"
        )
    cell = {column: cells[i].strip() if i < len(cells) else "" for column, i in place.items()}
    if not cell["clip"]:
        raise SheetError(f"{name} line {number} names no clip; keep that column as --questions wrote it")
    cluster = _number(cell["cluster"], "cluster", number, name) if cell["cluster"] else None
    start = _number(cell["start"], "start", number, name)
    if cluster is not None and cluster != int(cluster):
        raise SheetError(f"{name} line {number}: cluster {cell['cluster']!r} is no whole number; write it as it was")
    return Line(number, None if cluster is None else int(cluster), cell["clip"], start, cell["class"])


def _number(cell: str, column: str, number: int, name: str) -> float:
    try:
        value = float(cell.replace(",", "."))
        if np.isfinite(value):
            return value
    except ValueError:
        pass
    raise SheetError(f"{name} line {number}: {column} {cell!r} is no number; write it as it was, in a column of text")


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

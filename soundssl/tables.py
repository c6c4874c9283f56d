"""Tables of text: the one reader of what people and spreadsheets write, and cells that a spreadsheet shows as text.

What spreadsheets do is undone: byte order marks, UTF-16, a first line `sep=;`, semicolons or tabs for commas, commas
for decimal points, CRLF, quoted and capital headers, empty rows and cells around the table. What cannot be meant is an
error that names its line: an unclosed quote, a row longer than its header.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from soundssl import SoundsslError

# A spreadsheet takes a cell that begins so for a formula, and may run it.
FORMULA = re.compile(r"'*[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
DELIMITERS = ",;\t"


class TableError(SoundsslError):
    """A table cannot be read; the line, what is wrong with it and what to do are said."""


class Row(NamedTuple):
    """Hold one row: the number of its last line in the file, from 1, and its cells by column."""

    number: int
    cells: dict[str, str]

    def first(self, names: Iterable[str]) -> str | None:
        """Return the cell of the first of these columns that the table has, None where it has none of them."""
        return next((self.cells[name] for name in names if name in self.cells), None)


class Table(NamedTuple):
    """Hold a table: its columns in small letters, in order, its rows that are not empty, and the line of its header."""

    columns: list[str]
    rows: list[Row]
    line: int = 1


def text_cell(cell: str) -> str:
    """Return a cell that a spreadsheet shows as the text it is, with an apostrophe before what looks like a formula.

    >>> text_cell("=1+1"), text_cell("-2.5"), text_cell("dog")
    ("'=1+1", '-2.5', 'dog')
    """
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def plain_cell(cell: str) -> str:
    """Return what `text_cell` was given.

    >>> plain_cell("'=1+1"), plain_cell("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def row_text(cells: Iterable[object], delimiter: str = ",") -> str:
    """Return one line of a table, with its end."""
    text = io.StringIO()
    shown = [text_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(shown)
    return text.getvalue()


def number(cell: str) -> float:
    """Return a finite number, also one with a comma for its point; raise ValueError for anything else.

    >>> number("1,5"), number("2.25")
    (1.5, 2.25)
    """
    cell = cell.strip()
    value = float(cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell)
    if not math.isfinite(value):
        raise ValueError(f"{cell} is not finite")
    return value


def decode(content: bytes, name: str, undecodable: str = "strict") -> str:
    """Return the text of a file, in UTF-8 or UTF-16, with line feeds alone; raise TableError for other bytes.

    `undecodable` is what becomes of bytes outside UTF-8: strict, or surrogateescape, for names of files.
    """
    coding = "utf-8-sig"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        coding = "utf-16"
    elif b"\0" in content[:2]:  # without a mark; no table begins with a NUL
        coding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content.decode(coding, undecodable if coding == "utf-8-sig" else "strict")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise TableError(f"{name} line {line} is not UTF-8; save it as CSV in UTF-8") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise TableError(f"{name} line {line} holds a NUL byte; save it as CSV in UTF-8")
    return text


def read(content: bytes, name: str, undecodable: str = "strict") -> Table:
    """Read a table with a header; `name` is what messages call it. Raises TableError.

    Columns are in small letters, without spaces around them. A row may lack cells at its end: they are empty.
    """
    rows = _cells(decode(content, name, undecodable), name)
    line, head = next(rows, (0, []))
    columns = [cell.casefold() for cell in head]
    while columns and not columns[-1]:
        columns.pop()
    if not columns:
        raise TableError(f"{name} is empty; it needs a header and a row for each entry")
    if doubled := [column for column in columns if column and columns.count(column) > 1]:
        raise TableError(f"{name} line {line} has two columns {doubled[0]!r}; rename one of them")
    return Table(columns, [_row(number, cells, columns, name) for number, cells in rows], line)


def _cells(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every row that is not empty; the first names the delimiter, if any does."""
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip(" ,;\t")), 0)
    declared = re.fullmatch(r'"?sep=(.)"?[,;\t]*', lines[first])
    start = first + bool(declared)
    delimiter = declared[1] if declared else _delimiter(lines[first])
    reader = csv.reader(io.StringIO("\n".join(lines[start:]), newline=""), delimiter=delimiter, strict=True)
    begun = start + 1  # the line where a row begins: a quote left open there is noticed much later
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield start + reader.line_num, [plain_cell(cell.strip()) for cell in cells]
            begun = start + reader.line_num + 1
    except csv.Error as error:
        place = f"{name} line {begun}"
        raise TableError(f"{place} is no CSV: {error}; look for a lone quotation mark") from None


def _delimiter(header: str) -> str:
    """Return the delimiter that stands most often outside quotes."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=bare.count)


def _row(line: int, cells: list[str], columns: list[str], name: str) -> Row:
    if any(cells[len(columns) :]):
        raise TableError(
            f"{name} line {line} has {len(cells)} cells, its header {len(columns)}; put a cell with a comma in quotes"
        )
    cells += [""] * (len(columns) - len(cells))
    return Row(line, {column: cell for column, cell in zip(columns, cells, strict=False) if column})

"""Nomination: classes that titles and tags of recordings name, as questions for people (FSD50K's first step)."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from soundssl import tables
from soundssl.tables import TableError

WORD = re.compile(r"[^\W_]+")
NAMES = ("path", "file", "filename", "fname", "id")  # columns that name a recording
TEXTS = ("title", "tags", "description")
SHEET = ("path", "candidate", "keyword", "class")


class Candidates(NamedTuple):
    """Hold the sheet of questions, the candidates of each class, and how many recordings have any, of how many."""

    sheet: str
    counts: dict[str, int]
    named: int
    recordings: int


def nominate(texts: Sequence[str], keywords: Mapping[str, Sequence[str]]) -> list[list[tuple[str, str]]]:
    """Return of each text the classes whose keywords it holds, each with the first one found.

    A keyword is one word or several in a row, whole and in any case; one that begins with - forbids its class.

    >>> nominate(["Big dog_barking at night"], {"Dog": ["dog barking"], "Night": ["-dog", "night"]})
    [[('Dog', 'dog barking')]]
    """
    patterns = {name: [(word, _words(word.lstrip("-"))) for word in words] for name, words in keywords.items()}
    found = []
    for text in texts:
        plain = _words(text)
        named = []
        for name, words in patterns.items():
            held = [word for word, pattern in words if pattern.strip() and pattern in plain]
            if held and not any(word.startswith("-") for word in held):
                named.append((name, held[0]))
        found.append(named)
    return found


def candidates(metadata: str | os.PathLike, keywords: str | os.PathLike) -> Candidates:
    """Return the questions that a table of recordings and one of keywords give; raise TableError for others."""
    table = _table(metadata)
    name = next((name for name in NAMES if name in table.columns), None)
    texts = [column for column in TEXTS if column in table.columns]
    if name is None or not texts:
        lacking = " or ".join(NAMES if name is None else TEXTS)
        raise TableError(f"{metadata} line {table.line} has no column {lacking}; it has {', '.join(table.columns)}")
    known = _keywords(keywords)
    found = nominate([" . ".join(row.cells[column] for column in texts) for row in table.rows], known)
    lines, counts = [tables.row_text(SHEET)], dict.fromkeys(known, 0)
    for row, named in zip(table.rows, found, strict=True):
        for candidate, keyword in named:
            lines.append(tables.row_text([row.cells[name], candidate, keyword, ""]))
            counts[candidate] += 1
    return Candidates("".join(lines), counts, sum(bool(named) for named in found), len(found))


def _keywords(path: str | os.PathLike) -> dict[str, list[str]]:
    table = _table(path)
    column = next((one for one in ("keyword", "keywords") if one in table.columns), None)
    if column is None or "class" not in table.columns:
        raise TableError(f"{path} line {table.line} has no column {'class' if column else 'keyword'}; name it so")
    found: dict[str, list[str]] = collections.defaultdict(list)
    for line, cells in table.rows:
        words = [word.strip() for word in cells[column].split(";") if word.strip()]
        if not cells["class"] or not words:
            raise TableError(f"{path} line {line} has no {'keyword' if cells['class'] else 'class'}; fill it in")
        found[cells["class"]] += words
    if not found:
        raise TableError(f"{path} has no row; name a class and a keyword in each")
    return dict(found)


def _table(path: str | os.PathLike) -> tables.Table:
    return tables.read(Path(path).read_bytes(), os.fspath(path))


def _words(text: str) -> str:
    return f" {' '.join(WORD.findall(text.casefold()))} "

"""Review: events that a recogniser or a search found, asked about one by one; the answers become labels.

A yes says that the class is heard in the span of the event, a no that it is not; other classes may be named too. A
sheet names an event by its class, its recording and its times.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from soundssl import SoundsslError, files, tables
from soundssl.detection import formats
from soundssl.detection.events import Event
from soundssl.labelling import sheets
from soundssl.labelling.answers import Store
from soundssl.labelling.page import REVIEW, Group
from soundssl.labelling.sheets import NEAR, Question, SheetError


def read(path: str | os.PathLike) -> list[Event]:
    """Return the events of a table in any of the formats of `detect`; raise Missing, FormatError, TableError.

    SoundsslError where it has none.
    """
    path = files.require(path)
    events = formats.read(path.read_bytes(), path)
    if not events:
        raise SoundsslError(f"{files.text(path)} holds no event to review; lower the threshold of detect")
    return events


def choose(events: Sequence[Event], budget: int | None, seed: int = 0) -> list[Event]:
    """Return the events to ask about: all in their order, or `budget` drawn at random, as many of every class.

    A class with fewer leaves its share to the others.
    """
    if budget is None or budget >= len(events):
        return list(events)
    order = np.random.default_rng(seed).permutation(len(events))
    turn: dict[str, int] = {}
    rounds: list[tuple[int, int, int]] = []
    for row in order.tolist():
        turn[events[row].name] = turn.get(events[row].name, -1) + 1
        rounds.append((turn[events[row].name], len(rounds), row))
    return [events[row] for row in sorted(row for *_, row in sorted(rounds)[:budget])]


def question(event: Event) -> Question:
    """Return what to listen to."""
    return Question(None, event.path, event.path, event.start, event.end)


def groups(events: Sequence[Event]) -> list[Group]:
    """Return the questions whether each event is what it is said to be, with its score."""
    said = ("" if event.score is None else f"score {event.score:.3f}" for event in events)
    return [Group(question(event), (), words, event.name) for event, words in zip(events, said, strict=True)]


def read_answers(path: str | os.PathLike, events: Sequence[Event]) -> dict[int, tuple[str, ...] | None]:
    """Return the answers of a sheet by the row of their event: classes, `()` for no, None for cannot tell.

    Raises SheetError for a line that fits no event and for a second answer, SoundsslError where there is no answer.
    """
    name = files.text(path)
    table = tables.read(files.require(path).read_bytes(), name, "surrogateescape")
    if missing := [column for column in REVIEW if column not in table.columns]:
        raise SheetError(f"{name} has no column {missing[0]!r}; give the sheet that the page of these events saves")
    place: dict[tuple[str, str], list[int]] = {}
    for row, event in enumerate(events):
        place.setdefault((event.name.strip(), event.path.strip()), []).append(row)
    known = list(dict.fromkeys(event.name for event in events))
    found: dict[int, tuple[str, ...] | None] = {}
    for line, cells in table.rows:
        if not cells["class"]:
            continue
        row = _find(cells, events, place, f"{name} line {line}")
        if row in found:
            raise SheetError(f"{name} line {line} answers a question for the second time; delete one of the lines")
        try:
            own = cells["class"] == cells["asked"]  # also where its name has a semicolon
            found[row] = (events[row].name,) if own else sheets.parse(cells["class"], known)
        except ValueError as error:
            raise SheetError(f"{name} line {line}: {error}") from None
    if not found:
        raise SoundsslError(f"{name} has no answer; fill in the column class")
    return found


def _find(
    cells: Mapping[str, str], events: Sequence[Event], place: Mapping[tuple[str, str], list[int]], line: str
) -> int:
    """Return the row of the event that a line of a sheet is about."""
    try:
        start, end = tables.number(cells["start"]), tables.number(cells["end"])
    except ValueError:
        raise SheetError(f"{line}: start or end is no number; write them as they were, in columns of text") from None
    for row in place.get((cells["asked"], cells["file"]), []):
        if abs(events[row].start - start) < NEAR and abs(events[row].end - end) < NEAR:
            return row
    raise SheetError(
        f"{line}: {cells['asked']!r} was not found in {cells['file']!r} from {start:g} to {end:g} s; give the table "
        f"that the page was made of"
    )


def write(store: Store, events: Sequence[Event], answers: Mapping[int, tuple[str, ...] | None]) -> int:
    """Write labels, a segment an answer under the name of its recording, and return their number.

    1 for a class that is heard, 0 for one that was asked about and is not, -1 of all others; cannot tell says nothing.
    """
    said = {row: answer for row, answer in sorted(answers.items()) if answer is not None}
    asked = (events[row].name for row in said)
    classes = list(dict.fromkeys([*asked, *(name for answer in said.values() for name in answer)]))
    label = np.full((len(said), len(classes)), -1, np.int8)
    for row, (of, answer) in enumerate(said.items()):
        label[row, classes.index(events[of].name)] = 0
        label[row, [classes.index(name) for name in answer]] = 1
    own = [events[row] for row in said]
    store.write("label", label)
    store.write("segment/key", [event.path for event in own])
    store.write("segment/start", np.array([event.start for event in own], float))
    store.write("segment/end", np.array([event.end for event in own], float))
    store.write("class", classes)
    store.write("weight", np.ones(len(own), "f4"))
    store.write("origin", np.zeros(len(own), np.uint8))
    return len(own)

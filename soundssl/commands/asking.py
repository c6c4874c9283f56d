"""Questions to a person at the terminal, one after the other; every answer is kept before the next is asked."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soundssl.labelling import Conversation, Upcoming

PROMPT = "class (name or number, several by ;), none, ? cannot tell, u undo, q stop: "


def converse(conversation: Conversation) -> None:
    """Ask until nothing is upcoming, the person stops or the input ends."""
    while upcoming := conversation.upcoming():
        classes = conversation.classes
        _show(upcoming, classes)
        answer = _listen(classes, bool(len(conversation)))
        if answer is None:
            return
        if answer == "u":
            undone = conversation.undo()
            print(f"undone: {undone.answer}, {undone.clip} at {undone.start:.2f} s", file=sys.stderr)
        else:
            conversation.answered(upcoming, answer)


def _show(upcoming: Upcoming, classes: list[str]) -> None:
    question = upcoming.question
    print(f"\n{upcoming.heading}: {question.file}, {question.start:.2f} to {question.end:.2f} s", file=sys.stderr)
    if classes:
        print("   ".join(f"{i} {name}" for i, name in enumerate(classes, 1)), file=sys.stderr)


def _listen(classes: list[str], undoable: bool) -> str | None:
    """Return an answer in the words of the journal, "u" to undo, None to stop; ask again until it is one."""
    for typed in _lines():
        if typed.casefold() in ("q", "quit"):
            return None
        if typed.casefold() in ("u", "undo") and undoable:
            return "u"
        try:
            if typed.casefold() in ("u", "undo"):
                raise ValueError("there is nothing to undo")
            return understand(typed, classes)
        except ValueError as error:
            print(error, file=sys.stderr)
    return None


def _lines() -> Iterator[str]:
    """Prompt and yield what is typed, until the input ends."""
    while True:
        print(PROMPT, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            return
        yield line.strip()


def understand(typed: str, classes: list[str]) -> str:
    """Return what was typed in the words of a sheet, with names for numbers; raise ValueError for what is no answer.

    >>> understand("2; 1", ["dog", "cat"])
    'cat; dog'
    """
    from soundssl.labelling import sheets

    if re.fullmatch(r"\d+([\s,;]+\d+)*", typed):
        numbers = [int(number) for number in re.findall(r"\d+", typed)]
        beyond = [number for number in numbers if not 1 <= number <= len(classes)]
        if beyond:
            raise ValueError(f"there is no class {beyond[0]} so far; write its name")
        typed = "; ".join(classes[number - 1] for number in numbers)
    answer = sheets.parse(typed, classes)
    return "?" if answer is None else "; ".join(answer) or "none"

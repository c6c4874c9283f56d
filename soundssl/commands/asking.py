"""Questions to a person at the terminal, one after the other, with a journal that loses no answer."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from soundssl import sheets

PROMPT = "class (name or number, several by ;), none, ? cannot tell, u undo, q stop: "


class Journal:
    """Keep answers in a sheet beside an output: a line an answer, on the disk before the next question is asked.

    What a crash of the machine left of a last line is cut off. Raises SheetError where the sheet cannot be read.
    """

    def __init__(self, output: Path) -> None:
        from soundssl import files

        self.path = output.with_name(output.name + ".answers.csv")
        self.name = files.text(self.path)
        self.lines: list[sheets.Line] = []
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        if whole:
            self.lines = sheets.read(whole, self.name)

    def add(self, question: sheets.Question, answer: str) -> None:
        """Append an answer."""
        fresh = not self.path.is_file() or not self.path.stat().st_size
        line = sheets.write_line(question, answer)
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write((sheets.write([]) if fresh else "") + line)
            file.flush()
            os.fsync(file.fileno())
        number = (self.lines[-1].number if self.lines else 1) + line.count("\n")
        self.lines.append(sheets.Line(number, question.cluster, question.clip, question.start, answer))

    def undo(self) -> sheets.Line:
        """Take back the last answer and return its line."""
        from soundssl import files

        last = self.lines.pop()
        kept = self.lines[-1].number if self.lines else 1
        content = self.path.read_bytes().splitlines(keepends=True)[:kept]
        with files.replace(self.path) as partial:
            partial.write_bytes(b"".join(content))
        return last


def converse(
    upcoming: Callable[[dict[int, str]], tuple[int, sheets.Question, str] | None],
    answered: dict[int, str],
    journal: Journal,
) -> None:
    """Ask until nothing is `upcoming`, the person stops or the input ends; answers go to `answered` and the journal.

    `upcoming` returns, for the answers so far, the next question with its number among `answered` and its heading.
    `answered` holds the answers of the journal, in its order.
    """
    while following := upcoming(answered):
        key, question, heading = following
        classes = sheets.parse_all(answered.values())[1]
        _show(question, heading, classes)
        answer = _listen(classes, bool(answered))
        if answer is None:
            return
        if answer == "u":
            answered.popitem()
            undone = journal.undo()
            print(f"undone: {undone.answer}, {undone.clip} at {undone.start:.2f} s", file=sys.stderr)
        else:
            journal.add(question, answer)
            answered[key] = answer


def _show(question: sheets.Question, heading: str, classes: list[str]) -> None:
    print(f"\n{heading}: {question.file}, {question.start:.2f} to {question.end:.2f} s", file=sys.stderr)
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
    if re.fullmatch(r"\d+([\s,;]+\d+)*", typed):
        numbers = [int(number) for number in re.findall(r"\d+", typed)]
        beyond = [number for number in numbers if not 1 <= number <= len(classes)]
        if beyond:
            raise ValueError(f"there is no class {beyond[0]} so far; write its name")
        typed = "; ".join(classes[number - 1] for number in numbers)
    answer = sheets.parse(typed, classes)
    return "?" if answer is None else "; ".join(answer) or "none"

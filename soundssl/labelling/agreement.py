"""Agreement: several sheets of one set of questions, each filled in by somebody else, to one set of answers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from soundssl import SoundsslError, evaluations, files, tables
from soundssl.labelling import sheets
from soundssl.labelling.answers import Answers, Cost, encode, spent
from soundssl.labelling.windows import Windows
from soundssl.ops import agreement

Method = Literal["majority", "dawid-skene"]


@dataclass(frozen=True)
class Panel:
    """Hold what several annotators said of windows.

    `label` is `[annotators, windows, classes]` in {1, 0, -1}, `asked` the rows of the windows, `words` the answers as
    they were written, empty where there is none.
    """

    names: list[str]
    asked: np.ndarray
    label: np.ndarray
    classes: list[str]
    words: list[list[str]]

    def answers(self, method: Method, cost: Cost) -> Answers:
        """Return one answer a window: that of most annotators, or the likelier one by their reliability."""
        if method == "majority":
            label = agreement.majority(self.label)
        else:
            chance = agreement.dawid_skene(self.label).probability
            label = np.where(np.isnan(chance), -1, chance > 0.5).astype(np.int8)
        count = spent((label == 1).any(1), *cost)
        return Answers(self.asked[:count], label[:count], self.classes)

    def disagreed(self) -> np.ndarray:
        """Return the windows of which two annotators say different things, by their place in `asked`."""
        unlike = (self.label == 1).any(0) & (self.label == 0).any(0)
        return np.flatnonzero(unlike.any(1))

    def scores(self) -> list[dict[str, Any]]:
        """Return Krippendorff's alpha as rows of scores: the mean over classes, then a row a class."""
        alpha, count = agreement.alpha(self.label), ((self.label >= 0).sum(0) >= 2).sum(0)
        known = np.isfinite(alpha)
        mean = float(alpha[known].mean()) if known.any() else float("nan")
        rows = [evaluations.row("alpha", mean, int(known.sum()), chance=0.0)] if known.any() else []
        return rows + [
            evaluations.row("alpha", float(alpha[i]), int(count[i]), self.classes[i], 0.0)
            for i in np.flatnonzero(known)
        ]

    def reliability(self) -> list[tuple[str, float, float]]:
        """Return name, sensitivity and specificity of each annotator (Dawid and Skene 1979)."""
        found = agreement.dawid_skene(self.label)
        return list(zip(self.names, found.sensitivity.tolist(), found.specificity.tolist(), strict=True))

    def disagreements(self, windows: Windows) -> str:
        """Return a sheet of the windows that annotators disagree on, with what each said, for one who decides."""
        places = self.disagreed()
        lines = [tables.row_text([*sheets.COLUMNS, *self.names])]
        for place, question in zip(places, windows.questions(self.asked[places]), strict=True):
            line = sheets.write_line(question).rstrip("\r\n")
            lines.append(f"{line},{tables.row_text([words[place] for words in self.words])}")
        return "".join(lines)


def read_panel(paths: Sequence[str | os.PathLike], windows: Windows) -> Panel:
    """Read the sheets of several annotators; raise SheetError where one does not fit, SoundsslError without answers.

    Names are those of the files; equal ones are counted.
    """
    found: list[dict[int, sheets.Line]] = []
    for path in paths:
        name = files.text(path)
        lines = [line for line in sheets.read(files.require(path).read_bytes(), name) if line.answer]
        if not lines:
            raise SoundsslError(f"{name} has no answer; fill in the column class")
        remedy = f"answer the sheet that --questions writes for {files.text(windows.source.path)} and these options"
        found.append(windows.finder().match(lines, name, remedy))
    rows = list(dict.fromkeys(itertools.chain.from_iterable(found)))
    words = [[own[row].answer if row in own else "" for row in rows] for own in found]
    given, classes = sheets.parse_all(word or "?" for own in words for word in own)
    label = encode(given, classes).reshape(len(paths), len(rows), len(classes))
    stems = [os.path.splitext(os.path.basename(files.text(path)))[0] for path in paths]
    names = [f"{stem} {i}" if stems.count(stem) > 1 else stem for i, stem in enumerate(stems, 1)]
    return Panel(names, np.array(rows, np.int64), label, classes, words)

"""Where answers come from, and how they spread: a labels file, a sheet that people fill in, or a conversation.

An answer is None for "cannot tell", else the classes that are heard, `()` for "none of these". The paper gives the
answer about one member to all members of its cluster (Jansen et al. 2020); here it may go to the nearest alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from soundssl import SoundsslError, evaluations, files
from soundssl.evaluations import labels as evaluation
from soundssl.evaluations.table import Table
from soundssl.labelling import sheets
from soundssl.labelling.windows import Windows
from soundssl.labels import align


class Answers(NamedTuple):
    """Hold answers: the row of the window each is about, its labels, and the classes.

    Shape: `[questions]`, `[questions, classes]`, `[classes]`.
    """

    asked: np.ndarray
    label: np.ndarray
    classes: list[str]


class Cost(NamedTuple):
    """Say how many questions may be asked, and whether those that give no class are `free`."""

    budget: int
    free: bool = False


def consult(windows: Windows, known: files.Labels, asked: np.ndarray, cost: Cost) -> Answers:
    """Let a labels file answer; raise SoundsslError where it says nothing of the windows asked about."""
    asked = asked if cost.free else asked[: cost.budget]
    label = windows.labels(known, asked)
    if not (label >= 0).any():
        raise SoundsslError(
            f"{files.text(known.path)} says nothing of {len(asked)} windows of {files.text(windows.source.path)}; "
            f"are their keys the same?"
        )
    count = spent((label == 1).any(1), *cost)
    return Answers(asked[:count], label[:count], known.classes)


def write_sheet(path: str | os.PathLike, windows: Windows, asked: np.ndarray, force: bool = False) -> None:
    """Write the questions; raise SoundsslError where a sheet stands that somebody fills in, unless with `force`."""
    path = Path(path)
    if path.exists() and not force:
        try:
            answered = sum(bool(line.answer) for line in sheets.read(path.read_bytes(), files.text(path)))
        except sheets.SheetError as error:
            raise SoundsslError(f"{error}, or give another name or --force to replace it") from None
        if answered:
            raise SoundsslError(f"{files.text(path)} has {answered} answers; name another sheet, or give --force")
    with files.replace(path) as partial:
        partial.write_text(sheets.write(windows.questions(asked)), "utf-8")


def read_sheet(path: str | os.PathLike, windows: Windows, cost: Cost) -> Answers:
    """Read the answers from a sheet; raise SheetError where it does not fit, SoundsslError where it has no answer."""
    name = files.text(path)
    lines = [line for line in sheets.read(files.require(path).read_bytes(), name) if line.answer]
    if not lines:
        raise SoundsslError(f"{name} has no answer; fill in the column class")
    matched = windows.finder().match(
        lines, name, f"answer the sheet that --questions writes for {files.text(windows.source.path)} and these options"
    )
    return understood([(row, line.answer) for row, line in matched.items()], cost)


class Upcoming(NamedTuple):
    """Hold a question that is to be asked, the cluster it is about, and a heading that says which it is of how many."""

    cluster: int
    question: sheets.Question
    heading: str


class Conversation:
    """Ask about windows in turn, and go on where the journal beside an output ends.

    Whoever leads it asks what is `upcoming` and hands on what is `answered`. Raises SheetError for a journal that
    keeps the answers to other questions.
    """

    def __init__(self, windows: Windows, asked: np.ndarray, cost: Cost, output: str | os.PathLike) -> None:
        self.windows, self.asked, self.cost = windows, asked, cost
        self.journal, self._finder = sheets.Journal(Path(output)), windows.finder()
        self._sizes = np.bincount(windows.cluster)
        self._answers = {cluster: answer for cluster, (_, answer) in self._kept().items()}

    def __len__(self) -> int:
        return len(self._answers)

    def _kept(self) -> dict[int, tuple[int, str]]:
        """Return what the journal keeps: by cluster the window that was asked about, and the answer."""
        remedy = "it keeps the answers to other questions; move it away, or name another output"
        matched = self._finder.match(self.journal.lines, self.journal.name, remedy)
        return {int(self.windows.cluster[row]): (row, line.answer) for row, line in matched.items()}

    @property
    def classes(self) -> list[str]:
        """The classes in the answers so far, in the order in which they were first named."""
        return sheets.parse_all(self._answers.values())[1]

    def upcoming(self) -> Upcoming | None:
        """Return the next question, None where the budget is spent or nothing is left to ask."""
        spent = 0
        for row in self.asked:
            cluster = int(self.windows.cluster[row])
            if cluster not in self._answers:
                about = "" if self.windows.random else f", cluster {cluster}, {self._sizes[cluster]} windows"
                heading = f"question {spent + 1} of {self.cost.budget}{about}"
                return Upcoming(cluster, next(self.windows.questions(np.array([row]))), heading)
            spent += not self.cost.free or bool(sheets.parse(self._answers[cluster]))
            if spent == self.cost.budget:
                return None
        return None

    def answered(self, upcoming: Upcoming, answer: str) -> None:
        """Keep an answer, in the words of a sheet; it is on the disk before this returns."""
        self.journal.add(upcoming.question, answer)
        self._answers[upcoming.cluster] = answer

    def undo(self) -> sheets.Line:
        """Take back the last answer and return its line."""
        self._answers.popitem()
        return self.journal.undo()

    def answers(self) -> Answers:
        """Return the answers that the budget pays for; raise SoundsslError where there are none."""
        kept = self._kept()
        entries = [kept[cluster] for cluster in map(int, self.windows.cluster[self.asked]) if cluster in kept]
        if not entries:
            raise SoundsslError(
                "no question was answered; answer in the terminal, or give --labels, or --questions and then --answers"
            )
        return understood(entries, self.cost)


def understood(entries: Sequence[tuple[int, str]], cost: Cost) -> Answers:
    """Return the answers that the budget pays for, from rows of windows and words of a sheet."""
    count = spent(np.array([bool(sheets.parse(answer)) for _, answer in entries]), *cost)
    given, classes = sheets.parse_all(answer for _, answer in entries[:count])
    asked = np.array([row for row, _ in entries[:count]], np.int64)
    return Answers(asked, encode(given, classes), classes)


def spread(
    cluster: np.ndarray, asked: np.ndarray, similarity: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the windows that take the answers, in rising order, and for each the number of the question it takes.

    Of every cluster that was asked about these are the window asked about and the members most similar to the centre,
    `share` of the members in all, rounded up. Raises ValueError unless 0 < share <= 1 and clusters differ.

    Shape: cluster, similarity `[windows]`; asked `[questions]`, rows; results `[labelled windows]`.
    """
    if not 0 < share <= 1:
        raise ValueError(f"an answer spreads to a share of a cluster between 0 and 1, not {share:g}")
    if len(np.unique(cluster[asked])) < len(asked):
        clusters = len(np.unique(cluster[asked]))
        raise ValueError(f"{len(asked)} questions went to {clusters} clusters; a cluster takes one")
    if not len(asked):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    question = np.full(int(cluster.max()) + 2, -1)  # its last place is that of cluster -1
    question[cluster[asked]] = np.arange(len(asked))
    rows = np.flatnonzero(question[cluster] >= 0)
    of = question[cluster[rows]]
    nearest = np.lexsort((-similarity[rows], rows != asked[of], of))
    rows, of = rows[nearest], of[nearest]
    size = np.bincount(of, minlength=len(asked))
    rank = np.arange(len(rows)) - (np.cumsum(size) - size)[of]
    kept = rank < np.ceil(share * size - 1e-9)[of]  # 0.07 * 100 is more than 7
    rows, of = rows[kept], of[kept]
    rising = np.argsort(rows)
    return rows[rising], of[rising]


def encode(answers: Sequence[tuple[str, ...] | None], classes: Sequence[str]) -> np.ndarray:
    """Return answers as labels: 1 for a class named, 0 for one not named, -1 throughout for "cannot tell".

    Shape: `[questions, classes]`, int8.

    >>> encode([("cat",), (), None], ["cat", "dog"]).tolist()
    [[1, 0], [0, 0], [-1, -1]]
    """
    column = {name: i for i, name in enumerate(classes)}
    label = np.zeros((len(answers), len(classes)), np.int8)
    for row, answer in zip(label, answers, strict=True):
        if answer is None:
            row[:] = -1
        for name in answer or ():
            row[column[name]] = 1
    return label


def spent(named: np.ndarray, budget: int, free: bool) -> int:
    """Return how many questions, in their order, a budget pays for; where `free`, only those that gave a class cost.

    Shape: named `[questions]`, whether the answer names a class.

    >>> spent(np.array([True, False, True, True]), 2, free=True)
    3
    """
    if not free:
        return min(budget, len(named))
    ends = np.flatnonzero(np.cumsum(named) >= budget)
    return int(ends[0]) + 1 if len(ends) else len(named)


class Store(Protocol):
    """Take columns; `files.create` yields one on disk."""

    def write(self, name: str, values: Any) -> None:
        """Write a whole column."""


class Labelling:
    """Give the answers about some windows to the members of their clusters, `share` of each, the nearest.

    `rows` are the windows that take one, in rising order, and `question` the number of that which each takes.
    """

    def __init__(self, windows: Windows, answers: Answers, share: float = 1.0) -> None:
        self.windows, self.answers = windows, answers
        self.rows, self.question = spread(windows.cluster, answers.asked, windows.similarity, share)

    @property
    def label(self) -> np.ndarray:
        """The labels that windows take: 1 for a class that is there, 0 for one that is not, -1 for unknown."""
        return self.answers.label[self.question]

    def write(self, store: Store) -> None:
        """Write a labels file with a segment for each window that takes a label."""
        windows, rows = self.windows, self.rows
        clip, start = windows.clip[rows], windows.start[rows]
        asked = rows == self.answers.asked[self.question]
        store.write("label", self.label)
        store.write("segment/key", windows.source.clips.key[clip])
        store.write("segment/start", start)
        store.write("segment/end", start + windows.length)
        store.write("class", self.answers.classes)
        store.write("weight", np.where(asked, 1, np.clip(windows.confidence[rows], 0, 1)).astype("f4"))
        store.write("split", windows.split[clip])
        store.write("origin", np.where(asked, 0, 1).astype("u1"))

    def scores(self, known: files.Labels | None = None) -> list[dict[str, Any]]:
        """Return how many questions were spent and windows labelled, and precision and recall by a known truth."""
        answers, windows = self.answers, self.windows
        labelled = int((self.label >= 0).any(1).sum())
        counts = [
            evaluations.row("questions", float(len(answers.asked)), len(answers.asked)),
            evaluations.row("labelled_windows", float(labelled), len(windows)),
        ]
        if known is None:
            return counts
        classes = list(dict.fromkeys([*known.classes, *answers.classes]))
        given = np.full((len(windows), len(classes)), -1, np.int8)
        given[self.rows] = align(self.label, answers.classes, classes)
        truth = align(windows.labels(known), known.classes, classes)
        return counts + evaluation.evaluate(Table(given, truth, classes))


def summary(scores: Sequence[Mapping[str, Any]], windows: int) -> str:
    """Return scores in a sentence."""
    value = {one["metric"]: one["value"] for one in scores if one["class"] is None}
    parts = [f"{value['questions']:.0f} questions, {value['labelled_windows']:.0f} of {windows} windows labelled"]
    parts += [
        f"{name} {value[name]:.3f} (pooled {value[f'pooled_{name}']:.3f})"
        for name in ("precision", "recall")
        if name in value
    ]
    return ", ".join(parts)

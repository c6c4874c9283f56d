"""Where the answers of label-clusters come from: a labels file, a sheet that people fill in, or the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from soundssl import SoundsslError
from soundssl.commands import asking, terminal


class Windows(NamedTuple):
    """Hold the windows that may be asked about: arrays with an entry a window, `start` in seconds into the clip.

    Without clusters (`random`) each window is a cluster of its own.
    """

    source: Any
    kind: str
    cluster: Any
    similarity: Any
    confidence: Any
    clip: Any
    start: Any
    clusters: int | None  # in use; None for embeddings
    random: bool

    @property
    def length(self) -> float:
        """Seconds of a window."""
        return float(self.source.attributes["window"])

    def labels(self, labels, rows=slice(None)):
        """Return what a labels file says of some windows, at their centres."""
        from soundssl.labels import Index

        index = Index(labels, self.source.clips.key)
        return index.of_windows(self.clip[rows], self.start[rows] + self.length / 2)

    def heard_at(self, rows=slice(None)):
        """Return when some windows start, in seconds into the file to listen to."""
        offset = self.source.clips.start
        return self.start[rows] + (0 if offset is None else offset[self.clip[rows]])

    def questions(self, rows) -> Iterator:
        """Yield what to listen to for each of some windows."""
        from soundssl import sheets

        clips = self.source.clips
        names = clips.key if clips.source is None else clips.source
        for row, start in zip(rows, self.heard_at(rows).tolist(), strict=True):
            clip, cluster = self.clip[row], None if self.random else int(self.cluster[row])
            yield sheets.Question(cluster, str(names[clip]), str(clips.key[clip]), start, start + self.length)


class Answers(NamedTuple):
    """Hold answers: the window each is about, its labels [questions, classes], and the classes."""

    asked: Any
    label: Any
    classes: list[str]


class Cost(NamedTuple):
    """Say how many questions may be asked, and whether those that give no class are `free`."""

    budget: int
    free: bool


def consult(windows: Windows, known, asked, cost: Cost) -> Answers:
    """Let a labels file answer."""
    from soundssl import files, labelling

    asked = asked if cost.free else asked[: cost.budget]
    label = windows.labels(known, asked)
    if not (label >= 0).any():
        raise SoundsslError(
            f"{files.text(known.path)} says nothing of {len(asked)} windows of {files.text(windows.source.path)}; "
            f"are their keys the same?"
        )
    count = labelling.spent((label == 1).any(1), *cost)
    return Answers(asked[:count], label[:count], known.classes)


def write_sheet(path: Path, windows: Windows, asked, force: bool, quiet: bool) -> None:
    """Write the questions, but never over a sheet that somebody has begun to fill in."""
    from soundssl import files, sheets

    if path.exists() and not force:
        try:
            answered = sum(bool(line.answer) for line in sheets.read(path.read_bytes(), files.text(path)))
        except sheets.SheetError as error:
            raise SoundsslError(f"{error}, or give another name or --force to replace it") from None
        if answered:
            raise SoundsslError(f"{files.text(path)} has {answered} answers; name another sheet, or give --force")
    with files.replace(path) as partial:
        partial.write_text(sheets.write(windows.questions(asked)), "utf-8")
    terminal.say("label-clusters", f"{len(asked)} questions in {files.text(path)}; fill in the column class", quiet)


def read(windows: Windows, path: Path, cost: Cost) -> Answers:
    """Read the answers from a sheet."""
    from soundssl import files, sheets

    name = files.text(path)
    lines = [line for line in sheets.read(files.require(path).read_bytes(), name) if line.answer]
    if not lines:
        raise SoundsslError(f"{name} has no answer; fill in the column class")
    matched = _finder(windows).match(
        lines, name, f"answer the sheet that --questions writes for {files.text(windows.source.path)} and these options"
    )
    return _understood([(row, line.answer) for row, line in matched.items()], cost)


def converse(windows: Windows, asked, cost: Cost, output: Path, quiet: bool) -> Answers:
    """Ask in the terminal what the journal does not know yet."""
    import numpy as np

    from soundssl import sheets

    journal, finder, sizes = asking.Journal(output), _finder(windows), np.bincount(windows.cluster)

    def known() -> dict[int, tuple[int, str]]:
        remedy = "it keeps the answers to other questions; move it away, or name another output"
        matched = finder.match(journal.lines, journal.name, remedy)
        return {int(windows.cluster[row]): (row, line.answer) for row, line in matched.items()}

    def upcoming(answered: dict[int, str]):
        spent = 0
        for row in asked:
            key = int(windows.cluster[row])
            if key not in answered:
                about = "" if windows.random else f", cluster {key}, {sizes[key]} windows"
                return key, next(windows.questions([row])), f"question {spent + 1} of {cost.budget}{about}"
            spent += not cost.free or bool(sheets.parse(answered[key]))
            if spent == cost.budget:
                return None
        return None

    answered = {key: answer for key, (_, answer) in known().items()}
    if answered:
        terminal.say("label-clusters", f"going on: {len(answered)} answers in {journal.name}", quiet)
    asking.converse(upcoming, answered, journal)
    if upcoming(answered):
        terminal.say("label-clusters", "stopped; the same command goes on with the questions left", quiet)
    given = known()
    entries = [given[key] for key in map(int, windows.cluster[asked]) if key in given]
    if not entries:
        raise SoundsslError(
            "no question was answered; answer in the terminal, or give --labels, or --questions and then --answers"
        )
    return _understood(entries, cost)


def _finder(windows: Windows):
    from soundssl import sheets

    cluster = None if windows.random else windows.cluster
    return sheets.Finder(windows.source.clips.key, windows.clip, windows.heard_at(), cluster)


def _understood(entries: list[tuple[int, str]], cost: Cost) -> Answers:
    """Return the answers that the budget pays for, from rows of windows and words."""
    import numpy as np

    from soundssl import labelling, sheets

    count = labelling.spent(np.array([bool(sheets.parse(answer)) for _, answer in entries]), *cost)
    given, classes = sheets.parse_all(answer for _, answer in entries[:count])
    asked = np.array([row for row, _ in entries[:count]], np.int64)
    return Answers(asked, labelling.encode(given, classes), classes)

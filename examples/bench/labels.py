"""Time the labels of a batch of windows among 100,000 segments against a loop over the segments, and two verbs.

`labels propagate` and `labels flag` run on 300,000 segments of 527 classes, against a column of the matrix at a time.
A million events become targets of two million windows, against one event after another, and are written to a table
and read from it, against csv. The most memory that the process held is printed last.

Run with one thread: OMP_NUM_THREADS=1 python examples/bench/labels.py
"""

import csv
import io
from functools import partial
from pathlib import Path

import numpy as np
import timing

from soundssl.datasets.ontology import Ontology
from soundssl.detection import exchange, formats
from soundssl.detection.events import Event
from soundssl.labels import Index, LabelSet, Segments, flag, from_events, propagate, targets

CLASSES = 50


def peer(said: Segments, row: dict[str, int], clip: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Look up every segment in its turn, the windows of its clip at a stroke."""
    found = np.full((len(clip), said.label.shape[1]), -1, np.int8)
    order = np.argsort(clip, kind="stable")
    bounds = np.searchsorted(clip[order], np.arange(len(row) + 1))
    for key, start, end, label in zip(*said, strict=True):
        windows = order[bounds[row[key]] : bounds[row[key] + 1]]
        windows = windows[(centre[windows] >= start) & (centre[windows] < end)]
        found[windows] = np.maximum(found[windows], label)
    return found


def measure(small: bool) -> list[dict]:
    """Join 64 windows of 10 s clips with segments of about a second; milliseconds a batch, of ours once indexed."""
    segments, clips, repeats = (2000, 200, 2) if small else (100_000, 10_000, 5)
    generator = np.random.default_rng(0)
    keys = [f"{clip:06}.wav" for clip in range(clips)]
    key, start = np.array(keys, object)[generator.integers(0, clips, segments)], generator.uniform(0, 9, segments)
    label = generator.integers(-1, 2, (segments, CLASSES)).astype("i1")
    said = Segments(key, start, start + generator.exponential(1.0, segments), label)
    clip, centre = generator.integers(0, clips, 64), generator.uniform(0, 10, 64)
    index, row = Index(said, keys), {name: place for place, name in enumerate(keys)}
    if not np.array_equal(index.of_windows(clip, centre), peer(said, row, clip, centre)):
        raise ValueError("the labels of ours and of the loop differ")
    ours = timing.interleave({"ours": partial(index.of_windows, clip, centre)}, repeats, rounds=100)["ours"]
    theirs = timing.interleave({"peer": partial(peer, said, row, clip, centre)}, repeats)["peer"]
    claim = f"labels of 64 windows among {segments:,} segments, per batch"
    return [timing.row(claim, ours, "a loop over the segments", theirs), *verbs(small), *events(small)]


def verbs(small: bool) -> list[dict]:
    """Propagate labels up a tree of four levels, and flag the top 2 % of negatives; once each, in milliseconds."""
    segments, classes = (300, 40) if small else (300_000, 527)
    generator = np.random.default_rng(1)
    names = [f"/m/{i}" for i in range(classes)]
    graph = Ontology(
        {name: name for name in names},
        {names[i]: [names[j] for j in range(5 * i + 1, 5 * i + 6) if j < classes] for i in range(classes)},
    )
    label = np.zeros((segments, classes), np.int8)
    label[np.arange(segments).repeat(2), generator.integers(0, classes, 2 * segments)] = 1
    keys, zeros = np.arange(segments).astype(str).astype(object), np.zeros(segments)
    given = LabelSet(label, names, keys, zeros, zeros + np.inf)
    score = generator.random((segments, classes), np.float32)
    if not np.array_equal(propagate(given, graph).labels.label, up_by_columns(label, graph, names)):
        raise ValueError("the labels propagated by ours and by columns differ")
    if not np.array_equal(flag(given, score, 0.02).label, flagged_by_columns(label, score, 0.02)):
        raise ValueError("the labels flagged by ours and by columns differ")
    rows = []
    for verb, ours, theirs in (
        ("propagate", partial(propagate, given, graph), partial(up_by_columns, label, graph, names)),
        ("flag", partial(flag, given, score, 0.02), partial(flagged_by_columns, label, score, 0.02)),
    ):
        times = timing.interleave({"ours": ours, "peer": theirs}, 1)
        claim = f"labels {verb}, {segments:,} segments of {classes} classes"
        rows.append(timing.row(claim, times["ours"], "a column at a time", times["peer"]))
    return rows


def events(small: bool) -> list[dict]:
    """Turn events into targets, and write and read them as a table; once each, in milliseconds."""
    count, windows = (1000 if small else 1_000_000), 21
    generator = np.random.default_rng(2)
    key = [f"{clip:07}.wav" for clip in generator.integers(0, count // 10, count)]
    name = [f"class {number}" for number in generator.integers(0, CLASSES, count)]
    onset = generator.uniform(0, 49, count).round(3)
    offset = (onset + generator.exponential(1.0, count)).round(3)
    given = from_events(key, name, onset, offset)
    clip = np.repeat(np.arange(len(given)), windows)
    start = np.tile(np.arange(windows) * 2.4, len(given))
    grid = given, list(given.key), clip, start, start + 0.96
    if not np.array_equal(targets(*grid), one_by_one(given, windows)):
        raise ValueError("the targets of ours and of the loop differ")
    heard = [Event(*each) for each in zip(key, onset.tolist(), offset.tolist(), name, strict=True)]
    content = b"".join(part for _, part in formats.write(Path("e.csv"), heard, [], "csv"))
    if len(exchange.to_labels(formats.read(content, Path("e.csv"), "csv")).labels) != len(given):
        raise ValueError("what was written is not what is read")
    table = Path("e.csv")
    rows = []
    for what, other, ours, theirs in (
        ("to targets", "one event after another", partial(targets, *grid), partial(one_by_one, given, windows)),
        ("written as csv", "csv", lambda: list(formats.write(table, heard, [], "csv")), partial(written, heard)),
        (
            "read from csv",
            "csv",
            lambda: exchange.to_labels(formats.read(content, table, "csv")),
            lambda: list(csv.DictReader(io.StringIO(content.decode()))),
        ),
    ):
        times = timing.interleave({"ours": ours, "peer": theirs}, 1)
        rows.append(timing.row(f"{count:,} events {what}", times["ours"], other, times["peer"]))
    return rows


def one_by_one(given: LabelSet, windows: int) -> np.ndarray:
    """Mark the windows of 0.96 s every 2.4 s that an event overlaps, one event after another."""
    found = np.zeros((len(given), windows, len(given.classes)), np.int8)
    start = np.arange(windows) * 2.4
    end = start + 0.96
    for segment, column, onset, offset in zip(*map(np.ndarray.tolist, given.events.values()), strict=True):
        found[segment, (start < offset) & (onset < end), column] = 1
    return found.reshape(-1, len(given.classes))


def written(heard: list[Event]) -> str:
    """Return a table of events, by the library of Python alone."""
    file = io.StringIO()
    csv.writer(file).writerows(sorted(heard))
    return file.getvalue()


def up_by_columns(label: np.ndarray, graph: Ontology, names: list[str]) -> np.ndarray:
    """Give the ancestors of each class its labels, a whole column at a time."""
    label = label.copy()
    for i in reversed(range(len(names))):
        for above in graph.ancestors(names[i], names):
            label[label[:, i] == 1, names.index(above)] = 1
    return label


def flagged_by_columns(label: np.ndarray, score: np.ndarray, share: float) -> np.ndarray:
    """Sort the scores of the negatives of each class whole."""
    label = label.copy()
    for i in range(label.shape[1]):
        rows = np.flatnonzero(label[:, i] == 0)
        order = np.argsort(-score[rows, i], kind="stable")
        label[rows[order[: int(share * len(rows) + 1e-9)]], i] = -1
    return label


if __name__ == "__main__":
    timing.say(measure(small=False))
    print(f"{timing.peak():.0f} MB at most")

"""A small world for the tests of labels from clusters: eighteen clips in four clusters, and the truth about them."""

import contextlib
import io
import json
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from soundssl import commands, files

CLASSES = ["dog", "cat, small", "rain"]
CLIPS, WINDOWS, HOP, WINDOW = 18, 10, 0.48, 0.96
NUMBER = np.array([4, 17, 30, 31])  # clusters in use; 0 and 1 share a class


class Done(NamedTuple):
    status: int
    out: str
    err: str

    def rows(self) -> dict[str, float]:
        """Return the overall scores printed."""
        lines = [json.loads(line) for line in self.out.splitlines()]
        return {one["metric"]: one["value"] for one in lines if one["class"] is None}


def run(*words: object, typed: str = "") -> Done:
    """Run the command line in this process, with `typed` on standard input."""
    out, err, handler, stdin = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM), sys.stdin
    sys.stdin = io.StringIO(typed)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            commands.main([str(word) for word in words])
    finally:
        sys.stdin = stdin
        signal.signal(signal.SIGTERM, handler)
    return Done(end.value.code or 0, out.getvalue(), err.getvalue())


class World(NamedTuple):
    """Hold the folder with clusters.h5 and labels.h5, and what is in them for each window."""

    folder: Path
    clusters: Path
    labels: Path
    cluster: np.ndarray
    of_class: np.ndarray
    similarity: np.ndarray
    split: np.ndarray

    def column(self, path: Path, given: str = "label") -> np.ndarray:
        """Return the labels of every window in a labels file, -1 where there is none."""
        known = files.Labels(path)
        row = {(f"clip {i}.wav", round(j * HOP, 6)): i * WINDOWS + j for i in range(CLIPS) for j in range(WINDOWS)}
        found = np.full((len(self.cluster), len(known.classes)), -1, np.int8)
        rows = [row[key, round(start, 6)] for key, start in zip(known.key, known.start, strict=True)]
        assert len(set(rows)) == len(rows) and rows == sorted(rows)
        found[rows] = known.label
        return found


def write_clusters(path: Path, cluster, similarity, with_windows: bool = True, uuid: str = "") -> None:
    attributes = {"method": "entropy", "metric": "cosine", "scale": 60.0, "window": WINDOW, "used": 4}
    with files.create(path, "clusters", inputs=[], made_from=uuid, attributes=attributes) as sink:
        sink.write("cluster", cluster.astype("i4"))
        sink.write("confidence", np.linspace(0.3, 0.9, len(cluster)).astype("f2"))
        sink.write("similarity", similarity.astype("f4"))
        sink.write("size", np.bincount(cluster, minlength=40))
        sink.write("weight", np.zeros((40, 2), "f4"))
        angle = np.arange(40) * 0.15
        sink.write("mean", np.stack([np.cos(angle), np.sin(angle)], 1).astype("f4"))
        if with_windows:
            sink.write("window/clip", np.repeat(np.arange(CLIPS), WINDOWS).astype("i4"))
            sink.write("window/start", np.tile(np.arange(WINDOWS) * HOP, CLIPS))
            for name in ("key", "recording"):
                sink.write(f"clip/{name}", [f"clip {i}.wav" for i in range(CLIPS)])
            sink.write("clip/split", [str(1 + i % 2) for i in range(CLIPS)])


def make_world(folder: Path) -> World:
    """Write clusters that are classes, but that the first class has two; a clip is of one class."""
    generator = np.random.default_rng(0)
    of_clip = np.repeat([0, 1, 2, 3], [8, 5, 3, 2])
    group = np.repeat(of_clip, WINDOWS)
    similarity = generator.random(len(group))
    write_clusters(folder / "clusters.h5", NUMBER[group], similarity)
    write_clusters(folder / "bare.h5", NUMBER[group], similarity, with_windows=False)
    of_class = np.array([0, 0, 1, 2])
    with files.create(folder / "labels.h5", "labels", inputs=[], made_from="", attributes={}) as sink:
        sink.write("label", np.eye(3, dtype=np.int8)[of_class[of_clip]])
        sink.write("segment/key", [f"clip {i}.wav" for i in range(CLIPS)])
        sink.write("segment/start", np.zeros(CLIPS))
        sink.write("segment/end", np.full(CLIPS, np.inf))
        sink.write("class", CLASSES)
    split = np.repeat(1 + np.arange(CLIPS) % 2, WINDOWS)
    paths = folder / "clusters.h5", folder / "labels.h5"
    return World(folder, *paths, NUMBER[group], of_class[group], similarity, split)

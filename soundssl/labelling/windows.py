"""The windows that may be asked about, and what is known of them: their clusters, their clips and their times."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from soundssl import SoundsslError, files
from soundssl.labelling.sheets import Finder, Question
from soundssl.labels import Index, clips_in_splits, joined, splits_of


@dataclass(frozen=True)
class Windows:
    """Hold the windows of a file that may be asked about.

    Without clusters (`random`) each window is a cluster of its own. `used` is the number of clusters in use, None of an
    embeddings file. Shape: arrays `[windows]`, `start` in seconds into the clip; but `split` `[clips]`.
    """

    source: files.Clusters | files.Embeddings
    cluster: np.ndarray
    similarity: np.ndarray
    confidence: np.ndarray
    clip: np.ndarray
    start: np.ndarray
    split: np.ndarray
    used: int | None
    random: bool

    def __len__(self) -> int:
        return len(self.clip)

    @property
    def kind(self) -> str:
        """The kind of the file they are in."""
        return "clusters" if isinstance(self.source, files.Clusters) else "embeddings"

    @property
    def length(self) -> float:
        """Seconds of a window."""
        return float(self.source.attributes["window"])

    def means(self) -> np.ndarray | None:
        """Return the mean of each cluster, of length one, None of an embeddings file. Shape: `[K, d]`."""
        return self.source.mean[:] if isinstance(self.source, files.Clusters) else None

    def labels(self, known: files.Labels, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return what a labels file says of some windows, at their centres. Shape: `[rows, classes]`."""
        return Index(known, self.source.clips.key).of_windows(self.clip[rows], self.start[rows] + self.length / 2)

    def heard_at(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return when some windows start, in seconds into the file to listen to. Shape: `[rows]`."""
        return self.source.clips.heard(self.clip[rows], self.start[rows])[1]

    def questions(self, rows: np.ndarray) -> Iterator[Question]:
        """Yield what to listen to for each of some windows."""
        clips = self.source.clips
        names, starts = clips.heard(self.clip[rows], self.start[rows])
        for row, name, start in zip(rows, names, starts.tolist(), strict=True):
            cluster = None if self.random else int(self.cluster[row])
            yield Question(cluster, str(name), str(clips.key[self.clip[row]]), start, start + self.length)

    def finder(self) -> Finder:
        """Return what finds these windows by the lines of a sheet."""
        return Finder(list(self.source.clips.key), self.clip, self.heard_at(), None if self.random else self.cluster)


def read_windows(
    path: str | os.PathLike,
    splits: Sequence[str] | None = None,
    random: bool = False,
    known: files.Labels | None = None,
) -> Windows:
    """Return the windows of a clusters file, of the chosen splits, that are in a cluster.

    Where `known` labels have splits, they come before those of the file.

    With `random` all of them, without their clusters; then the file may hold embeddings. Raises Missing, FormatError
    for other files and for clusters of a bare matrix, and SoundsslError where no window is left.
    """
    embedded = random and files.kind_of(path) == "embeddings"
    source = files.Embeddings(path) if embedded else files.Clusters(path)
    if source.clip is None:
        raise files.FormatError(
            f"{files.text(path)} holds clusters of a bare matrix, without clips and times to ask about; "
            f"make clusters of an embeddings file (.h5) with soundssl cluster"
        )
    if "window" not in source.attributes:
        raise files.FormatError(f"{files.text(path)} does not say how long a window is; make it again")
    known = joined(known, source) if known else None
    chosen = clips_in_splits(known, source.clips, splits, path)[source.clip]
    if isinstance(source, files.Clusters) and not random:
        chosen &= source.cluster >= 0
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise SoundsslError(f"{files.text(path)} has no window in a cluster" + " of the chosen splits" * bool(splits))
    used = len(np.unique(source.cluster[rows])) if isinstance(source, files.Clusters) else None
    clip, start = source.clip[rows].astype("i8"), source.start[rows]
    cluster, similarity, confidence = np.arange(len(rows)), np.zeros(len(rows), "f4"), np.ones(len(rows), "f4")
    if isinstance(source, files.Clusters) and not random:
        cluster, similarity = source.cluster[rows].astype("i8"), source.similarity[rows]
        confidence = source.confidence[rows].astype("f4")
    split = splits_of(known, source.clips.key, source.clips.split)
    return Windows(source, cluster, similarity, confidence, clip, start, split, used, random)

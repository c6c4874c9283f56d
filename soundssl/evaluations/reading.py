"""Reading: tables for the evaluations, out of files."""

from __future__ import annotations

import io
import json
import os
from typing import Literal

import numpy as np

from soundssl import SoundsslError, files
from soundssl.evaluations.table import Table
from soundssl.labels import Index, Timeline, align, clips_in_splits, joined, of_segments, splits_of
from soundssl.ops.groups import GroupMeans
from soundssl.progress import SILENT, Progress

BATCH = 4096  # windows read at once
LEAST = 1e-12  # of a probability in a geometric mean
Mean = Literal["arithmetic", "geometric"]


def read_embeddings(
    path: str | os.PathLike | io.BytesIO,
    known: files.Labels,
    *,
    level: Literal["clip", "window"] = "window",
    hop: float | None = None,
    splits: list[str] | None = None,
    taught: files.Labels | None = None,
    mean: Mean = "arithmetic",
) -> Table:
    """Read the windows of an embeddings or features file that have labels, or the mean of each clip.

    An NPY matrix, or the bytes of one, has a row for each segment of the labels. `hop` in seconds places the windows of
    features, by default as their front end has it; `splits` chooses clips; `taught` are other labels, to learn from.
    Raises Missing, FormatError, and SoundsslError where no clip is left, or no class of the other labels.
    """
    if taught and not set(taught.classes) & set(known.classes):
        raise SoundsslError(
            f"{files.text(taught.path)} has no class of {files.text(known.path)}; give labels of one kind"
        )
    if isinstance(path, io.BytesIO) or files.kind_of(path) is None:
        return _read_matrix(path, known, splits, taught)
    kind = files.kind_of(path)
    if kind not in ("embeddings", "features"):
        raise files.FormatError(
            f"{files.text(path)} holds {kind}; evaluate takes embeddings, features or an NPY matrix"
        )
    source = files.Embeddings(path) if kind == "embeddings" else files.Features(path)
    if isinstance(source, files.Features):
        source.require("logmel", "the baseline is that of")
    known, taught = joined(known, source), joined(taught, source) if taught else None
    label = Index(known, source.clips.key).of_clips()
    other = align(Index(taught, source.clips.key).of_clips(), taught.classes, known.classes) if taught else label
    column = splits_of(known, source.clips.key, source.clips.split).astype(str)
    chosen = clips_in_splits(known, source.clips, splits, path) & ((label >= 0) | (other >= 0)).any(1)
    if not chosen.any():
        raise SoundsslError(
            f"no clip of {files.text(path)} has a label in {files.text(known.path)}; are their keys the same?"
        )
    value, clip = clip_means(source, chosen, hop, mean) if level == "clip" else windows(source, chosen, hop)
    rows, clip = np.unique(clip, return_inverse=True)  # clips without windows are left out
    recording, split = source.clips.recording[rows].astype(str), column[rows]
    columns = {"clip": clip.reshape(-1), "recording": recording, "split": split}
    return Table(value, label[rows], known.classes, **columns, taught=other[rows] if taught else None)


def _read_matrix(
    path: str | os.PathLike | io.BytesIO,
    known: files.Labels,
    splits: list[str] | None,
    taught: files.Labels | None = None,
) -> Table:
    matrix, name = files.read_matrix(path), "standard input" if isinstance(path, io.BytesIO) else files.text(path)
    for each in filter(None, (known, taught)):
        if len(matrix) != len(each.key):
            raise files.FormatError(
                f"{name} has {len(matrix)} rows and the labels {len(each.key)} segments; a bare matrix "
                f"needs a row a segment, write an embeddings file instead"
            )
    other = align(taught.label, taught.classes, known.classes) if taught else None
    split = known.split.astype(str) if known.split is not None else np.full(len(matrix), "")
    rows = files.in_splits(split, splits, known.path)
    with np.errstate(over="ignore"):
        value, key = np.asarray(matrix, np.float32)[rows], known.key[rows].astype(str)
    _require_finite(name, value)
    columns = {"recording": key, "split": split[rows], "taught": None if other is None else other[rows]}
    return Table(value, known.label[rows], known.classes, **columns)


def windows(
    source: files.Embeddings | files.Features, clips: np.ndarray, hop: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the windows of the chosen clips (boolean, `[clips]`) with the clip of each; raise FormatError for none.

    Shape: `[windows, size]` float32 and `[windows]`.
    """
    blocks = list(_batches(source, clips, hop))
    return np.concatenate([rows for rows, _ in blocks]), np.concatenate([clip for _, clip in blocks])


def clip_means(
    source: files.Embeddings | files.Features, clips: np.ndarray, hop: float | None = None, mean: Mean = "arithmetic"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over windows of each chosen clip that has any, read in blocks; raise FormatError for none.

    The geometric mean is that of probabilities, which count as LEAST at least.

    Shape: `[means, size]` float32 and `[means]`, the clips.
    """
    means = GroupMeans(int(clips.sum()))
    place = np.cumsum(clips) - 1  # row of a chosen clip among the chosen: sums of all clips may not fit in memory
    for rows, clip in _batches(source, clips, hop):
        means.add(np.log(np.maximum(rows, LEAST)) if mean == "geometric" else rows, place[clip])
    have = means.count > 0
    found = means.mean()[have]
    return (np.exp(found) if mean == "geometric" else found).astype(np.float32), np.flatnonzero(clips)[have]


def _batches(source: files.Embeddings | files.Features, clips: np.ndarray, hop: float | None):
    """Yield windows as float32, with the clip of each."""
    blocks = source.batches(clips, BATCH, hop) if isinstance(source, files.Features) else source.batches(clips, BATCH)
    found = False
    for rows, clip in blocks:
        found = True
        _require_finite(source.path, rows)
        yield rows, clip
    if not found:
        raise files.FormatError(f"{files.text(source.path)} has no window of the chosen clips")


def _require_finite(name: str | os.PathLike, rows: np.ndarray) -> None:
    """Raise FormatError for values that are not finite: what is computed of them would not be either."""
    if not np.isfinite(rows).all():
        raise files.FormatError(f"{files.text(name)} is damaged: it holds numbers that are not finite; make it again")


def read_scores(
    path: str | os.PathLike, known: files.Labels, splits: list[str] | None = None, mean: Mean = "arithmetic"
) -> Table:
    """Read clip scores of classes, the labels brought into the order of the scores' classes; raises FormatError.

    The score of a clip is the arithmetic or the geometric mean of its windows'.
    """
    classes = json.loads(files.Embeddings(path).attributes["class"])
    if not classes:
        raise files.FormatError(
            f"{files.text(path)} holds embeddings, not scores of classes; "
            f"make them with soundssl embed --layer probabilities"
        )
    table = read_embeddings(path, known, level="clip", splits=splits, mean=mean)
    label = align(table.label, known.classes, classes)
    return Table(table.value, label, classes, recording=table.recording, split=table.split)


def read_pair(
    first: str | os.PathLike, second: str | os.PathLike, known: files.Labels, splits: list[str] | None = None
) -> tuple[Table, Table]:
    """Read scores of the same clips by two recognisers, as `read_scores` does; raise FormatError for other clips."""
    own, other = (np.asarray(files.Embeddings(path).clips.key) for path in (first, second))
    if not np.array_equal(own, other):
        raise files.FormatError(
            f"{files.text(second)} scores other clips than {files.text(first)}; embed the same features with both"
        )
    return read_scores(first, known, splits), read_scores(second, known, splits)


def read_strong(
    path: str | os.PathLike,
    known: files.Labels,
    splits: list[str] | None = None,
    overlap: float = 0.0,
    score: np.ndarray | None = None,
) -> Table:
    """Read window scores of classes with what events, or else segments, say of each window; a row a window.

    An event counts where it overlaps the window by `overlap` of the shorter of the two, or at all; labels are brought
    into the order of the scores' classes. `score` `[windows, classes]` stands for the scores in the file. Raises
    FormatError, and SoundsslError where nothing is said of any window.
    """
    classes = json.loads(files.Embeddings(path).attributes["class"])
    if not classes:
        raise files.FormatError(
            f"{files.text(path)} holds embeddings, not scores of classes; "
            f"make them with soundssl embed --layer probabilities"
        )
    source = files.Embeddings(path)
    known = joined(known, source)
    chosen = clips_in_splits(known, source.clips, splits, path)
    rows = np.flatnonzero(chosen[np.asarray(source.clip)])
    clip, start = np.asarray(source.clip)[rows].astype(np.int64), np.asarray(source.start)[rows]
    timeline = Timeline(known, known.events, source.clips.key)
    label = timeline.of_windows(clip, start, start + float(source.attributes["window"]), overlap)
    label = align(label, known.classes, classes)
    said = (label >= 0).any(1)
    if not said.any():
        raise SoundsslError(
            f"{files.text(known.path)} says nothing of the windows and classes of {files.text(path)}; are the keys of "
            f"its clips and the names of its classes the same?"
        )
    value = np.asarray(source.embedding[:] if score is None else score, np.float32)[rows[said]]
    recording, split = (
        column.astype(str)[clip[said]]
        for column in (source.clips.recording, splits_of(known, source.clips.key, source.clips.split))
    )
    return Table(value, label[said], classes, recording=recording, split=split)


def read_clusters(source: files.Clusters, known: files.Labels, splits: list[str] | None = None) -> Table:
    """Read the clusters of windows, and the labels at the centre of each; those of bare rows a segment at a time.

    Raises FormatError where there is not a segment for each bare row.
    """
    if source.clip is None:
        if len(source.cluster) != len(known.key):
            raise files.FormatError(
                f"{files.text(source.path)} has {len(source.cluster)} rows without times and the labels "
                f"{len(known.key)} segments; make clusters of an embeddings file instead"
            )
        return Table(source.cluster, known.label, known.classes)
    known = joined(known, source)
    chosen = clips_in_splits(known, source.clips, splits, source.path)[source.clip]
    clip, centre = source.clip[chosen], source.start[chosen] + float(source.attributes["window"]) / 2
    label = Index(known, source.clips.key).of_windows(clip, centre)
    return Table(source.cluster[chosen], label, known.classes)


def read_labels(
    given: files.Labels, truth: files.Labels, windows: str | os.PathLike | None = None, progress: Progress = SILENT
) -> Table:
    """Read the labels given to the windows of a clusters or embeddings file, and what is true of them.

    Default of `windows`: the file that the labels were spread from, where it lies beside them; else the segments alone.
    Raises FormatError for windows without times.
    """
    windows = windows or given.spread_from()
    if windows is None:
        progress.say("recall and coverage are those of the segments alone; give --windows for all windows")
        return _table_of(given, given.label, truth, of_segments(truth, given.key, given.start, given.end))
    kind = files.kind_of(windows)
    source = files.Embeddings(windows) if kind == "embeddings" else files.Clusters(windows)
    if source.clip is None:
        raise files.FormatError(f"{files.text(windows)} holds no times of windows; give the embeddings file")
    given, truth = joined(given, source), joined(truth, source)
    splits = [split.strip() for split in given.attributes.get("split", "").split(",") if split.strip()]
    chosen = clips_in_splits(truth, source.clips, splits, windows)[source.clip]
    clip, start, keys = source.clip[chosen], source.start[chosen], source.clips.key
    centre = start + float(source.attributes["window"]) / 2
    label = Index(given, keys).at_windows(clip, start, centre)
    return _table_of(given, label, truth, Index(truth, keys).of_windows(clip, centre))


def _table_of(given: files.Labels, label: np.ndarray, truth: files.Labels, true: np.ndarray) -> Table:
    """Set labels against the truth, over the classes of both."""
    classes = list(dict.fromkeys([*truth.classes, *given.classes]))
    return Table(align(label, given.classes, classes), align(true, truth.classes, classes), classes)


def choose_sides(
    table: Table,
    test: list[str] | None,
    train: list[str] | None = None,
    validation: list[str] | None = None,
    path: str | os.PathLike = "the file",
) -> Table:
    """Return the table with its sides chosen by splits: default of `test` all, of `train` all others, or all.

    Clips of the validation train nothing. Raises SoundsslError for a split that none has.
    """
    tested = files.in_splits(table.split, test, path)
    trained = files.in_splits(table.split, train, path) if train else tested if tested.all() else ~tested
    held = files.in_splits(table.split, validation, path) if validation else None
    return table.sides(tested, trained & ~held if held is not None else trained, held)

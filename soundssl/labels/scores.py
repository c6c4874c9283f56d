"""Scores: what a recogniser's windows say of labelled segments, a value a segment and class, or a loss a segment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from soundssl import SoundsslError, files
from soundssl.labels.choice import threshold_for, top
from soundssl.labels.errors import lq_loss
from soundssl.labels.labelset import LabelSet
from soundssl.labels.moments import Index, align, rows_of
from soundssl.ops.groups import GroupMeans

BATCH = 1 << 14  # windows read at once
NUMBERS = 1 << 22  # scores read at once: 32 MB of float64
RECOGNISER = 2  # the origin of labels that are a recogniser's


class Scored(NamedTuple):
    """Hold the mean score of each segment and class, not a number where no window says it, and whose scores they are.

    Shape: `[segments, classes]` float32, `[segments]`: the number of the file.
    """

    score: np.ndarray
    teacher: np.ndarray


def classes_of(source: files.Embeddings) -> list[str]:
    """Return the classes of a scores file; raise FormatError for one that holds embeddings."""
    classes = json.loads(source.attributes["class"])
    if not classes:
        raise files.FormatError(
            f"{files.text(source.path)} holds embeddings, not scores of classes; make them with soundssl embed --layer "
            f"probabilities"
        )
    return classes


def of_segments(labels: LabelSet, paths: Sequence[str | os.PathLike]) -> Scored:
    """Return the mean scores of the windows whose centres a segment holds, of the classes of the labels.

    Several files are those of teachers that each scored other clips (cross-fitting). Raises SoundsslError for a clip
    that two files score, and where no segment is scored.
    """
    score = np.full(labels.label.shape, np.nan, np.float32)
    teacher = np.zeros(len(labels), np.int64)
    count = np.zeros(len(labels), np.int64)
    for number, path in enumerate(paths):
        source = files.Embeddings(path)
        column = rows_of(labels.classes, classes_of(source))
        known, before = np.flatnonzero(column >= 0), count > 0
        for rows, segment in _held(labels, source):
            first = np.flatnonzero(np.diff(segment, prepend=-1))
            own = segment[first]
            if before[own].any():
                raise SoundsslError(
                    f"{files.text(path)} scores {labels.key[own[before[own]]][0]}, which another file scores too; "
                    f"embed with --split, so that each clip has one teacher"
                )
            sums = np.add.reduceat(rows[:, column[known]], first, axis=0, dtype=np.float32)
            new = own[count[own] == 0]
            score[np.ix_(new, known)] = 0
            score[np.ix_(own, known)] += sums
            count += np.bincount(segment, minlength=len(count))
            teacher[own] = number
    for low in range(0, len(score), BATCH):
        score[low : low + BATCH] /= np.maximum(count[low : low + BATCH], 1)[:, None]
    seen = count > 0
    if not seen.any():
        raise SoundsslError(
            f"no segment of the labels is scored by {', '.join(map(files.text, paths))}; are their keys the same?"
        )
    return Scored(score, teacher)


def losses(labels: LabelSet, path: str | os.PathLike, q: float) -> np.ndarray:
    """Return the mean over windows of the L_q loss of each segment, not a number where it has no window or label.

    Shape: `[segments]`.
    """
    source = files.Embeddings(path)
    wanted = align(labels.label, labels.classes, classes_of(source))
    means = GroupMeans(len(labels))
    for rows, segment in _held(labels, source):
        means.add(lq_loss(rows, wanted[segment], q)[:, None], segment)
    if not means.count.any():
        raise SoundsslError(f"no segment of the labels is scored by {files.text(path)}; are their keys the same?")
    return np.where(means.count > 0, means.mean()[:, 0], np.nan)


def machine_labels(
    source: files.Embeddings,
    count: int,
    threshold: float | None,
    level: Literal["clip", "window"],
    mean: float | None = None,
    modality: str | None = None,
) -> LabelSet:
    """Return the `count` surest classes that reach a threshold as labels of clips or windows; see `choice.top`.

    With `mean` the threshold of clips is the one that gives so many labels a clip on average, as MM-Videos has about
    three of sound; `modality` is noted of every class. Clips without windows are left out. Labels have origin 2, and
    nobody rated them. Scores are read in blocks, twice with `mean`: beside the labels no more than a block is held.
    """
    classes, clips = classes_of(source), source.clips
    step, blocks = _rows_at_once(source), clip_means(source)
    if level == "window":
        clip, start = np.asarray(source.clip[:]), np.asarray(source.start[:])
        end = start + float(source.attributes["window"])
        lows = range(0, len(clip), step)
        blocks = (np.asarray(source.embedding[low : low + step], np.float32) for low in lows)
    else:
        clip = np.unique(source.clip[:])
        start, end = np.zeros(len(clip)), np.full(len(clip), np.inf)
        if mean is not None:
            threshold = threshold_for(clip_means(source), len(clip), count, mean)
    label, low = np.empty((len(clip), len(classes)), np.int8), 0
    for score in blocks:
        label[low : low + len(score)] = top(score, count, threshold)
        low += len(score)
    return LabelSet(
        label,
        classes,
        clips.key[clip],
        start,
        end,
        split=clips.split[clip],
        recording=clips.recording[clip],
        origin=np.full(len(clip), RECOGNISER),
        rated=np.broadcast_to(np.uint8(0), label.shape),
        modality=None if modality is None else [modality] * len(classes),
    )


def clip_means(source: files.Embeddings) -> Iterator[np.ndarray]:
    """Yield the mean scores of the clips that have windows, in rising order of their rows, some clips at a time.

    Shape: `[n, classes]` each, float64.
    """
    of = np.asarray(source.clip[:], np.int64)
    order = np.argsort(of, kind="stable")
    clips, first = np.unique(of[order], return_index=True)
    bounds, step = np.append(first, len(of)), _rows_at_once(source)
    for low in range(0, len(clips), step):
        group = clips[low : low + step]
        means, last = GroupMeans(len(group)), bounds[low + len(group)]
        for at in range(bounds[low], last, step):
            rows = np.sort(order[at : min(at + step, last)])
            whole = rows[-1] - rows[0] + 1 == len(rows)  # windows of a clip lie together, but for other programs' files
            read = source.embedding[rows[0] : rows[-1] + 1] if whole else source.embedding[rows]
            means.add(np.asarray(read, np.float32), np.searchsorted(group, of[rows]))
        yield means.mean()


def _rows_at_once(source: files.Embeddings) -> int:
    return max(1, min(BATCH, NUMBERS // max(1, source.embedding.shape[1])))


def _held(labels: LabelSet, source: files.Embeddings) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scores of windows, float32, and the segments that hold their centres, in rising order within a block."""
    index = Index(labels, source.clips.key)
    half = float(source.attributes["window"]) / 2
    for low in range(0, len(source.clip), BATCH):
        block = slice(low, low + BATCH)
        window, segment = index.holding(source.clip[block], source.start[block] + half)
        order = np.argsort(segment, kind="stable")
        if len(order):
            yield np.asarray(source.embedding[block], np.float32)[window[order]], segment[order]

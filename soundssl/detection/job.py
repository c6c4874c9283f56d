"""From recordings and a recogniser to events: features, then scores, then decisions, clip by clip.

Features and scores lie in a folder of their own beside the output until it stands, so that a run that was killed goes
on where it was, and a recording may be of any length.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from soundssl import SoundsslError, extraction, files, media
from soundssl.datasets import Clip, Shard
from soundssl.detection import calibration
from soundssl.detection.decisions import Rule, decide
from soundssl.detection.events import Event, Recording
from soundssl.detection.smoothing import Revision
from soundssl.detection.thresholds import Thresholds
from soundssl.embedding import Job as Embedding
from soundssl.labels import Timeline, align, joined
from soundssl.media import encoding
from soundssl.model import Model
from soundssl.progress import SILENT, Progress

MADE = re.compile(r"(features|scores)\.h5(\.(parts|lock)|\.[0-9a-f]{8}\.partial)?")  # what a run puts into its folder


@dataclass(frozen=True)
class Heard:
    """Hold what was listened to: scores of windows in a file, and the inputs that gave nothing, (path, reason) each.

    `revision` says how the scores of a recording are made to agree with each other.
    """

    scores: files.Embeddings
    classes: list[str]
    skipped: tuple[tuple[str, str], ...] = ()
    revision: Revision | None = None

    @property
    def window(self) -> float:
        """Seconds of a window."""
        return float(self.scores.attributes["window"])

    def clips(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield of each clip its row, the scores of its windows `[windows, classes]` and their starts `[windows]`."""
        clip = np.asarray(self.scores.clip)
        edges = np.append(np.flatnonzero(np.diff(clip, prepend=-1)), len(clip))
        for first, end in itertools.pairwise(edges):
            score = np.asarray(self.scores.embedding[first:end], np.float32)
            start = np.asarray(self.scores.start[first:end])
            yield int(clip[first]), self.revision(score, start, self.window) if self.revision else score, start

    def path(self, row: int) -> str:
        """Return the file to listen to of a clip."""
        names = self.scores.clips.key if self.scores.clips.source is None else self.scores.clips.source
        return str(names[row])

    def offset(self, row: int) -> float:
        """Return the seconds into its file at which a clip starts."""
        return 0.0 if self.scores.clips.start is None else float(self.scores.clips.start[row])


def recogniser(model: Model) -> list[str]:
    """Return the classes of a model; raise FormatError in words where it has none."""
    if model.separates:
        raise files.FormatError(f"{files.text(model.path)} is a separator, which names nothing; give a recogniser")
    if not model.classes:
        raise files.FormatError(
            f"{files.text(model.path)} has no classes; train a recogniser with --objective classification"
        )
    return model.classes


def folder_of(output: Path) -> Path:
    """Return the folder in which features and scores of an unfinished output lie."""
    return output.with_name(f"{output.name}.detect")


def claim(folder: Path) -> None:
    """Make the folder of an unfinished output, or take over that of an earlier run; raise Unusable for another's."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise files.Unusable(f"{files.text(folder)} is in the way, and no folder of an interrupted run; move it away")
    folder.mkdir(exist_ok=True)
    if others := [path.name for path in folder.iterdir() if not MADE.fullmatch(path.name)]:
        raise files.Unusable(f"{files.text(folder)} holds {files.text(min(others))}, which is not ours; move it away")


def clear(folder: Path) -> None:
    """Remove the folder of a finished output, and in it only what a run wrote."""
    for path in folder.iterdir():
        if MADE.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def listen(
    inputs: Path | Mapping[str, Clip],
    model: Model,
    folder: Path,
    *,
    hop: float | None = None,
    short: str = "pad",
    batch_size: int = 256,
    shard: Shard | None = None,
    force: bool = False,
    strict: bool = False,
    jobs: int = 0,
    timeout: float = 3600,
    progress: Progress = SILENT,
) -> Heard:
    """Score every window of media clips, or of a features file, by a recogniser.

    Windows start every `hop` seconds, by default half a window. Features and scores are written into `folder`; those of
    an interrupted run are taken over, unless `force`. The rest is as of `extraction.featurize`. Raises FormatError for
    a model without classes and for features of another front end.
    """
    classes = recogniser(model)
    skipped: tuple[tuple[str, str], ...] = ()
    if isinstance(inputs, Path):
        source = inputs
    else:
        source = folder / "features.h5"
        recipe = extraction.Recipe(model.front_end, images=False, short=short)
        made = extraction.featurize(
            inputs,
            source,
            recipe,
            shard=shard,
            force=force,
            strict=strict,
            jobs=jobs,
            timeout=timeout,
            progress=progress,
        )
        skipped = made.skipped or _skipped(source)
    features = files.Features(source)
    features.require("logmel", "a recogniser listens to")
    step = model.window / 2 if hop is None else hop
    job = Embedding(features, model, layer="probabilities", hop=step, batch_size=batch_size)
    scores = folder / "scores.h5"
    if force or files.made_from(scores) != job.made_from:
        job.run(scores, afresh=force, progress=progress)
    return Heard(files.Embeddings(scores), classes, skipped)


def _skipped(features: Path) -> tuple[tuple[str, str], ...]:
    return tuple((each["path"], each["reason"]) for each in files.skipped(features))


def events(heard: Heard, rule: Rule, thresholds: Thresholds | None = None, model: str = "") -> Iterator[Event]:
    """Yield what is heard in each recording, by the rule, or of every class by its own threshold.

    With thresholds scores become probabilities where they are calibrated. A class without a threshold is never heard.
    """
    own = rule if thresholds is None else replace(rule, threshold=thresholds.of(heard.classes), release=None)
    for row, score, start in heard.clips():
        spans = decide(score, start, heard.window, own)
        value = spans.score if thresholds is None else thresholds.probability(heard.classes, spans.number, spans.score)
        path, offset = heard.path(row), heard.offset(row)
        for number, begin, end, said in zip(spans.number, spans.start, spans.end, value, strict=True):
            times = round(offset + float(begin), 6), round(offset + float(end), 6)
            yield Event(path, *times, heard.classes[number], round(float(said), 6), model=model)


def recordings(heard: Heard) -> list[Recording]:
    """Return the recordings that were listened to, with their lengths as their files hold them.

    A file that is gone has the length of its last window.
    """
    found: dict[str, Recording] = {}
    last = {row: float(start[-1]) + heard.window for row, _, start in replace(heard, revision=None).clips()}
    for row in range(len(heard.scores.clips)):
        path = heard.path(row)
        if path in found and found[path].rate:
            continue
        try:
            found[path] = Recording(path, *encoding.sound_length(path))
        except (media.DecodeError, OSError):
            ends = heard.offset(row) + last.get(row, 0.0)
            found[path] = Recording(path, max(ends, found[path].duration if path in found else 0.0))
    return list(found.values())


def calibrate(
    heard: Heard, labels: files.Labels, precision: float | None = None, draws: int = 200, seed: int = 0
) -> Thresholds:
    """Choose the threshold of every class on labelled recordings: that of best F1, or of a wanted precision.

    Labels name clips by their keys, or as those of reviewed events do, recordings by their paths. Raises SoundsslError
    where no window has a label of a class of the model.
    """
    clips = heard.scores.clips
    clip, start = np.asarray(heard.scores.clip), np.asarray(heard.scores.start)
    labels = joined(labels, heard.scores)
    said = Timeline(labels, labels.events, clips.key).of_windows(clip, start, start + heard.window)
    label = align(said, labels.classes, heard.classes)
    if not (label >= 0).any():
        raise SoundsslError(
            f"{files.text(labels.path)} says nothing of the windows and classes of the recogniser; are the keys of "
            f"its clips and the names of its classes the same?"
        )
    score = np.concatenate([block for _, block, _ in heard.clips()])
    recording = clips.recording_number()[clip]
    chosen, sure = [], []
    for column in range(len(heard.classes)):
        chosen.append(calibration.choose(score[:, column], label[:, column], recording, precision, draws, seed))
        known = label[:, column] >= 0
        if np.isfinite(chosen[-1].threshold):
            true = label[known, column] == 1
            held = calibration.cross_fitted(score[known, column], true, recording[known])
            sure.append((score[known, column], held, true))
    before, after = _reliability(sure)
    return Thresholds(heard.classes, chosen, precision, before, after)


def _reliability(sure: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Return how far scores, and calibrated probabilities of held-out recordings, are from what is so."""
    if not sure:
        return float("nan"), float("nan")
    score, held, true = (np.concatenate(columns) for columns in zip(*sure, strict=True))
    known = np.isfinite(held)
    return calibration.reliability(score, true), calibration.reliability(held[known], true[known])

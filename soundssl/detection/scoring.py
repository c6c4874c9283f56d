"""Events against events, by the packages of the field (extra `sed`): sed_eval and sed_scores_eval.

F1 of segments and of events are those of sed_eval (Mesaros et al. 2016), the polyphonic sound detection score (PSDS)
that of sed_scores_eval (Ebbers et al. 2022, after Bilen et al. 2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from soundssl import SoundsslError, evaluations, files
from soundssl.dependencies import needed
from soundssl.detection.decisions import Rule, decide, extents
from soundssl.labels import clips_in_splits, joined, rows_of
from soundssl.ops import metrics

REMEDY = "pip install 'soundssl[sed]' 'setuptools<81'"  # the latter for dcase_util, by which sed_eval reads
PSDS: dict[str, dict[str, Any]] = {  # the two scenarios of DCASE 2021 task 4: when exactly, and what without confusion
    "psds1": {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "cttc_threshold": None, "alpha_ct": 0.0, "alpha_st": 1.0},
    "psds2": {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0},
}
Heard = list[tuple[float, float, str]]  # onset, offset, class


@dataclass(frozen=True)
class Clip:
    """Hold a clip that is annotated with events: its key, recording, events, scores of windows and their starts."""

    key: str
    recording: str
    events: Heard
    score: np.ndarray
    start: np.ndarray


@dataclass(frozen=True)
class Options:
    """Say when events agree: tolerances in seconds or as a share of the event, and the length of segments."""

    collar: float = 0.2  # seconds that onsets and offsets may miss (DCASE)
    share: float = 0.2  # of the length of an event, which its offset may miss where that is more
    segment: float = 1.0  # seconds
    bootstrap: int = 0  # replicates over recordings


def clips_of(
    scores: files.Embeddings,
    labels: files.Labels,
    classes: Sequence[str],
    splits: list[str] | None = None,
    score: np.ndarray | None = None,
) -> list[Clip]:
    """Return the clips of a scores file, of some splits, whose labels have events, or in which nothing is heard.

    `score` `[windows, classes]` stands for the scores in the file. Raises SoundsslError where no clip is annotated with
    events.
    """
    labels = joined(labels, scores)
    events = labels.events
    if events is None:
        raise SoundsslError("the labels have no events to score; import them, or leave out the scores of events")
    wanted = rows_of(labels.classes, classes)
    timed = np.zeros(len(labels.key), bool)
    timed[events["segment"]] = True
    silent = ~timed & (labels.label == 0).all(1) & np.isinf(labels.end)
    of: dict[str, Heard] = {str(key): [] for key in labels.key[timed | silent]}
    for segment, column, onset, offset in zip(
        *(events[name].tolist() for name in ("segment", "class", "onset", "offset")), strict=True
    ):
        if wanted[column] >= 0 and offset > onset:  # neither package knows of moments
            of[str(labels.key[segment])].append((onset, offset, labels.classes[column]))
    number, chosen = np.asarray(scores.clip[:]), clips_in_splits(labels, scores.clips, splits, scores.path)
    value = np.asarray(scores.embedding[:] if score is None else score, np.float32)
    edges = np.append(np.flatnonzero(np.diff(number, prepend=-1)), len(number)).tolist()
    found = []
    for first, end in itertools.pairwise(edges):
        key = str(scores.clips.key[number[first]])
        if key in of and chosen[number[first]]:
            recording, start = str(scores.clips.recording[number[first]]), np.asarray(scores.start[first:end])
            found.append(Clip(key, recording, joined_events(of[key]), value[first:end], start))
    if not found:
        raise SoundsslError("no clip of the scores has events in the labels; are their keys the same?")
    return found


def joined_events(events: Heard) -> Heard:
    """Return events with those of one class that touch or overlap as one, in order of their onsets.

    Who annotates two dogs at once hears what a recogniser of dogs hears as one event; PSDS knows no others.

    >>> joined_events([(1.0, 2.0, "dog"), (0.0, 1.5, "dog"), (1.0, 3.0, "cat"), (4.0, 5.0, "dog")])
    [(0.0, 2.0, 'dog'), (1.0, 3.0, 'cat'), (4.0, 5.0, 'dog')]
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for onset, offset, name in sorted(events):
        own = found.setdefault(name, [])
        if own and onset <= own[-1][1]:
            own[-1] = own[-1][0], max(own[-1][1], offset)
        else:
            own.append((onset, offset))
    return sorted((onset, offset, name) for name, own in found.items() for onset, offset in own)


def decided(clip: Clip, window: float, rule: Rule, classes: Sequence[str]) -> Heard:
    """Return the events that a rule hears in a clip."""
    spans = decide(clip.score, clip.start, window, rule)
    return [
        (float(start), float(end), classes[number])
        for number, start, end in zip(spans.number, spans.start, spans.end, strict=True)
    ]


def evaluate(
    clips: Sequence[Clip], window: float, rule: Rule, classes: Sequence[str], options: Options, seed: int = 0
) -> list[dict[str, Any]]:
    """Return rows of F1 of segments, of events by onset, and by onset and offset, micro averages and class means.

    Intervals are over recordings, of the micro averages. Raises DependencyError without sed_eval.
    """
    with needed("the scores of events", "sed_eval", REMEDY):
        import sed_eval
    labels = list(classes)
    usual: dict[str, Any] = {
        "event_label_list": labels,
        "t_collar": options.collar,
        "percentage_of_length": options.share,
    }
    makers = {
        "segment": lambda: sed_eval.sound_event.SegmentBasedMetrics(labels, time_resolution=options.segment),
        "onset": lambda: sed_eval.sound_event.EventBasedMetrics(**usual, evaluate_offset=False),
        "event": lambda: sed_eval.sound_event.EventBasedMetrics(**usual, evaluate_offset=True),
    }
    heard = [decided(clip, window, rule, classes) for clip in clips]
    names, recording = np.unique([clip.recording for clip in clips], return_inverse=True)
    rows = []
    for name, make in makers.items():
        whole = make()
        counts = np.zeros((len(names), 3))  # right, in the reference, in the estimate
        for place, clip, events in zip(recording.reshape(-1), clips, heard, strict=True):
            own = make()
            for metric in (whole, own):
                metric.evaluate(_listed(clip, clip.events), _listed(clip, events))
            counts[place] += [own.overall["Ntp"], own.overall["Nref"], own.overall["Nsys"]]
        mean = whole.results_class_wise_average_metrics()["f_measure"]["f_measure"]
        weight = metrics.multiplicities(len(names), options.bootstrap, np.random.default_rng([seed]))
        interval = metrics.percentile_interval(_f_measure(weight @ counts))
        total = counts.sum(0)
        rows.append(evaluations.row(f"{name}_F1", float(_f_measure(total[None])[0]), int(total[1]), interval=interval))
        rows.append(evaluations.row(f"{name}_F1_macro", float(np.nan_to_num(mean)), len(classes)))
    return rows


def psds(clips: Sequence[Clip], window: float, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows of PSDS by the two scenarios of DCASE. Raises DependencyError without sed_scores_eval."""
    with needed("PSDS", "sed_scores_eval", REMEDY):
        import pandas
        from sed_scores_eval import intersection_based
    frame = _writable(pandas)
    scores, truth, length = {}, {}, {}
    for clip in clips:
        low, high = extents(clip.start, window)
        columns = {name: clip.score[:, number].astype(float) for number, name in enumerate(classes)}
        scores[clip.key] = frame({"onset": low, "offset": high, **columns})
        truth[clip.key] = list(clip.events)
        length[clip.key] = max([float(high[-1]), *(offset for _, offset, _ in clip.events)])
    present = {name for clip in clips for *_, name in clip.events}
    rows = []
    for name, settings in PSDS.items():
        value, *_ = intersection_based.psds(
            scores=scores, ground_truth=truth, audio_durations=length, unit_of_time="hour", max_efpr=100.0, **settings
        )
        rows.append(evaluations.row(name, float(value), len(present)))
    return rows


def _writable(pandas: Any) -> type:
    """Return a data frame whose arrays may be written to: those of pandas 3 may not, and sed_scores_eval 0.0.4 asks."""

    class Column(pandas.Series):
        def to_numpy(self, *given: Any, **named: Any) -> np.ndarray:
            return np.array(super().to_numpy(*given, **named))

    class Frame(pandas.DataFrame):
        _constructor_sliced = Column

        @property
        def _constructor(self) -> type:
            return Frame

        def to_numpy(self, *given: Any, **named: Any) -> np.ndarray:
            return np.array(super().to_numpy(*given, **named))

    return Frame


def _listed(clip: Clip, events: Heard) -> list[dict[str, Any]]:
    """Return events in the form that sed_eval takes."""
    about = {"filename": clip.key, "file": clip.key}
    return [
        {**about, "onset": onset, "offset": offset, "event_onset": onset, "event_offset": offset, "event_label": name}
        for onset, offset, name in events
    ]


def _f_measure(counts: np.ndarray) -> np.ndarray:
    both = counts[:, 1] + counts[:, 2]
    return np.divide(2 * counts[:, 0], both, out=np.full(len(counts), np.nan), where=both > 0)

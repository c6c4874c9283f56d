"""Labels of whole clips, as a collection says them, beside the features that were made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from soundssl import files, labels
from soundssl.datasets import Clip
from soundssl.extraction.sources import Source


def said(source: Source) -> bool:
    """Return whether the collection says the classes of any clip."""
    return any(clip.classes is not None for clip in source.clips.values())


def made_from(source: Source) -> str:
    """Return what stands for the features and for what is said of them."""
    return files.digest(source.made_from, [[key, *clip.said()[1:]] for key, clip in source.clips.items()])


def write(path: Path, source: Source, features: Path, command: str | None) -> None:
    """Write the labels of the clips in a features file: whole clips, classes in alphabetical order.

    A recording that was cut has in each span the events that begin before its end and end after its start.
    """
    given = files.Features(features)
    of: Mapping[str, Clip] = {source.digests[key]: clip for key, clip in source.clips.items()}
    here = [of[digest] for digest in given.clips.made_from]
    begin = np.array([clip.start for clip in here])
    spans = [_Span(clip, *place) for clip, place in zip(here, _places(given, begin), strict=True)]
    inputs = [files.identity("features", features, given.attributes)]
    with files.create(
        path, "labels", inputs=inputs, made_from=made_from(source), attributes={}, command=command
    ) as sink:
        labels.write(sink, _labels(spans, given))


class _Span(NamedTuple):
    """Hold a clip, and the seconds of it that a row of the features has."""

    clip: Clip
    begin: float
    end: float

    @property
    def events(self) -> list[tuple[str, float, float]]:
        """The events of the span, in seconds from its start."""
        found = [
            (files.text(name), onset - self.begin, offset - self.begin) for name, onset, offset in self.clip.events
        ]
        length = self.end - self.begin
        return [
            (name, max(onset, 0.0), min(offset, length))
            for name, onset, offset in found
            if offset > 0 and onset < length
        ]

    @property
    def classes(self) -> list[str] | None:
        """The classes of the span, those of its events where it has not the whole clip; None where nothing is said."""
        if self.clip.classes is None:
            return None
        names = [files.text(name) for name in self.clip.classes]
        if not self.clip.events or self.clip.events == tuple(self.events):
            return names
        heard, timed = {name for name, *_ in self.events}, {files.text(name) for name, *_ in self.clip.events}
        return [name for name in names if name in heard or name not in timed]


def _places(given: files.Features, begin: np.ndarray) -> list[tuple[float, float]]:
    """Return where each row of the features begins and ends in its clip, in seconds."""
    length = np.diff(given.offset) / float(given.attributes["frame_rate"])
    start = np.maximum(given.clips.start - begin, 0.0)
    return [(float(one), float(one + much)) for one, much in zip(start, length, strict=True)]


def _labels(spans: Sequence[_Span], given: files.Features) -> labels.LabelSet:
    """Return the labels of spans; a column that no clip says anything of is left out."""
    clips = [span.clip for span in spans]
    names = [span.classes for span in spans]
    absent = [None if clip.absent is None else [files.text(name) for name in clip.absent] for clip in clips]
    classes = sorted({name for some in [*names, *absent] for name in some or ()})
    column = {name: i for i, name in enumerate(classes)}
    label = np.zeros((len(spans), len(classes)), np.int8)
    rated = np.zeros((len(spans), len(classes)), np.uint8)
    for i, (some, others) in enumerate(zip(names, absent, strict=True)):
        label[i] = -1 if some is None or clips[i].partial else 0
        label[i, [column[name] for name in others or ()]] = 0
        label[i, [column[name] for name in some or ()]] = 1
        rated[i, [column[name] for name in [*(some or ()), *(others or ())]]] = 1
        rated[i] |= np.uint8(others is None and some is not None)
    identifiers = {files.text(name): one for clip in clips for name, one in clip.identifiers}
    columns: dict[str, Any] = {
        name: np.array([files.text(getattr(clip, name)) for clip in clips], object)
        for name in ("uploader", "licence", "subset")
    }
    key, recording = given.clips.key, given.clips.recording
    return labels.LabelSet(
        label,
        classes,
        key,
        np.zeros(len(spans)),
        np.full(len(spans), np.inf),
        split=given.clips.split,
        origin=np.zeros(len(spans)),
        recording=recording if (recording != key).any() else None,
        noisy=None if all(clip.noisy is None for clip in clips) else np.array([bool(clip.noisy) for clip in clips]),
        rated=rated if any(clip.absent != () for clip in clips) else None,
        identifiers=[identifiers.get(name, "") for name in classes] if identifiers else None,
        events=_events(spans, column),
        **{name: values for name, values in columns.items() if any(values)},
    )


def _events(spans: Sequence[_Span], column: Mapping[str, int]) -> dict[str, np.ndarray] | None:
    """Return the events of spans by column, None where no clip has any."""
    if not any(span.clip.events for span in spans):
        return None
    rows = [(i, column[name], onset, offset) for i, span in enumerate(spans) for name, onset, offset in span.events]
    kinds = {"segment": np.int32, "class": np.int16, "onset": np.float64, "offset": np.float64}
    return {name: np.array([one[i] for one in rows], kind) for i, (name, kind) in enumerate(kinds.items())}

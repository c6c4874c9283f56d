"""Events to files: one table for all recordings, a file for each, a labels file, and examples to listen to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from soundssl import files, media
from soundssl.detection import formats
from soundssl.detection.events import Event, Recording
from soundssl.detection.job import Heard
from soundssl.media import encoding

DETECTED = 2  # origin of labels that a recogniser gave
UNSAFE = re.compile(r"[^\w .()+-]+")  # what stands in no name of a file on any system


def write(
    place: Path | BinaryIO,
    name: str,
    events: Sequence[Event],
    recordings: Sequence[Recording],
    heard: Heard | None = None,
    *,
    folder: bool = False,
    inputs: list[dict] | None = None,
) -> int:
    """Write events in a format and return the number of recordings; `folder` is for a file for each of them.

    A labels file is of what was `heard`. Each file is whole or not there. Raises FormatError for events that the format
    cannot hold.
    """
    if not isinstance(place, Path):
        for _, content in formats.write(Path("detections"), events, recordings, name):
            place.write(content)
            place.flush()
    elif name == "labels" and heard is not None:
        write_labels(place, events, heard, inputs or [])
    elif folder:
        own: dict[str, list[Event]] = {recording.path: [] for recording in recordings}
        for event in events:
            own[event.path].append(event)
        places = {recording.path: os.path.abspath(recording.path) for recording in recordings}
        above = os.path.commonpath(list(map(os.path.dirname, places.values()))) if places else ""
        for recording in recordings:
            path = place / formats.beside(os.path.relpath(places[recording.path], above), name)
            path.parent.mkdir(parents=True, exist_ok=True)
            _put(formats.write(path, own[recording.path], [recording], name))
    else:
        _put(formats.write(place, events, recordings, name))
    return len(recordings)


def _put(made: Iterable[tuple[Path, bytes]]) -> None:
    for path, content in made:
        with files.replace(path, through=True) as partial:
            partial.write_bytes(content)


def write_labels(path: Path, events: Sequence[Event], heard: Heard, inputs: list[dict]) -> None:
    """Write events as a labels file, a segment each; of other classes nothing is said."""
    clips = heard.scores.clips
    row = {heard.path(i): i for i in reversed(range(len(clips)))}
    own = [row[event.path] for event in events]
    label = np.full((len(events), len(heard.classes)), -1, np.int8)
    number = {name: i for i, name in enumerate(heard.classes)}
    label[np.arange(len(events)), [number[event.name] for event in events]] = 1
    offset = np.array([heard.offset(i) for i in own])
    made_from = files.digest("labels", [list(event) for event in events])
    with files.create(path, "labels", inputs=inputs, made_from=made_from, attributes={}) as sink:
        sink.write("label", label)
        sink.write("segment/key", [str(clips.key[i]) for i in own])
        sink.write("segment/start", np.array([event.start for event in events], float) - offset)
        sink.write("segment/end", np.array([event.end for event in events], float) - offset)
        sink.write("class", heard.classes)
        sink.write("weight", np.array([event.score for event in events], "f4"))
        sink.write("split", [str(clips.split[i]) for i in own])
        sink.write("origin", np.full(len(events), DETECTED, np.uint8))


def export(events: Iterable[Event], folder: Path, examples: int, margin: float) -> tuple[int, dict[str, str]]:
    """Write the best events of each class as WAV files with a margin of seconds, at their own rate.

    Files are named by rank, score and recording. Returns how many were written, and the recordings that cannot be read
    any more, each with the reason.
    """
    best: dict[str, list[Event]] = {}
    missing: dict[str, str] = {}
    for event in events:
        best.setdefault(event.name, []).append(event)
    made = 0
    for name, found in best.items():
        found.sort(key=lambda event: (-(event.score or 0.0), event.path, event.start))
        for rank, event in enumerate(found[:examples], 1):
            begin = max(0.0, event.start - margin)
            try:
                rate = encoding.sound_rate(event.path)
                blocks = list(media.read_audio(event.path, rate, begin, event.end + margin, keep_truncated=True))
            except (media.DecodeError, OSError) as error:
                missing[event.path] = getattr(error, "reason", str(error))
                continue
            below = folder / (UNSAFE.sub("_", name).strip(". ") or "class")
            below.mkdir(parents=True, exist_ok=True)
            stem = UNSAFE.sub("_", Path(event.path).stem)[:80]
            place = below / f"{rank:03}-{event.score or 0:.3f}-{stem}-{begin:.2f}s.wav"
            with files.replace(place) as partial:
                encoding.write_wav(partial, np.concatenate([np.empty(0, np.float32), *blocks]), rate)
            made += 1
    return made, missing

"""Events of other programs to labels, and labels to events.

A recording that is annotated is annotated whole: a class without an event there is absent. Where features name the
clips, a recording is found among them by its key, its path, its name or its name without ending.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from soundssl import SoundsslError, files, media
from soundssl.detection import formats
from soundssl.detection.events import Event, Recording
from soundssl.detection.formats import aoef, strong
from soundssl.detection.formats.strong import Rating
from soundssl.labels import LabelSet, from_events
from soundssl.media import encoding

DETECTED = 2  # origin of labels that a recogniser gave
NEAR = 1e-6  # seconds by which times may miss one another through rounding


@dataclass(frozen=True)
class Clips:
    """Name clips: key, path of the recording, start in it and length in seconds, split."""

    key: Sequence[str]
    path: Sequence[str]
    start: np.ndarray
    length: np.ndarray
    split: Sequence[str]

    def rows(self) -> dict[str, list[int]]:
        """Return the clips of each name that a recording may go by; a name of several recordings is none of them."""
        found: dict[str, list[int]] = {}
        for names in (
            self.key,
            self.path,
            [PurePath(p).name for p in self.path],
            [PurePath(p).stem for p in self.path],
        ):
            several: dict[str, list[int]] = {}
            for row, name in enumerate(names):
                several.setdefault(str(name), []).append(row)
            alone = {name: rows for name, rows in several.items() if len({self.path[row] for row in rows}) == 1}
            found = {**alone, **found}
        return found


@dataclass(frozen=True)
class Imported:
    """Hold labels, and what of the events is not in them."""

    labels: LabelSet
    unknown: list[str]  # recordings that are no clips
    shortened: int  # events that go on beyond the end of their clip
    beyond: int  # events that lie beyond it altogether


def clips_of(features: files.Features) -> Clips:
    """Return the clips of a features file."""
    own = features.clips
    start = np.zeros(len(own)) if own.start is None else np.asarray(own.start, float)
    path = own.key if own.source is None else own.source
    length = np.diff(features.offset) / float(features.attributes["frame_rate"])
    split = np.full(len(own), "") if own.split is None else own.split
    return Clips([str(key) for key in own.key], [str(one) for one in path], start, length, [str(one) for one in split])


def to_labels(
    events: Sequence[Event], recordings: Sequence[str] = (), clips: Clips | None = None, classes: Sequence[str] = ()
) -> Imported:
    """Return strong labels of recordings from events in them.

    `recordings` are further ones, in which nothing may be heard. With `clips` the labels are of these, all of them
    annotated whose recording is named; an event is cut at the ends of a clip. Raises SoundsslError where no recording
    is among the clips, and for events that have no class.
    """
    if any(not event.name for event in events):
        raise SoundsslError(
            f"an event of {next(e.path for e in events if not e.name)} has no class; name what is heard"
        )
    names = [event.name for event in events]
    if clips is None:
        onset, offset = (np.array([getattr(event, name) for event in events], float) for name in ("start", "end"))
        return Imported(
            from_events([event.path for event in events], names, onset, offset, recordings, classes), [], 0, 0
        )
    known = clips.rows()
    heard = {event.path for event in events} | set(recordings)
    unknown = sorted(path for path in heard if path not in known)
    named = sorted({row for path in heard for row in known.get(path, [])})
    if heard and not named:
        raise SoundsslError(
            f"none of {len(heard)} recordings is a clip of the features, {unknown[0]!r} for one; are they named alike?"
        )
    cut: list[tuple[int, str, float, float]] = []
    shortened = beyond = 0
    at, length = clips.start.tolist(), clips.length.tolist()
    for event in events:
        rows = known.get(event.path, [])
        ends = max((at[row] + length[row] for row in rows), default=math.inf)
        shortened += event.start < ends < event.end - NEAR
        beyond += event.start > ends
        for row in rows:
            onset, offset = event.start - at[row], event.end - at[row]
            if onset <= length[row] and (offset > 0 or onset >= 0):
                cut.append((row, event.name, max(onset, 0.0), min(offset, length[row])))
    labels = from_events(
        [clips.key[row] for row, *_ in cut], [name for _, name, *_ in cut],
        np.array([onset for *_, onset, _ in cut]), np.array([offset for *_, offset in cut]),
        [clips.key[row] for row in named], sorted({*names, *classes}),
    )  # fmt: skip
    split = {key: split for key, split in zip(clips.key, clips.split, strict=True)}
    return Imported(
        replace(labels, split=np.array([split[key] for key in labels.key], object)), unknown, shortened, beyond
    )


def of_ratings(ratings: Sequence[Rating], clips: Clips | None = None) -> Imported:
    """Return labels of spans of clips that somebody rated: a class present or absent there, nothing said of others.

    Raises SoundsslError where no recording is among the clips.
    """
    known = {each.path: [each.path] for each in ratings}
    if clips is not None:
        rows = clips.rows()
        known = {path: [clips.key[row] for row in rows.get(path, [])] for path in known}
    unknown = sorted(path for path, keys in known.items() if not keys)
    if len(unknown) == len(known):
        raise SoundsslError(f"no recording is a clip of the features, {unknown[0]!r} for one; are they named alike?")
    found = [(key, each) for each in ratings if each.name for key in known[each.path]]
    spans = sorted({(key, each.start, each.end) for key, each in found})
    classes = sorted({each.name for _, each in found})
    place, column = {span: i for i, span in enumerate(spans)}, {name: i for i, name in enumerate(classes)}
    label = np.full((len(spans), len(classes)), -1, np.int8)
    for key, each in found:
        at = place[key, each.start, each.end], column[each.name]
        label[at] = max(label[at], int(each.present))
    start, end = (np.array([span[i] for span in spans], float) for i in (1, 2))
    keys = np.array([key for key, *_ in spans], object)
    return Imported(LabelSet(label, classes, keys, start, end, rated=(label >= 0).astype(np.uint8)), unknown, 0, 0)


@dataclass(frozen=True)
class Read:
    """Hold events, ratings of spans that may be negative, and recordings in which nothing may be heard."""

    events: list[Event]
    ratings: list[Rating]
    silent: list[str]


def read(sources: Sequence[tuple[Path, str]], name: str | None, names: Mapping[str, str] | None = None) -> Read:
    """Read files of events, each with the recording that it is of where it does not say; `names` rename classes.

    Raises FormatError or TableError with file and line.
    """
    found = Read([], [], [])
    for path, recording in sources:
        chosen, content = formats.choose(path, name), path.read_bytes()
        events = formats.read(content, path, chosen, recording)
        found.events.extend(each._replace(name=(names or {}).get(each.name, each.name)) for each in events)
        if chosen in ("dcase", "audioset"):
            rows = strong.ratings(content, path.name, strong.DCASE if chosen == "dcase" else strong.AUDIOSET)
            found.silent.extend(each.path for each in rows if not each.name)
            if any(not each.present for each in rows):
                found.ratings.extend(each._replace(name=(names or {}).get(each.name, each.name)) for each in rows)
        elif chosen == "aoef":
            found.silent.extend(aoef.recordings(content, path.name))
        elif chosen == "raven" and path.with_name(f"{path.stem}.files.txt").is_file():
            text = path.with_name(f"{path.stem}.files.txt").read_bytes().decode("utf-8", "surrogateescape")
            found.silent.extend(line for line in text.split("\n") if line)
        elif not events and formats.FORMATS[chosen].suffix in (".selections.txt", ".labels.txt"):
            found.silent.append(recording)
    return found


def of_labels(labels: LabelSet, clips: Clips | None = None, whole: bool = False) -> tuple[list[Event], int]:
    """Return the events that labels tell, and how many labels of whole clips are left out, since they have no times.

    A class present without events is an event as long as its segment. With `clips` events are of their recordings, and
    one of a whole clip, or without end, ends with the clip; without, `whole` and endless events raise SoundsslError.
    """
    row = {} if clips is None else {key: i for i, key in enumerate(clips.key)}
    timed = labels.label == 1
    found: list[tuple[int, int, float, float]] = []
    if labels.events is not None:
        found = list(
            zip(*(labels.events[name].tolist() for name in ("segment", "class", "onset", "offset")), strict=True)
        )
        timed[labels.events["segment"], labels.events["class"]] = False
    endless = timed & np.isinf(labels.end)[:, None]
    taken = timed if whole else timed & ~endless
    for segment, column in zip(*np.nonzero(taken), strict=True):
        found.append((int(segment), int(column), float(labels.start[segment]), float(labels.end[segment])))
    score = labels.weight if labels.weight is not None and labels.origin is not None else None
    events = []
    for segment, column, onset, offset in found:
        key = str(labels.key[segment])
        at = row.get(key)
        start, length = (0.0, math.inf)
        if clips is not None and at is not None:
            start, length = float(clips.start[at]), float(clips.length[at])
        if math.isinf(min(offset, length)):
            raise SoundsslError(
                f"a label of {key} has no end; give the features of the clips, which say how long they are"
            )
        path = key if clips is None or at is None else clips.path[at]
        said = None
        if score is not None and labels.origin is not None and labels.origin[segment] == DETECTED:
            said = round(float(score[segment]), 6)
        times = round(start + onset, 6), round(start + min(offset, length), 6)
        events.append(Event(path, *times, labels.classes[column], said))
    return events, 0 if whole else int(endless.sum())


def recordings_of(labels: LabelSet, events: Sequence[Event], clips: Clips | None = None) -> list[Recording]:
    """Return the recordings of labels: as long as their files say, else as their clips, else as their last event."""
    row = {} if clips is None else {key: i for i, key in enumerate(clips.key)}
    last: dict[str, float] = {}
    for key in map(str, labels.key):
        at = row.get(key)
        path = key if clips is None or at is None else clips.path[at]
        length = 0.0 if clips is None or at is None else float(clips.start[at] + clips.length[at])
        last[path] = max(last.get(path, 0.0), length)
    for event in events:
        last[event.path] = max(last.get(event.path, 0.0), event.end)
    found = []
    for path, length in last.items():
        try:
            found.append(Recording(path, *encoding.sound_length(path)))
        except (media.DecodeError, OSError, ValueError):
            found.append(Recording(path, length))
    return found

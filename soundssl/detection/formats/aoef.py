"""The Acoustic Objects Exchange Format (AOEF) of soundevent, which whombat and BatDetect2 read too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soundssl.detection.events import Event, Recording
from soundssl.detection.formats.text import Files, FormatError, by_recording, identity, parse_json


def write(path: Path, events: Sequence[Event], recordings: Sequence[Recording]) -> Files:
    """Write a prediction set, or where no event has a score an annotation set, of AOEF 1.1.0."""
    tags = {name: i for i, name in enumerate(dict.fromkeys(event.name for event in events))}
    predicted = any(event.score is not None for event in events)
    data: dict[str, list] = {name: [] for name in ("recordings", "clips", "sound_events", "said", "clips_said")}
    for recording, own in by_recording(events, recordings):
        place, clip = identity(recording.path), identity(recording.path, "clip")
        about = {"duration": recording.duration, "channels": recording.channels, "samplerate": recording.rate}
        data["recordings"].append({"uuid": place, "path": recording.path, **about})
        data["clips"].append({"uuid": clip, "recording": place, "start_time": 0.0, "end_time": recording.duration})
        said = []
        for index, event in enumerate(own):
            sound, answer = identity(index, *event[:4]), identity(index, *event[:4], "said")
            data["sound_events"].append({"uuid": sound, "recording": place, "geometry": _geometry(event)})
            score = 1.0 if event.score is None else event.score
            heard = {"score": score, "tags": [[tags[event.name], score]]} if predicted else {"tags": [tags[event.name]]}
            data["said"].append({"uuid": answer, "sound_event": sound, **heard})
            said.append(answer)
        data["clips_said"].append({"uuid": identity(recording.path, "said"), "clip": clip, "sound_events": said})
    kind, plural = ("prediction", "predictions") if predicted else ("annotation", "annotations")
    data[f"sound_event_{plural}"], data[f"clip_{plural}"] = data.pop("said"), data.pop("clips_said")
    listed = [{"id": i, "key": "class", "value": name} for name, i in tags.items()]
    whole = {"uuid": identity("set", *(recording.path for recording in recordings)), "collection_type": f"{kind}_set"}
    yield path, json.dumps({"version": "1.1.0", "data": {**whole, "tags": listed, **data}}, indent=1).encode()


def _geometry(event: Event) -> dict[str, Any]:
    if event.low is None or event.high is None:
        return {"type": "TimeInterval", "coordinates": [event.start, event.end]}
    return {"type": "BoundingBox", "coordinates": [event.start, event.low, event.end, event.high]}


def read(content: bytes, name: str, recording: str) -> list[Event]:
    """Read the sound events of any collection that has them; of several tags a sound event takes each."""
    try:
        data = parse_json(content, name, dict)["data"]
        paths = {each["uuid"]: each["path"] for each in data.get("recordings") or []}
        tags = {each["id"]: each["value"] for each in data.get("tags") or []}
        sounds = {each["uuid"]: each for each in data.get("sound_events") or []}
        events = []
        for kind in ("sound_event_predictions", "sound_event_annotations"):
            for each in data.get(kind) or []:
                sound = sounds[each["sound_event"]]
                span = _span(sound["geometry"])
                for tag in each.get("tags") or []:
                    number, score = tag if isinstance(tag, list) else (tag, None)
                    start, end, low, high = span
                    events.append(Event(paths[sound["recording"]], start, end, tags[number], score, low, high))
        return events
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise FormatError(f"{name} is no AOEF file with sound events ({error!r})") from None


def recordings(content: bytes, name: str) -> list[str]:
    """Return the recordings of a collection, also those in which nothing is heard; raise FormatError."""
    try:
        return [each["path"] for each in parse_json(content, name, dict)["data"].get("recordings") or []]
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{name} is no AOEF file with recordings ({error!r})") from None


def _span(geometry: dict[str, Any]) -> tuple[float, float, float | None, float | None]:
    """Return start, end, low and high of a geometry; points of time and frequency are bounded by a box."""
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind == "TimeStamp":
        return coordinates, coordinates, None, None
    if kind == "TimeInterval":
        return coordinates[0], coordinates[1], None, None
    if kind == "BoundingBox":
        start, low, end, high = coordinates
        return start, end, low, high
    flat = coordinates
    while isinstance(flat[0], list) and isinstance(flat[0][0], list):
        flat = [point for part in flat for point in part]
    points = [flat] if not isinstance(flat[0], list) else flat
    times, tones = zip(*points, strict=True)
    return min(times), max(times), min(tones), max(tones)

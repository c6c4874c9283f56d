"""Tasks of Label Studio with predictions, a thousand a file at most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soundssl.detection.events import Event, Recording
from soundssl.detection.formats.text import Files, FormatError, by_recording, identity, parse_json

TASKS = 1000  # in a file: more of them take it minutes to import


def write(path: Path, events: Sequence[Event], recordings: Sequence[Recording]) -> Files:
    """Write tasks with predictions; a task's score is the mean of its events, by which its queue can be sorted."""
    tasks = []
    for recording, own in by_recording(events, recordings):
        result = [
            {
                **{
                    "id": identity(index, *event[:4])[:10],
                    "from_name": "labels",
                    "to_name": "audio",
                    "type": "labels",
                },
                "value": {"start": event.start, "end": event.end, "labels": [event.name]},
                **({} if event.score is None else {"score": event.score}),
            }
            for index, event in enumerate(own)
        ]
        scores = [event.score for event in own if event.score is not None]
        prediction: dict[str, Any] = {"model_version": own[0].model if own else "", "result": result}
        prediction |= {"score": sum(scores) / len(scores)} if scores else {}
        tasks.append({"data": {"audio": recording.path}, "predictions": [prediction]})
    for number, first in enumerate(range(0, max(1, len(tasks)), TASKS), 1):
        place = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        yield place, json.dumps(tasks[first : first + TASKS], indent=1).encode()


def read(content: bytes, name: str, recording: str) -> list[Event]:
    """Read tasks: what people said of them where they did, else what was predicted."""
    events = []
    for task in parse_json(content, name, list):
        try:
            events += _events(task)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise FormatError(f"{name} holds no tasks of Label Studio with audio and labels ({error!r})") from None
    return events


def _events(task: dict[str, Any]) -> list[Event]:
    said = task.get("annotations") or task.get("predictions") or []
    found = []
    for answer in said:
        for one in (each for each in answer["result"] if each.get("type") == "labels"):
            start, end = float(one["value"]["start"]), float(one["value"]["end"])
            about = {"score": one.get("score"), "model": answer.get("model_version") or ""}
            found += [Event(task["data"]["audio"], start, end, label, **about) for label in one["value"]["labels"]]
    return found

"""What is heard when: an event in a recording, and the recordings that events lie in."""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """Say that a class is heard from `start` to `end`, in seconds into a recording.

    `score` is what a model says of it, None where a person does; `low` and `high` are Hz, None where nothing is known.
    """

    path: str
    start: float
    end: float
    name: str
    score: float | None = None
    low: float | None = None
    high: float | None = None
    model: str = ""


class Recording(NamedTuple):
    """Name a recording: seconds it lasts, samples a second and channels, as its file says."""

    path: str
    duration: float
    rate: int = 0
    channels: int = 1

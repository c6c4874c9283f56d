"""Draw a page of what was heard: events and minutes of each class, and when in the recordings they lie."""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from soundssl import files
from soundssl.detection import formats
from soundssl.detection.events import Event

SHOWN = 20  # classes and recordings, those with the most events


def rank(events: list[Event], column: str) -> list[str]:
    """Return the names in a column of events, the most frequent first."""
    count: dict[str, int] = defaultdict(int)
    for event in events:
        count[getattr(event, column)] += 1
    return sorted(count, key=lambda name: (-count[name], name))


def scale(seconds: float) -> tuple[str, float]:
    """Return the unit in which a time is best told, and its seconds."""
    return ("hours", 3600.0) if seconds > 3 * 3600 else ("minutes", 60.0) if seconds > 180 else ("seconds", 1.0)


def told(seconds: float) -> str:
    """Return a duration in words.

    >>> told(12), told(600), told(36000)
    ('12 seconds', '10 minutes', '10 hours')
    """
    unit, size = scale(seconds)
    return f"{seconds / size:.0f} {unit}"


def plot(events: list[Event], path: Path) -> None:
    """Draw the page."""
    classes, recordings = rank(events, "name")[:SHOWN], sorted(rank(events, "path")[:SHOWN])
    colours = dict(zip(classes, plt.get_cmap("tab10" if len(classes) <= 10 else "tab20").colors, strict=False))
    lanes = max(len(classes), len(recordings), 4)
    height = 1.6 + 0.34 * lanes
    unit, size = scale(max(event.end for event in events))
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, height), width_ratios=(2, 3), layout="constrained")
    names, places = (len({getattr(event, column) for event in events}) for column in ("name", "path"))
    figure.suptitle(f"{len(events)} events of {names} classes in {places} recordings")
    for row, name in enumerate(classes):
        own = [event for event in events if event.name == name]
        left.barh(row, len(own), color=colours[name], height=0.7)
        left.annotate(
            f" {told(sum(event.end - event.start for event in own))}", (len(own), row), va="center", fontsize=9
        )
    left.set(yticks=range(len(classes)), yticklabels=classes, xlabel="events", title="what is heard", xmargin=0.25)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylim(lanes - 0.5, -0.5)
    for row, name in enumerate(recordings):
        for event in (event for event in events if event.path == name and event.name in colours):
            width = max(event.end - event.start, 0.1) / size
            right.barh(row, width, left=event.start / size, color=colours[event.name], height=0.7)
    labels = [Path(name).name[-32:] for name in recordings]
    right.set(yticks=range(len(recordings)), yticklabels=labels, xlabel=f"{unit} into the recording", title="and when")
    right.set_xlim(0)
    right.set_ylim(lanes - 0.5, -0.5)
    with files.replace(path) as partial:
        figure.savefig(partial, dpi=110, format="png")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detections", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    events = formats.read(options.detections.read_bytes(), options.detections)
    if not events:
        raise SystemExit(f"{options.detections} holds no event; lower the threshold with DETECT='--threshold 0.3'")
    plot(events, options.output)
    print(f"{len(events)} events, {np.unique([event.name for event in events]).size} classes: {options.output}")


if __name__ == "__main__":
    main()

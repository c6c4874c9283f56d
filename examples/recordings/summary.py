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


def plot(events: list[Event], path: Path) -> None:
    """Draw the page."""
    classes, recordings = rank(events, "name")[:SHOWN], rank(events, "path")[:SHOWN]
    colours = dict(zip(classes, plt.get_cmap("tab20").colors, strict=False))
    height = 1.6 + 0.34 * max(len(classes), len(recordings), 4)
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, height), width_ratios=(2, 3), layout="constrained")
    names, places = (len({getattr(event, column) for event in events}) for column in ("name", "path"))
    figure.suptitle(f"{len(events)} events of {names} classes in {places} recordings")
    for row, name in enumerate(classes):
        own = [event for event in events if event.name == name]
        minutes = sum(event.end - event.start for event in own) / 60
        left.barh(row, len(own), color=colours[name])
        left.annotate(f" {minutes:.1f} min", (len(own), row), va="center", fontsize=9)
    left.set(yticks=range(len(classes)), yticklabels=classes, xlabel="events", title="what is heard", xmargin=0.2)
    left.invert_yaxis()
    for row, name in enumerate(recordings):
        for event in (event for event in events if event.path == name and event.name in colours):
            width = max(event.end - event.start, 0.1) / 60
            right.barh(row, width, left=event.start / 60, color=colours[event.name], height=0.7)
    labels = [Path(name).name[-32:] for name in recordings]
    right.set(yticks=range(len(recordings)), yticklabels=labels, xlabel="minutes into the recording", title="and when")
    right.invert_yaxis()
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

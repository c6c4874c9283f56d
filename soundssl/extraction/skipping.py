"""Skipping: what is said of inputs that gave no clip, a line a kind of reason, and of classes that lost them all."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping
from pathlib import Path

from soundssl import files
from soundssl.extraction.sources import Source
from soundssl.progress import Progress

NAMED = 3  # inputs of one kind that are named in a message; all of them are in the file
LONGEST = 160  # characters of a path that are shown
NUMBER = re.compile(r"\d[\d.]*(e[+-]?\d+)?")


def tell(skipped: list[dict], source: Source, progress: Progress, output: Path | None = None) -> None:
    """Say which inputs gave no clip, and why: one line for reasons that differ in their numbers only, with the remedy.

    `skipped` are entries of the journal, sorted; `output` is the file that names them all, None where there is none.
    """
    kinds: dict[str, list[dict]] = {}
    for entry in skipped:
        kinds.setdefault(NUMBER.sub("0", _without(entry["path"], entry["reason"])), []).append(entry)
    for entries in kinds.values():
        names = [_shown(entry["path"]) for entry in entries]
        message = f"{names[0]}: {entries[0]['reason']}; skipped"
        if len(names) > 1:
            message += f", and {len(names) - 1} more for such a reason: {', '.join(names[1:NAMED])}"
        if len(names) > NAMED:
            message += f" and others{f', all named in {files.text(output)}' if output else ''}"
        progress.warn(message + _remedy(entries[0]["reason"], source.attributes))
    if gone := _gone(skipped, source):
        some = ", ".join(f"{name} ({count})" for name, count in sorted(gone.items()))
        where = f" in part {source.attributes['part']}" if "part" in source.attributes else ""
        progress.warn(f"no clip is left{where} of {len(gone)} class{'es' if len(gone) > 1 else ''}: {some}")


def _gone(skipped: list[dict], source: Source) -> dict[str, int]:
    """Return the classes of which every clip was skipped, and how many clips that is."""
    lost = {entry["key"] for entry in skipped}
    counts: collections.Counter[str] = collections.Counter()
    left: set[str] = set()
    for key, clip in source.clips.items():
        for name in map(files.text, clip.classes or ()):
            counts[name] += 1
            if key not in lost:
                left.add(name)
    return {name: count for name, count in counts.items() if name not in left}


def _remedy(reason: str, attributes: Mapping[str, object]) -> str:
    if "too short" in reason and attributes.get("short") == "skip":
        return "; featurize --short pad fills such up with silence, --short tile repeats them"
    return "; in a list, write one path a line" if "File name too long" in reason else ""


def _without(path: str, reason: str) -> str:
    """Return a reason without the name of its own file, which libraries repeat."""
    return re.sub(rf"(?<!\w){re.escape(path)}(?!\w)", "", reason)


def _shown(path: str) -> str:
    return path if len(path) <= LONGEST else f"{path[: LONGEST // 2]}…{path[-LONGEST // 4 :]}"

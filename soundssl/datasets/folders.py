"""Folders: a folder that holds one folder a class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from soundssl.datasets.clips import Clip, paths

LAYOUT = "a folder that holds one folder a class"


def clips(root: Path) -> Iterator[Clip]:
    """Yield the clips of a folder that holds one folder a class."""
    for clip in paths([root]):
        name, slash, _ = clip.key.partition("/")
        yield Clip(clip.key, clip.path, classes=(name,) if slash else None)

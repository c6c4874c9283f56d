"""Labels of whole clips, as a collection says them, beside the features that were made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from soundssl import files
from soundssl.datasets import Clip
from soundssl.extraction.sources import Source


def said(source: Source) -> bool:
    """Return whether the collection says the classes of any clip."""
    return any(clip.classes is not None for clip in source.clips.values())


def made_from(source: Source) -> str:
    """Return what stands for the features and for what is said of them."""
    return files.digest(source.made_from, [[key, clip.classes] for key, clip in source.clips.items()])


def write(path: Path, source: Source, features: Path, command: str | None) -> None:
    """Write the labels of the clips in a features file: whole clips, classes in alphabetical order."""
    given = files.Features(features)
    of: Mapping[str, Clip] = {source.digests[key]: clip for key, clip in source.clips.items()}
    here = [of[digest] for digest in given.clips.made_from]
    names = [None if clip.classes is None else [files.text(name) for name in clip.classes] for clip in here]
    classes = sorted({name for some in names for name in some or ()})
    column = {name: i for i, name in enumerate(classes)}
    label = np.zeros((len(here), len(classes)), np.int8)
    for row, some in zip(label, names, strict=True):
        row[:] = -1 if some is None else 0
        row[[column[name] for name in some or ()]] = 1
    inputs = [files.identity("features", features, given.attributes)]
    with files.create(
        path, "labels", inputs=inputs, made_from=made_from(source), attributes={}, command=command
    ) as sink:
        sink.write("label", label)
        sink.write("segment/key", list(given.clips.key))
        sink.write("segment/start", np.zeros(len(here)))
        sink.write("segment/end", np.full(len(here), np.inf))
        sink.write("class", classes)
        sink.write("split", list(given.clips.split))
        sink.write("origin", np.zeros(len(here), np.uint8))

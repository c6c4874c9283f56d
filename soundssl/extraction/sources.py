"""Sources: what a features file is made of, known by its digest before any of it is decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soundssl import SoundsslError, datasets, files, media
from soundssl.datasets import Clip, Shard, belongs
from soundssl.ops.spectrogram import FrontEnd

STORES = {"float16": "f2", "float32": "f4"}
IMAGE_SIZE = 128  # pixels a side; inferred: what AudioScope used with the image tower of Jansen et al. 2020


@dataclass(frozen=True)
class Recipe:
    """Say how every input is decoded.

    `channel` is mix, each or a number from 1; `clip` seconds to cut recordings into, 0 for whole ones; `short` (skip,
    pad or tile), `truncated` and `damaged` (keep or skip) what becomes of recordings too short for a window, of files
    cut short and of those broken in the middle.
    """

    front_end: FrontEnd = field(default_factory=FrontEnd)
    images: bool = True
    image_size: int = IMAGE_SIZE  # pixels a side; the whole picture is scaled to a square, nothing is cut off
    channel: str = "mix"
    clip: float = 0.0
    short: str = "skip"
    truncated: str = "keep"
    damaged: str = "keep"
    image_rate: float = 1.0  # pictures a second

    @property
    def store(self) -> str:
        """The number type of stored frames where none is asked for."""
        return "float32" if self.front_end.representation == "waveform" else "float16"

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of images in pixels."""
        return self.image_size, self.image_size

    def attributes(self) -> dict[str, object]:
        """Return all of it by name, as it stands in a features file."""
        return {
            **self.front_end.attributes(),
            "resampler": media.RESAMPLER,
            "image_rate": float(self.image_rate) if self.images else 0.0,
            "image_size": self.image_size if self.images else 0,
            "channel": self.channel,
            "clip": float(self.clip),
            "short": self.short,
            "truncated": self.truncated,
            "damaged": self.damaged,
        }

    def channels(self, path: Path) -> list[int | None]:
        """Return the channels to take of a file: None for their average."""
        if self.channel == "each":
            return list(range(1, media.channel_count(path) + 1))
        return [None if self.channel == "mix" else int(self.channel)]


@dataclass(frozen=True)
class Source:
    """Hold what a features file is made of: its clips by key, its attributes and inputs, and how a worker begins.

    `prepare(folder, dtype, number)` opens the spool of one worker and returns the function that turns a clip into a
    journal entry. `digests` are those of the inputs by key, where they can be taken over by an update.
    """

    clips: dict[str, Clip]
    attributes: dict[str, object]
    made_from: str
    inputs: list[dict]
    image_size: tuple[int, int]
    prepare: Callable[[Path, str, int], Callable[[Clip], dict]]
    digests: Mapping[str, str] = field(default_factory=dict)


def inputs_of(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the paths of one input or of several."""
    return [Path(each) for each in ([given] if isinstance(given, str | Path) else given)]


def collect(
    inputs: Sequence[Path], dataset: str | None = None, root: Path | None = None, outputs: Collection[Path] = ()
) -> dict[str, Clip]:
    """Return by key the clips of media files and folders, or of a collection by its name in DATASETS.

    A file that is not there is a clip too, which will be skipped. `root` is what the paths of a table are relative to.
    Those of `outputs` that an earlier run wrote may lie among the media and are none. Raises Missing, Unusable for two
    clips of one key, and SoundsslError where there are none.
    """
    if dataset == "csv":
        files.require(inputs[0])
    elif dataset is not None:
        require_folder(inputs[0], "name the folder of the collection, or give a table with --dataset csv")
    finished = {os.path.abspath(path) for path in outputs if files.made_from(path) is not None}
    clips: dict[str, Clip] = {}
    for clip in datasets.paths(inputs) if dataset is None else datasets.load(dataset, inputs[0], root):
        key = files.text(clip.key)
        if key in clips:
            raise files.Unusable(_doubled(clip, clips[key], key))
        if os.path.abspath(clip.path) not in finished:
            clips[key] = clip
    if not clips:
        raise SoundsslError(f"no media files in {', '.join(files.text(path) for path in inputs)}")
    return clips


def _doubled(clip: Clip, other: Clip, key: str) -> str:
    if os.path.abspath(clip.path) == os.path.abspath(other.path):
        return f"{key} is named twice; name it once, with all its classes in one row"
    return f"{files.text(clip.path)} and {files.text(other.path)} have the same key {key}; give a folder above both"


def require_folder(path: Path, remedy: str = "name the folder of the collection") -> None:
    """Raise Missing where a folder of a collection is none."""
    if not path.is_dir():
        raise files.Missing(f"{files.text(path)} is not a folder; {remedy}")


def in_shard(clips: Mapping[str, Clip], shard: Shard | None) -> dict[str, Clip]:
    """Return the clips that belong to a shard."""
    return {key: clip for key, clip in clips.items() if belongs(key, shard)}


def guard_shard(output: Path, shard: Shard | None, force: bool) -> None:
    """Refuse to replace one shard by another: jobs of an array that all name one output would lose all but the last."""
    there = files.attributes_of(output).get("part")
    if there is not None and shard is not None and there != str(shard) and not force:
        raise files.Unusable(
            f"{files.text(output)} holds part {there}, this is part {shard}; name an output for each part"
        )


def digest_of(clip: Clip) -> str:
    """Return what says whether an input is still the same: its name, size, time of change, and what is known of it."""
    state: list[int | None]
    try:
        status = clip.path.stat()
        state = [status.st_size, status.st_mtime_ns]
    except OSError:  # it will be skipped, with this as its reason
        state = [None, None]
    about = [clip.start, clip.end, clip.recording, clip.split]
    return files.digest(files.text(clip.key), files.text(clip.path), *state, *about)

"""Features: the reader that gives windows at any hop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from soundssl.files.outputs import text
from soundssl.files.reading import Array, Clips, FormatError, open_checked

# Attributes that define a front end: a model takes features only where all of them agree.
FRONT_END = (
    *("representation", "sample_rate", "frame_rate", "window_length", "hop_length", "fft_length", "window_function"),
    *("mel_scale", "spectrum", "logarithm", "level", "padding", "bands", "fmin", "fmax", "floor"),
)
BLOCK = 1 << 16  # frames read at a time: 8 MB of float16
WINDOW = 96  # frames of a window where the front end does not say, 0.96 s


class Windows(NamedTuple):
    """Windows in reading order. `frames` [n, length, bands]; `clip` [n] rows; `start` [n] seconds into the clip."""

    frames: np.ndarray
    clip: np.ndarray
    start: np.ndarray


class Tracks(NamedTuple):
    """Say of every clip which mixture it was separated from, if any. Shape: `[clips]` each.

    `parent` is the row of the mixture (-1: a recording), `track` its number within the mixture and processor, from 0,
    `processor` the number of the separator, from 0, `level` dB relative to the mixture, `silent` whether it is
    next to silent, `onscreen` the probability that it is seen (-1: nobody says).
    """

    parent: np.ndarray
    track: np.ndarray
    processor: np.ndarray
    level: np.ndarray
    silent: np.ndarray
    onscreen: np.ndarray


def _tracks(file) -> Tracks:
    parent, track, processor, level = (file[f"clip/{name}"][:] for name in ("parent", "track", "processor", "level"))
    silent = file["clip/silent"][:].astype(bool) if "clip/silent" in file else np.zeros(len(parent), bool)
    seen = file["clip/onscreen"][:] if "clip/onscreen" in file else np.full(len(parent), -1, np.float32)
    return Tracks(parent, track, processor, level, silent, seen)


class Features:
    """Read a features file: frames, offsets and images of each clip, mean and deviation per band, `clips`, `tracks`.

    Frames of a waveform are its samples. Raises FormatError.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        with open_checked(path, ["features"]) as file:
            self.path, self.attributes = Path(path), dict(file.attrs)
            self.frames = Array(path, file["frames"])
            self.offset = file["clip/offset"][:]
            self.mean, self.deviation = file["mean"][:], file["deviation"][:]
            self.clips = Clips(file)
            self.tracks = _tracks(file)
            self.images = Array(path, file["images"]) if "images" in file else None
            self.image_offset = file["clip/image_offset"][:] if "images" in file else None

    @property
    def recorded(self) -> np.ndarray:
        """Say which clips were recorded, not found in others by a separator. Shape: `[clips]`, boolean."""
        return self.tracks.parent < 0

    @property
    def waveform(self) -> bool:
        """Whether the frames are samples."""
        return self.attributes["representation"] == "waveform"

    @property
    def bands(self) -> int:
        """Number of mel bands, 1 for a waveform."""
        return 1 if self.waveform else self.frames.shape[1]

    @property
    def window(self) -> int:
        """Frames of a window: what an encoder of this front end sees."""
        return int(self.attributes.get("window_frames", WINDOW))

    @property
    def window_hop(self) -> int:
        """Frames from one window to the next where nobody says."""
        return int(self.attributes.get("window_hop", self.window))

    def require(self, representation: str, purpose: str) -> None:
        """Raise FormatError unless the frames are of a representation: `logmel` or `waveform`."""
        if self.attributes["representation"] != representation:
            raise FormatError(
                f"{text(self.path)} holds {self.attributes['representation']} features; {purpose} {representation} "
                f"features: make them with soundssl featurize --representation {representation}"
            )

    def front_end(self) -> dict[str, object]:
        """Return the attributes that define the front end, as plain Python values."""
        return {name: _plain(self.attributes[name]) for name in FRONT_END}

    def check_front_end(self, expected: dict[str, object], model: str | os.PathLike) -> None:
        """Raise FormatError naming every difference between this front end and the one `model` was trained on."""
        here = self.front_end()
        different = [
            f"{name} {here[name]} instead of {expected[name]}" for name in FRONT_END if here[name] != expected[name]
        ]
        if different:
            raise FormatError(
                f"{text(self.path)} was made by another front end than {text(model)} was trained on: "
                f"{', '.join(different)}; make the features again with soundssl featurize"
            )

    def seconds(self, frames: np.ndarray | int) -> np.ndarray:
        """Return the times of frame numbers, in seconds, from integer sample positions."""
        return np.asarray(frames, np.int64) * int(self.attributes["hop_length"]) / int(self.attributes["sample_rate"])

    def frames_of(self, seconds: float) -> int:
        """Return the whole number of frames nearest to a duration in seconds, at least one."""
        rate = int(self.attributes["sample_rate"]) / int(self.attributes["hop_length"])
        return max(1, round(seconds * rate))

    def blocks(self, clip: int) -> Iterator[np.ndarray]:
        """Yield the frames of a clip block by block. Shape: `[n, bands]` each, or `[n]` of a waveform."""
        for first in range(self.offset[clip], self.offset[clip + 1], BLOCK):
            yield self.frames[first : min(first + BLOCK, self.offset[clip + 1])]

    def facts(self, clip: int) -> dict[str, Any]:
        """Return what the table says of a clip, as an entry for `Store.add`: its key, its source, its mixture."""
        found: dict[str, Any] = {
            name: str(getattr(self.clips, name)[clip]) for name in ("key", "recording", "split", "source")
        }
        found["start"] = float(self.clips.start[clip])
        if self.tracks.parent[clip] >= 0:
            found["parent"] = str(self.clips.key[self.tracks.parent[clip]])
            found |= {name: getattr(self.tracks, name)[clip].item() for name in ("track", "processor", "level")}
            found["silent"] = int(self.tracks.silent[clip])
            if self.tracks.onscreen[clip] >= 0:
                found["onscreen"] = float(self.tracks.onscreen[clip])
        return found

    def images_of(self, clip: int) -> np.ndarray | None:
        """Return the images of a clip, None where the file has none. Shape: `[n, height, width, 3]`."""
        if self.images is None or self.image_offset is None:
            return None
        return self.images[self.image_offset[clip] : self.image_offset[clip + 1]]

    def images_from(self, clip: int, seconds: float, count: int) -> np.ndarray:
        """Return `count` images of a clip from the one shown at a time on; where it has none, the nearest.

        Raises ValueError for a clip without images. Shape: `[count, height, width, 3]`, uint8.
        """
        images = self.images_of(clip)
        if images is None or not len(images):
            raise ValueError(f"{text(self.path)}: {self.clips.key[clip]} has no images")
        first = int(np.floor(seconds * float(self.attributes["image_rate"]) + 1e-6))
        return images[np.clip(first + np.arange(count), 0, len(images) - 1)]

    def grid(self, length: int, hop: int, clips: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return clip row and first frame (within the file) of the windows that lie `hop` frames apart in each clip.

        Shape: both `[windows]`, int64. Incomplete last windows are dropped, as VGGish does.
        """
        frames = np.diff(self.offset)
        count = np.where(frames >= length, (frames - length) // hop + 1, 0)
        if clips is not None:
            count = np.where(clips, count, 0)
        clip = np.repeat(np.arange(len(count)), count)
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return clip, self.offset[clip] + within * hop

    def batches(
        self, clips: np.ndarray, batch_size: int, hop: float | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield flattened windows of the chosen clips as float32, with the clip of each: the log-mel baseline.

        Windows start `hop` seconds apart, by default as the front end has it.
        """
        step = self.window_hop if hop is None else self.frames_of(hop)
        for windows in self.windows(self.window, step, batch_size, clips):
            yield windows.frames.reshape(len(windows.clip), -1).astype(np.float32), windows.clip

    def windows(self, length: int, hop: int, batch_size: int, clips: np.ndarray | None = None) -> Iterator[Windows]:
        """Yield all windows of `length` frames, `hop` frames apart, batch by batch."""
        clip, first = self.grid(length, hop, clips)
        for i in range(0, len(clip), batch_size):
            rows, frames = clip[i : i + batch_size], first[i : i + batch_size]
            yield Windows(self.frames.gather(frames, length), rows, self.seconds(frames - self.offset[rows]))


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value

"""Features: the reader that gives windows at any hop, and the spool through which featurize writes them.

While featurize runs, raw frames and a journal lie in `OUTPUT.parts/`; the HDF5 file is laid out once, at the end, clips
sorted by key. So its bytes depend neither on the order in which workers finish nor on interruptions.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from soundssl import SoundsslError
from soundssl.files.reading import Array, Clips, FormatError, open_checked
from soundssl.files.writing import create, text

# Attributes that define a front end: a model takes features only where all of them agree.
FRONT_END = (
    *("representation", "sample_rate", "frame_rate", "window_length", "hop_length", "fft_length", "window_function"),
    *("mel_scale", "spectrum", "logarithm", "level", "padding", "bands", "fmin", "fmax", "floor"),
)
WINDOW = 96  # frames of a window, 0.96 s: what an encoder sees
JOURNAL = "journal.jsonl"  # within OUTPUT.parts/
BLOCK = 1 << 16  # frames copied at a time when the file is laid out: 8 MB of float16


class Windows(NamedTuple):
    """Windows in reading order. `frames` [n, length, bands]; `clip` [n] rows; `start` [n] seconds into the clip."""

    frames: np.ndarray
    clip: np.ndarray
    start: np.ndarray


class Tracks(NamedTuple):
    """Say of every clip which mixture it was separated from, if any. Shape: `[clips]` each.

    `parent` is the row of the mixture (-1: a recording), `track` its number within the mixture and processor, from 0,
    `processor` the number of the separator, from 0, `level` dB relative to the mixture, `silent` whether it is
    next to silent.
    """

    parent: np.ndarray
    track: np.ndarray
    processor: np.ndarray
    level: np.ndarray
    silent: np.ndarray


def _silent(file) -> np.ndarray:
    return file["clip/silent"][:].astype(bool) if "clip/silent" in file else np.zeros(len(file["clip/parent"]), bool)


class Features:
    """Read a features file: frames, offsets and images of each clip, mean and deviation per band, `clips`, `tracks`.

    Frames of a waveform are its samples. Raises FormatError.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        with open_checked(path, ["features"], FRONT_END) as file:
            self.path, self.attributes = Path(path), dict(file.attrs)
            self.frames = Array(path, file["frames"])
            self.offset = file["clip/offset"][:]
            self.mean, self.deviation = file["mean"][:], file["deviation"][:]
            self.clips = Clips(file)
            self.tracks = Tracks(*(file[f"clip/{name}"][:] for name in Tracks._fields[:-1]), _silent(file))
            self.images = Array(path, file["images"]) if "images" in file else None
            self.image_offset = file["clip/image_offset"][:] if "images" in file else None
        if self.offset[0] != 0 or self.offset[-1] != len(self.frames) or (np.diff(self.offset) < 0).any():
            raise FormatError(f"{text(path)} is damaged: clip/offset does not cover the frames; make it again")
        if len(self.clips) and not -1 <= self.tracks.parent.min() <= self.tracks.parent.max() < len(self.clips):
            raise FormatError(f"{text(path)} is damaged: clip/parent names a clip that is not there; make it again")

    @property
    def waveform(self) -> bool:
        """Whether the frames are samples."""
        return self.attributes["representation"] == "waveform"

    @property
    def bands(self) -> int:
        """Number of mel bands, 1 for a waveform."""
        return 1 if self.waveform else self.frames.shape[1]

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

    def batches(self, clips: np.ndarray, batch_size: int, hop: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield flattened windows of the chosen clips as float32, with the clip of each: the log-mel baseline."""
        for windows in self.windows(WINDOW, self.frames_of(hop), batch_size, clips):
            yield windows.frames.reshape(len(windows.clip), -1).astype(np.float32), windows.clip

    def windows(self, length: int, hop: int, batch_size: int, clips: np.ndarray | None = None) -> Iterator[Windows]:
        """Yield all windows of `length` frames, `hop` frames apart, batch by batch."""
        clip, first = self.grid(length, hop, clips)
        for i in range(0, len(clip), batch_size):
            rows, frames = clip[i : i + batch_size], first[i : i + batch_size]
            yield Windows(self.frames.gather(frames, length), rows, self.seconds(frames - self.offset[rows]))


def read_windows(source, clips: np.ndarray, hop: float, means: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of an embeddings or features file with the clip of each; or, to save memory, one mean a clip.

    Shape: `[rows, size]` float32 and `[rows]`. `hop` in seconds places the windows of features.
    """
    batches = source.batches(clips, 4096, hop) if isinstance(source, Features) else source.batches(clips, 4096)
    if not means:
        parts = list(batches)
        if not parts:
            raise FormatError(f"{text(source.path)} has no window of the chosen clips")
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([clip for _, clip in parts])
    total, count = None, np.zeros(len(clips), np.int64)
    for rows, clip in batches:
        total = np.zeros((len(clips), rows.shape[1])) if total is None else total
        edges = np.flatnonzero(np.diff(clip, prepend=-1))
        np.add.at(total, clip[edges], np.add.reduceat(rows, edges, axis=0, dtype=np.float64))
        count += np.bincount(clip, minlength=len(clips))
    have = np.flatnonzero(count)
    if total is None:
        raise FormatError(f"{text(source.path)} has no window of the chosen clips")
    return (total[have] / count[have, None]).astype(np.float32), have


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _parts(output: str | os.PathLike) -> Path:
    return Path(output).with_name(Path(output).name + ".parts")


def _lock(file, output: str | os.PathLike) -> None:
    """Take the lock of an open file until it is closed; raise SoundsslError where another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SoundsslError(f"another run is writing {text(output)}; let it end, or end it, first") from None
    except OSError:  # a file system without locks
        return


class Spool:
    """Keep raw frames and images in one worker's files below `OUTPUT.parts/`, to be laid out at the end."""

    def __init__(self, folder: str | os.PathLike, name: str, dtype: str) -> None:
        # A name of its own: the workers of a run that was killed may still be writing to theirs.
        self.dtype, self.name = np.dtype(dtype), f"{name}-{uuid.uuid4().hex[:12]}"
        self.frames = open(Path(folder) / f"{self.name}.frames", "ab")  # noqa: SIM115 (open as long as its worker lives)
        self.images = open(Path(folder) / f"{self.name}.images", "ab")  # noqa: SIM115

    def start(self) -> None:
        """Begin a clip: remember where its frames and images will lie."""
        self.first = [self.frames.seek(0, os.SEEK_END), self.images.seek(0, os.SEEK_END)]
        self.count = [0, 0]

    def add_frames(self, frames: np.ndarray) -> None:
        """Append frames of the clip. Shape: `[n, bands]`."""
        self.frames.write(np.ascontiguousarray(frames, self.dtype).data)
        self.count[0] += len(frames)

    def add_images(self, images: np.ndarray) -> None:
        """Append images of the clip. Shape: `[n, height, width, 3]`, uint8."""
        self.images.write(np.ascontiguousarray(images, np.uint8).data)
        self.count[1] += len(images)

    def finish(self) -> dict:
        """Flush the clip and return where it lies, for the journal."""
        self.frames.flush()
        self.images.flush()
        return {"spool": self.name, "first": self.first, "count": self.count}

    def abandon(self) -> None:
        """Drop what was written of the clip."""
        for file, first in zip((self.frames, self.images), self.first, strict=True):
            file.flush()
            file.truncate(first)


class Store:
    """Collect clips for one features file in `OUTPUT.parts/`; a journal says which are done, so a run can be repeated.

    The folder is kept when the run is interrupted with the same `made_from`, and begun afresh when that differs.
    Raises SoundsslError while another run writes the same output.
    """

    def __init__(self, output: str | os.PathLike, attributes: dict, dtype: str, made_from: str) -> None:
        self.output, self.attributes, self.dtype, self.made_from = Path(output), attributes, dtype, made_from
        self.folder = _parts(output)
        self.folder.mkdir(exist_ok=True)
        self.journal = open(self.folder / JOURNAL, "a+", encoding="utf-8")  # noqa: SIM115 (open until `close`)
        _lock(self.journal, self.output)
        self.done = self._read()
        if not self.done:
            self.journal.truncate(0)
            for spool in self.folder.glob("worker-*"):
                spool.unlink()
            self._line({"made_from": made_from})

    def _read(self) -> dict[str, dict]:
        """Return what the journal says is done, nothing where it is another run's or damaged; cut off a broken line."""
        self.journal.seek(0)
        try:
            lines = self.journal.read().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            entries = [json.loads(line) for line in whole]
        except ValueError:
            return {}
        if not entries or entries[0] != {"made_from": self.made_from}:
            return {}
        self.journal.truncate(sum(len(line.encode()) for line in whole))
        return {entry["key"]: entry for entry in entries[1:]}

    def _line(self, entry: dict) -> None:
        self.journal.write(json.dumps(entry) + "\n")
        self.journal.flush()

    @staticmethod
    def begin_afresh(output: str | os.PathLike) -> None:
        """Forget what an interrupted run left for `output`; raise SoundsslError while another run writes it."""
        journal = _parts(output) / JOURNAL
        if journal.is_file():
            with open(journal, "r+b") as file:
                _lock(file, output)
                file.truncate(0)

    def close(self) -> None:
        """Let go of the folder; what is in it stays, for the run that goes on."""
        self.journal.close()

    def discard(self) -> None:
        """Give up: remove the folder."""
        self.close()
        shutil.rmtree(self.folder)

    def add(self, entry: dict) -> None:
        """Note a finished clip (with `spool`, `first`, `count`) or a skipped input (with `reason`), by its `key`."""
        self._line(entry)
        self.done[entry["key"]] = entry

    def lay_out(
        self, keys: Sequence[str], inputs: list[dict], image_shape: tuple[int, int], with_provenance: bool
    ) -> int:
        """Write the features file from the journal's clips, sorted by key, and remove the folder; return the clips."""
        entries = [self.done[key] for key in sorted(keys)]
        clips = [entry for entry in entries if "spool" in entry]
        skipped = [entry for entry in entries if "reason" in entry]
        with create(
            self.output,
            "features",
            inputs=inputs,
            made_from=self.made_from,
            attributes=self.attributes,
            with_provenance=with_provenance,
        ) as sink:
            mean, deviation = self._copy_frames(sink, clips)
            sink.write("mean", mean)
            sink.write("deviation", deviation)
            if any(clip["count"][1] for clip in clips):
                self._copy_images(sink, clips, image_shape)
            self._write_table(sink, clips)
            sink.write("skipped/path", [entry["path"] for entry in skipped])
            sink.write("skipped/reason", [entry["reason"] for entry in skipped])
        self.discard()
        return len(clips)

    def _frame_shape(self) -> tuple[int, ...]:
        return () if self.attributes["representation"] == "waveform" else (self.attributes["bands"],)

    def frames_of(self, key: str) -> Iterator[np.ndarray]:
        """Yield the frames of a finished clip again, block by block. Shape: `[n, bands]`, or `[n]` of a waveform."""
        size = self.attributes["bands"] * np.dtype(self.dtype).itemsize
        for block in self._blocks([self.done[key]], 0, size):
            yield np.frombuffer(block, self.dtype).reshape(-1, *self._frame_shape())

    def _blocks(self, clips: list[dict], part: int, row_bytes: int) -> Iterator[bytes]:
        spools: dict[str, BinaryIO] = {}
        try:
            for clip in clips:
                name = clip["spool"] + (".frames", ".images")[part]
                if name not in spools:
                    spools[name] = open(self.folder / name, "rb")  # noqa: SIM115 (closed below)
                spool = spools[name]
                spool.seek(clip["first"][part])
                left = clip["count"][part] * row_bytes
                while left:
                    block = spool.read(min(left, BLOCK * row_bytes))
                    if not block:
                        raise FormatError(
                            f"{text(self.folder / name)} is shorter than its journal says; delete the folder"
                        )
                    left -= len(block)
                    yield block
        finally:
            for spool in spools.values():
                spool.close()

    def _copy_frames(self, sink, clips: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        bands = self.attributes["bands"]
        total, shape = sum(clip["count"][0] for clip in clips), self._frame_shape()
        sink.reserve("frames", (total, *shape), self.dtype)
        count, row, mean, squares = 0, 0, np.zeros(bands), np.zeros(bands)
        for block in self._blocks(clips, 0, bands * np.dtype(self.dtype).itemsize):
            frames = np.frombuffer(block, self.dtype)
            row = sink.fill("frames", row, frames.reshape(-1, *shape))
            count, mean, squares = merge_moments((count, mean, squares), frames.reshape(-1, bands))
        return mean.astype("f4"), np.sqrt(squares / max(count, 1)).astype("f4")

    def _copy_images(self, sink, clips: list[dict], shape: tuple[int, int]) -> None:
        height, width = shape
        sink.reserve("images", (sum(clip["count"][1] for clip in clips), height, width, 3), "u1")
        row = 0
        for block in self._blocks(clips, 1, height * width * 3):
            row = sink.fill("images", row, np.frombuffer(block, np.uint8).reshape(-1, height, width, 3))
        sink.write("clip/image_offset", _offsets([clip["count"][1] for clip in clips]))

    def _write_table(self, sink, clips: list[dict]) -> None:
        sink.write("clip/offset", _offsets([clip["count"][0] for clip in clips]))
        for name in ("key", "recording", "split", "source"):
            sink.write(f"clip/{name}", [clip[name] for clip in clips])
        sink.write("clip/start", np.array([clip["start"] for clip in clips], "f8"))
        row = {clip["key"]: i for i, clip in enumerate(clips)}
        sink.write("clip/parent", np.array([row.get(clip.get("parent"), -1) for clip in clips], "i4"))
        for name, dtype, none in (("track", "i1", -1), ("processor", "i1", -1), ("level", "f4", 0)):
            sink.write(f"clip/{name}", np.array([clip.get(name, none) for clip in clips], dtype))
        if any("parent" in clip for clip in clips):
            sink.write("clip/silent", np.array([clip.get("silent", 0) for clip in clips], "u1"))


def _offsets(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def merge_moments(moments: tuple[int, np.ndarray, np.ndarray], rows: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Merge rows into (count, mean, sum of squared deviations) in float64.

    The pairwise update of Chan, Golub and LeVeque (1983), stable where the mean is large against the deviation.
    """
    count, mean, squares = moments
    if not len(rows):
        return moments
    rows = rows.astype(np.float64)
    row_mean = rows.mean(0)
    difference, total = row_mean - mean, count + len(rows)
    squares = squares + ((rows - row_mean) ** 2).sum(0) + difference**2 * (count * len(rows) / total)
    return total, mean + difference * (len(rows) / total), squares

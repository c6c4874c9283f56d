"""Search: the windows of a file that sound most like examples, by the cosine of their vectors; exact.

Vectors are read, or computed from features, block by block: of a window only its similarity stays in memory.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from soundssl import SoundsslError, files, media, tables
from soundssl.media import encoding
from soundssl.model import BATCH, Model
from soundssl.ops import neighbors
from soundssl.progress import SILENT, Progress

BLOCK = 4096  # vectors of a file read at a time
SORTED = 256  # rows sorted at first, and the factor by which they grow
LEAD = 0.25  # seconds before an example that are decoded too, so that its first frames are those of a whole recording
COLUMNS = ("path", "start_s", "end_s", "class", "similarity", "example")
TEXT = ("path", "class", "example")  # columns of words
FORMATS = ("csv", "tsv", "jsonl", "parquet")
CLOSE = 1e-6  # seconds: times nearer than that are equal


class ExampleError(SoundsslError):
    """There is no window at the place that an example names."""

    status = 2


class Example(NamedTuple):
    """Hold an example as it was named, the file to listen to, its seconds there, and its vector `[d]`."""

    name: str
    path: str
    start: float
    end: float
    vector: np.ndarray


class Found(NamedTuple):
    """Hold a window that was found: the file to listen to, seconds there, its similarity, the row of its example."""

    path: str
    start: float
    end: float
    similarity: float
    example: int


@dataclass(frozen=True)
class Searched:
    """Say what is searched: the windows of an embeddings file, or of a features file through a model.

    `hop` in seconds is between windows of features, by default that of the front end. Raises FormatError where the
    model is not that of the embeddings, or hears another front end.
    """

    source: files.Embeddings | files.Features
    model: Model | None = None
    hop: float | None = None
    batch_size: int = BATCH

    def __post_init__(self) -> None:
        if isinstance(self.source, files.Features):
            self.source.check_front_end(self._trained.config["front_end"], self._trained.path)
        elif "window" not in self.source.attributes:
            raise files.FormatError(f"{self.name} does not say how long a window is; make it again")
        elif self.model and self.source.attributes["model"] != self.model.attributes["uuid"]:
            raise files.FormatError(
                f"{self.name} was made with another model than {files.text(self.model.path)}; give that one, or embed "
                f"the features again"
            )

    @property
    def name(self) -> str:
        """The path of the file, for messages."""
        return files.text(self.source.path)

    @cached_property
    def length(self) -> float:
        """Seconds of a window."""
        if isinstance(self.source, files.Features):
            return float(self.source.seconds(self._frames))
        return float(self.source.attributes["window"])

    @property
    def _trained(self) -> Model:
        if self.model is None:
            raise ValueError("features are searched through a model; give one")
        return self.model

    @property
    def _frames(self) -> int:
        return self._trained.config["frames"]

    @cached_property
    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.source, files.Embeddings):
            return self.source.clip, self.source.start
        step = self.source.window_hop if self.hop is None else self.source.frames_of(self.hop)
        clip, first = self.source.grid(self._frames, step)
        return clip, self.source.seconds(first - self.source.offset[clip])

    @property
    def clip(self) -> np.ndarray:
        """The clip of each window. Shape: `[windows]`, rows of the table."""
        return self._grid[0]

    @property
    def start(self) -> np.ndarray:
        """When each window starts, in seconds into its clip. Shape: `[windows]`."""
        return self._grid[1]

    @cached_property
    def heard(self) -> np.ndarray:
        """The file to listen to of each clip. Shape: `[clips]`."""
        clips = self.source.clips
        return clips.key if clips.source is None else clips.source

    @cached_property
    def offset(self) -> np.ndarray:
        """Seconds into its file at which each clip starts. Shape: `[clips]`."""
        start = self.source.clips.start
        return np.zeros(len(self.heard)) if start is None else start

    def vectors(self) -> Iterator[np.ndarray]:
        """Yield the vectors of all windows, block by block. Shape: `[n, d]` each."""
        if isinstance(self.source, files.Embeddings):
            for first in range(0, len(self.clip), BLOCK):
                yield np.asarray(self.source.embedding[first : first + BLOCK], np.float32)
            return
        step = self.source.window_hop if self.hop is None else self.source.frames_of(self.hop)
        for windows in self.source.windows(self._frames, step, self.batch_size):
            yield self.embed(windows.frames)

    def embed(self, frames: np.ndarray) -> np.ndarray:
        """Return the vectors of windows of frames, by the layer that is searched. Shape: `[n, d]`."""
        return self._trained.output(*self.layer)(frames)

    @property
    def layer(self) -> tuple[str, bool]:
        """The layer that vectors are of, and whether they are as the net gives them."""
        if isinstance(self.source, files.Features):
            return "embedding", False
        return str(self.source.attributes["layer"]), bool(self.source.attributes.get("raw", 0))

    # ---- examples
    def example(self, name: str) -> Example:
        """Return the window at a place: `clip.wav@3.2`, a media file or a clip, and the second in its middle.

        Without a second it is the middle. A media file is decoded through the model; without one, its window in the
        file is taken. Raises ExampleError, DecodeError.
        """
        place, second = self._place(name)
        row = np.flatnonzero(self.source.clips.key == place)
        if len(row):
            return self._of_clips(name, row, second, np.zeros(len(self.heard)))
        if self.model and Path(place).is_file():
            return self._of_media(name, place, second)
        row = np.flatnonzero([same_file(place, each) for each in self.heard])
        if len(row):
            return self._of_clips(name, row, second, self.offset)
        if Path(place).is_file():
            raise ExampleError(f"{place} is no recording of {self.name}; give the model too, with -m")
        raise ExampleError(f"{place} is no media file and no clip of {self.name}; name one, as clip.wav@3.2")

    def _place(self, name: str) -> tuple[str, float | None]:
        place, at, second = name.rpartition("@")
        if not at or Path(name).exists() or name in set(self.source.clips.key):
            return name, None
        try:
            number = tables.number(second)
        except ValueError:
            raise ExampleError(f"{name}: {second!r} is no second; write it as clip.wav@3.2") from None
        if number < 0:
            raise ExampleError(f"{name}: a second before the beginning; count from 0")
        return place, number

    def _of_clips(self, name: str, rows: np.ndarray, second: float | None, offset: np.ndarray) -> Example:
        """Return the window of some clips whose middle is nearest to a second."""
        own = np.flatnonzero(np.isin(self.clip, rows))
        if not len(own):
            raise ExampleError(f"{name}: {self.name} has no window of it; it is too short")
        middle = self.start[own] + offset[self.clip[own]] + self.length / 2
        wanted = (middle.min() + middle.max()) / 2 if second is None else second
        window = own[np.abs(middle - wanted).argmin()]
        clip, start = int(self.clip[window]), float(self.start[window])
        if abs(middle[np.abs(middle - wanted).argmin()] - wanted) > self.length + CLOSE:
            last = float(middle.max()) + self.length / 2
            raise ExampleError(f"{name}: {self.name} has no window there; the last ends at {last:.2f} s")
        begin = start + float(self.offset[clip])
        return Example(name, str(self.heard[clip]), begin, begin + self.length, self._vector(window))

    def _vector(self, window: int) -> np.ndarray:
        if isinstance(self.source, files.Embeddings):
            return np.asarray(self.source.embedding[window], np.float32)
        first = self.source.offset[self.clip[window]] + round(
            self.start[window] * self.source.attributes["sample_rate"] / self.source.attributes["hop_length"]
        )
        return self.embed(self.source.frames.gather(np.array([first]), self._frames))[0]

    def _of_media(self, name: str, path: str, second: float | None) -> Example:
        """Return the window of a media file with a second in its middle; at its ends, the first and the last."""
        model = self._trained
        rate, step = model.rate, 1 / model.front_end.frame_rate
        duration = encoding.sound_length(path)[0] or sum(map(len, media.read_audio(path, rate))) / rate
        second = duration / 2 if second is None else second
        if second > duration:
            raise ExampleError(f"{name}: the file lasts {duration:.2f} s; name a second in it")
        begin = max(0.0, min(second, duration - self.length / 2) - self.length / 2)
        begin = round(begin / step) * step
        lead = min(begin, round(LEAD / step) * step)
        blocks = media.read_audio(path, rate, begin - lead, begin + self.length + LEAD, keep_truncated=True)
        sound = np.concatenate([*blocks, np.empty(0, np.float32)])
        if not len(sound):
            raise ExampleError(f"{name}: there is no sound at that second; name another")
        sound = np.pad(sound, (0, max(0, round((lead + self.length + LEAD) * rate) - len(sound))))
        layer, raw = self.layer
        vectors, starts = model.embed(sound, rate, hop=lead or None, layer=layer, raw=raw)
        return Example(name, path, begin, begin + self.length, vectors[np.abs(starts - lead).argmin()])


def same_file(one: str, other: str) -> bool:
    """Return whether two paths name one file."""
    return os.path.abspath(one) == os.path.abspath(other)


def search(
    searched: Searched, examples: Sequence[Example], top: int = 20, most: int = 0, progress: Progress = SILENT
) -> list[Found]:
    """Return the `top` windows most similar to any of the examples, the best first.

    A window that overlaps an example or a better one is left out; so are all but the best `most` of a recording, where
    that is not 0. Raises SoundsslError for vectors that are not finite.
    """
    query = np.stack([example.vector for example in examples])
    similarity, example = np.empty(len(searched.clip), np.float32), np.empty(len(searched.clip), np.int16)
    done = 0
    with progress.track("search", len(searched.clip), "windows") as advance:
        for block in searched.vectors():
            rows = slice(done, done + len(block))
            try:
                similarity[rows], example[rows] = neighbors.likest(block, query)
            except ValueError as error:
                raise SoundsslError(f"{searched.name}: {error}; embed the features again") from None
            done += len(block)
            advance(len(block))
    found = []
    for window in _apart(searched, similarity, examples, top, most).tolist():
        clip = searched.clip[window]
        start = float(searched.start[window] + searched.offset[clip])
        times = start, start + searched.length
        found.append(Found(str(searched.heard[clip]), *times, float(similarity[window]), int(example[window])))
    return found


def _apart(searched: Searched, similarity: np.ndarray, examples: Sequence[Example], top: int, most: int) -> np.ndarray:
    """Return the best windows that overlap neither each other nor an example, `most` of a recording. Shape: `[n]`."""
    number = {path: i for i, path in enumerate(dict.fromkeys(map(os.path.abspath, searched.heard)))}
    file = np.array([number[os.path.abspath(path)] for path in searched.heard], np.int64)
    taken: dict[int, list[float]] = {}
    for example in examples:
        if (own := number.get(os.path.abspath(example.path))) is not None:
            taken.setdefault(own, []).append(example.start)
    recording = searched.source.clips.recording_number()
    chosen: list[int] = []
    count: dict[int, int] = {}
    for window in _ranked(similarity):
        clip = searched.clip[window]
        begin, of = float(searched.start[window] + searched.offset[clip]), int(recording[clip])
        starts = taken.setdefault(int(file[clip]), [])
        if most and count.get(of, 0) >= most:
            continue
        if any(abs(begin - other) < searched.length - CLOSE for other in starts):
            continue
        chosen.append(int(window))
        starts.append(begin)
        count[of] = count.get(of, 0) + 1
        if len(chosen) == top:
            break
    return np.array(chosen, np.int64)


def _ranked(similarity: np.ndarray) -> Iterator[int]:
    """Yield rows, the most similar first, equal ones in their order; only as many are sorted as are asked for."""
    given, count = 0, SORTED
    while given < len(similarity):
        count = min(count, len(similarity))
        least = np.partition(similarity, len(similarity) - count)[len(similarity) - count]
        rows = np.flatnonzero(similarity >= least)
        rows = rows[np.argsort(-similarity[rows], kind="stable")]
        yield from rows[given:].tolist()
        given, count = len(rows), count * SORTED


# ---- tables
def write(found: Sequence[Found], examples: Sequence[Example], name: str, of_class: str = "") -> bytes:
    """Return a table of what was found in one of FORMATS; `of_class` is what it is taken for, else its example.

    Raises DependencyError for Parquet without pyarrow.
    """
    rows = [
        (
            *(each.path, round(each.start, 6), round(each.end, 6)),
            *(of_class or examples[each.example].name, round(each.similarity, 6), examples[each.example].name),
        )
        for each in found
    ]
    return WRITERS[name](rows)


Row = tuple[str, float, float, str, float, str]


def _delimited(delimiter: str) -> Callable[[list[Row]], bytes]:
    def text(rows: list[Row]) -> bytes:
        lines = [delimiter.join(COLUMNS) + "\n", *(tables.row_text(row, delimiter) for row in rows)]
        return "".join(lines).encode("utf-8", "surrogateescape")

    return text


def _json_lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows).encode()


def _parquet(rows: list[Row]) -> bytes:
    files.require_parquet()
    import pyarrow
    from pyarrow import parquet

    types = [pyarrow.string() if name in TEXT else pyarrow.float64() for name in COLUMNS]
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    made = pyarrow.table(
        {name: pyarrow.array(each, kind) for name, each, kind in zip(COLUMNS, columns, types, strict=True)}
    )
    sink = io.BytesIO()
    parquet.write_table(made, sink)
    return sink.getvalue()


WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
    "jsonl": _json_lines,
    "parquet": _parquet,
}

"""Reading: check kind, schema, types and shapes before the first byte of work, and say what to do about a misfit."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from soundssl import SoundsslError
from soundssl.files.checking import check_attributes, check_columns, check_storage
from soundssl.files.outputs import is_special, text
from soundssl.files.probe import probe
from soundssl.files.schema import KINDS, SHARED_ATTRIBUTES, check
from soundssl.files.trust import fetched_from_elsewhere
from soundssl.files.writing import datasets

EVENT = ("segment", "class", "onset", "offset")  # columns of the events of a labels file
# What h5py raises, beside ValueError for what does not fit a schema, where a file is torn.
TORN = (ValueError, TypeError, RuntimeError, OSError, KeyError, AttributeError, IndexError, OverflowError, MemoryError)
NAMED = 2  # kinds of file that a message names with the commands that make them


class FormatError(SoundsslError):
    """The file is of the wrong kind, of a newer schema, damaged, or made by another front end."""

    status = 4


class Missing(SoundsslError):
    """The path does not exist or cannot be opened."""

    status = 2


def require(path: str | os.PathLike) -> Path:
    """Return the path of a readable, regular file; raise Missing otherwise."""
    if not (path := Path(path)).exists():
        raise Missing(f"{text(path)} does not exist; check the path")
    if path.is_dir():
        raise Missing(f"{text(path)} is a folder, not a file; name the file in it")
    if is_special(path):
        raise Missing(f"{text(path)} is a pipe or a device, in which one cannot go back; write it to a file first")
    if not os.access(path, os.R_OK):
        raise Missing(f"{text(path)} cannot be read; check its permissions")
    return path


@contextlib.contextmanager
def open_checked(path: str | os.PathLike, kinds: Sequence[str], columns: bool = True) -> Iterator[h5py.File]:
    """Open an HDF5 file of one of `kinds`, checked against its schema; the numbers in its `columns` too, unless not.

    Raises Missing or FormatError, the latter also for damage that shows in the body.
    """
    path = require(path)
    makers = f"{' or '.join(kinds)} with {' or '.join(KINDS[kind].maker for kind in kinds)}"
    remedy = f"make {makers if len(kinds) <= NAMED else 'it again with the command that wrote it'}"
    try:
        file = _open(path)
    except OSError as error:
        fact = "is a damaged or truncated HDF5 file" if _is_hdf5(path) else "is not an HDF5 file"
        raise FormatError(f"{text(path)} {fact}; {remedy}") from error
    with file:
        try:
            _check_kind(path, file, kinds, remedy)
            kind = KINDS[file.attrs["kind"]]
            check_attributes({**SHARED_ATTRIBUTES, **kind.attributes}, dict(file.attrs))
            if fetched := fetched_from_elsewhere(path, file):
                raise FormatError(f"{text(path)} fetches {fetched}; it is not trusted, make it again")
            check(kind, datasets(file))
            check_storage(file, path.stat().st_size)
            _check_parts(path, file)
            if columns:
                check_columns(kind, file)
            yield file
        except TORN as error:
            raise FormatError(f"{text(path)} is damaged: {error}; make it again") from error


def _check_kind(path: Path, file: h5py.File, kinds: Sequence[str], remedy: str) -> None:
    kind, schema = file.attrs.get("kind"), file.attrs.get("schema", 0)
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(schema, int | np.integer):
        raise FormatError(f"{text(path)} is an HDF5 file of another program; {remedy}")
    if kind not in kinds:
        raise FormatError(f"{text(path)} holds {kind}, not {' or '.join(kinds)}; {remedy}")
    if schema > KINDS[kind].version:
        raise FormatError(
            f"{text(path)} has schema {schema} of {kind}, this program knows up to {KINDS[kind].version}; "
            f"install a newer soundssl"
        )


def _check_parts(path: Path, file: h5py.File) -> None:
    """Raise FormatError where a file whose rows a joined one refers to is missing, or is another one now."""
    if "part/file" not in file:
        return
    probe(*[part for name in strings(file, "part/file") if (part := path.parent / name).is_file()])
    for name, uuid in zip(strings(file, "part/file"), strings(file, "part/uuid"), strict=True):
        part = path.parent / name
        with contextlib.suppress(OSError):
            if fetched := _fetched_by_part(part):
                raise FormatError(f"{text(part)}, a part of {text(path)}, fetches {fetched}; it is not trusted")
        here = attributes_of(part).get("uuid")
        if here != uuid:
            fact = "is missing" if not part.exists() else "is not the file that was joined"
            raise FormatError(f"{text(part)}, a part of {text(path)}, {fact}; put it back, or join the parts again")


def _fetched_by_part(path: Path) -> str:
    """Return in words what a part fetches from other files, empty where its rows lie in itself, as they must."""
    if not path.is_file() or not _is_hdf5(path):
        return ""
    with _open(path) as file:
        return "its rows from parts of its own" if "part/file" in file else fetched_from_elsewhere(path, file)


def _open(path: Path) -> h5py.File:
    """Open an HDF5 file that the library can read to an end; raise FormatError otherwise, OSError where it is none."""
    try:
        probe(path)
    except ValueError as error:
        raise FormatError(f"{text(path)} is damaged: {error}; make it again") from error
    return h5py.File(path, "r", locking=False)


def _is_hdf5(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def kind_of(path: str | os.PathLike) -> str | None:
    """Return the kind of an HDF5 file of ours, or None for any other file; raise Missing."""
    path = require(path)
    if not _is_hdf5(path):
        return None
    with open_checked(path, list(KINDS), columns=False) as file:
        return file.attrs["kind"]


def made_from(path: str | os.PathLike) -> str | None:
    """Return the digest of inputs and options that a finished file was made from, None where there is none."""
    return attributes_of(path).get("made_from")


def attributes_of(path: str | os.PathLike) -> dict[str, Any]:
    """Return the attributes of a finished file, none where there is no HDF5 file."""
    if not Path(path).is_file() or not _is_hdf5(Path(path)):
        return {}
    try:
        with _open(Path(path)) as file:
            return {**file.attrs}
    except (*TORN, FormatError):  # whatever stands there is not ours; it is about to be replaced
        return {}


def strings(file: h5py.File, name: str) -> np.ndarray:
    """Return a column of strings as an object array."""
    return file[name].asstr()[:] if len(file[name]) else np.empty(0, dtype=object)


class Array:
    """Give rows of a dataset, through a memory map where it lies contiguous; safe to pickle into worker processes."""

    def __init__(self, path: str | os.PathLike, dataset: h5py.Dataset) -> None:
        self.path, self.name = os.path.abspath(path), dataset.name
        self.shape, self.dtype = dataset.shape, dataset.dtype
        self.position = dataset.id.get_offset() if not dataset.is_virtual else None
        self.parts = _sources(self.path, dataset) if dataset.is_virtual else []
        self._rows = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_rows": None}

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def rows(self):
        """The memory map, or the dataset itself where it is chunked, virtual or empty."""
        if self._rows is None:
            if self.position is None:
                self._rows = h5py.File(self.path, "r", locking=False)[self.name]
            else:
                self._rows = np.memmap(self.path, self.dtype, "r", self.position, self.shape)
        return self._rows

    def __getitem__(self, key):
        return self.rows[key]

    def gather(self, first: np.ndarray, length: int) -> np.ndarray:
        """Return `length` rows from each of `first` on.

        Shape: `[n, length, ...]`. Out of a memory map this is one strided copy; otherwise one slice a window, since
        fancy indexing of chunked HDF5 is an order of magnitude slower.
        """
        if not len(first):
            return np.empty((0, length, *self.shape[1:]), self.dtype)
        if first.min() < 0 or first.max() + length > len(self):
            raise ValueError(f"windows of {length} rows reach outside 0..{len(self)}")
        if self.parts:
            return self._gather_parts(np.asarray(first), length)
        if self.position is None:
            rows = np.empty((len(first), length, *self.shape[1:]), self.dtype)
            for i, row in enumerate(first):
                rows[i] = self.rows[row : row + length]
            return rows
        width = int(np.prod(self.shape[1:], dtype=np.int64))
        stride = width * self.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            self.rows.view(np.ndarray).reshape(-1),
            (len(self) - length + 1, length * width),
            (stride, self.dtype.itemsize),
            writeable=False,
        )
        return view[np.asarray(first)].reshape(len(first), length, *self.shape[1:])

    def _gather_parts(self, first: np.ndarray, length: int) -> np.ndarray:
        """Gather from the files that the rows lie in; what lies across two of them, through HDF5."""
        rows = np.empty((len(first), length, *self.shape[1:]), self.dtype)
        number = np.searchsorted([low for low, _ in self.parts], first, side="right") - 1
        for i in np.unique(number):
            (low, part), which = self.parts[i], np.flatnonzero(number == i)
            inside = first[which] - low + length <= len(part)
            rows[which[inside]] = part.gather(first[which[inside]] - low, length)
            for at in which[~inside]:
                rows[at] = self.rows[first[at] : first[at] + length]
        return rows


def _sources(path: str, dataset: h5py.Dataset) -> list[tuple[int, Array]]:
    """Return (first row, array) of the datasets that a virtual dataset puts end to end."""
    found = []
    for space, name, source, _ in dataset.virtual_sources():
        if name == ".":
            found.append((space.get_select_bounds()[0][0], Array(path, dataset.file[source])))
            continue
        where = os.path.join(os.path.dirname(path), name.replace("%%", "%"))
        with h5py.File(where, "r", locking=False) as file:
            found.append((space.get_select_bounds()[0][0], Array(where, file[source])))
    return sorted(found, key=lambda part: part[0])


def mapped(path: str | os.PathLike, file: h5py.File, name: str) -> np.ndarray:
    """Return a column of numbers, through a memory map where it lies contiguous: a number a window adds up."""
    rows = Array(path, file[name]).rows
    return rows.view(np.ndarray) if isinstance(rows, np.memmap) else rows[:]


class Clips:
    """Hold the clip table of features, embeddings and clusters, column by column; None for one that is not there."""

    def __init__(self, file: h5py.File) -> None:
        for name in ("key", "recording", "split", "source", "made_from"):
            setattr(self, name, strings(file, f"clip/{name}") if f"clip/{name}" in file else None)
        self.start = file["clip/start"][:] if "clip/start" in file else None

    key: np.ndarray
    recording: np.ndarray
    split: np.ndarray
    source: np.ndarray
    made_from: np.ndarray
    start: Any

    def __len__(self) -> int:
        return len(self.key)

    def heard(self, clip: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the file to listen to for each of some windows, and where it starts there in seconds.

        A table without sources names the clips themselves. Shape: clip, start `[n]` (row of the clip, seconds into it).
        """
        names = self.key if self.source is None else self.source
        return names[clip], start + (0 if self.start is None else self.start[clip])

    def recording_number(self) -> np.ndarray:
        """Return an integer for each clip, equal where two clips share a recording. Shape: `[clips]`."""
        return np.unique(self.recording.astype(str), return_inverse=True)[1].astype(np.int64).reshape(-1)

    def in_splits(self, splits: Sequence[str] | None, path: str | os.PathLike = "the file") -> np.ndarray:
        """Return which clips belong to any of `splits` (None: all); raise SoundsslError for a split nobody has."""
        return in_splits(self.split, splits, path)


def in_splits(column: np.ndarray, splits: Sequence[str] | None, path: str | os.PathLike) -> np.ndarray:
    """Return which entries of a column of splits are any of `splits` (None: all).

    Raises SoundsslError for a split that none has, naming those of the file.
    """
    if not splits:
        return np.ones(len(column), bool)
    known = sorted({str(name) for name in column})
    for split in splits:
        if split not in known:
            have = ", ".join(map(repr, known)) or "none"
            raise SoundsslError(f"{text(path)} has no split {split!r}; it has {have}")
    return np.isin(column.astype(str), list(splits))


class Embeddings:
    """Read an embeddings file: `embedding` rows by slice, `clip` and `start` of each window, and the `clips` table.

    All but the table are memory maps: a file may be larger than memory.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        with open_checked(path, ["embeddings"]) as file:
            self.path, self.attributes = Path(path), dict(file.attrs)
            self.embedding = Array(path, file["embedding"])
            self.clip, self.start = (mapped(path, file, f"window/{name}") for name in ("clip", "start"))
            self.clips = Clips(file)

    def batches(self, clips: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows of the chosen clips (boolean, `[clips]`) as float32, with the clip of each, in reading order."""
        for first in range(0, len(self.clip), batch_size):
            clip = self.clip[first : first + batch_size].astype(np.int64)
            chosen = clips[clip]
            if chosen.any():
                yield self.embedding[first : first + batch_size][chosen].astype(np.float32), clip[chosen]


class Clusters:
    """Read a clusters file: `cluster`, `confidence`, `similarity` of windows, `size`, `weight`, `mean` of clusters.

    `clip`, `start` and the `clips` table are None where the clusters are those of a bare matrix. What has a number a
    window is a memory map, in the type it is stored in.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        with open_checked(path, ["clusters"]) as file:
            self.path, self.attributes = Path(path), dict(file.attrs)
            self.cluster, self.size = mapped(path, file, "cluster"), file["size"][:]
            self.confidence, self.similarity = (mapped(path, file, name) for name in ("confidence", "similarity"))
            self.weight, self.mean = Array(path, file["weight"]), Array(path, file["mean"])
            have = all(name in file for name in ("window/clip", "window/start", "clip/key", "clip/split"))
            self.clip: Any = mapped(path, file, "window/clip") if have else None
            self.start: Any = mapped(path, file, "window/start") if have else None
            self.clips: Any = Clips(file) if have else None


class Labels:
    """Read a labels file: `label` [segments, classes] in {1, 0, -1}, its segments and the class names.

    `label`, `rated` and `truth` are memory maps: of thousands of classes they may be larger than memory.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        with open_checked(path, ["labels"]) as file:
            self.path, self.attributes = Path(path), dict(file.attrs)
            self.label = mapped(path, file, "label")
            self.classes = list(strings(file, "class"))
            self.key = strings(file, "segment/key")
            self.start, self.end = file["segment/start"][:], file["segment/end"][:]
            self.weight = file["weight"][:] if "weight" in file else np.ones(len(self.key), np.float32)
            self.split = strings(file, "split") if "split" in file else None
            self.origin = file["origin"][:] if "origin" in file else np.zeros(len(self.key), np.uint8)
            self.identifiers = list(strings(file, "class_id")) if "class_id" in file else None
            self.modality = list(strings(file, "modality")) if "modality" in file else None
            self.rated, self.truth = (mapped(path, file, name) if name in file else None for name in ("rated", "truth"))
            self.noisy = file["segment/noisy"][:] if "segment/noisy" in file else None
            self.recording, self.uploader, self.licence, self.subset = (
                strings(file, f"segment/{name}") if f"segment/{name}" in file else None
                for name in ("recording", "uploader", "licence", "subset")
            )
            self.events = {name: file[f"event/{name}"][:] for name in EVENT} if "event/segment" in file else None

    def spread_from(self) -> Path | None:
        """Return the clusters or embeddings file these labels were spread from, where it lies beside them."""
        for source in json.loads(self.attributes.get("inputs", "[]")):
            path = self.path.parent / source["file"]
            if source["role"] in ("clusters", "embeddings") and path.is_file():
                with open_checked(path, ["clusters", "embeddings"], columns=False) as file:
                    return path if file.attrs["uuid"] == source["uuid"] else None
        return None


class Triplets:
    """Read a triplets file: its columns as arrays, by name."""

    def __init__(self, path: str | os.PathLike) -> None:
        with open_checked(path, ["triplets"]) as file:
            self.path, self.attributes = Path(path), dict(file.attrs)
            self.columns = {name: file[name][:] for name in KINDS["triplets"].columns}

    def __len__(self) -> int:
        return len(self.columns["anchor"])

    @property
    def classes(self) -> list[str]:
        """Names of the classes that supervised triplets refer to."""
        return json.loads(self.attributes["classes"])

    @property
    def supervised(self) -> bool:
        """Whether any triplet is one of a class."""
        return bool((self.columns["class"] >= 0).any())

    def require_features(self, features) -> None:
        """Raise FormatError unless these recipes were drawn for exactly this features file."""
        if self.attributes["features"] != features.attributes["uuid"]:
            raise FormatError(
                f"{text(self.path)} was drawn for another features file than {text(features.path)}; "
                f"draw it again with soundssl sample-triplets"
            )
        if self.attributes["window_frames"] != features.window:
            raise FormatError(
                f"{text(self.path)} was drawn for windows of {self.attributes['window_frames']} frames, those of "
                f"{text(features.path)} have {features.window}; draw it again with soundssl sample-triplets"
            )


def read_scores(path: str | os.PathLike) -> list[dict]:
    """Return the rows of a score file (JSON lines written by evaluate); raise Missing or FormatError."""
    try:
        rows = [json.loads(line) for line in require(path).read_text("utf-8").splitlines() if line.strip()]
        if rows and all({"metric", "class", "value"} <= row.keys() for row in rows):
            return rows
    except (ValueError, AttributeError) as error:
        raise FormatError(
            f"{text(path)} is not a score file: {error}; write one with soundssl evaluate … -o"
        ) from error
    raise FormatError(f"{text(path)} is not a score file; write one with soundssl evaluate … -o")


def read_matrix(path: str | os.PathLike | io.BytesIO) -> np.ndarray:
    """Return the matrix of an NPY file as a memory map (or of its bytes); raise Missing or FormatError."""
    path = path if isinstance(path, io.BytesIO) else require(path)
    name = "standard input" if isinstance(path, io.BytesIO) else text(path)
    try:
        with np.errstate(over="ignore"):  # of a shape that no file has
            matrix = np.load(path, mmap_mode=None if isinstance(path, io.BytesIO) else "r", allow_pickle=False)
    except (*TORN, EOFError, SyntaxError, tokenize.TokenError) as error:  # the header is a literal of Python
        raise FormatError(f"{name} is not an NPY matrix: {error}; write one with soundssl embed -o X.npy") from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise FormatError(f"{name} holds {matrix.dtype} of shape {list(matrix.shape)}, not a matrix of floats")
    return matrix


def identity(role: str, path: str | os.PathLike, attributes) -> dict[str, str]:
    """Return what `inputs` says of one file of ours: its role, file name and uuid."""
    return {"role": role, "file": text(Path(path).name), "uuid": str(attributes["uuid"])}

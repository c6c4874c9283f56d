"""Writing: one way to put a file under its final name, whole or not at all, with its provenance inside."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from soundssl import SoundsslError, __version__
from soundssl.files.outputs import naming, replace
from soundssl.files.probe import trust
from soundssl.files.schema import ENDLESS, KINDS, check, type_name
from soundssl.files.trust import items

STRING = h5py.string_dtype("utf-8")
BLOCK = 1 << 24  # bytes of a matrix copied at once
SUMMARISED = {"frames"}  # columns whose mean says whether they are finite, which takes nothing


def digest(*parts: object) -> str:
    """Return 32 hexadecimal digits that stand for JSON-serialisable parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def provenance(kind: str, inputs: list[dict], made_from: str, command: str | None = None) -> dict[str, str | int]:
    """Return the attributes that every file carries; without one the uuid is that of the content."""
    attributes: dict[str, str | int] = {
        "kind": kind,
        "schema": KINDS[kind].version if kind in KINDS else 1,
        "soundssl": __version__,
        "inputs": json.dumps(inputs),
        "made_from": made_from,
    }
    if command is not None:
        attributes["command"] = command
        attributes["uuid"] = str(uuid.uuid4())
    return attributes


def require_finite(name: str, values: np.ndarray, first: int = 0) -> None:
    """Raise SoundsslError where a column of numbers, of which `first` is the first row, is not finite.

    NaN is nowhere a number of ours; infinity stands for the end of a clip alone.
    """
    if values.dtype.kind != "f":
        return
    fine = ~np.isnan(values) if name in ENDLESS else np.isfinite(values)
    if not fine.all():
        row = first + int(np.flatnonzero(~fine.reshape(len(values), -1).all(1))[0])
        raise SoundsslError(
            f"{name} would hold numbers that are not finite, first in row {row}, and is not written; "
            f"soundssl info --verify says which input is damaged"
        )


class Sink:
    """Write the datasets of one file in turn; `content` digests them, for files without provenance, or is None."""

    def __init__(self, file: h5py.File, digested: bool, check: Callable[[], None] = lambda: None) -> None:
        self.file, self.check = file, check  # `check` raises OSError where something was not written
        self.content = hashlib.sha256() if digested else None
        self.counted = ""  # the dataset that it was last told of
        self.reserved: dict[str, h5py.Dataset] = {}  # a look-up by name takes longer than writing a short clip

    def write(self, name: str, values) -> None:
        """Write a whole column: an array, or a list of strings; raise SoundsslError for numbers that are not finite."""
        if isinstance(values, list) or getattr(values, "dtype", np.dtype("f4")).kind in "OSU":
            strings = [str(value) for value in values]
            self.file.create_dataset(name, data=np.array(strings, dtype=object), dtype=STRING, shape=(len(strings),))
            self.count(name, "\0".join(strings).encode())
            return
        array = np.asarray(values)
        if array.ndim > 1 and not array.flags.c_contiguous:  # a copy of the whole may not fit in memory
            self.reserve(name, array.shape, array.dtype.str[1:])
            step = max(1, BLOCK // max(1, array[:1].nbytes))
            for low in range(0, len(array), step):
                self.fill(name, low, array[low : low + step])
            return
        array = np.ascontiguousarray(array)
        require_finite(name, array)
        self.file.create_dataset(name, data=array)
        self.check()
        self.count(name, array)

    def reserve(self, name: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
        """Create an empty contiguous dataset to be filled through `fill` from its first row to its last."""
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)  # its place in the file is known before anything is written
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        self.reserved[name] = self.file.create_dataset(name, shape=shape, dtype=dtype, dcpl=early)
        return self.reserved[name]

    def refer(self, name: str, shape: tuple[int, ...], dtype: np.dtype, sources: Sequence[tuple[str, int]]) -> None:
        """Write a dataset whose rows lie in the dataset of that name of other files; `sources` are (file, rows)."""
        about, row = h5py.h5p.create(h5py.h5p.DATASET_CREATE), 0
        about.set_layout(h5py.h5d.VIRTUAL)
        about.set_obj_track_times(False)  # else equal runs differ by the time of day
        for file, rows in sources:
            here, there = h5py.h5s.create_simple(shape), h5py.h5s.create_simple((rows, *shape[1:]))
            here.select_hyperslab((row, *[0] * (len(shape) - 1)), (rows, *shape[1:]))
            about.set_virtual(here, os.fsencode(file), name.encode(), there)
            row += rows
        kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
        h5py.h5d.create(self.file.id, name.encode(), kind, h5py.h5s.create_simple(shape), dcpl=about)
        self.check()

    def fill(self, name: str, row: int, values: np.ndarray) -> int:
        """Write `values` into rows from `row` on; return the next row.

        Raises OSError with the file's name, and SoundsslError for numbers that are not finite.
        """
        dataset = self.reserved[name]
        if name not in SUMMARISED:
            require_finite(name, np.asarray(values), row)
        dataset[row : row + len(values)] = values
        self.check()
        self.count(name, np.ascontiguousarray(values, dtype=dataset.dtype))
        return row + len(values)

    def count(self, name: str, data: bytes | np.ndarray) -> None:
        """Let the digest of the content know of contiguous data; a dataset's from its first row to its last."""
        if self.content is None:
            return
        if name != self.counted:  # once, into how many blocks it may be cut
            self.content.update(f"\0{name}\0".encode())
            self.counted = name
        self.content.update(data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def create(
    path: str | os.PathLike,
    kind: str,
    *,
    inputs: list[dict],
    made_from: str,
    attributes: Mapping[str, object],
    command: str | None = None,
) -> Iterator[Sink]:
    """Yield a Sink; on success check the schema and rename the whole file to `path`.

    `command` is the command line that makes it; without one, equal runs give equal bytes. Raises ValueError when what
    was written does not fit the schema of `kind`.
    """
    # No lock: network file systems refuse it, and the partial file is this process's own.
    with replace(path) as partial, _opened(partial) as (file, disk):
        sink = Sink(file, digested=command is None, check=disk.check)
        yield sink
        shared = provenance(kind, inputs, made_from, command)
        if sink.content is not None:
            sink.content.update(json.dumps([shared, dict(attributes)], sort_keys=True, default=str).encode())
            shared["uuid"] = str(uuid.UUID(sink.content.hexdigest()[:32]))
        for name, value in {**shared, **attributes}.items():
            file.attrs[name] = value
        check(KINDS[kind], datasets(file))
    trust(path)


class Disk:
    """Be the file that HDF5 writes to, and remember what it could not write: `check` raises that OSError.

    HDF5 cannot close a file that it cannot write to the end, and says so at length when the program ends. So it is told
    that all is well, until the file is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.error = path, None  # type: tuple[Path, OSError | None]
        self.file = open(path, "w+b", buffering=0)  # noqa: SIM115 (open until `close`)
        self.seek, self.tell, self.readinto = self.file.seek, self.file.tell, self.file.readinto
        self.flush, self.close = self.file.flush, self.file.close

    def read(self, count: int) -> bytes:
        """Read bytes from the position on."""
        return self.file.read(count) or b""

    def write(self, data: memoryview) -> int:
        """Write bytes at the position."""
        left = memoryview(data).cast("B")
        with self._noting():
            while len(left) and self.error is None:
                left = left[self.file.write(left) :]
        return len(data)

    def truncate(self, size: int) -> int:
        """Make the file so long."""
        with self._noting():
            self.file.truncate(size)
        return size

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or OSError(error.errno, error.strerror, os.fspath(self.path))

    def check(self) -> None:
        """Raise what went wrong first, if anything did."""
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.File, Disk]]:
    """Yield a new file, and the disk that it is written to; raise OSError where not all of it could be written."""
    disk = Disk(path)
    try:
        with h5py.File(disk, "w", locking=False) as file:
            yield file, disk
        disk.check()
    except Exception:
        disk.check()  # the reason of all that followed
        raise
    finally:
        disk.close()


def datasets(file: h5py.File) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name → type and shape of every dataset of an open file."""
    return {name: (type_name(item.dtype), item.shape) for name, item in items(file) if isinstance(item, h5py.Dataset)}


class Log:
    """Append JSON lines to a file beside an output; a run that goes on first cuts back what its state does not know."""

    def __init__(self, path: str | os.PathLike | None) -> None:
        self.path = None if path is None else Path(path)

    def cut_back(self, known: Callable[[dict], bool]) -> dict | None:
        """Keep the leading lines for which `known` holds; return the last of them, None where there is none."""
        if self.path is None:
            return None
        kept = []
        if self.path.is_file():
            for line in self.path.read_text("utf-8").splitlines(keepends=True):
                if not line.endswith("\n") or not _knows(known, line):
                    break
                kept.append(line)
        with replace(self.path) as partial:
            partial.write_text("".join(kept), "utf-8")
        return json.loads(kept[-1]) if kept else None

    def write(self, line: dict) -> None:
        """Append one line with the time of day, UTC; a log without a path takes none.

        A figure that is not finite is null, as JSON has it.
        """
        if self.path is None:
            return
        said = {
            name: None if isinstance(each, float) and not math.isfinite(each) else each for name, each in line.items()
        }
        said["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        with naming(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(said, allow_nan=False) + "\n")


def _knows(known: Callable[[dict], bool], line: str) -> bool:
    try:
        return known(json.loads(line))
    except ValueError:  # torn by a crash of the machine
        return False


def write_matrix(
    place: str | os.PathLike | BinaryIO, shape: tuple[int, int], dtype: str, blocks: Iterator[np.ndarray]
) -> None:
    """Write blocks of rows as one NPY matrix, to a file whole or not at all, or to an open stream."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}

    def write(stream: BinaryIO) -> None:
        np.lib.format.write_array_header_2_0(stream, header)
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype).data)
        stream.flush()

    if not isinstance(place, str | os.PathLike):
        write(place)
        return
    with replace(place, through=True) as partial, open(partial, "wb") as stream:
        write(stream)


def write_embeddings(sink: Sink, batches: Iterator, count: int, size: int, dtype: str, clips, chosen=None) -> None:
    """Write (vectors, windows) batches and the clip table into an embeddings file, or of it the clips `chosen`."""
    chosen = np.ones(len(clips), bool) if chosen is None else chosen
    number = np.cumsum(chosen) - 1
    sink.reserve("embedding", (count, size), dtype)
    row, clip, start = 0, [], []
    for vectors, windows in batches:
        row = sink.fill("embedding", row, vectors)
        clip.append(number[windows.clip])
        start.append(windows.start)
    sink.write("window/clip", np.concatenate([np.empty(0), *clip]).astype("i4"))
    sink.write("window/start", np.concatenate([np.empty(0), *start]))
    for name in ("key", "recording", "split", "source"):
        sink.write(f"clip/{name}", getattr(clips, name)[chosen])
    sink.write("clip/start", clips.start[chosen])

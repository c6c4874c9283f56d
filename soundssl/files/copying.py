"""Copying: rows that lie in stretches of many files into one dataset, a block at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from soundssl.files.outputs import text
from soundssl.files.reading import FormatError
from soundssl.files.statistics import statistics_of
from soundssl.files.writing import Sink, require_finite

BLOCK = 1 << 20  # bytes copied at a time: with a quarter of that, a fifth of the time goes into calls of HDF5
OPEN_FILES = 64  # held open: every worker that died left two

Stretch = tuple[Path, int, int]  # a file, where in it the rows begin, and how many bytes they take


def read_rows(stretches: Iterable[Stretch], row_bytes: int) -> Iterator[memoryview]:
    """Yield blocks of whole rows, as bytes that hold until the next are asked for.

    Raises FormatError where a file is shorter.
    """
    block, filled = memoryview(bytearray(max(1, BLOCK // row_bytes) * row_bytes)), 0
    with contextlib.closing(_Files()) as files:
        for path, at, left in stretches:
            while left:
                count = files.read_into(block[filled : filled + left], path, at)
                at, left, filled = at + count, left - count, filled + count
                if filled == len(block):
                    yield block
                    filled = 0
    if filled:
        yield block[:filled]


class _Files:
    """Keep files open from which blocks are read in turn."""

    def __init__(self) -> None:
        self.opened: dict[Path, BinaryIO] = {}

    def read_into(self, block: memoryview, path: Path, at: int) -> int:
        """Read bytes from a position on; return how many. Raises FormatError where there are none."""
        if path not in self.opened:
            if len(self.opened) == OPEN_FILES:
                self.opened.pop(next(iter(self.opened))).close()
            self.opened[path] = open(path, "rb", buffering=0)  # noqa: SIM115 (open until `close`)
        self.opened[path].seek(at)
        count = self.opened[path].readinto(block)  # type: ignore[attr-defined]
        if not count:
            raise FormatError(f"{text(path)} is shorter than was noted; make it again")
        return count

    def close(self) -> None:
        """Close the files."""
        for file in self.opened.values():
            file.close()


def copy_frames(
    sink: Sink, name: str, stretches: Iterable[Stretch], shape: tuple[int, ...], dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Fill a new dataset of `shape` from stretches; return the mean and the deviation of its bands.

    Shape: `[bands]`, float32, of a waveform `[1]`. Raises FormatError where a file is shorter, and SoundsslError for
    frames that are not finite.
    """
    sink.reserve(name, shape, dtype)
    bands = shape[1] if len(shape) > 1 else 1
    found, row = statistics_of(np.empty((0, bands))), 0
    for block in read_rows(stretches, bands * np.dtype(dtype).itemsize):
        values = np.frombuffer(block, dtype).reshape(-1, bands)
        here = statistics_of(values)
        if not np.isfinite(here.mean).all():
            require_finite(name, values, row)
        row = sink.fill(name, row, values.reshape(-1, *shape[1:]))
        found = found.merge(here)
    return found.summary()

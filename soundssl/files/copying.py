"""Copying: rows that lie in stretches of many files into one dataset, a block at a time."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from soundssl.files.moments import Moments, merge_moments, moments_of, summary_of
from soundssl.files.outputs import text
from soundssl.files.reading import FormatError
from soundssl.files.writing import Sink

BLOCK = 1 << 21  # bytes copied at a time: threads of Python need time to take turns, and short ones take many
ROOM = 1 << 17  # numbers whose moments are taken at a time: in float64 half of what a core caches
THREADS = 2  # that copy, beside one that waits for the disk, or copies too: most of it is waiting for new pages
SETTLED = 1 << 23  # bytes copied after which the disk is set to work, so that it need not begin when all is copied
OPEN_FILES = 64  # held open for each block: every worker that died left two

Stretch = tuple[Path, int, int]  # a file, where in it the rows begin, and how many bytes they take


class _Room:
    """Hold one block after another, read from files that stay open."""

    def __init__(self, size: int) -> None:
        self.block = memoryview(bytearray(size))
        self.files: dict[Path, int] = {}

    def read(self, stretches: list[Stretch]) -> memoryview:
        """Return the bytes of stretches in turn, which hold until the next are read."""
        filled = 0
        for path, at, left in stretches:
            while left:
                count = _read_into(self.block[filled : filled + left], self._opened(path), at)
                if not count:
                    raise FormatError(f"{text(path)} is shorter than was noted; make it again")
                at, left, filled = at + count, left - count, filled + count
        return self.block[:filled]

    def _opened(self, path: Path) -> int:
        if path not in self.files:
            if len(self.files) == OPEN_FILES:
                os.close(self.files.pop(next(iter(self.files))))
            self.files[path] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        return self.files[path]

    def close(self) -> None:
        """Close the files."""
        while self.files:
            os.close(self.files.popitem()[1])


def _read_into(block: memoryview, descriptor: int, at: int) -> int:
    """Read bytes from a position on; return how many. Windows has no preadv, macOS has one since its eleventh."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [block], at)
    os.lseek(descriptor, at, os.SEEK_SET)
    data = os.read(descriptor, len(block))
    block[: len(data)] = data
    return len(data)


def _rows_of_block(row_bytes: int) -> int:
    return max(1, BLOCK // row_bytes)


def _blocks(stretches: Iterable[Stretch], size: int) -> Iterator[list[Stretch]]:
    """Cut stretches into blocks of `size` bytes; the last may have fewer."""
    block, free = list[Stretch](), size
    for path, at, left in stretches:
        while left:
            count = min(left, free)
            block.append((path, at, count))
            at, left, free = at + count, left - count, free - count
            if not free:
                yield block
                block, free = [], size
    if block:
        yield block


def read_rows(stretches: Iterable[Stretch], row_bytes: int) -> Iterator[memoryview]:
    """Yield blocks of whole rows, as bytes that hold until the next are asked for.

    Raises FormatError where a file is shorter.
    """
    size = _rows_of_block(row_bytes) * row_bytes
    with contextlib.closing(_Room(size)) as room:
        yield from map(room.read, _blocks(stretches, size))


@contextlib.contextmanager
def _threads(count: int) -> Iterator[Callable[..., Future]]:
    """Yield what submits work to threads; it has ended when the body has, however often that is interrupted.

    The files it reads and writes are closed then, and others may be opened under their numbers.
    """
    pool, given, interruption = ThreadPoolExecutor(count), set[Future](), None

    def submit(work: Callable, *arguments: Any) -> Future:
        future = pool.submit(work, *arguments)
        given.add(future)
        future.add_done_callback(given.discard)
        return future

    try:
        yield submit
    finally:
        ended = False
        while not ended:
            try:
                pool.shutdown(wait=False, cancel_futures=True)
                wait(list(given))  # and not for the threads: joining one that was interrupted returns at once (3.11)
                ended = True
            except (KeyboardInterrupt, SystemExit) as error:
                interruption = error
    if interruption is not None:
        raise interruption


def copy_frames(
    sink: Sink, name: str, stretches: Iterable[Stretch], shape: tuple[int, ...], dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Fill a new dataset of `shape` from stretches; return the mean and the deviation of its bands.

    Each of some threads reads a block, writes it and takes its moments; these are merged in the order of the rows.
    Shape: `[bands]`, float32, of a waveform `[1]`. Raises FormatError where a file is shorter.
    """
    sink.reserve(name, shape, dtype)
    bands = shape[1] if len(shape) > 1 else 1
    row_bytes = bands * np.dtype(dtype).itemsize
    rows = _rows_of_block(row_bytes)

    def lay(number: int, block: list[Stretch], room: _Room, floats: np.ndarray) -> tuple[np.ndarray, Moments]:
        values = np.frombuffer(room.read(block), dtype).reshape(-1, bands)
        sink.place(name, number * rows, values.reshape(-1, *shape[1:]))
        return values, moments_of(values, floats)

    moments, copied = moments_of(np.empty((0, bands))), 0
    with contextlib.ExitStack() as stack, _threads(THREADS + 1) as submit:
        rooms = [stack.enter_context(contextlib.closing(_Room(rows * row_bytes))) for _ in range(THREADS + 1)]
        places = itertools.cycle([(room, np.empty((max(1, ROOM // bands), bands))) for room in rooms])
        blocks = enumerate(_blocks(stretches, rows * row_bytes))
        under_way = collections.deque(
            submit(lay, *block, *next(places)) for block in itertools.islice(blocks, len(rooms))
        )
        settling = submit(sink.settle)
        while under_way:
            values, others = under_way.popleft().result()
            sink.count(name, values)
            moments, copied = merge_moments(moments, others), copied + values.nbytes
            if copied >= SETTLED and settling.done():
                settling.result()
                settling, copied = submit(sink.settle), 0
            under_way.extend(submit(lay, *block, *next(places)) for block in itertools.islice(blocks, 1))
        settling.result()
    return summary_of(moments)

"""Keeping: vectors that are done, beside the output they are for, so that a killed embed goes on from there."""

from __future__ import annotations

import os

import numpy as np

from soundssl.files.outputs import Lock
from soundssl.files.spooling import JOURNAL, parts_of, remove_parts


class Vectors:
    """Keep the batches of vectors of one output in `OUTPUT.parts/`, until it is written whole.

    Those of an interrupted run with the same `made_from` are there again, unless `afresh`. Raises SoundsslError while
    another run writes the same output.
    """

    def __init__(self, output: str | os.PathLike, made_from: str, width: int, dtype: str, afresh: bool) -> None:
        self.width, self.dtype, self.folder = width, np.dtype(dtype), parts_of(output)
        self.lock = Lock(output)
        self.folder.mkdir(exist_ok=True)
        self.journal = open(self.folder / JOURNAL, "a+", encoding="utf-8")  # noqa: SIM115 (open until `close`)
        self.journal.seek(0)
        known = self.journal.read() == made_from and not afresh
        self.file = open(self.folder / "vectors", "r+b" if known else "w+b")  # noqa: SIM115 (open until `close`)
        self.left = os.fstat(self.file.fileno()).st_size // self._bytes(1)  # rows of before, not yet taken
        self.journal.truncate(0)
        self.journal.write(made_from)
        self.journal.flush()

    def _bytes(self, rows: int) -> int:
        return rows * self.width * self.dtype.itemsize

    def take(self, count: int) -> np.ndarray | None:
        """Return the next batch of so many rows where an earlier run made it; None from the first that it did not."""
        if self.left < count:
            self.left = 0
            self.file.truncate(self.file.tell())
            return None
        self.left -= count
        return np.frombuffer(self.file.read(self._bytes(count)), self.dtype).reshape(count, self.width)

    def add(self, vectors: np.ndarray) -> None:
        """Append a batch. Shape: `[n, width]`."""
        self.file.write(np.ascontiguousarray(vectors, self.dtype).data)
        self.file.flush()

    def close(self) -> None:
        """Let go of the folder; what is in it stays, for the run that goes on."""
        self.file.close()
        self.journal.close()
        self.lock.release()

    def discard(self) -> None:
        """Remove the folder: the output is written."""
        self.file.close()
        self.journal.close()
        try:
            remove_parts(self.folder)
        finally:
            self.lock.release()

"""Keeping: vectors that are done, beside the output they are for, so that a killed embed goes on from there."""

from __future__ import annotations

import json
import os

import numpy as np

from soundssl.files.outputs import Lock, naming
from soundssl.files.spooling import JOURNAL, claim, remove_spool, spool_folder

VECTORS = "vectors"  # within OUTPUT.parts/


class Vectors:
    """Keep the batches of vectors of one output in `OUTPUT.parts/`, until it is written whole.

    `shape` is that of a batch: rows and width. The whole batches of an interrupted run with the same `made_from` are
    there again, `done` rows of them, unless `afresh`. Raises SoundsslError while another run writes the same output.
    """

    def __init__(
        self, output: str | os.PathLike, made_from: str, shape: tuple[int, int], dtype: str, afresh: bool = False
    ) -> None:
        self.shape, self.dtype, self.folder = shape, np.dtype(dtype), spool_folder(output)
        self.lock = Lock(output)
        try:
            claim(self.folder)
        except BaseException:
            self.lock.release()
            raise
        line = json.dumps({"made_from": made_from}) + "\n"
        self.journal = open(self.folder / JOURNAL, "a+", encoding="utf-8")  # noqa: SIM115 (open until `close`)
        self.journal.seek(0)
        known = self.journal.read() == line and not afresh
        self.file = open(self.folder / VECTORS, "r+b" if known else "w+b", buffering=0)  # noqa: SIM115 (open until `close`)
        self.size = shape[0] * shape[1] * self.dtype.itemsize  # bytes of a batch
        whole = os.fstat(self.file.fileno()).st_size // self.size
        self.file.truncate(whole * self.size)  # what a kill cut through, and a short last batch, are made again
        self.done = whole * shape[0]
        self.journal.truncate(0)
        self.journal.write(line)
        self.journal.flush()

    def take(self) -> np.ndarray | None:
        """Return the next batch where an earlier run made it, else None: then it is to be added. Shape: `shape`."""
        data = self.file.read(self.size)
        return np.frombuffer(data, self.dtype).reshape(self.shape) if data else None

    def add(self, vectors: np.ndarray) -> None:
        """Append a batch. Shape: `[n, width]`."""
        with naming(self.folder / VECTORS):
            data = np.ascontiguousarray(vectors, self.dtype).reshape(-1).view(np.uint8).data
            while data:
                data = data[self.file.write(data) :]

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
            remove_spool(self.folder)
        finally:
            self.lock.release()

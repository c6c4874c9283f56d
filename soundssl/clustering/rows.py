"""Embeddings as rows: of a file, of a matrix, averaged over their surroundings; read block by block, or drawn."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from soundssl import SoundsslError, files
from soundssl.files.reading import Array

BLOCK = 1 << 14  # rows read and assigned at a time
LARGEST = 1e15  # length of a row: the squares of millions still sum to a number of 32 bits
NEAR = 1e-6  # seconds by which times may miss one another through rounding
MAGIC = b"\x93NUMPY"  # the first bytes of an NPY file


@dataclass
class Rows:
    """Hold a matrix of embeddings `[n, d]`, read by slice or by rising row numbers, and what its file says of rows.

    With a context, a row is the mean of the rows whose windows start at most half of it before or after, in its clip.
    Where `chosen` is given, only the rows of these numbers are there. `name` is what messages call it, `identity` what
    an output says that it was made from.
    """

    matrix: np.ndarray | Array
    name: str = "the matrix"
    identity: dict[str, str] = field(default_factory=dict)
    file: files.Embeddings | None = None
    chosen: np.ndarray | None = None
    context: float = 0.0  # seconds

    @property
    def size(self) -> int:
        """Numbers in an embedding."""
        return int(self.matrix.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers in each."""
        return len(self), self.size

    def __len__(self) -> int:
        return len(self.matrix) if self.chosen is None else len(self.chosen)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if self.chosen is not None:
            rows = self.chosen[rows]
        if not self.context or self.file is None:
            return self.matrix[rows]
        numbers = np.asarray(range(len(self.matrix))[rows] if isinstance(rows, slice) else rows)
        return _means(self.matrix, *_around(self.file.clip, self.file.start, numbers, self.context / 2))

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the rows in blocks, as float32, each with the number of its first.

        Raises SoundsslError for a row that is not finite, or too large to be compared.
        """
        for first in range(0, len(self), BLOCK):
            with np.errstate(over="ignore"):
                rows = np.array(self[slice(first, min(first + BLOCK, len(self)))], np.float32)
            _require_comparable(rows, np.arange(first, first + len(rows)))
            yield first, rows

    def choose(self, splits: Sequence[str] | None) -> Rows:
        """Return the rows of the clips of these splits; raise SoundsslError where there are none."""
        if not splits:
            return self
        if self.file is None:
            raise SoundsslError(f"{self.name} is a bare matrix and has no splits; leave out --split")
        return replace(self, chosen=np.flatnonzero(self.file.clips.in_splits(splits, self.name)[self.file.clip]))

    def averaged(self, seconds: float) -> Rows:
        """Return the rows averaged over windows of their clip that lie within so many seconds, half of them each way.

        Raises SoundsslError for a bare matrix, and for windows that do not lie clip by clip, in rising order.
        """
        if not seconds:
            return self
        if self.file is None:
            raise SoundsslError(f"{self.name} is a bare matrix, without clips and times; leave out --context")
        clip, start = self.file.clip, self.file.start
        for first in range(0, len(clip), BLOCK):
            block = slice(first, first + BLOCK + 1)
            rising, same = np.diff(clip[block]), np.diff(start[block])[np.diff(clip[block]) == 0]
            if (rising < 0).any() or (same < 0).any():
                raise SoundsslError(f"the windows of {self.name} are not in the order of their clips; give --context 0")
        return replace(self, context=seconds)

    def sample(self, count: int, seed: int) -> np.ndarray:
        """Return rows drawn at random, in rising order, as float32; raise SoundsslError as `blocks` does."""
        drawn = np.sort(np.random.default_rng(seed).choice(len(self), min(count, len(self)), replace=False))
        with np.errstate(over="ignore"):
            rows = np.asarray(self[drawn], np.float32)
        _require_comparable(rows, drawn)
        return rows


def _require_comparable(rows: np.ndarray, numbers: np.ndarray) -> None:
    """Raise SoundsslError for a row that is not finite, or so large that sums of squared distances are not."""
    with np.errstate(over="ignore", invalid="ignore"):
        square = np.einsum("nd,nd->n", rows, rows)
    if not (fine := square <= LARGEST**2).all():  # NaN is not less
        row = int(np.flatnonzero(~fine)[0])
        said = f"has a length beyond {LARGEST:g}" if np.isfinite(rows[row]).all() else "is not finite"
        raise SoundsslError(f"row {numbers[row]} of the embeddings {said}; leave such rows out, or scale all of them")


def _around(clip: np.ndarray, start: np.ndarray, rows: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the end of the range of rows within reach of each of some rows, stepping outwards."""
    ends = []
    for step, last in ((-1, 0), (1, len(clip) - 1)):
        at, going = rows.copy(), rows != last
        while going.any():
            following, own = at[going] + step, rows[going]
            near = (clip[following] == clip[own]) & (abs(start[following] - start[own]) <= reach + NEAR)
            at[going] += np.where(near, step, 0)
            going[going] = near & (at[going] != last)
        ends.append(at)
    return ends[0], ends[1] + 1


def _means(matrix: np.ndarray | Array, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the means of ranges of rows, as float32, reading each row once. Shape: low, high `[n]` to `[n, d]`."""
    count = high - low
    first = np.cumsum(count) - count
    wanted, place = np.unique(np.repeat(low - first, count) + np.arange(count.sum()), return_inverse=True)
    rows = np.asarray(matrix[wanted], np.float32)[place]
    return np.add.reduceat(rows, first, axis=0) / count[:, None].astype(np.float32)


def read_rows(given: Rows | np.ndarray | str | os.PathLike, name: str | None = None) -> Rows:
    """Return the rows of a matrix `[n, d]`, an embeddings file or an NPY matrix; rows as they are.

    `name` is what messages and the output call an NPY matrix that comes from elsewhere. Raises ValueError for other
    arrays, Missing and FormatError for other files, SoundsslError where there is no row.
    """
    if isinstance(given, str | os.PathLike):
        rows = _from_file(Path(given), name)
    elif isinstance(given, Rows):
        rows = given
    else:
        matrix = np.asarray(given)
        if matrix.ndim != 2 or matrix.dtype.kind != "f":
            raise ValueError(f"{matrix.dtype} of shape {list(matrix.shape)} is not a matrix of floats")
        rows = Rows(matrix)
    if not len(rows) or not rows.size:
        raise SoundsslError(f"{rows.name} holds no embedding; there is nothing to cluster")
    return rows


def _from_file(path: Path, name: str | None) -> Rows:
    called = name or files.text(path)
    if files.kind_of(path) is not None:
        opened = files.Embeddings(path)
        return Rows(opened.embedding, called, files.identity("embeddings", path, opened.attributes), opened)
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise files.FormatError(f"{called} is not an embeddings file; make embeddings with soundssl embed")
        content = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    identity = {"role": "embeddings", "file": name or files.text(path.name), "uuid": content}
    return Rows(files.read_matrix(path), called, identity)

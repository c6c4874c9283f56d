"""Embeddings for other programs: a row a window as CSV or Parquet, with the clip, the file to listen to and the times.

The columns are clip, split, file, start and end, in seconds into the file, and the vector: in CSV one column a number,
`e0` on; in Parquet one column `embedding` of lists of equal length. A CSV cell that a spreadsheet would take for a
formula has an apostrophe before it.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from soundssl.dependencies import needed
from soundssl.files.features import Windows
from soundssl.files.outputs import replace
from soundssl.files.reading import Clips
from soundssl.tables import text_cell

ENDINGS = (".csv", ".parquet")
COLUMNS = ("clip", "split", "file", "start", "end")
DIGITS = 9  # that tell every two numbers of 32 bits apart

Batches = Iterator[tuple[np.ndarray, Windows]]


def require_parquet() -> None:
    """Raise DependencyError where Parquet cannot be written."""
    with needed("a Parquet file", "pyarrow", "pip install 'soundssl[parquet]', or name the output .csv"):
        import pyarrow.parquet  # noqa: F401


def write_table(
    path: str | os.PathLike, batches: Batches, clips: Clips, length: float, width: int, dtype: str = "float32"
) -> None:
    """Write vectors with their windows, of `length` seconds each, as the ending of the path says; whole or not at all.

    Shape: a batch is vectors `[n, width]` and windows `[n]`. Raises DependencyError for Parquet without pyarrow.
    """
    write = {".csv": _write_csv, ".parquet": _write_parquet}[Path(path).suffix.lower()]
    with replace(path, through=True) as partial:
        write(partial, batches, clips, length, width, dtype)


def _places(windows: Windows, clips: Clips, length: float) -> list[list]:
    """Return the columns of some windows."""
    file, start = clips.heard(windows.clip, windows.start)
    names = (clips.key[windows.clip], clips.split[windows.clip], file)
    return [*([str(name) for name in column] for column in names), start.tolist(), (start + length).tolist()]


def _write_csv(path: Path, batches: Batches, clips: Clips, length: float, width: int, dtype: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *(f"e{i}" for i in range(width))])
        for vectors, windows in batches:
            *names, start, end = _places(windows, clips, length)
            cells = [[text_cell(name) for name in column] for column in names]
            times = [[f"{time:.6f}".rstrip("0").rstrip(".") for time in column] for column in (start, end)]
            numbers = [[f"{value:.{DIGITS}g}" for value in vector] for vector in vectors.tolist()]
            writer.writerows([*place, *row] for *place, row in zip(*cells, *times, numbers, strict=True))


def _write_parquet(path: Path, batches: Batches, clips: Clips, length: float, width: int, dtype: str) -> None:
    require_parquet()
    import pyarrow
    from pyarrow import parquet

    number = pyarrow.from_numpy_dtype(np.dtype(dtype))
    types = [*[pyarrow.string()] * 3, *[pyarrow.float64()] * 2, pyarrow.list_(number, width)]
    schema = pyarrow.schema(list(zip((*COLUMNS, "embedding"), types, strict=True)))
    with parquet.ParquetWriter(path, schema) as writer:
        for vectors, windows in batches:
            flat = pyarrow.array(np.ascontiguousarray(vectors, dtype).reshape(-1), number)
            lists = pyarrow.FixedSizeListArray.from_arrays(flat, width)
            columns = [pyarrow.array(*each) for each in zip(_places(windows, clips, length), types[:-1], strict=True)]
            writer.write_batch(pyarrow.RecordBatch.from_arrays([*columns, lists], schema=schema))

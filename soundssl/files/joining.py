"""Joining: several files of one kind as one, whose rows stay where they are (virtual datasets) or are copied.

HDF5 reads zeros, in silence, where the file behind a virtual dataset is missing. So a joined file names its parts with
their identities, and opening it fails with the name of a part that is missing or is another one now.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from soundssl.files.features import FRONT_END
from soundssl.files.outputs import Unusable, guard, guard_inputs, text
from soundssl.files.probe import probe
from soundssl.files.reading import FormatError, identity, kind_of, open_checked
from soundssl.files.schema import KINDS, SHARED_ATTRIBUTES
from soundssl.files.spooling import Store, column, order, read_entries
from soundssl.files.statistics import merge_summaries
from soundssl.files.writing import Sink, create, digest

BLOCK = 1 << 16  # rows looked at at a time

# Attributes in which parts must agree; what else differs is left out of the joined file.
AGREE = {
    "features": (*FRONT_END, "image_rate", "processors"),
    "embeddings": ("layer", "hop", "window", "class", "model", "raw"),
}
ROWS = {"features": ("frames", "images"), "embeddings": ("embedding",)}
DERIVED = ("clip/offset", "clip/image_offset", "mean", "deviation", "part/file", "part/uuid")
GONE = ("clip/error", "storage_error")  # columns and attributes of files of earlier versions that are not joined


def join(
    kind: str,
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    copy: bool = False,
    command: str | None = None,
) -> int:
    """Join features or embeddings files to one and return its clips; rows stay where they are unless copied.

    Raises FormatError, Missing, Unusable.
    """
    guard(output, no_clobber=False)
    guard_inputs(output, inputs)
    joined = Join(kind, inputs)
    return joined.write(output, copy, command)


def are_features(paths: Sequence[Path]) -> bool:
    """Return whether all are features files; raise FormatError where some are and others are not."""
    kinds = [path.is_file() and kind_of(path) == "features" for path in paths]
    if any(kinds) and not all(kinds):
        path = paths[kinds.index(not kinds[0])]
        raise FormatError(
            f"{text(path)} is {'' if kinds[0] else 'a features file, not media, '}unlike {text(paths[0])}"
            f"{', no features file' if kinds[0] else ''}; give either media or features files to join"
        )
    return all(kinds)


class Rows(NamedTuple):
    """Hold the shape and type of a dataset of rows."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Join:
    """Read what several files of one kind say of themselves; raise FormatError or Missing where they do not fit.

    Rows come in the order of the files' first keys, whatever order the files are given in.
    """

    def __init__(self, kind: str, paths: Sequence[str | os.PathLike]) -> None:
        self.kind, parts = kind, []
        probe(*[path for path in paths if Path(path).is_file()])
        for path in map(Path, paths):
            with open_checked(path, [kind]) as file:
                if "part/file" in file:
                    raise FormatError(f"{text(path)} is joined itself; name its parts, or make it with --copy")
                attributes = {name: value for name, value in file.attrs.items() if name not in SHARED_ATTRIBUTES}
                columns = {name: column(file, name) for name in _tables(kind, file)}
                if kind == "embeddings":
                    _require_finite(path, file["embedding"])
                rows = {name: Rows(file[name].shape, file[name].dtype) for name in ROWS[kind] if name in file}
                parts.append((path, identity(kind, path, file.attrs), attributes, columns, rows))
        parts.sort(key=lambda part: [order(key) for key in part[3]["clip/key"][:1]])
        self.paths, self.identities, self.about, self.columns, self.rows = map(list, zip(*parts, strict=True))
        self.inputs = sorted(self.identities, key=lambda each: (each["file"], each["uuid"]))
        self.attributes = self._agreed()
        self._check_keys()

    def _agreed(self) -> dict[str, object]:
        """Return the attributes that all parts share; raise FormatError for one that they must."""
        first = self.about[0]
        for path, other in zip(self.paths, self.about, strict=True):
            for name in AGREE[self.kind]:
                if other.get(name) != first.get(name):
                    raise FormatError(
                        f"{text(path)} has {name} {other.get(name)}, {text(self.paths[0])} {first.get(name)}; "
                        f"join files that were made alike"
                    )
        for name in ROWS[self.kind]:
            shapes = {(*rows[name].shape[1:], str(rows[name].dtype)) for rows in self.rows if name in rows}
            if len(shapes) > 1:
                raise FormatError(
                    f"the files' {name} differ in type or size: {sorted(map(str, shapes))}; make them alike"
                )
        agreed = {name: value for name, value in first.items() if all(each.get(name) == value for each in self.about)}
        agreed = {name: value for name, value in agreed.items() if name not in GONE}
        if self.kind == "embeddings":
            agreed.setdefault("features", "")
        if len(self.paths) > 1:
            agreed.pop("part", None)
        return agreed

    def _check_keys(self) -> None:
        seen: dict[str, Path] = {}
        for path, columns in zip(self.paths, self.columns, strict=True):
            for key in columns["clip/key"]:
                if key in seen:
                    raise FormatError(
                        f"{text(path)} and {text(seen[key])} have the same key {key}; join each clip once"
                    )
                seen[key] = path

    def made_from(self, copy: bool) -> str:
        """Return what stands for the inputs and how they are joined."""
        return digest(self.kind, self.inputs, copy)

    def write(self, output: str | os.PathLike, copy: bool, command: str | None) -> int:
        """Write the joined file; return its clips."""
        return (self.copy if copy else self.refer)(output, self.made_from(copy), command)

    # ---------------------------------------------------------------- references

    def refer(self, output: str | os.PathLike, made_from: str, command: str | None) -> int:
        """Write a file whose rows are those of the parts, where they lie; return its clips."""
        folder = Path(output).absolute().parent
        names = [_relative(path, folder) for path in self.paths]
        with self._create(output, made_from, command) as sink:
            for name in ROWS[self.kind]:
                self._refer_rows(sink, name, names)
            self._write_columns(sink)
            sink.write("part/file", names)
            sink.write("part/uuid", [each["uuid"] for each in self.identities])
        return sum(len(columns["clip/key"]) for columns in self.columns)

    def _create(self, output, made_from: str, command: str | None):
        return create(
            output,
            self.kind,
            inputs=self.inputs,
            made_from=made_from,
            attributes=self.attributes,
            command=command,
        )

    def _refer_rows(self, sink: Sink, name: str, sources: list[str]) -> None:
        have = [rows.get(name) for rows in self.rows]
        first = next((rows for rows in have if rows is not None), None)
        if first is None:
            return
        shape = (sum(rows.shape[0] for rows in have if rows), *first.shape[1:])
        escaped = [source.replace("%", "%%") for source in sources]  # HDF5 would put block numbers there
        lengths = [
            (source, rows.shape[0]) for source, rows in zip(escaped, have, strict=True) if rows and rows.shape[0]
        ]
        sink.refer(name, shape, first.dtype, lengths)
        sink.count(name, "\0".join(each["uuid"] for each in self.identities).encode())

    def _write_columns(self, sink: Sink) -> None:
        clips = np.array([len(columns["clip/key"]) for columns in self.columns])
        base = np.cumsum(clips) - clips
        for name in self._shared_columns():
            values = [columns[name] for columns in self.columns]
            if name in ("clip/parent", "window/clip"):  # rows of the clip table, which now lies behind others
                values = [np.where(rows < 0, rows, rows + low) for rows, low in zip(values, base, strict=True)]
                values = [rows.astype("i4") for rows in values]
            sink.write(name, np.concatenate(values))
        if self.kind == "features":
            sink.write("clip/offset", self._offsets("clip/offset"))
            if any("images" in rows for rows in self.rows):
                sink.write("clip/image_offset", self._offsets("clip/image_offset"))
            mean, deviation = merge_summaries(
                [(rows["frames"].shape[0], columns["mean"], columns["deviation"]) for rows, columns in self._pairs()]
            )
            sink.write("mean", mean)
            sink.write("deviation", deviation)

    def _pairs(self) -> Iterator[tuple[dict, dict]]:
        return zip(self.rows, self.columns, strict=True)

    def _shared_columns(self) -> list[str]:
        have = set.intersection(*(set(columns) for columns in self.columns))
        return [name for name in KINDS[self.kind].columns if name in have and name not in DERIVED + GONE]

    def _offsets(self, name: str) -> np.ndarray:
        none = [np.zeros(len(columns["clip/key"]) + 1, np.int64) for columns in self.columns]
        counts = [np.diff(columns.get(name, zeros)) for columns, zeros in zip(self.columns, none, strict=True)]
        return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)

    # ---------------------------------------------------------------- copies

    def copy(self, output: str | os.PathLike, made_from: str, command: str | None) -> int:
        """Write a file that holds the rows of all parts, clips sorted by key as one run would; return its clips."""
        return (self._copy_features if self.kind == "features" else self._copy_embeddings)(output, made_from, command)

    def _copy_features(self, output, made_from: str, command: str | None) -> int:
        dtype = self.rows[0]["frames"].dtype.str[1:]
        shape = next((rows["images"].shape[1:3] for rows in self.rows if "images" in rows), (0, 0))
        store = Store(output, self.attributes, dtype, made_from)
        try:
            entries = [entry for path in self.paths for entry in read_entries(path)]
            store.done = {str(number): entry for number, entry in enumerate(entries)}
            return len(store.lay_out(list(store.done), self.inputs, shape, command))
        except BaseException:
            store.discard()
            raise

    def _copy_embeddings(self, output, made_from: str, command: str | None) -> int:
        parts = [(i, row) for i, columns in enumerate(self.columns) for row in range(len(columns["clip/key"]))]
        parts.sort(key=lambda place: order(self.columns[place[0]]["clip/key"][place[1]]))
        windows = [_windows_of(columns) for columns in self.columns]
        rows = [windows[i][row] for i, row in parts]
        with self._create(output, made_from, command) as sink, contextlib.ExitStack() as stack:
            files = [stack.enter_context(h5py.File(path, "r", locking=False)) for path in self.paths]
            total, first = sum(map(len, rows)), self.rows[0]["embedding"]
            sink.reserve("embedding", (total, *first.shape[1:]), first.dtype.str[1:])
            at = 0
            for (i, _), chosen in zip(parts, rows, strict=True):
                if len(chosen):  # the windows of a clip lie together, but for files of other programs
                    block = files[i]["embedding"][chosen.min() : chosen.max() + 1]
                    at = sink.fill("embedding", at, block[chosen - chosen.min()])
            for name in self._shared_columns():
                values = [columns[name] for columns in self.columns]
                if name == "window/clip":
                    sink.write(name, np.repeat(np.arange(len(parts), dtype="i4"), list(map(len, rows))))
                elif name.startswith("window/"):
                    sink.write(
                        name, np.concatenate([values[i][each] for (i, _), each in zip(parts, rows, strict=True)])
                    )
                else:
                    sink.write(name, np.array([values[i][row] for i, row in parts], values[0].dtype))
        return len(parts)


def _require_finite(path: Path, dataset: h5py.Dataset) -> None:
    """Raise FormatError for rows that are not finite; of features the mean says so, which is looked at anyway."""
    for first in range(0, len(dataset), BLOCK):
        if not np.isfinite(dataset[first : first + BLOCK]).all():
            raise FormatError(f"{text(path)} is damaged: its embeddings are not all finite; make it again")


def _windows_of(columns: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the rows of each clip's windows."""
    clip = columns["window/clip"]
    ranked = np.argsort(clip, kind="stable")
    return np.split(ranked, np.searchsorted(clip[ranked], np.arange(1, len(columns["clip/key"]))))


def _tables(kind: str, file: h5py.File) -> list[str]:
    return [name for name in KINDS[kind].columns if name in file and name not in ROWS[kind]]


def _relative(path: Path, folder: Path) -> str:
    name = os.path.relpath(path.absolute(), folder)
    if text(name) != name:
        raise Unusable(f"{text(path)} has a name that is not UTF-8, which HDF5 cannot refer to; --copy takes any name")
    return name

"""Inspection: what is in a file, what it was made from, and whether all of it can be read and is sound."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from soundssl.files.model import model_attributes, not_finite, read_unchecked
from soundssl.files.outputs import text
from soundssl.files.reading import FormatError, attributes_of, open_checked, require, strings
from soundssl.files.schema import ENDLESS, KINDS, SHARED_ATTRIBUTES
from soundssl.files.statistics import statistics_of
from soundssl.files.writing import datasets

BLOCK = 1 << 22  # numbers read at a time: 16 MB of float32


def inspect(path: str | os.PathLike) -> dict[str, object]:
    """Return what a file says of itself: kind, identity, attributes, datasets, counts; raise FormatError or Missing."""
    path = require(path)
    facts: dict[str, object] = {"file": text(path), "bytes": path.stat().st_size}
    if not _is_hdf5(path):
        attributes = model_attributes(path)
        model = read_unchecked(path)
        shapes = {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in model.tensors.items()}
        counts = {"parameters": int(sum(tensor.size for tensor in model.tensors.values()))}
        return {**facts, **_shared(attributes), **counts, "config": model.config, "datasets": shapes}
    with open_checked(path, list(KINDS), columns=False) as file:
        found = {name: f"{kind} {list(shape)}" for name, (kind, shape) in sorted(datasets(file).items())}
        own = {name: _plain(value) for name, value in file.attrs.items() if name not in SHARED_ATTRIBUTES}
        return {**facts, **_shared(file.attrs), **_counts(file), "attributes": own, "datasets": found}


def parts(folder: str | os.PathLike) -> list[dict[str, object]]:
    """Return which parts of larger files lie in a folder, and which are missing or there twice, by kind and total.

    Raises FormatError for a folder without any.
    """
    found: dict[tuple[str, int], list[int]] = {}
    for path in sorted(Path(folder).iterdir()):
        about = attributes_of(path) if path.is_file() else {}
        number, slash, total = str(about.get("part", "")).partition("/")
        if slash:
            found.setdefault((str(about["kind"]), int(total)), []).append(int(number))
    if not found:
        raise FormatError(f"{text(folder)} holds no part of a larger file; name a file, or the folder of parts")
    return [
        {
            "kind": kind,
            "of": total,
            "there": sorted(set(numbers)),
            "missing": sorted(set(range(1, total + 1)) - set(numbers)),
            "twice": sorted({number for number in numbers if numbers.count(number) > 1}),
        }
        for (kind, total), numbers in sorted(found.items())
    ]


def _is_hdf5(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _shared(attributes) -> dict[str, object]:
    names = ("kind", "schema", "soundssl", "command", "uuid")
    return {name: _plain(attributes[name]) for name in names if name in attributes}


def _counts(file: h5py.File) -> dict[str, object]:
    """Return the numbers that people ask for first."""
    found: dict[str, object] = {}
    if "clip/key" in file:
        found["clips"] = len(file["clip/key"])
        found["recordings"] = len(set(strings(file, "clip/recording")))
        if splits := sorted(set(strings(file, "clip/split")) - {""}):
            found["splits"] = splits
    if file.attrs["kind"] == "features":
        found["hours"] = round(len(file["frames"]) / float(file.attrs["frame_rate"]) / 3600, 4)
        found["images"] = len(file["images"]) if "images" in file else 0
        found["skipped"] = len(file["skipped/path"])
        if "clip/peak" in file:
            found["silent"] = int((file["clip/peak"][:] == 0).sum())
            found["clipped"] = int((file["clip/clipped"][:] > 0).sum())
            found["truncated"] = int(file["clip/truncated"][:].sum())
    for name, column in (("windows", "window/clip"), ("triplets", "anchor"), ("segments", "segment/key")):
        if column in file:
            found[name] = len(file[column])
    for name, column in (("clusters", "size"), ("classes", "class")):
        if column in file and file[column].ndim == 1 and file.attrs["kind"] in ("clusters", "labels"):
            found[name] = len(file[column])
    return found


def skipped(path: str | os.PathLike) -> list[dict[str, str]]:
    """Return the inputs of a features file that gave no clip, with their reasons; none of any other file."""
    if attributes_of(path).get("kind") != "features":
        return []
    with open_checked(path, ["features"], columns=False) as file:
        pairs = zip(strings(file, "skipped/path"), strings(file, "skipped/reason"), strict=True)
        return [{"path": name, "reason": reason} for name, reason in pairs]


def chain(path: str | os.PathLike) -> list[dict[str, object]]:
    """Return what a file was made from, and that in turn, as far as the files lie beside one another.

    `depth` is 1 for inputs of the file itself; `state` says whether the input is here, missing, or another one now. A
    bare matrix is not compared: to know it again, all of it would have to be read.
    """
    return list(_inputs(Path(path), 1, set()))


def _inputs(path: Path, depth: int, seen: set[str]) -> Iterator[dict[str, object]]:
    attributes = _attributes(path)
    for source in json.loads(attributes.get("inputs") or "[]"):
        row = {"depth": depth, **source}
        if source["role"] == "media":
            yield {**row, "state": "media"}
            continue
        beside = path.parent / source["file"]
        found = _attributes(beside)
        here = found.get("uuid") == source["uuid"]
        there = "another one now" if found.get("uuid") else "not compared"
        state = "here" if here else there if beside.exists() else "missing"
        yield {**row, "state": state, "command": str(found.get("command", "")) if here else ""}
        if here and source["uuid"] not in seen:
            seen.add(source["uuid"])
            yield from _inputs(beside, depth + 1, seen)


def _attributes(path: Path) -> dict:
    """Return the attributes of a file of ours, none where there is no such file."""
    if not path.is_file():
        return {}
    try:
        return attributes_of(path) or model_attributes(path)
    except FormatError:  # some other file of that name
        return {}


def verify(path: str | os.PathLike) -> list[str]:
    """Read all of a file and return what is wrong with it, nothing where it is sound."""
    path = require(path)
    if not _is_hdf5(path):
        return [f"{name} has numbers that are not finite" for name in not_finite(read_unchecked(path).tensors)]
    with open_checked(path, list(KINDS), columns=False) as file:
        return [*_numbers(file), *_tables(file), *(_summary(file) if "frames" in file else ())]


def _blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    step = max(1, BLOCK // max(1, int(np.prod(dataset.shape[1:], dtype=np.int64))))
    for first in range(0, dataset.shape[0], step):
        yield dataset[first : first + step]


def _numbers(file: h5py.File) -> Iterator[str]:
    """Read every dataset; numbers are finite, but for ends that may be infinite."""
    for name in datasets(file):
        wrong = 0
        for block in _blocks(file[name]):
            if block.dtype.kind == "f":
                fine = ~np.isnan(block) if name in ENDLESS else np.isfinite(block)
                wrong += block.size - int(np.count_nonzero(fine))
        if wrong:
            yield f"{name} has {wrong} numbers that are not finite"


def _tables(file: h5py.File) -> Iterator[str]:
    """Rows refer to rows that are there, offsets cover what they divide, and keys are unique."""
    for name, rows in (("clip/offset", "frames"), ("clip/image_offset", "images")):
        if name in file:
            offset = file[name][:]
            if offset[0] != 0 or offset[-1] != len(file[rows]) or (np.diff(offset) < 0).any():
                yield f"{name} does not cover {rows}"
    limits = [("window/clip", "clip/key", 0), ("clip/parent", "clip/key", -1), ("event/segment", "segment/key", 0)]
    limits += [("event/class", "class", 0), ("cluster", "size", -1)]
    for name, table, least in limits:
        if name in file and table in file and len(file[name]):
            found = file[name][:]
            if found.min() < least or found.max() >= len(file[table]):
                yield f"{name} refers to rows {found.min()} to {found.max()}, {table} has {len(file[table])}"
    if "clip/key" in file and len(set(keys := strings(file, "clip/key"))) < len(keys):
        yield "clip/key has a key twice"
    for name in ("window/start", "segment/start", "clip/start"):
        if name in file and (file[name][:] < 0).any():
            yield f"{name} has times before zero"
    if "label" in file and any((np.abs(block) > 1).any() for block in _blocks(file["label"])):
        yield "label has values other than 1, 0 and -1"
    if "segment/end" in file and (file["segment/end"][:] < file["segment/start"][:]).any():
        yield "segment/end lies before segment/start"


def _summary(file: h5py.File) -> Iterator[str]:
    """Mean and deviation are those of the frames."""
    bands = len(file["mean"])
    found = statistics_of(np.empty((0, bands)))
    for block in _blocks(file["frames"]):
        if not np.isfinite(block).all():
            return  # said already
        found = found.merge(statistics_of(block.reshape(-1, bands)))
    for name, wanted in zip(("mean", "deviation"), found.summary(), strict=True):
        if not np.allclose(file[name][:], wanted, rtol=1e-3, atol=1e-3):
            yield f"{name} is not that of the frames"

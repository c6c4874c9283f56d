"""Trust: an HDF5 file may name any file of the disk as the place of its rows; ours name only the parts they list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import h5py

from soundssl.files.outputs import text


def fetched_from_elsewhere(path: Path, file: h5py.File) -> str:
    """Return in words what a file fetches from another one that is no listed part of it, empty where nothing is.

    Links, external storage and the sources of virtual datasets are looked at, not followed.
    """
    listed = file["part/file"].asstr()[:] if isinstance(file.get("part/file", getlink=True), h5py.HardLink) else []
    parts = {os.path.normpath(path.parent / name) for name in listed}
    return next(_fetched(file, path, parts), "")


def _fetched(group: h5py.Group, path: Path, parts: set[str]) -> Iterator[str]:
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield f"{name} through a link"
            continue
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _fetched(item, path, parts)
        elif isinstance(item, h5py.Dataset):
            places = [place for place, _, _ in item.external or ()]
            virtual = [source.file_name for source in item.virtual_sources()] if item.is_virtual else []
            places += [place for place in virtual if os.path.normpath(path.parent / place) not in parts]
            yield from (f"{name} from {text(place)}, no part of it" for place in places)

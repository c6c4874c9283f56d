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
    for name, item in items(group):
        if item is None:
            yield f"{name} through a link"
        elif isinstance(item, h5py.Dataset):
            places = [place for place, _, _ in item.external or ()]
            virtual = [source.file_name for source in item.virtual_sources()] if item.is_virtual else []
            places += [place for place in virtual if os.path.normpath(path.parent / place) not in parts]
            yield from (f"{name} from {text(place)}, no part of it" for place in places)


def items(group: h5py.Group) -> Iterator[tuple[str, h5py.Group | h5py.Dataset | h5py.Datatype | None]]:
    """Yield the name and the object of everything in a file, a group before what is in it; None for a link elsewhere.

    An object with several names comes once, so that groups that hold each other end. HDF5's own `visititems` asks for
    sizes as well, and follows for them a chain that in a damaged file has no end.
    """
    waiting, seen = [("", group)], {group.id}
    while waiting:
        prefix, group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                yield f"{prefix}{name}", None
                continue
            item = group[name]
            if item.id in seen:
                continue
            seen.add(item.id)
            yield f"{prefix}{name}", item
            if isinstance(item, h5py.Group):
                waiting.append((f"{prefix}{name}/", item))

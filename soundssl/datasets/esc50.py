"""ESC-50 and ESC-10: environmental sounds of five seconds in fifty or ten classes and five folds (Piczak 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from soundssl.datasets.clips import Clip
from soundssl.datasets.table import read
from soundssl.tables import TableError

LAYOUT = "a folder in the layout of ESC-50 or ESC-10: meta/esc50.csv or meta.csv, and audio/"
COLUMNS = ("filename", "fold", "category")
OTHERWISE = "give another layout as --dataset csv TABLE --root FOLDER"


def clips(root: Path) -> Iterator[Clip]:
    """Yield the clips of a folder in the layout of ESC-50 (Piczak 2015): `meta/esc50.csv` or `meta.csv`, and `audio/`.

    The split is the fold; the recording is the original upload that several clips may come from. Raises TableError
    where the table is missing or is another, and where the folder `audio` is missing.
    """
    path = next((table for table in (root / "meta" / "esc50.csv", root / "meta.csv") if table.is_file()), None)
    if path is None:
        raise TableError(
            f"{root} has neither meta/esc50.csv nor meta.csv; name the folder that ESC-50 was unpacked into, or "
            f"{OTHERWISE}"
        )
    table = read(path)
    if missing := [column for column in COLUMNS if column not in table.columns]:
        columns = ", ".join(filter(None, table.columns))
        raise TableError(f"{path} has no column {', '.join(missing)}; its columns are {columns}; {OTHERWISE}")
    if not (root / "audio").is_dir():
        raise TableError(f"{root} has no folder audio; name the folder that ESC-50 was unpacked into, or {OTHERWISE}")
    for number, cells in table.rows:
        name = cells["filename"]
        if not name:
            raise TableError(f"{path} line {number}: the filename is empty; name a file")
        source = cells.get("src_file") or "".join(name.split("-")[1:2])  # FOLD-SOURCE-TAKE-TARGET.wav
        if not source:
            raise TableError(f"{path} line {number}: no column src_file, and {name!r} does not name its source")
        classes = (cells["category"],) if cells["category"] else None
        yield Clip(name, root / "audio" / name, classes=classes, recording=source, split=cells["fold"])

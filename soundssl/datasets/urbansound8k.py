"""UrbanSound8K: ten classes of sounds of a city, up to four seconds, in ten folds (Salamon et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from soundssl.datasets.clips import Clip
from soundssl.datasets.table import read
from soundssl.tables import TableError

LAYOUT = "a folder with metadata/UrbanSound8K.csv and audio/fold1 to audio/fold10"
COLUMNS = ("slice_file_name", "fsid", "fold", "classid", "class")


def clips(root: Path) -> Iterator[Clip]:
    """Yield the clips of UrbanSound8K; the split is the fold, the recording the Freesound clip that it was cut from.

    Raises TableError where the table is missing or is another, and for an empty cell.
    """
    path = root / "metadata" / "UrbanSound8K.csv"
    if not path.is_file():
        raise TableError(
            f"{root} has no metadata/UrbanSound8K.csv; name the folder that UrbanSound8K was unpacked into"
        )
    table = read(path)
    if missing := [column for column in COLUMNS if column not in table.columns]:
        raise TableError(f"{path} line {table.line} has no column {missing[0]}; take the table as published")
    for number, cells in table.rows:
        if empty := [column for column in COLUMNS if not cells[column]]:
            raise TableError(f"{path} line {number}: the {empty[0]} is empty; take the table as published")
        name, fold = f"fold{cells['fold']}/{cells['slice_file_name']}", cells["fold"]
        yield Clip(
            name,
            root / "audio" / name,
            classes=(cells["class"],),
            recording=cells["fsid"],
            split=fold,
            identifiers=((cells["class"], cells["classid"]),),
        )

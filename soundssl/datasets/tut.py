"""TUT Urban Acoustic Scenes 2018: ten scenes in six cities, clips of ten seconds (Mesaros et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from soundssl.datasets.clips import Clip
from soundssl.datasets.table import read
from soundssl.tables import TableError, decode

LAYOUT = "the development set of TUT Urban Acoustic Scenes 2018: meta.csv, audio/, evaluation_setup/"
COLUMNS = ("filename", "scene_label", "identifier")
SETUP = {"train": ("fold1_train.txt",), "test": ("fold1_evaluate.txt", "fold1_test.txt")}


def clips(root: Path) -> Iterator[Clip]:
    """Yield the clips of the development set; the split is train or test by the lists, the recording its place.

    Raises TableError where the table is missing or is another, and for an empty cell.
    """
    path = root / "meta.csv"
    if not path.is_file():
        raise TableError(f"{root} has no meta.csv; name the folder TUT-urban-acoustic-scenes-2018-development")
    table, splits = read(path), _splits(root / "evaluation_setup")
    if missing := [column for column in COLUMNS if column not in table.columns]:
        raise TableError(f"{path} line {table.line} has no column {missing[0]}; take the table as published")
    for number, cells in table.rows:
        if empty := [column for column in COLUMNS if not cells[column]]:
            raise TableError(f"{path} line {number}: the {empty[0]} is empty; take the table as published")
        name = cells["filename"]
        yield Clip(
            name,
            root / name,
            classes=(cells["scene_label"],),
            recording=cells["identifier"],
            split=splits.get(name, ""),
        )


def _splits(folder: Path) -> dict[str, str]:
    """Return the split of each file that a list names, nothing where there are no lists."""
    found: dict[str, str] = {}
    for split, lists in SETUP.items():
        for path in [folder / name for name in lists if (folder / name).is_file()][:1]:
            lines = decode(path.read_bytes(), str(path)).split("\n")
            found |= {line.split("\t")[0].strip(): split for line in lines if line.strip()}
    return found

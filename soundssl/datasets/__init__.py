"""Collections by name: from what lies on disk to clips with their classes and splits; no sound is read here.

A collection is a module with `LAYOUT`, the line that says what its folder or table looks like, and `clips(root)`, which
yields Clip; a row of COLLECTIONS names it.

clips    clips, and the files below folders that may be media
lists    lists of paths
shards   which clips belong to which share of the work
table    CSV and TSV tables
folders  one folder a class
esc50    ESC-50 and ESC-10
"""

from pathlib import Path
from types import ModuleType

from soundssl.datasets import esc50, folders, table
from soundssl.datasets.clips import Clip, paths
from soundssl.datasets.shards import Shard, belongs

__all__ = ["COLLECTIONS", "DATASETS", "Clip", "Shard", "belongs", "load", "paths"]

COLLECTIONS: dict[str, ModuleType] = {"esc50": esc50, "csv": table, "folders": folders}
DATASETS = {name: collection.LAYOUT for name, collection in COLLECTIONS.items()}


def load(name: str, root: Path, media_root: Path | None = None) -> list[Clip]:
    """Return the clips of a collection by its name in DATASETS; raise ValueError for an unknown name.

    `media_root` is the folder that the paths of a table are relative to, by default the table's own.
    """
    if name not in COLLECTIONS:
        raise ValueError(f"no collection is called {name!r}; there are {', '.join(DATASETS)}")
    return list(COLLECTIONS[name].clips(root, *([] if media_root is None else [media_root])))

"""Collections by name: from what lies on disk to clips with their classes and splits; no sound is read here.

A collection is a module with `LAYOUT`, the line that says what its folder or table looks like, and `clips(root)`, which
yields Clip; a row of COLLECTIONS names it.

clips    clips, and the files below folders that may be media
lists    lists of paths
shards   which clips belong to which share of the work
table    CSV and TSV tables
folders  one folder a class
esc50    ESC-50 and ESC-10
fsd      FSD50K, FSDnoisy18k, FSDKaggle2018 and 2019
audioset AudioSet: weak labels, strong ones, those of 0.96 s
tut      TUT Urban Acoustic Scenes 2018
urbansound8k
ontology classes and their parents
"""

from pathlib import Path
from types import ModuleType

from soundssl.datasets import audioset, esc50, folders, fsd, table, tut, urbansound8k
from soundssl.datasets.clips import Clip, Collection, paths
from soundssl.datasets.shards import Shard, belongs

__all__ = ["COLLECTIONS", "DATASETS", "Clip", "Shard", "belongs", "load", "paths"]

COLLECTIONS: dict[str, ModuleType | Collection] = {
    "esc50": esc50,
    "csv": table,
    "folders": folders,
    "audioset": audioset,
    "audioset-strong": audioset.audioset_strong,
    "audioset-framed": audioset.audioset_framed,
    "fsd50k": fsd.fsd50k,
    "fsd50k-collected": fsd.fsd50k_collected,
    "fsdnoisy18k": fsd.fsdnoisy18k,
    "fsdkaggle2018": fsd.fsdkaggle2018,
    "fsdkaggle2019": fsd.fsdkaggle2019,
    "urbansound8k": urbansound8k,
    "tut2018": tut,
}
DATASETS = {name: collection.LAYOUT for name, collection in COLLECTIONS.items()}


def load(name: str, root: Path, media_root: Path | None = None) -> list[Clip]:
    """Return the clips of a collection by its name in DATASETS; raise ValueError for an unknown name.

    `media_root` is the folder that the paths of a table are relative to, by default the table's own.
    """
    if name not in COLLECTIONS:
        raise ValueError(f"no collection is called {name!r}; there are {', '.join(DATASETS)}")
    return list(COLLECTIONS[name].clips(root, *([] if media_root is None else [media_root])))

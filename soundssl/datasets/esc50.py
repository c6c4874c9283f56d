"""ESC-50 and ESC-10: environmental sounds of five seconds in fifty or ten classes and five folds (Piczak 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from soundssl.datasets.clips import Clip
from soundssl.datasets.table import rows

LAYOUT = "a folder in the layout of ESC-50 or ESC-10: meta/esc50.csv or meta.csv, and audio/"


def clips(root: Path) -> Iterator[Clip]:
    """Yield the clips of a folder in the layout of ESC-50 (Piczak 2015): `meta/esc50.csv` or `meta.csv`, and `audio/`.

    The split is the fold; the recording is the original upload that several clips may come from.
    Raises ValueError when the table is missing.
    """
    tables = [table for table in (root / "meta" / "esc50.csv", root / "meta.csv") if table.is_file()]
    if not tables:
        raise ValueError(
            f"{root} has neither meta/esc50.csv nor meta.csv; name the folder that ESC-50 was unpacked into"
        )
    for line, row in rows(tables[0], {"filename", "fold", "category"}):
        name = row["filename"]
        source = row.get("src_file") or "".join(name.split("-")[1:2])  # FOLD-SOURCE-TAKE-TARGET.wav
        if not source:
            raise ValueError(f"{tables[0]}, line {line}: no column src_file, and {name!r} does not name its source")
        yield Clip(name, root / "audio" / name, classes=(row["category"],), recording=source, split=row["fold"])

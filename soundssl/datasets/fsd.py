"""FSD: collections of Freesound clips with a table of files and labels for each part (Fonseca et al. 2018 to 2022).

fsd50k        200 classes, several a clip, uploaders and licences; its eval part is labelled exhaustively
fsdnoisy18k   20 classes, one a clip; a small verified part and a large noisy one
fsdkaggle2018 41 classes, one a clip; verified or not
fsdkaggle2019 80 classes, several a clip; a curated part and one of videos whose labels are their tags
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soundssl.datasets.clips import Clip, Collection
from soundssl.datasets.table import read
from soundssl.tables import Row, Table, TableError

CLASS = ("labels", "label")
IDENTIFIER = ("mids", "aso_id")
TRUE, FALSE = ("1", "1.0", "true"), ("0", "0.0", "false")


@dataclass(frozen=True)
class Part:
    """Name one part of a collection: its table, its folder of sound, and what holds of all its clips.

    `verified` is the column that says whether somebody checked a clip; `exhaustive` whether classes that are not named
    are absent.
    """

    table: str
    audio: str
    split: str
    subset: str = ""
    noisy: bool | None = None
    verified: str = ""
    exhaustive: bool = False
    info: str = ""


FSD50K = (
    Part("FSD50K.ground_truth/dev.csv", "FSD50K.dev_audio", "train", info="FSD50K.metadata/dev_clips_info_FSD50K.json"),
    Part(
        "FSD50K.ground_truth/eval.csv", "FSD50K.eval_audio", "eval", exhaustive=True,
        info="FSD50K.metadata/eval_clips_info_FSD50K.json",
    ),
)  # fmt: skip
COLLECTED = tuple(
    Part(f"FSD50K.metadata/collection/collection_{name}.csv", part.audio, part.split, info=part.info)
    for name, part in zip(("dev", "eval"), FSD50K, strict=True)
)
NOISY18K = (
    Part("FSDnoisy18k.meta/train.csv", "FSDnoisy18k.audio_train", "train", verified="manually_verified"),
    Part("FSDnoisy18k.meta/test.csv", "FSDnoisy18k.audio_test", "test", noisy=False),
)
KAGGLE2018 = (
    Part(
        "FSDKaggle2018.meta/train_post_competition.csv", "FSDKaggle2018.audio_train", "train",
        verified="manually_verified",
    ),
    Part(
        "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv", "FSDKaggle2018.audio_test", "test", noisy=False
    ),
)  # fmt: skip
KAGGLE2019 = (
    Part(
        "FSDKaggle2019.meta/train_curated_post_competition.csv", "FSDKaggle2019.audio_train_curated", "train",
        "curated", noisy=False,
    ),
    Part(
        "FSDKaggle2019.meta/train_noisy_post_competition.csv", "FSDKaggle2019.audio_train_noisy", "train", "noisy",
        noisy=True,
    ),
    Part("FSDKaggle2019.meta/test_post_competition.csv", "FSDKaggle2019.audio_test", "test", noisy=False),
)  # fmt: skip


def clips(root: Path, parts: Iterable[Part]) -> Iterator[Clip]:
    """Yield the clips of those parts whose table is there; a sound that is not there is a clip that will be skipped.

    Raises TableError where no table is there, a table lacks a column or a row its class, or a flag is none.
    """
    parts = list(parts)
    found = [part for part in parts if (root / part.table).is_file()]
    if not found:
        raise TableError(
            f"{root} has none of {', '.join(part.table for part in parts)}; name the folder that the collection was "
            f"unpacked into"
        )
    for part in found:
        table, info = read(root / part.table), _information(root, part)
        for row in _rows(table, root / part.table, part):
            yield _clip(root, part, row, info)


def _rows(table: Table, path: Path, part: Part) -> Iterator[Row]:
    for names in (("fname",), CLASS, *([(part.verified,)] if part.verified else [])):
        if not any(name in table.columns for name in names):
            columns = ", ".join(filter(None, table.columns))
            raise TableError(f"{path} line {table.line} has no column {' or '.join(names)}; its columns are {columns}")
    for row in table.rows:
        for names in (("fname",), CLASS):
            if not row.first(names):
                raise TableError(f"{path} line {row.number}: the {names[0]} is empty; take the table as published")
        yield row


def _clip(root: Path, part: Part, row: Row, info: Mapping[str, Any]) -> Clip:
    name = row.cells["fname"]
    name = name if name.casefold().endswith(".wav") else f"{name}.wav"
    classes = _words(row.first(CLASS))
    identifiers = _words(row.first(IDENTIFIER))
    about = info.get(name.rpartition(".")[0], {})
    uploader = str(about.get("uploader", ""))
    terms = str(about.get("license", row.cells.get("license", "")))
    place = f"{root / part.table} line {row.number}"
    verified = _flag(row.cells[part.verified], part.verified, place) if part.verified else None
    small = "noisy_small" in row.cells and _flag(row.cells["noisy_small"], "noisy_small", place)
    return Clip(
        f"{part.audio}/{name}",
        root / part.audio / name,
        classes=classes,
        recording=row.cells.get("freesound_id") or name,
        split=row.cells.get("split") or part.split,
        absent=None if part.exhaustive else (),
        identifiers=tuple(zip(classes, identifiers, strict=True)) if len(identifiers) == len(classes) else (),
        uploader=uploader,
        licence=f"{terms} {uploader}".strip(),
        subset="noisy_small" if small else part.subset,
        noisy=part.noisy if verified is None else not verified,
    )


def _words(cell: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (cell or "").split(",") if word.strip())


def _flag(cell: str, name: str, place: str) -> bool:
    if cell.casefold() not in TRUE + FALSE:
        raise TableError(f"{place}: {name} is {cell!r}; it is 1 or 0")
    return cell.casefold() in TRUE


def _information(root: Path, part: Part) -> dict[str, Any]:
    """Return what the JSON beside a table says of each clip; nothing where there is none. Raises TableError."""
    path = root / part.info
    if not part.info or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise TableError(f"{path} is no JSON: {error}; unpack it again") from None
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise TableError(f"{path} is not a table of clips by name; unpack it again")
    return found


def _collection(name: str, parts: tuple[Part, ...], more: str = "") -> Collection:
    layout = (
        f"a folder with those of {name}: {', '.join(dict.fromkeys(part.table.split('/')[0] for part in parts))} and "
    )
    layout += f"{', '.join(part.audio for part in parts)}{more}"
    return Collection(layout, lambda root: clips(root, parts))


fsd50k = _collection("FSD50K", FSD50K, ", its labels propagated")
fsd50k_collected = _collection("FSD50K", COLLECTED, ", its labels as people gave them, not propagated")
fsdnoisy18k = _collection("FSDnoisy18k", NOISY18K)
fsdkaggle2018 = _collection("FSDKaggle2018", KAGGLE2018)
fsdkaggle2019 = _collection("FSDKaggle2019", KAGGLE2019)

"""Splits: which clips validate, so that what they share with the clips trained on is little, and known.

Two clips of one group, an uploader or a recording, are more alike than others. Contamination is the share of validation
clips that have a training clip of their group: within-class (WC) where the two share a class, between-class (BC) where
only clips without a common class are there (Fonseca et al. 2022, FSD50K, section on data split).
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from soundssl.datasets.shards import place
from soundssl.labels.labelset import LabelSet

TRAIN, VALIDATION = "train", "validation"


class Clips(NamedTuple):
    """Hold clips: the first segment of each, its group, and the classes that any of its segments has.

    Shape: `first` and `group` `[clips]`, `of` `[segments]` (the clip of each), `present` bool `[clips, classes]`.
    """

    first: np.ndarray
    group: np.ndarray
    of: np.ndarray
    present: np.ndarray


class Contamination(NamedTuple):
    """Hold how many validation clips there are, and how many of them share a group, and a class, with training."""

    clips: int
    within: int
    between: int

    def __str__(self) -> str:
        shares = [count / max(self.clips, 1) for count in (self.within, self.between)]
        return f"{self.clips} validation clips, WC {shares[0]:.1%} ({self.within}), BC {shares[1]:.1%} ({self.between})"


class Division(NamedTuple):
    """Hold which clips validate; the classes that one group alone has, and those that only one side has.

    A class of one group cannot be on both sides without WC contamination: `unavoidable` clips are the least there is.
    Shape: `validation` bool `[clips]`; `single` and `lacking` numbers of classes.
    """

    validation: np.ndarray
    single: list[int]
    lacking: list[int]
    unavoidable: int


def clips_of(labels: LabelSet, by: str) -> Clips:
    """Return the clips of a label set and their groups by `uploader`, `recording` or `key`.

    A clip without a recording is one of its own. Raises ValueError for labels without uploaders.
    """
    _, first, of = np.unique(labels.key.astype(str), return_index=True, return_inverse=True)
    of = of.reshape(-1)
    column = _column(labels, by)
    names = labels.key[first] if column is None else column[first]
    known = [name or f"\0{i}" for i, name in enumerate(names)]  # unknown ones have nothing in common
    group = np.unique(np.array(known, dtype=str), return_inverse=True)[1].reshape(-1)
    present = np.zeros((len(first), len(labels.classes)), bool)
    segment, columns = np.nonzero(labels.label == 1)
    present[of[segment], columns] = True
    return Clips(first, group, of, present)


def _column(labels: LabelSet, by: str) -> np.ndarray | None:
    """Return the names of what clips are grouped by, None where only recordings could be and none is known."""
    if by == "uploader" and labels.uploader is None:
        raise ValueError(
            "the labels have no uploaders; featurize --dataset csv keeps a column uploader, or split by recording"
        )
    return {"uploader": labels.uploader, "recording": labels.recording, "key": labels.key}[by]


def folds(labels: LabelSet, by: str, count: int) -> np.ndarray:
    """Return the fold of each segment, "1" to `count`, by a checksum of its uploader, recording or key.

    Clips that are added later move no others, and every machine divides alike; MM-Videos has 4,096 folds by a hash of
    the clip. Of an unknown uploader or recording the key is taken. Shape: strings `[segments]`. Raises ValueError for
    labels without uploaders.
    """
    column = _column(labels, by)
    names = labels.key if column is None else np.where(column.astype(bool), column, labels.key)
    return np.array([str(place(str(name), count) + 1) for name in names], object)


def contamination(clips: Clips, validation: np.ndarray, train: np.ndarray | None = None) -> Contamination:
    """Count the validation clips that share their group, and a class within it, with clips trained on.

    Shape: bool `[clips]` twice; default of `train`: all others.
    """
    train = ~validation if train is None else train
    count = int(clips.group.max(initial=-1)) + 1
    seen = np.zeros(count, bool)
    seen[clips.group[train]] = True
    clip, column = np.nonzero(clips.present)
    pair = clips.group[clip] * np.int64(max(clips.present.shape[1], 1)) + column
    shared = np.isin(pair, pair[train[clip]]) & validation[clip]
    within = np.zeros(len(validation), bool)
    within[clip[shared]] = True
    between = validation & seen[clips.group] & ~within
    return Contamination(int(validation.sum()), int(within.sum()), int(between.sum()))


def least_contaminated(clips: Clips, share: float, seed: int = 0) -> Division:
    """Choose validation clips, about `share` of each class, of the least within-class contamination.

    What goes to one side whole are clips of a group that have a class in common, or are so joined by others: by size,
    rare classes first, they go to the validation while its share of their classes is unmet (after Fonseca et al. 2022;
    inferred). A class that one such set holds alone is divided by clip, so that each class with two clips is on both
    sides. Raises ValueError for a share outside 0 to 1.
    """
    _check(share)
    total, unit = clips.present.sum(0), _units(clips)
    counts = _counts_of_units(clips, unit)
    holders = (counts > 0).sum(0)
    wanted = np.where(total >= 2, np.maximum(np.round(share * total), 1), 0)
    chosen = _chosen_units(counts, wanted, np.random.default_rng([seed]))
    validation = chosen[unit]
    single = np.flatnonzero((holders == 1) & (total >= 2))
    unavoidable = 0
    for column in single:
        having = np.flatnonzero(clips.present[:, column])
        got = int(validation[having].sum())
        if 0 < got < len(having):
            continue  # another class has divided it
        few = having[np.argsort(clips.present[having].sum(1), kind="stable")]
        unavoidable += int(wanted[column])
        validation[few[: int(wanted[column])]] = got == 0
    sides = clips.present[validation].sum(0)
    lacking = np.flatnonzero((total >= 2) & ((sides == 0) | (sides == total)))
    return Division(validation, single.tolist(), lacking.tolist(), unavoidable)


def stratified(clips: Clips, share: float, seed: int = 0) -> Division:
    """Choose validation clips by iterative stratification (Sechidis et al. 2011), which knows no groups.

    The class with the fewest clips left is shared out first; a clip goes to the side that wants its class most, then to
    the one that wants most clips. Raises ValueError for a share outside 0 to 1.
    """
    _check(share)
    generator = np.random.default_rng([seed])
    present, count = clips.present, len(clips.group)
    wanted = np.stack([(1 - share) * present.sum(0), share * present.sum(0)])
    room = np.array([(1 - share) * count, share * count])
    side, left = np.full(count, -1), present.sum(0).astype(np.int64)
    order = generator.permutation(count)
    of_class = [order[present[order, column]] for column in range(present.shape[1])]

    def put(clip: int, where: int) -> None:
        side[clip] = where
        wanted[where, present[clip]] -= 1
        room[where] -= 1
        left[present[clip]] -= 1

    while (left > 0).any():
        column = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        for clip in of_class[column]:
            if side[clip] < 0:
                want = wanted[:, column] if wanted[0, column] != wanted[1, column] else room
                put(clip, int(want[1] > want[0]))
    for clip in order[side[order] < 0]:
        put(clip, int(room[1] > room[0]))
    validation, total = side == 1, present.sum(0)
    sides = present[validation].sum(0)
    return Division(validation, [], np.flatnonzero((total >= 2) & ((sides == 0) | (sides == total))).tolist(), 0)


def _check(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"a share of {share:g} leaves a side empty; it lies between 0 and 1")


def _units(clips: Clips) -> np.ndarray:
    """Number the sets of clips of one group that are joined by common classes; a clip without a class is its own.

    Shape: `[clips]`.
    """
    clip, column = np.nonzero(clips.present)
    pair = clips.group[clip] * np.int64(max(clips.present.shape[1], 1)) + column
    parent = np.arange(len(clips.group))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    first: dict[int, int] = {}
    for one, key in zip(clip.tolist(), pair.tolist(), strict=True):
        other = first.setdefault(key, one)
        a, b = root(one), root(other)
        if a != b:
            parent[max(a, b)] = min(a, b)
    roots = np.array([root(one) for one in range(len(parent))], np.int64)
    return np.unique(roots, return_inverse=True)[1].reshape(-1)


def _counts_of_units(clips: Clips, unit: np.ndarray) -> np.ndarray:
    """Count the clips of each class in each unit. Shape: `[units, classes]`."""
    counts = np.zeros((int(unit.max(initial=-1)) + 1, clips.present.shape[1]), np.int64)
    clip, column = np.nonzero(clips.present)
    np.add.at(counts, (unit[clip], column), 1)
    return counts


def _chosen_units(counts: np.ndarray, wanted: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Choose units for validation; no class loses its last unit for training. Shape: bool `[units]`."""
    units_of: dict[int, list[int]] = defaultdict(list)
    shuffled = generator.permutation(len(counts))
    classes = [np.flatnonzero(row) for row in counts]
    for unit in shuffled:
        for column in classes[unit]:
            units_of[int(column)].append(int(unit))
    chosen, got, left = np.zeros(len(counts), bool), np.zeros(counts.shape[1]), (counts > 0).sum(0)
    for column in np.argsort(left, kind="stable"):
        while got[column] < wanted[column]:
            best, score = -1, -np.inf
            for unit in units_of[int(column)]:
                of, size = classes[unit], counts[unit, classes[unit]]
                if chosen[unit] or (left[of] < 2).any():
                    continue
                need = np.maximum(wanted[of] - got[of], 0)
                gain = float((np.minimum(need, size) - np.maximum(size - need, 0)).sum())
                if gain > score:
                    best, score = unit, gain
            if best < 0 or (score < 0 and got[column] > 0):
                break
            chosen[best] = True
            got[classes[best]] += counts[best, classes[best]]
            left[classes[best]] -= 1
    return chosen


def named(labels: LabelSet, clips: Clips, validation: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
    """Return the split of each segment: train or validation, of clips not `chosen` what it was.

    Shape: bool `[clips]` twice; result strings `[segments]`.
    """
    column = np.full(len(labels), "", object) if labels.split is None else labels.split.astype(object)
    divided = np.where(validation, VALIDATION, TRAIN).astype(object)[clips.of]
    return divided if chosen is None else np.where(chosen[clips.of], divided, column)


def part(clips: Clips, chosen: np.ndarray) -> Clips:
    """Return some of the clips, without their segments. Shape: bool `[clips]`."""
    return Clips(clips.first[chosen], clips.group[chosen], np.empty(0, np.int64), clips.present[chosen])


def spread(validation: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return of all clips which validate, given those of the part `chosen`. Shape: `[part]`, `[clips]` to `[clips]`."""
    whole = np.zeros(len(chosen), bool)
    whole[chosen] = validation
    return whole


def validation_of(labels: LabelSet, clips: Clips) -> np.ndarray:
    """Return which clips are in a split called validation already. Shape: bool `[clips]`."""
    if labels.split is None:
        return np.zeros(len(clips.first), bool)
    return np.isin(labels.split[clips.first].astype(str), ("validation", "valid", "val"))

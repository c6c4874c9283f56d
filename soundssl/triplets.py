"""Triplet samplers: from a layout of clips to recipes, without reading a frame (Jansen et al. 2018, section 2.2).

A recipe names windows by their first frame and says how the positive is changed; the objective applies it.
Windows start at any frame, or on a grid. Each start is as likely as another, and a negative never comes from the
anchor's recording. Anchor and positive of a proximity triplet do not overlap unless that is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from soundssl.samplers import SAMPLERS

NUMBER = {"noise": 0, "translation": 1, "mixing": 2, "proximity": 3, "supervised": 4}
JOINT = ("noise", "translation", "mixing", "proximity")


@dataclass(frozen=True)
class Options:
    """Parameters of the samplers, with the best values of Jansen et al. 2018."""

    window: int = 96  # frames
    noise: float = 0.5  # standard deviation of the factor 1 + |eps|
    max_shift: int = 10  # bands; time shifts take any value
    gain: float = 0.25  # share of the anchor's energy at which the negative is mixed in
    proximity: float = np.inf  # frames between anchor and positive, less than this
    min_distance: float = -1  # frames between anchor and positive, at least; -1: a window, so that they do not overlap
    grid: int = 1  # frames from one possible start of a window to the next

    def steps(self) -> tuple[int, float]:
        """Return the least and the largest distance of anchor and positive by proximity, in steps of the grid.

        >>> Options(min_distance=50, proximity=101, grid=10).steps()
        (5, 10)
        """
        least = self.window if self.min_distance == -1 else self.min_distance
        reach = math.ceil(self.proximity / self.grid) - 1 if math.isfinite(self.proximity) else math.inf
        return max(1, math.ceil(least / self.grid)), reach


class Layout:
    """Lay all possible windows of some clips on one line, the windows of a recording side by side.

    `offset` [clips + 1] and `recording` [clips] are those of the features file; `clips` says which take part. A place
    on the line, 0 … `total` - 1, stands for one window; `frame` gives its first frame. Windows of a clip start `grid`
    frames one after the other. `source` and `begin` [clips] say whose clock a clip is on, and at which frame of it the
    clip begins; without them clips do not overlap.
    Raises ValueError where fewer than two recordings have a window.
    """

    def __init__(
        self,
        offset: np.ndarray,
        recording: np.ndarray,
        window: int,
        clips: np.ndarray | None = None,
        *,
        grid: int = 1,
        source: np.ndarray | None = None,
        begin: np.ndarray | None = None,
    ) -> None:
        starts = -(-np.maximum(np.diff(offset) - window + 1, 0) // grid)
        if clips is not None:
            starts = np.where(clips, starts, 0)
        order = np.argsort(recording, kind="stable")
        order = order[starts[order] > 0]
        self.clip, self.window, self.grid = order, window, grid
        self.source = np.arange(len(order)) if source is None else np.unique(source[order], return_inverse=True)[1]
        self.begin = np.zeros(len(order), np.int64) if begin is None else begin[order]
        self.bound = np.concatenate([[0], np.cumsum(starts[order])]).astype(np.int64)
        self.first = offset[order].astype(np.int64)
        self.recording = recording[order]
        self.total = int(self.bound[-1])
        edges = np.flatnonzero(np.diff(self.recording)) + 1
        if len(order) == 0 or len(edges) == 0:
            raise ValueError(
                f"triplets need windows of two recordings, here are {int(len(order) > 0)}; give more recordings"
            )
        group = np.zeros(len(order), np.int64)
        group[edges] = 1
        group = np.cumsum(group)
        own = self.bound[np.concatenate([[0], edges, [len(order)]])]
        self.own_first, self.own_count = own[group], np.diff(own)[group]

    def row(self, place: np.ndarray) -> np.ndarray:
        """Return the row (of this layout's clips) that holds each place."""
        return np.searchsorted(self.bound, place, side="right") - 1

    def frame(self, place: np.ndarray) -> np.ndarray:
        """Return the first frame of the window at each place."""
        row = self.row(place)
        return self.first[row] + (place - self.bound[row]) * self.grid

    def beside(self, least: int) -> np.ndarray:
        """Return the other rows that have windows less than `least` frames from windows of a row, on one clock.

        Shape: [rows, most of them], -1 where there are fewer.
        """
        last = self.begin + (np.diff(self.bound) - 1) * self.grid
        order = np.lexsort((self.begin, self.source))
        source, begin, end = self.source[order], self.begin[order], last[order] + least
        span = int(end.max() - begin.min()) + 1
        furthest = np.maximum.accumulate(end + source * span) - source * span  # of the clips before, on the same clock
        pairs = []
        for ahead in range(1, len(order)):
            same = source[ahead:] == source[:-ahead]
            if not (same & (begin[ahead:] < furthest[:-ahead])).any():
                break
            found = np.flatnonzero(same & (begin[ahead:] < end[:-ahead]))
            pairs += [np.stack([order[found], order[found + ahead]]), np.stack([order[found + ahead], order[found]])]
        if not sum(pair.shape[1] for pair in pairs):
            return np.full((len(order), 0), -1)
        row, other = np.concatenate(pairs, axis=1)
        row, other = row[by := np.argsort(row, kind="stable")], other[by]
        number = np.arange(len(row)) - np.searchsorted(row, row)
        table = np.full((len(order), int(number.max()) + 1), -1)
        table[row, number] = other
        return table

    def anywhere(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Draw places uniformly."""
        return generator.integers(0, self.total, count)

    def elsewhere(self, place: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw, for each place, one of another recording, uniformly."""
        row = self.row(place)
        drawn = generator.integers(0, self.total - self.own_count[row])
        return drawn + np.where(drawn >= self.own_first[row], self.own_count[row], 0)


def _recipes(
    layout: Layout, anchor: np.ndarray, positive: np.ndarray, negative: np.ndarray, sampler: str
) -> dict[str, np.ndarray]:
    count = len(anchor)
    return {
        "anchor": layout.frame(anchor),
        "positive": layout.frame(positive),
        "negative": layout.frame(negative),
        "sampler": np.full(count, NUMBER[sampler], np.uint8),
        "class": np.full(count, -1, np.int32),
        "seed": np.zeros(count, np.uint64),
        "shift": np.zeros((count, 2), np.int16),
        "mixed": np.full(count, -1, np.int64),
        "gain": np.zeros(count, np.float32),
    }


def _same(layout: Layout, count: int, generator: np.random.Generator, sampler: str) -> dict[str, np.ndarray]:
    anchor = layout.anywhere(count, generator)
    return _recipes(layout, anchor, anchor, layout.elsewhere(anchor, generator), sampler)


def noise(layout: Layout, count: int, options: Options, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw triplets whose positive is the anchor times 1 + |eps|, eps Gaussian, cell by cell; 0 is no seed."""
    recipes = _same(layout, count, generator, "noise")
    return {**recipes, "seed": generator.integers(1, 1 << 63, count).astype(np.uint64)}


def translation(layout: Layout, count: int, options: Options, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw triplets whose positive is the anchor shifted circularly in time, truncated in frequency."""
    frames = generator.integers(0, layout.window, count)
    bands = generator.integers(-options.max_shift, options.max_shift + 1, count)
    return {**_same(layout, count, generator, "translation"), "shift": np.stack([frames, bands], 1).astype(np.int16)}


def mixing(layout: Layout, count: int, options: Options, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw triplets whose positive is the anchor plus the negative at `gain` times the anchor's energy."""
    recipes = _same(layout, count, generator, "mixing")
    return {**recipes, "mixed": recipes["negative"].copy(), "gain": np.full(count, options.gain, np.float32)}


def proximity(layout: Layout, count: int, options: Options, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw triplets whose positive is another window of the anchor's recording, `min_distance` away or more.

    With a finite `proximity` both lie in one clip, fewer frames than that apart. Clips of one clock that overlap, or
    nearly, make no pairs with each other. Raises ValueError where no recording has two such windows.
    """
    least, reach = options.steps()
    if reach < least:
        raise ValueError(
            f"anchor and positive must start less than {options.proximity:g} frames apart and {least * layout.grid} or "
            "more; take a larger proximity or a smaller min_distance"
        )
    beside = layout.beside(least * layout.grid) if math.isinf(reach) else np.full((len(layout.clip), 0), -1)
    anchor = _anchors(layout, _others(layout, beside) if math.isinf(reach) else None, least, count, generator)
    row = layout.row(anchor)
    first, end = layout.own_first[row], layout.own_first[row] + layout.own_count[row]
    if math.isfinite(reach):
        first, end = np.maximum(layout.bound[row], anchor - int(reach)), anchor + int(reach) + 1
        end = np.minimum(layout.bound[row + 1], end)
    own = np.stack([np.maximum(first, anchor - least + 1), np.minimum(end, anchor + least)], 1)
    own[:, 0] = np.maximum(own[:, 0], layout.bound[row])
    own[:, 1] = np.minimum(own[:, 1], layout.bound[row + 1])
    positive = _outside(first, end, np.concatenate([own[:, None], _places(layout, beside[row])], 1), generator)
    return _recipes(layout, anchor, positive, layout.elsewhere(anchor, generator), "proximity")


def lonely(layout: Layout, options: Options) -> int:
    """Return how many clips have no window that may be the anchor of a proximity triplet: they are too short."""
    least, reach = options.steps()
    others = _others(layout, layout.beside(least * layout.grid)) if math.isinf(reach) else None
    return int((_allowed(layout, others, least) == 0).sum())


def _others(layout: Layout, beside: np.ndarray) -> np.ndarray:
    """Return how many windows of the recording lie neither in a row nor in those beside it. Shape: [rows]."""
    counts = np.diff(layout.bound)
    near = np.where(beside >= 0, counts[beside], 0).sum(1)
    return layout.own_count - counts - near


def _allowed(layout: Layout, others: np.ndarray | None, least: int) -> np.ndarray:
    """Return how many windows of each row may be anchors: all, or those with another `least` away in their own clip."""
    counts = np.diff(layout.bound)
    alone = np.where(counts >= 2 * least, counts, 2 * np.maximum(counts - least, 0))
    return alone if others is None else np.where(others > 0, counts, alone)


def _anchors(
    layout: Layout, others: np.ndarray | None, least: int, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw places uniformly from those that may be anchors; what may not lies in the middle of a clip."""
    allowed, counts = _allowed(layout, others, least), np.diff(layout.bound)
    ends = np.cumsum(allowed)
    if not ends[-1]:
        raise ValueError(
            f"no recording has two windows to make a positive pair of, {least * layout.grid} frames apart; give longer "
            "recordings, or a smaller min_distance"
        )
    drawn = generator.integers(0, ends[-1], count)
    row = np.searchsorted(ends, drawn, side="right")
    number = drawn - (ends[row] - allowed[row])
    middle = counts[row] - allowed[row]
    return layout.bound[row] + number + np.where(number >= allowed[row] // 2, middle, 0)


def _places(layout: Layout, rows: np.ndarray) -> np.ndarray:
    """Return first place and end of the windows of rows, nothing at the end for -1. Shape: [n, m] to [n, m, 2]."""
    low = np.where(rows >= 0, layout.bound[rows], layout.total)
    return np.stack([low, np.where(rows >= 0, layout.bound[rows + 1], layout.total)], -1)


def _outside(first: np.ndarray, end: np.ndarray, taken: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw places from `first` to `end` that lie in none of the ranges `taken` [n, m, 2], which do not overlap."""
    taken = np.take_along_axis(taken, np.argsort(taken[..., :1], axis=1, kind="stable"), 1)
    width = taken[..., 1] - taken[..., 0]
    drawn = first + generator.integers(0, end - first - width.sum(1))
    for column in range(taken.shape[1]):
        drawn = drawn + np.where(drawn >= taken[:, column, 0], width[:, column], 0)
    return drawn


@dataclass(frozen=True)
class Segments:
    """Say where classes are known: `row` of the clip, frames `low` to `high` within it, `label` [segments, classes]."""

    row: np.ndarray
    low: np.ndarray
    high: np.ndarray
    label: np.ndarray


def supervised(layout: Layout, count: int, segments: Segments, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw a class, two windows that carry it and one of another recording that lacks it (the topline).

    The order of draws for clips of several classes is inferred. Raises ValueError where no class has both.
    """
    ranges = _ranges(layout, segments)
    classes = [_carriers(layout, ranges, segments.label[:, c]) for c in range(segments.label.shape[1])]
    usable = [c for c, (anchors, present, _) in enumerate(classes) if _size(anchors) and _size(present) > 1]
    if not usable:
        raise ValueError(
            "no class has two windows that carry it and, in another recording, one that lacks it; check the labels"
        )
    chosen = generator.choice(usable, count)
    anchor, positive, negative = (np.zeros(count, np.int64) for _ in range(3))
    for c in usable:
        here = np.flatnonzero(chosen == c)
        anchors, present, absent = classes[c]
        anchor[here] = _nth(anchors, generator.integers(0, _size(anchors), len(here)))
        own = _rank(present, anchor[here])
        drawn = generator.integers(0, _size(present) - 1, len(here))
        positive[here] = _nth(present, drawn + (drawn >= own))
        row = layout.row(anchor[here])
        first = _rank(absent, layout.own_first[row])
        own = _rank(absent, layout.own_first[row] + layout.own_count[row]) - first
        drawn = generator.integers(0, _size(absent) - own)
        negative[here] = _nth(absent, drawn + np.where(drawn >= first, own, 0))
    return {**_recipes(layout, anchor, positive, negative, "supervised"), "class": chosen.astype(np.int32)}


def _carriers(layout: Layout, ranges: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places that may be anchors, those that carry a class, and those that lack it, as sorted ranges."""
    present, absent = _union(ranges[label == 1]), _minus(_union(ranges[label == 0]), _union(ranges[label == 1]))
    row = layout.row(present[:, 0])
    first, end = layout.own_first[row], layout.own_first[row] + layout.own_count[row]
    elsewhere = _size(absent) - (_rank(absent, end) - _rank(absent, first))
    return present[elsewhere > 0], present, absent


def _ranges(layout: Layout, segments: Segments) -> np.ndarray:
    """Return [first place, end place) of the windows whose centre lies in each segment. Shape: `[segments, 2]`."""
    row_of = np.full(int(max(segments.row.max(initial=-1), layout.clip.max())) + 1, -1)
    row_of[layout.clip] = np.arange(len(layout.clip))
    row = row_of[segments.row]
    half, grid = layout.window // 2, layout.grid
    first, last = layout.bound[row], layout.bound[row + 1]
    low = np.clip(first - (half - segments.low) // grid, first, last)  # rounded up: the first window on the grid
    high = np.clip(first - (half - segments.high) // grid, first, last)
    return np.where((row >= 0)[:, None], np.stack([low, np.maximum(high, low)], 1), 0)


def _union(ranges: np.ndarray) -> np.ndarray:
    """Sort ranges of places and join those that overlap; those that only touch may be of two clips and stay apart."""
    ranges = ranges[ranges[:, 1] > ranges[:, 0]]
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    ends = np.maximum.accumulate(ranges[:, 1]) if len(ranges) else ranges[:, 1]
    begins = np.flatnonzero(np.concatenate([[True], ranges[1:, 0] >= ends[:-1]])[: len(ranges)])
    last = np.concatenate([begins[1:] - 1, [len(ranges) - 1]])[: len(begins)]
    return np.stack([ranges[begins, 0], ends[last]], 1)


def _minus(ranges: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return what of some ranges lies in none of the others; both as `_union` gives them."""
    edges = np.unique(np.concatenate([ranges.ravel(), others.ravel()]))
    pieces = np.stack([edges[:-1], edges[1:]], 1)
    return pieces[_inside(ranges, pieces[:, 0]) & ~_inside(others, pieces[:, 0])]


def _inside(ranges: np.ndarray, place: np.ndarray) -> np.ndarray:
    return _rank(ranges, place + 1) > _rank(ranges, place)


def _size(ranges: np.ndarray) -> int:
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def _nth(ranges: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return the places with these numbers when all places of the ranges are counted through."""
    ends = np.cumsum(ranges[:, 1] - ranges[:, 0])
    row = np.searchsorted(ends, number, side="right")
    return ranges[row, 1] - (ends[row] - number)


def _rank(ranges: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return how many places of the ranges lie before each place."""
    ends = np.concatenate([[0], np.cumsum(ranges[:, 1] - ranges[:, 0])])
    begun = np.searchsorted(ranges[:, 0], place, side="right")
    over = np.where(begun > 0, ranges[begun - 1, 1] - place if len(ranges) else 0, 0)
    return ends[begun] - np.maximum(over, 0)


def sample(
    name: str, layout: Layout, count: int, options: Options, seed: int, segments: Segments | None = None
) -> dict[str, np.ndarray]:
    """Draw `count` recipes of a sampler of SAMPLERS, as columns; the same seed gives the same recipes.

    Raises ValueError for an unknown name, and for `supervised` without segments.
    """
    if name not in SAMPLERS:
        raise ValueError(f"no sampler is called {name!r}; there are {', '.join(SAMPLERS)}")
    generator = np.random.default_rng(seed)
    if name == "supervised":
        if segments is None:
            raise ValueError("supervised triplets need labels; give --labels")
        return supervised(layout, count, segments, generator)
    if name != "joint":
        return _UNSUPERVISED[name](layout, count, options, generator)
    shares = [len(part) for part in np.array_split(np.arange(count), len(JOINT))]
    parts = [_UNSUPERVISED[each](layout, share, options, generator) for each, share in zip(JOINT, shares, strict=True)]
    order = generator.permutation(count)
    return {column: np.concatenate([part[column] for part in parts])[order] for column in parts[0]}


_UNSUPERVISED = {"noise": noise, "translation": translation, "mixing": mixing, "proximity": proximity}

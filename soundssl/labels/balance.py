"""Balance: how often clips of rare and of frequent classes are drawn.

By weights, the factor of a class is (n_max / n_c)^b, that of a clip the largest of its classes, so that the rarest
rules (Moore et al. 2023 vary a degree of balancing; the formula is inferred). By a queue, classes take turns (Kong et
al. 2020, PANNs).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def weights(label: np.ndarray, b: float) -> np.ndarray:
    """Return the chance of each clip to be drawn: all alike where b is 0, classes as often as each other where 1.

    A clip without a class weighs as one of the most frequent. Raises ValueError for b outside 0 to 1. Shape: `[clips,
    classes]` to `[clips]`, float64, of sum 1.

    >>> weights(np.array([[1, 0], [1, 0], [1, 0], [0, 1]]), 1.0).round(3).tolist()
    [0.167, 0.167, 0.167, 0.5]
    """
    if not 0 <= b <= 1:
        raise ValueError(f"balance is {b:g}; it lies from 0 (natural) to 1 (classes alike)")
    present = label == 1
    count = present.sum(0)
    factor = (count.max(initial=1) / np.maximum(count, 1)) ** b
    weight = np.maximum(np.where(present, factor, 0.0).max(1, initial=0.0), 1.0)
    return weight / weight.sum()


def queue(label: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw rows of clips in turn of the classes: all of them in random order, each time the next of its clips.

    The clips of a class are shuffled, again when they are used up. A clip without a class is never drawn; raises
    ValueError where all are so. Shape: `[clips, classes]` to `[count]`.
    """
    clips = [np.flatnonzero(label[:, i] == 1) for i in range(label.shape[1])]
    clips = [of for of in clips if len(of)]
    if not clips:
        raise ValueError("no clip has a class; there is nothing to balance")
    turns = -(-count // len(clips))
    order = np.concatenate([generator.permutation(len(clips)) for _ in range(turns)])[:count]
    rows = np.empty(count, np.int64)
    for i, of in enumerate(clips):
        places = np.flatnonzero(order == i)
        rounds = -(-len(places) // len(of))
        drawn = np.concatenate([of[:0], *(generator.permutation(of) for _ in range(rounds))])
        rows[places] = drawn[: len(places)]
    return rows


def realised(label: np.ndarray, rows: np.ndarray, classes: Sequence[str]) -> str:
    """Return in a line how often each class is drawn, and how often it is there; the most frequent first."""
    natural, drawn = (label == 1).sum(0), (label[rows] == 1).sum(0)
    order = np.argsort(-natural, kind="stable")
    shown = [f"{classes[i]} {drawn[i]} ({natural[i]})" for i in order]
    shown = shown if len(shown) <= 12 else [*shown[:6], "…", *shown[-6:]]
    return f"an epoch draws {', '.join(shown)}; in brackets what is there"


def interleaved(strong: np.ndarray, share: float, chance: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return an epoch in which strong examples have a share of any stretch, drawn by their chances within their kind.

    Each kind is taken in permutations, or where chances differ drawn. Shape: `[rows]` twice; result `[rows]`.
    """
    count = len(strong)
    turn = np.floor(np.arange(1, count + 1) * share + 1e-9) > np.floor(np.arange(count) * share + 1e-9)
    order = np.empty(count, np.int64)
    for rows, places in ((np.flatnonzero(strong), turn), (np.flatnonzero(~strong), ~turn)):
        wanted = int(places.sum())
        if np.ptp(chance[rows]) > 0:
            order[places] = generator.choice(rows, wanted, p=chance[rows] / chance[rows].sum())
        else:
            turns = [generator.permutation(rows) for _ in range(-(-wanted // len(rows)))]
            order[places] = np.concatenate([np.empty(0, np.int64), *turns])[:wanted]
    return order

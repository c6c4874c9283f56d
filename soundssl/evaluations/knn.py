"""k nearest neighbours: let the clips, or windows, nearest to a clip outside its own recording vote on its class.

Conventions
-----------
Similarity is the cosine; a zero vector has cosine 0. A neighbour never comes from the query's own recording, or, with
`leave_out` clip, from its own clip alone. At the level of windows every window searches among windows and a clip takes
the mean vote of its windows; at that of clips the means of the windows search. The clips to test ask, those to train on
answer. Vote `share`: the score of a class is the share of neighbours having it, among those whose label of it
is known. Vote `majority`: a window votes for the most frequent class of its neighbours, and the score of a class is the
share of windows voting for it. The preset `sound-events` is the protocol of Fonseca et al. 2021 ("Unsupervised
contrastive learning of sound event representations", the published code): windows half a second apart, of projections,
leave out their own clip; each takes the majority of its 200 nearest, the clip that of its windows. The clip is decided
for the class of greatest score. Among equal scores, `ties` nearer decides for that of greatest summed similarity, then
for the first; `ties` first for the first at once, of windows and of clips, as that code does.

Metrics
-------
- `accuracy`: share of labelled query clips decided for a true class; chance is the best constant decision
- `balanced_accuracy`: mean of the accuracy over classes, for data with one class a clip; chance is 1 / classes
- `mAP` and, per class, `AP` of the scores; chance is the expectation of a random order
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_array

from soundssl.evaluations import tagging
from soundssl.evaluations.table import Table
from soundssl.ops import metrics, neighbors

PRESETS: dict[str, dict[str, Any]] = {  # values that a protocol has
    "none": {},
    "sound-events": {"k": 200, "level": "window", "vote": "majority", "leave_out": "clip", "ties": "first"},
}
HOPS = {"none": None, "sound-events": 0.5}  # seconds between windows; None: those of the front end
VOTE_BLOCK = 1 << 22  # votes (windows x classes) held at once


@dataclass(frozen=True)
class Options:
    """Choose who searches, how many neighbours vote, and how."""

    k: int = 5  # neighbours that vote (inferred)
    level: Literal["clip", "window"] = "clip"  # what searches: clip means or windows
    vote: Literal["share", "majority"] = "share"  # share of neighbours having a class, or one vote for the majority's
    leave_out: Literal["recording", "clip"] = "recording"  # what never gives neighbours to itself
    bootstrap: int = 0  # replicates over clips for 95 % intervals; 0: none
    ties: Literal["nearer", "first"] = "nearer"  # which of the classes with equal votes is decided for

    def __post_init__(self) -> None:
        if self.k < 1 or self.level not in ("clip", "window") or self.vote not in ("share", "majority"):
            raise ValueError(f"needs k >= 1, level clip or window, vote share or majority: {self}")
        if self.leave_out not in ("recording", "clip"):
            raise ValueError(f"what can be left out is a recording or a clip, not {self.leave_out!r}")
        if self.ties not in ("nearer", "first"):
            raise ValueError(f"ties go to the nearer or the first class, not {self.ties!r}")


def check(table: Table) -> None:
    """Raise ValueError unless there are clips that ask and clips that answer, with vectors of windows each."""
    table.require_vectors()
    if not table.test.any() or not table.train.any():
        raise ValueError(f"needs query and base clips, has {int(table.test.sum())} and {int(table.train.sum())}")
    empty = (table.test | table.train) & (table.windows == 0)
    if empty.any():
        raise ValueError(f"{int(empty.sum())} query or base clips have no window")


def votes(similarity: np.ndarray, index: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each query and class the share of neighbours having the class, and their summed similarity.

    A neighbour whose label is unknown is not asked; neither is one with index -1.

    Shape: similarity and index [queries, k], label [base, classes] in {1, 0, -1}; returns two [queries, classes].
    """
    legal = index >= 0
    bounds = np.concatenate([[0], np.cumsum(legal.sum(axis=1))])
    shape = len(index), len(label)
    once = csr_array((np.ones(int(legal.sum()), np.float32), index[legal], bounds), shape=shape)
    near = csr_array((similarity[legal].astype(np.float32), index[legal], bounds), shape=shape)
    present, unknown = csr_array(label == 1, dtype=np.float32), csr_array(label == -1, dtype=np.float32)
    asked = legal.sum(axis=1, keepdims=True) - (once @ unknown).toarray()
    return (once @ present).toarray() / np.maximum(asked, 1.0, dtype=np.float32), (near @ present).toarray()


def decide(score: np.ndarray, support: np.ndarray, ties: Literal["nearer", "first"] = "nearer") -> np.ndarray:
    """Return the class of greatest score in each row, among equal ones that of greatest support, then the first.

    With `ties` first the support does not count. Shape: score and support [rows, classes]; returns int64 [rows].
    """
    best = score >= score.max(axis=1, keepdims=True) - 1e-6  # float32 means of equal votes
    return best.argmax(axis=1) if ties == "first" else np.where(best, support, -np.inf).argmax(axis=1)


def clip_scores(
    vectors: np.ndarray,
    owner: np.ndarray,
    label: np.ndarray,
    recording: np.ndarray,
    query: np.ndarray,
    base: np.ndarray,
    options: Options,
) -> tuple[np.ndarray, np.ndarray]:
    """Return score and support of every class for every clip (zeros for clips that are no query).

    Shape: vectors [items, size] of length one or zero, owner [items] clip numbers; returns two [clips, classes].
    """
    asking, asked = np.flatnonzero(query[owner]), np.flatnonzero(base[owner])
    groups = recording[owner]
    similarity, index = neighbors.nearest(vectors[asking], vectors[asked], options.k, groups[asking], groups[asked])
    total, weight = np.zeros((2, *label.shape))
    step = max(1, VOTE_BLOCK // label.shape[1])
    for start in range(0, len(asking), step):
        rows = slice(start, start + step)
        share, support = votes(similarity[rows], index[rows], label[owner[asked]])
        if options.vote == "majority":
            chosen = np.zeros_like(share)
            chosen[np.arange(len(share)), decide(share, support, options.ties)] = 1.0
            share = chosen * (share > 0)  # a window none of whose neighbours has a known class does not vote
        np.add.at(total, owner[asking[rows]], share)
        np.add.at(weight, owner[asking[rows]], support)
    mean = total / np.maximum(np.bincount(owner, minlength=len(label)), 1)[:, None]
    return np.round(mean, 6), weight  # equal votes must tie, in whatever order their float32 shares were added


def evaluate(table: Table, options: Options = Options(), seed: int = 0) -> list[dict[str, Any]]:
    """Classify the clips to test by the nearest ones to train on: accuracies and mAP, then AP of every class.

    Clips to test and to train on may be the same. The seed serves the bootstrap only: the search has no chance in it.
    Raises ValueError where there are none, or none with windows.
    """
    check(table)
    label, query, base = table.label, table.test, table.train
    vectors, owner = table.value, table.clip
    if options.level == "clip":
        vectors, owner = table.clip_means(), np.arange(len(label))
    used = np.flatnonzero(query[owner] | base[owner])
    vectors, owner = neighbors.unit(vectors[used]), owner[used]
    _, group = np.unique(table.recording, return_inverse=True)
    if options.leave_out == "clip":
        group = np.arange(len(label))
    score, support = clip_scores(vectors, owner, label, group, query, base, options)
    score, support, label = score[query], support[query], label[query]
    weight = np.zeros((0, len(label)), np.int64)
    if options.bootstrap:
        weight = metrics.multiplicities(len(label), options.bootstrap, np.random.default_rng([seed]))
    return tagging.decision_rows(decide(score, support, options.ties), label, weight) + tagging.ranking_rows(
        score, label, table.classes, weight
    )

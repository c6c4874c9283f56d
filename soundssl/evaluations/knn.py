"""k nearest neighbours: let the clips, or windows, nearest to a clip outside its own recording vote on its class.

Conventions
-----------
Similarity is the cosine; a zero vector has cosine 0. A neighbour never comes from the query's own recording, or, with
`leave_out` clip, from its own clip alone. With unit
`window` every window searches among windows and a clip takes the mean vote of its windows; with `clip` the means of the
windows search. Vote `share`: the score of a class is the share of neighbours having it, among those whose label of it
is known. Vote `majority`: a window votes for the most frequent class of its neighbours, and the score of a class is the
share of windows voting for it. The preset `sound-events` is the protocol of Fonseca et al. 2021 ("Unsupervised
contrastive learning of sound event representations", the published code): windows half a second apart, of projections,
leave out their own clip; each takes the majority of its 200 nearest, the clip that of its windows. The clip is decided
for the class of greatest score; among equal scores for that of greatest summed similarity, then for the first.

Metrics
-------
- `accuracy`: share of labelled query clips decided for a true class; chance is the best constant decision
- `balanced_accuracy`: mean of the accuracy over classes, for data with one class a clip; chance is 1 / classes
- `mAP` and, per class, `AP` of the scores; chance is the expectation of a random order
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from soundssl.evaluations import tagging
from soundssl.ops import metrics, neighbors

PRESETS: dict[str, dict[str, Any]] = {  # values that a protocol puts in the place of others
    "none": {},
    "sound-events": {"k": 200, "unit": "window", "vote": "majority", "leave_out": "clip"},
}
PRESET_HOP = 0.5  # seconds between the windows of sound-events: 50 frames
VOTE_BLOCK = 1 << 22  # votes (windows x classes) held at once


@dataclass(frozen=True)
class Options:
    """Choose who searches, how many neighbours vote, and how."""

    k: int = field(default=5, metadata={"help": "Neighbours that vote (inferred)."})
    unit: Literal["clip", "window"] = field(default="clip", metadata={"help": "What searches: clip means or windows."})
    vote: Literal["share", "majority"] = field(
        default="share", metadata={"help": "Share of neighbours having a class, or one vote a window for the majority."}
    )
    leave_out: Literal["recording", "clip"] = field(
        default="recording", metadata={"help": "What never gives neighbours to itself: a whole recording, or a clip."}
    )
    bootstrap: int = field(default=0, metadata={"help": "Bootstrap replicates over clips for 95 % intervals; 0: none."})


def validate(
    embedding: np.ndarray,
    clip: np.ndarray,
    label: np.ndarray,
    classes: list[str],
    recording: np.ndarray,
    query: np.ndarray,
    base: np.ndarray,
    options: Options,
) -> None:
    """Raise ValueError unless the arrays fit together and query and base clips have windows and labels."""
    if label.shape != (len(recording), len(classes)) or query.shape != base.shape or query.shape != (len(recording),):
        shapes = f"label {list(label.shape)}, query {list(query.shape)}, base {list(base.shape)}"
        raise ValueError(f"{len(recording)} clips and {len(classes)} classes do not fit {shapes}")
    if embedding.ndim != 2 or clip.shape != (len(embedding),):
        raise ValueError(f"embeddings {list(embedding.shape)} need a clip number each, not {list(clip.shape)}")
    if options.k < 1 or options.unit not in ("clip", "window") or options.vote not in ("share", "majority"):
        raise ValueError(f"needs k >= 1, unit clip or window, vote share or majority: {options}")
    if not query.any() or not base.any():
        raise ValueError(f"needs query and base clips, has {int(query.sum())} and {int(base.sum())}")
    empty = (query | base) & (np.bincount(clip, minlength=len(recording)) == 0)
    if empty.any():
        raise ValueError(f"{int(empty.sum())} query or base clips have no window")


def votes(similarity: np.ndarray, index: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each query and class the share of neighbours having the class, and their summed similarity.

    A neighbour whose label is unknown is not asked; neither is one with index -1.

    Shape: similarity and index [queries, k], label [base, classes] in {1, 0, -1}; returns two [queries, classes].
    """
    from scipy.sparse import csr_array

    legal = index >= 0
    bounds = np.concatenate([[0], np.cumsum(legal.sum(axis=1))])
    shape = len(index), len(label)
    once = csr_array((np.ones(int(legal.sum()), np.float32), index[legal], bounds), shape=shape)
    near = csr_array((similarity[legal].astype(np.float32), index[legal], bounds), shape=shape)
    present, unknown = csr_array(label == 1, dtype=np.float32), csr_array(label == -1, dtype=np.float32)
    asked = legal.sum(axis=1, keepdims=True) - (once @ unknown).toarray()
    return (once @ present).toarray() / np.maximum(asked, 1.0, dtype=np.float32), (near @ present).toarray()


def decide(score: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Return the class of greatest score in each row, among equal ones that of greatest support, then the first.

    Shape: score and support [rows, classes]; returns int64 [rows].
    """
    best = score >= score.max(axis=1, keepdims=True) - 1e-6  # float32 means of equal votes
    return np.where(best, support, -np.inf).argmax(axis=1)


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
            chosen[np.arange(len(share)), decide(share, support)] = 1.0
            share = chosen * (share > 0)  # a window none of whose neighbours has a known class does not vote
        np.add.at(total, owner[asking[rows]], share)
        np.add.at(weight, owner[asking[rows]], support)
    mean = total / np.maximum(np.bincount(owner, minlength=len(label)), 1)[:, None]
    return np.round(mean, 6), weight  # equal votes must tie, in whatever order their float32 shares were added


def evaluate(
    embedding: np.ndarray,
    clip: np.ndarray,
    label: np.ndarray,
    classes: list[str],
    recording: np.ndarray,
    query: np.ndarray,
    base: np.ndarray,
    options: Options | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Classify query clips by their nearest base clips: accuracies and mAP, then AP of every class.

    The seed serves the bootstrap only: the search has no chance in it.

    Shape: embedding [windows, size], clip [windows] row of its clip, label [clips, classes] in {1, 0, -1}, recording
    [clips] numbers or strings, query and base bool [clips] (they may overlap).
    """
    options, recording = options or Options(), np.asarray(recording)
    validate(embedding, clip, label, classes, recording, query, base, options)
    vectors, owner = embedding, clip
    if options.unit == "clip":
        vectors, owner = neighbors.group_means(embedding, clip, len(label)), np.arange(len(label))
    used = np.flatnonzero(query[owner] | base[owner])
    vectors, owner = neighbors.unit(vectors[used]), owner[used]
    _, group = np.unique(recording, return_inverse=True)
    if options.leave_out == "clip":
        group = np.arange(len(recording))
    score, support = clip_scores(vectors, owner, label, group, query, base, options)
    score, support, label = score[query], support[query], label[query]
    weight = np.zeros((0, len(label)), np.int64)
    if options.bootstrap:
        weight = metrics.multiplicities(len(label), options.bootstrap, np.random.default_rng([seed]))
    return tagging.decision_rows(decide(score, support), label, weight) + tagging.ranking_rows(
        score, label, classes, weight
    )

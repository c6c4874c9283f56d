"""Time query by example per class against numpy and scikit-learn, at 100 + 100 clips of 128 dimensions.

Run with one thread (OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1): python examples/bench/retrieval.py
"""

from functools import partial

import numpy as np
import timing

from soundssl.evaluations import retrieval
from soundssl.ops import neighbors


def peer(vectors: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Score the pairs of one class the usual way: a matrix product, then scikit-learn on the union of the pairs."""
    from sklearn.metrics import average_precision_score

    cosine = vectors[positive] @ vectors[np.concatenate([positive, negative])].T
    targets = cosine[np.triu_indices(len(positive), 1)]
    others = cosine[:, len(positive) :].ravel()
    truth = np.concatenate([np.ones(len(targets)), np.zeros(len(others))])
    return average_precision_score(truth, np.concatenate([targets, others]))


def measure(small: bool) -> list[dict]:
    """Time both in turn on random vectors; milliseconds a class, median over repeats."""
    clips, classes, per_class, repeats = (200, 3, 20, 2) if small else (5000, 40, 100, 9)
    generator = np.random.default_rng(0)
    vectors = neighbors.unit(generator.standard_normal((clips, 128)).astype(np.float32))
    draws = []
    for _ in range(classes):
        order = generator.permutation(clips)
        draws.append((order[:per_class], order[per_class : 2 * per_class]))
    scores: dict[str, list[float]] = {}

    def score(name: str, function) -> None:
        scores[name] = [function(vectors, *pair) for pair in draws]

    sides = {"ours": retrieval.class_average_precision, "peer": peer}
    times = timing.interleave({name: partial(score, name, function) for name, function in sides.items()}, repeats)
    if not np.allclose(scores["ours"], scores["peer"], atol=1e-4):
        raise ValueError(f"average precisions differ by {np.abs(np.subtract(*scores.values())).max():g}")
    ours, theirs = ([taken / classes for taken in times[name]] for name in ("ours", "peer"))
    claim = f"query by example, {per_class} + {per_class} clips of 128 dimensions, per class"
    return [timing.row(claim, ours, "numpy + scikit-learn", theirs)]


if __name__ == "__main__":
    timing.say(measure(small=False))

"""Time query by example per class against numpy and scikit-learn, at 100 + 100 clips of 128 dimensions.

Run with one thread (OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1): python examples/bench/retrieval.py
"""

import time
from statistics import median

import numpy as np

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
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    scores = {}
    for _ in range(repeats):
        for name, score in (("ours", retrieval.class_average_precision), ("peer", peer)):
            start = time.perf_counter()
            scores[name] = [score(vectors, *pair) for pair in draws]
            times[name].append(1e3 * (time.perf_counter() - start) / classes)
    if not np.allclose(scores["ours"], scores["peer"], atol=1e-4):
        raise ValueError(f"average precisions differ by {np.abs(np.subtract(*scores.values())).max():g}")
    ours, theirs = median(times["ours"]), median(times["peer"])
    claim = f"query by example, {per_class} + {per_class} clips of 128 dimensions, per class"
    return [
        {"claim": claim, "ours_ms": ours, "peer": "numpy + scikit-learn", "peer_ms": theirs, "ratio": theirs / ours}
    ]


if __name__ == "__main__":
    for row in measure(small=False):
        print("{claim}: {ours_ms:.3f} ms; {peer}: {peer_ms:.3f} ms; {ratio:.2f} times".format(**row))

"""K-means by faiss: the yardstick of entropy clustering. Centres from a sample, then the nearest centre of any row."""

from __future__ import annotations

import numpy as np

from soundssl.dependencies import needed

FAISS = "pip install 'soundssl[faiss]'"
ITERATIONS = 20
POINTS = 256  # rows a centre beyond which more do not help, as faiss has it


def fit(rows: np.ndarray, clusters: int, seed: int, threads: int = 1) -> np.ndarray:
    """Return centres that k-means finds among rows, from rows drawn at random.

    Shape: rows `[n, d]` float32; returns `[clusters, d]`. Raises ValueError for fewer rows than clusters, and
    DependencyError where faiss is not installed or does not load.
    """
    with needed("k-means", "faiss", FAISS):
        import faiss

    if len(rows) < clusters:
        raise ValueError(f"{len(rows)} rows are too few for {clusters} clusters by k-means")
    faiss.omp_set_num_threads(threads)
    means = faiss.Kmeans(
        rows.shape[1], clusters, niter=ITERATIONS, seed=seed, min_points_per_centroid=1, max_points_per_centroid=POINTS
    )
    means.train(np.ascontiguousarray(rows, np.float32))
    return np.asarray(means.centroids)


def nearest(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centre of each row and minus the squared distance to it. Shape: both `[n]`.

    >>> nearest(np.eye(2, dtype="f4"), np.float32([[0, 0], [0, 3], [1, 0]]))[0].tolist()
    [2, 0]
    """
    best, cluster = np.full(len(rows), -np.inf, np.float32), np.zeros(len(rows), np.int64)
    half = np.square(centres).sum(1) / 2
    step = max(1, 2**25 // max(len(rows), 1))  # scores of a block: 128 MB
    for first in range(0, len(centres), step):
        scores = rows @ centres[first : first + step].T - half[first : first + step]
        found = scores.argmax(1)
        score = scores[np.arange(len(rows)), found]
        better = score > best
        best[better], cluster[better] = score[better], first + found[better]
    return cluster, -np.square(rows - centres[cluster]).sum(1)

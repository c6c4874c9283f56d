"""Find the exact nearest neighbours of vectors by inner product, in blocks, on one or many cores.

A block of similarities is one matrix product. Its columns are read as `MEMBERS` interleaved rows of many small
groups; the k best scores of a row lie in the k groups with the greatest maxima, so only those groups are ranked. The
answer is exact up to float32 rounding. Cosine is the inner product of `unit` vectors.
"""

import importlib.util

import numpy as np
import torch

from soundssl.dependencies import needed

ROW_BLOCK = 512  # queries a block
COLUMN_BLOCK = 32768  # base rows a block; 512 x 32768 float32 is 64 MB
MEMBERS = 16  # base rows a group: larger makes fewer maxima to rank but more scores to rank again


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length one, as float32; a zero row stays zero, so that its cosine with anything is 0.

    Shape: vectors [n, d]; returns [n, d].
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    low, high = (reduce(vectors, axis=1, keepdims=True, initial=0.0) for reduce in (np.min, np.max))
    largest = np.maximum(high, -low)
    vectors = vectors / np.where(largest > 0, largest, 1.0)  # squares of very small or large numbers stay in range
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    vectors /= np.where(length > 0, length, 1.0)
    return vectors


def likest(rows: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find for every row the query of the greatest cosine, which of equal ones is the first.

    Shape: rows [n, d], queries [Q, d]; returns float32 [n] cosines and int64 [n] indices into queries. Raises
    ValueError for numbers that are not finite.
    """
    cosine = unit(_matrix(rows, "vectors")) @ unit(_matrix(queries, "queries")).T
    index = cosine.argmax(1)
    return np.take_along_axis(cosine, index[:, None], 1)[:, 0], index


def nearest(
    queries: np.ndarray,
    base: np.ndarray,
    k: int,
    query_group: np.ndarray | None = None,
    base_group: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k base rows with the greatest inner product for every query.

    With groups, a row of the query's own group is never a neighbour (so a clip is not found by its own recording).
    Without groups faiss does the search when it is installed. A query with fewer than k legal rows gets index -1 and
    similarity -inf in the places left. Neighbours come best first, equal ones by index; which of several equal rows at
    the last place is returned is not specified.

    Shape: queries [Q, d], base [N, d], groups [Q] and [N] of numbers or strings; returns float32 [Q, k] similarities
    and int64 [Q, k] indices into base.
    """
    queries, base = _matrix(queries, "queries"), _matrix(base, "base")
    if queries.shape[1] != base.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions but base has {base.shape[1]}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if (query_group is None) != (base_group is None):
        raise ValueError("groups are needed of both queries and base, or of neither")
    if query_group is not None and base_group is not None:
        return nearest_of_other_groups(queries, base, k, np.asarray(query_group), np.asarray(base_group))
    if importlib.util.find_spec("faiss") is not None:
        return nearest_by_faiss(queries, base, k)
    return nearest_in_blocks(queries, base, k)


def _matrix(vectors: np.ndarray, name: str) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2:
        raise ValueError(f"{name} must be [rows, dimensions], not {list(vectors.shape)}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{int((~np.isfinite(vectors)).any(axis=1).sum())} rows of {name} are not finite")
    return vectors


def nearest_by_faiss(queries: np.ndarray, base: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest rows with faiss's flat inner-product index; as `nearest` without groups.

    Shape: float32 queries [Q, d], base [N, d]; returns [Q, k] similarities and indices.
    """
    with needed("the neighbour search", "faiss", "install a faiss-cpu for this numpy, or uninstall it"):
        import faiss

    index = faiss.IndexFlatIP(base.shape[1])
    index.add(base)
    return _in_order(*index.search(queries, k))


def nearest_of_other_groups(
    queries: np.ndarray, base: np.ndarray, k: int, query_group: np.ndarray, base_group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest rows of other groups than the query's; as `nearest` with groups."""
    if query_group.shape != (len(queries),) or base_group.shape != (len(base),):
        shapes = f"{list(query_group.shape)} and {list(base_group.shape)}"
        raise ValueError(f"{len(queries)} queries and {len(base)} base rows need as many groups, not {shapes}")
    _, number = np.unique(np.concatenate([query_group, base_group]), return_inverse=True)
    own, other = number[: len(queries)], number[len(queries) :]
    order = np.argsort(other, kind="stable")  # puts a group into one run, which is cheap to leave out
    other = other[order]
    start, end = np.searchsorted(other, own, side="left"), np.searchsorted(other, own, side="right")
    similarity, index = nearest_in_blocks(queries, base[order], k, start, end)
    if len(base):
        index = np.where(index >= 0, order[index], -1)
    return _in_order(similarity, index)


def nearest_in_blocks(
    queries: np.ndarray, base: np.ndarray, k: int, start: np.ndarray | None = None, end: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest rows by blocks of matrix products, leaving out base rows start[i] ... end[i] - 1 of query i.

    Shape: float32 queries [Q, d], base [N, d], start and end int [Q]; returns [Q, k] similarities and indices.
    """
    if start is None or end is None:
        start = end = np.zeros(len(queries), np.int64)
    wide = min(len(base), COLUMN_BLOCK) + MEMBERS
    tile = torch.empty(min(len(queries), ROW_BLOCK) * wide)
    similarity = torch.full((len(queries), k), -torch.inf)
    index = torch.full((len(queries), k), -1, dtype=torch.int64)
    for top in range(0, len(queries), ROW_BLOCK):
        rows = slice(top, top + ROW_BLOCK)
        for left in range(0, len(base), COLUMN_BLOCK):
            block = base[left : left + COLUMN_BLOCK]
            scores = _scores(tile, queries[rows], block)
            _leave_out(scores.numpy(), start[rows] - left, end[rows] - left, len(block))
            found, where = _best(scores, k)
            found, where = torch.cat([similarity[rows], found], 1), torch.cat([index[rows], where + left], 1)
            similarity[rows], place = found.topk(k, dim=1)
            index[rows] = where.gather(1, place)
    return _in_order(similarity.numpy(), index.numpy())


def _scores(tile, queries: np.ndarray, block: np.ndarray):
    """Multiply into the tile, its width padded with -inf to whole groups: [queries, groups * MEMBERS]."""

    width = -(-len(block) // MEMBERS) * MEMBERS
    scores = tile[: len(queries) * width].view(len(queries), width)
    torch.mm(torch.from_numpy(queries), torch.from_numpy(block).T, out=scores[:, : len(block)])
    scores[:, len(block) :] = -torch.inf
    return scores


def _leave_out(scores: np.ndarray, start: np.ndarray, end: np.ndarray, width: int) -> None:
    """Write -inf over columns start[i] ... end[i] - 1 of row i, in place."""
    start, end = np.clip(start, 0, width), np.clip(end, 0, width)
    for row in np.flatnonzero(end > start):
        scores[row, start[row] : end[row]] = -np.inf


def _best(scores, k: int):
    """Return the k best scores of each row and their columns, ranking only the k groups with the greatest maxima."""
    rows, width = scores.shape
    groups = width // MEMBERS
    members = scores.view(rows, MEMBERS, groups)  # group g holds columns g, g + groups, g + 2 groups ...
    group = members.amax(dim=1).topk(min(k, groups), dim=1, sorted=False).indices
    kept = group.shape[1]
    candidates = members.gather(2, group[:, None, :].expand(rows, MEMBERS, kept)).reshape(rows, -1)
    found, place = candidates.topk(min(k, candidates.shape[1]), dim=1, sorted=False)
    member = place.div(kept, rounding_mode="floor")
    return found, member * groups + group.gather(1, place - member * kept)


def _in_order(similarity: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort each row best first, equal similarities by index; mark places without a legal row."""
    illegal = (index < 0) | (similarity == -np.inf)
    index = np.where(illegal, -1, index)
    similarity = np.where(illegal, np.float32(-np.inf), similarity)
    order = np.lexsort((index, -similarity), axis=-1)
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(index, order, axis=1)

"""Nearest neighbours against the full matrix of similarities."""

import numpy as np
import pytest

from soundssl.ops import neighbors

SHAPES = [(5, 40, 3), (7, 200, 20), (33, 999, 200), (1, 3, 3), (4, 17, 1)]


def by_hand(similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank every row whole; equal similarities by index."""
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(similarity, order, axis=1)
    return best, np.where(best == -np.inf, -1, order)


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(neighbors, "ROW_BLOCK", 4)
        monkeypatch.setattr(neighbors, "COLUMN_BLOCK", 50)


@pytest.mark.parametrize(("queries", "rows", "k"), SHAPES)
def test_blocks_equal_brute_force(queries, rows, k, blocks):
    generator = np.random.default_rng(rows)
    query, base = generator.standard_normal((queries, 8)), generator.standard_normal((rows, 8))
    query, base = query.astype(np.float32), base.astype(np.float32)
    similarity, index = neighbors.nearest_in_blocks(query, base, k)
    expected, place = by_hand(query @ base.T, k)
    assert (index == place).all()
    np.testing.assert_allclose(similarity, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("queries", "rows", "k"), SHAPES)
def test_own_group_is_never_a_neighbour(queries, rows, k, blocks):
    generator = np.random.default_rng(rows)
    query, base = generator.standard_normal((queries, 8)), generator.standard_normal((rows, 8))
    own = np.array([f"r{i}" for i in generator.integers(0, 4, queries)])
    other = np.array([f"r{i}" for i in generator.integers(0, 4, rows)])
    similarity, index = neighbors.nearest(query, base, k, own, other)
    allowed = np.where(own[:, None] == other[None, :], -np.inf, query @ base.T)
    expected, place = by_hand(allowed, k)
    assert (index == place).all()
    np.testing.assert_allclose(similarity, expected, rtol=1e-4, atol=1e-5)


def test_heavy_ties_give_the_best_similarities_and_true_indices(blocks):
    generator = np.random.default_rng(0)
    query, base = generator.integers(-1, 2, (9, 3)), generator.integers(-1, 2, (300, 3))
    similarity, index = neighbors.nearest_in_blocks(query.astype(np.float32), base.astype(np.float32), 30)
    assert (similarity == by_hand(query @ base.T, 30)[0]).all()
    assert (np.take_along_axis(query @ base.T, index, axis=1) == similarity).all()
    assert all(len(set(row)) == 30 for row in index.tolist())
    equal = similarity[:, 1:] == similarity[:, :-1]
    assert (np.diff(index)[equal] > 0).all()


def test_too_few_legal_rows_leave_empty_places():
    base = np.eye(3, dtype=np.float32)
    for similarity, index in (
        neighbors.nearest(base, base, 3, np.arange(3), np.arange(3)),
        neighbors.nearest(base, base[:2], 3, np.full(3, 5), np.full(2, 6)),
    ):
        assert (index[:, 2] == -1).all() and (similarity[:, 2] == -np.inf).all() and (index[:, :2] >= 0).all()
    similarity, index = neighbors.nearest(base, base, 2, np.zeros(3), np.zeros(3))
    assert (index == -1).all() and (similarity == -np.inf).all()
    similarity, index = neighbors.nearest_in_blocks(base, base[:0], 2)
    assert (index == -1).all()


def test_faiss_agrees_with_blocks():
    pytest.importorskip("faiss")
    generator = np.random.default_rng(0)
    query, base = generator.standard_normal((20, 16)), generator.standard_normal((500, 16))
    query, base = query.astype(np.float32), base.astype(np.float32)
    ours, theirs = neighbors.nearest_in_blocks(query, base, 10), neighbors.nearest_by_faiss(query, base, 10)
    assert (ours[1] == theirs[1]).all()
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    similarity, index = neighbors.nearest_by_faiss(query, base[:4], 6)
    assert (index[:, 4:] == -1).all() and (similarity[:, 4:] == -np.inf).all()


@pytest.mark.parametrize("installed", [None, object()])
def test_the_search_is_the_same_with_and_without_faiss(installed, monkeypatch):
    if installed is not None:
        pytest.importorskip("faiss")
    monkeypatch.setattr(neighbors.importlib.util, "find_spec", lambda name: installed)
    base = np.random.default_rng(0).standard_normal((100, 4))
    assert (neighbors.nearest(base, base, 3)[1] == by_hand(base @ base.T, 3)[1]).all()


def test_unit_rows_have_length_one_and_zero_stays_zero():
    rows = neighbors.unit(np.array([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [1e30, 1e30]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0], [1, 0], [0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_malformed_input_is_named():
    base = np.eye(3)
    with pytest.raises(ValueError, match="queries have 2 dimensions but base has 3"):
        neighbors.nearest(base[:, :2], base, 1)
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        neighbors.nearest(base, base, 0)
    with pytest.raises(ValueError, match="of both queries and base, or of neither"):
        neighbors.nearest(base, base, 1, np.arange(3))
    with pytest.raises(ValueError, match=r"as many groups, not \[2\] and \[3\]"):
        neighbors.nearest(base, base, 1, np.arange(2), np.arange(3))
    with pytest.raises(ValueError, match="1 rows of base are not finite"):
        neighbors.nearest(base, np.where(np.arange(3)[:, None] == 1, np.nan, base), 1)
    with pytest.raises(ValueError, match=r"queries must be \[rows, dimensions\], not \[3\]"):
        neighbors.nearest(base[0], base, 1)

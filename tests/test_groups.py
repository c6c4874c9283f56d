"""Means of groups equal a loop, whatever the blocks they come in."""

import numpy as np
import pytest

from soundssl.ops.groups import GroupMeans, group_means


@pytest.mark.parametrize("ordered", [True, False])
def test_group_means_equal_a_loop(ordered):
    generator = np.random.default_rng(0)
    rows, group = generator.standard_normal((50, 4)).astype(np.float16), generator.choice([0, 1, 4], 50)
    group = np.sort(group) if ordered else group
    means = group_means(rows, group, 6)
    assert means.dtype == np.float32 and group_means(rows.astype(float), group, 6).dtype == np.float64
    for number in range(6):
        expected = rows[group == number].astype(float).mean(axis=0) if (group == number).any() else np.zeros(4)
        np.testing.assert_allclose(means[number], expected, atol=1e-5)
    assert group_means(rows[:0], group[:0], 2).tolist() == [[0.0] * 4] * 2


def test_blocks_add_up():
    generator = np.random.default_rng(1)
    rows, group = generator.standard_normal((200, 3)), generator.integers(0, 9, 200)
    means = GroupMeans(10)
    for block in np.split(np.arange(200), np.sort(generator.integers(0, 201, 12))):
        means.add(rows[block], group[block])
    np.testing.assert_allclose(means.mean(), group_means(rows, group, 10), atol=1e-12)
    assert means.count.tolist() == np.bincount(group, minlength=10).tolist()


def test_malformed_groups_are_named():
    base = np.eye(3)
    with pytest.raises(ValueError, match=r"0 ... 1, not 0 ... 2"):
        group_means(base, np.arange(3), 2)
    with pytest.raises(ValueError, match="3 rows need as many group numbers"):
        group_means(base, np.arange(2), 2)

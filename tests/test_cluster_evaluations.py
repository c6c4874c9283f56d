"""Scores of clusters and of labels: reference values, limit cases, brute force, and what is left out."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import homogeneity_completeness_v_measure

from soundssl import evaluations
from soundssl.evaluations import clusters, labels
from soundssl.evaluations.table import Table

CLASSES = ["bark", "rain", "siren", "wind"]


def overall(rows: list[dict]) -> dict[str, dict]:
    return {one["metric"]: one for one in rows if one["class"] is None}


def one_hot(of_class: np.ndarray) -> np.ndarray:
    return np.eye(len(CLASSES), dtype=np.int8)[of_class]


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


# Clusters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 40, 3000])
def test_v_measure_equals_scikit_learn(generator, count):
    of_class = generator.integers(0, 4, 2000)
    cluster = (of_class * 7 + generator.integers(0, count, 2000)) % count
    homogeneity, completeness, both = homogeneity_completeness_v_measure(of_class, cluster)
    found = overall(clusters.evaluate(Table(cluster, one_hot(of_class), CLASSES)))
    names = ("homogeneity", "completeness", "V_measure")
    assert [found[name]["value"] for name in names] == pytest.approx([homogeneity, completeness, both], abs=1e-12)


def test_identical_partitions_are_perfect_whatever_their_numbers(generator):
    of_class = generator.integers(0, 4, 500)
    found = overall(clusters.evaluate(Table(np.array([900_000, 3, 77, 12])[of_class], one_hot(of_class), CLASSES)))
    for name in ("V_measure", "homogeneity", "completeness", "purity", "agreement"):
        assert found[name]["value"] == pytest.approx(1.0, abs=1e-12), name
    assert found["V_measure"]["chance"] < 0.05


def test_one_cluster_is_complete_and_one_a_window_homogeneous(generator):
    of_class = generator.integers(0, 4, 500)
    single = overall(clusters.evaluate(Table(np.zeros(500, int), one_hot(of_class), CLASSES)))
    assert (single["homogeneity"]["value"], single["completeness"]["value"]) == (pytest.approx(0, abs=1e-12), 1.0)
    alone = overall(clusters.evaluate(Table(np.arange(500), one_hot(of_class), CLASSES)))
    assert alone["homogeneity"]["value"] == pytest.approx(1) and alone["V_measure"]["chance"] > 0.3
    assert alone["V_measure"]["chance"] == pytest.approx(alone["V_measure"]["value"])
    only = overall(clusters.evaluate(Table(np.arange(3), one_hot(np.zeros(3, int)), CLASSES)))
    assert only["homogeneity"]["value"] == 1.0


def test_purity_and_agreement_equal_loops(generator):
    of_class, cluster = generator.integers(0, 4, 300), generator.integers(0, 9, 300)
    rows = clusters.evaluate(Table(cluster, one_hot(of_class), CLASSES))
    members = [of_class[cluster == k] for k in range(9)]
    purity = sum(np.bincount(each).max() for each in members) / 300
    share = np.array([(members[k] == c).mean() for c, k in zip(of_class, cluster, strict=True)])
    assert overall(rows)["purity"]["value"] == pytest.approx(purity)
    assert overall(rows)["agreement"]["value"] == pytest.approx(share.mean())
    of = {one["class"]: one for one in rows if one["class"]}
    assert [of[name]["value"] for name in CLASSES] == pytest.approx([share[of_class == c].mean() for c in range(4)])
    assert [of[name]["count"] for name in CLASSES] == np.bincount(of_class).tolist()


def test_agreement_is_the_precision_of_labels_spread_from_random_members(generator):
    of_class, cluster = generator.integers(0, 4, 200), generator.integers(0, 9, 200)
    label, rights = one_hot(of_class), []
    for _ in range(400):
        asked = np.array([generator.choice(np.flatnonzero(cluster == k)) for k in range(9)])
        rows = overall(labels.evaluate(Table(label[asked[cluster]], label, CLASSES)))
        rights.append(rows["pooled_precision"]["value"])
    expected = overall(clusters.evaluate(Table(cluster, label, CLASSES)))["agreement"]["value"]
    assert np.mean(rights) == pytest.approx(expected, abs=4 * np.std(rights) / 20)


def test_sizes_and_windows_that_do_not_count(generator):
    cluster = np.array([5, 5, 5, 5, 9, 9, 2, -1])
    label = one_hot(np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    label[1] = -1  # unknown
    label[4, 3] = 1  # of two classes
    rows = overall(clusters.evaluate(Table(cluster, label, CLASSES)))
    sizes = [rows[f"{name}_size"]["value"] for name in ("largest", "median", "smallest")]
    assert (rows["active_clusters"]["value"], sizes) == (3.0, [4.0, 2.0, 1.0])
    assert (rows["left_out_windows"]["value"], rows["left_out_windows"]["count"]) == (2.0, 7)
    assert rows["V_measure"]["count"] == 5
    equal = clusters.evaluate(Table(np.arange(40) % 8, one_hot(np.arange(40) % 4), CLASSES))
    assert overall(equal)["effective_clusters"]["value"] == pytest.approx(8)


def test_windows_of_several_classes_count_in_parts():
    label = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], np.int8)
    table = clusters.contingency(np.array([0, 1, 0]), np.array([4, 4, 6]), np.array([0.5, 0.5, 1.0]))
    assert table.classes.tolist() == [1.5, 0.5] and table.clusters.tolist() == [1.0, 1.0]
    options = clusters.Options("expand")
    expanded = overall(clusters.evaluate(Table(np.array([4, 6]), label, CLASSES), options))
    assert expanded["V_measure"]["value"] == clusters.v_measure(table)[0]
    assert expanded["purity"]["value"] == 0.75


def test_a_million_clusters_take_no_square(generator):
    of_class, cluster = generator.integers(0, 4, 400_000), generator.integers(0, 1_000_000, 400_000)
    label = one_hot(of_class)
    tracemalloc.start()
    clusters.evaluate(Table(cluster, label, CLASSES))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500e6  # bytes; a million times a million bits are 125 GB


def test_malformed_clusters_are_named():
    with pytest.raises(ValueError, match="3 values and 2 labels do not fit: one a clip is needed"):
        clusters.evaluate(Table(np.zeros(3, int), np.zeros((2, 4)), CLASSES, clip=np.array([0, 1, 1])))
    with pytest.raises(ValueError, match="none of 3 windows has one class that is known"):
        clusters.evaluate(Table(np.zeros(3, int), np.zeros((3, 4)), CLASSES))
    with pytest.raises(ValueError, match="not 'both'"):
        clusters.Options("both")


# Labels -----------------------------------------------------------------------------------------------------------


def test_precision_and_recall_equal_loops(generator):
    given = generator.integers(-1, 2, (300, 4)).astype(np.int8)
    truth = generator.integers(-1, 2, (300, 4)).astype(np.int8)
    rows = labels.evaluate(Table(given, truth, CLASSES))
    for metric in ("precision", "recall"):
        values, right, all_ = [], 0, 0
        for c in range(4):
            pairs = [(g, t) for g, t in zip(given[:, c], truth[:, c], strict=True) if t >= 0]
            base = (
                [t == 1 for g, t in pairs if g == 1] if metric == "precision" else [g == 1 for g, t in pairs if t == 1]
            )
            values.append(np.mean(base))
            right, all_ = right + sum(base), all_ + len(base)
        of = [one for one in rows if one["metric"] == metric and one["class"]]
        assert [one["value"] for one in of] == pytest.approx(values)
        assert overall(rows)[metric]["value"] == pytest.approx(np.mean(values))
        assert overall(rows)[f"pooled_{metric}"]["value"] == pytest.approx(right / all_)


def test_labels_at_random_are_at_chance(generator):
    truth = one_hot(generator.choice(4, 20_000, p=[0.6, 0.2, 0.15, 0.05]))
    given = np.where(generator.random((20_000, 1)) < 0.3, truth[generator.permutation(20_000)], -1).astype(np.int8)
    rows = overall(labels.evaluate(Table(given, truth, CLASSES)))
    for name in ("precision", "recall", "pooled_precision", "pooled_recall"):
        assert rows[name]["value"] == pytest.approx(rows[name]["chance"], abs=0.02), name
    assert rows["coverage"]["value"] == pytest.approx(0.3, abs=0.02)


def test_right_labels_have_precision_one_and_recall_what_they_cover():
    truth = one_hot(np.arange(40) % 4)
    given = np.where(np.arange(40)[:, None] < 20, truth, -1)
    given[:, 3] = -1
    rows = overall(labels.evaluate(Table(given, truth, CLASSES)))
    assert (rows["precision"]["value"], rows["precision"]["count"]) == (1.0, 3)
    assert (rows["recall"]["value"], rows["recall"]["count"]) == (0.375, 4)
    assert (rows["pooled_recall"]["value"], rows["coverage"]["value"]) == (0.375, 0.5)
    assert rows["classes_without_label"]["value"] == 1.0


def test_windows_of_unknown_truth_change_nothing(generator):
    given = generator.integers(0, 2, (50, 4)).astype(np.int8)
    truth = generator.integers(0, 2, (50, 4)).astype(np.int8)
    more = np.concatenate([given, np.ones((30, 4), np.int8)]), np.concatenate([truth, np.full((30, 4), -1, np.int8)])
    assert labels.evaluate(Table(given, truth, CLASSES)) == [
        {**one, "count": 50} if one["metric"] == "coverage" else one for one in labels.evaluate(Table(*more, CLASSES))
    ]


def test_nothing_given_leaves_no_precision():
    rows = overall(labels.evaluate(Table(np.full((4, 4), -1), one_hot(np.arange(4)), CLASSES)))
    assert "precision" not in rows and rows["recall"]["value"] == 0.0


def test_malformed_labels_are_named():
    with pytest.raises(ValueError, match=r"labels \[2, 4\] do not fit truth \[3, 4\] of 4 classes"):
        labels.evaluate(Table(np.zeros((2, 4)), np.zeros((3, 4)), CLASSES))
    with pytest.raises(ValueError, match="3 values and 3 labels do not fit: one a clip is needed"):
        labels.evaluate(Table(np.zeros((3, 4)), np.zeros((3, 4)), CLASSES, clip=np.array([0, 2, 1])))
    with pytest.raises(ValueError, match="none of 3 windows is known to have one of 4 classes"):
        labels.evaluate(Table(np.zeros((3, 4)), np.zeros((3, 4)), CLASSES))


@pytest.mark.parametrize("name", ["clusters", "labels"])
def test_rows_are_whole_and_overall_ones_come_first(generator, name):
    truth = one_hot(generator.integers(0, 4, 60))
    first = generator.integers(0, 5, 60) if name == "clusters" else truth[::-1]
    rows = evaluations.load(name).evaluate(Table(first, truth, CLASSES))
    assert all(set(one) == {"metric", "class", "value", "low", "high", "chance", "count"} for one in rows)
    assert all(type(one["value"]) is float and type(one["count"]) is int for one in rows)
    named = [one["class"] is not None for one in rows]
    assert named == sorted(named) and {one["class"] for one in rows if one["class"]} == set(CLASSES)


def test_the_adjusted_rand_index_is_that_of_scikit_learn():
    from sklearn.metrics import adjusted_rand_score

    generator = np.random.default_rng(0)
    one = generator.integers(0, 7, 300)
    other = np.where(generator.random(300) < 0.6, one + 10, generator.integers(0, 9, 300))
    assert clusters.adjusted_rand(one, other) == pytest.approx(adjusted_rand_score(one, other), abs=1e-12)
    assert clusters.adjusted_rand(one, 3 * one + 1) == 1
    assert abs(clusters.adjusted_rand(one, generator.permutation(one))) < 0.05
    assert clusters.adjusted_rand(np.arange(5), np.arange(5)) == 1  # nothing to tell apart
    with pytest.raises(ValueError, match="300 windows"):
        clusters.adjusted_rand(one, other[:9])

"""Metrics against brute force, scikit-learn, limit cases and published pairs."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score

from soundssl.ops import metrics

SEEDS = range(8)


def ranked(seed: int, levels: int, clips: int = 60, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Random scores on few levels (heavy ties) or many, and labels where every class has both kinds."""
    generator = np.random.default_rng(seed)
    score = generator.integers(0, levels, (clips, classes)) / levels
    label = (generator.random((clips, classes)) < 0.3).astype(np.int8)
    label[0], label[1] = 1, 0
    return score, label


def precision_by_hand(score: np.ndarray, label: np.ndarray) -> float:
    """AP = sum over positives of the precision among everything scoring at least as much."""
    values = [(label[score >= s] == 1).sum() / (label[score >= s] >= 0).sum() for s in score[label == 1]]
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_average_precision_and_auc_equal_brute_force_and_scikit_learn(seed, levels):
    score, label = (array[:, 0] for array in ranked(seed, levels))
    assert metrics.average_precision(score, label) == pytest.approx(precision_by_hand(score, label), abs=1e-12)
    assert metrics.average_precision(score, label) == pytest.approx(average_precision_score(label, score), abs=1e-12)
    pairs = [(p > n) + 0.5 * (p == n) for p in score[label == 1] for n in score[label == 0]]
    assert metrics.roc_auc(score, label) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert metrics.roc_auc(score, label) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [1, 3, 10**6])
def test_count_below_is_a_search(seed, levels):
    generator = np.random.default_rng(seed)
    base, values = np.sort(generator.integers(0, levels, 200)), np.sort(generator.integers(0, levels, 90))
    assert (metrics.count_below(base, values) == np.searchsorted(base, values, side="left")).all()


def test_perfect_reversed_and_constant_scores():
    label = np.array([1] * 10 + [0] * 30, np.int8)
    assert metrics.average_precision(label, label) == metrics.roc_auc(label, label) == 1.0
    assert metrics.roc_auc(-label, label) == 0.0
    assert metrics.average_precision(np.zeros(40), label) == 0.25
    assert metrics.roc_auc(np.zeros(40), label) == 0.5


def test_order_of_the_input_does_not_matter_under_ties():
    score, label = (array[:, 0] for array in ranked(3, 4))
    order = np.random.default_rng(0).permutation(len(score))
    assert metrics.average_precision(score[order], label[order]) == metrics.average_precision(score, label)


def test_chance_is_the_mean_over_random_orders():
    generator = np.random.default_rng(0)
    label = np.array([1] * 3 + [0] * 9, np.int8)
    values = [metrics.average_precision(generator.permutation(12), label) for _ in range(4000)]
    spread = np.std(values) / math.sqrt(len(values))
    assert metrics.average_precision_chance(3, 12) == pytest.approx(np.mean(values), abs=4 * spread)
    assert metrics.average_precision_chance(12, 12) == metrics.average_precision_chance(1, 1) == pytest.approx(1.0)
    assert metrics.average_precision_chance(10_000, 100_000) == pytest.approx(0.1, abs=2e-4)
    with pytest.raises(ValueError, match="has 0 of 4"):
        metrics.average_precision_chance(0, 4)


@pytest.mark.parametrize(("auc", "expected"), [(0.959, 2.46), (0.926, 2.05), (0.904, 1.85), (0.5, 0.0)])
def test_d_prime_reproduces_published_pairs(auc, expected):
    assert metrics.d_prime(auc) == pytest.approx(expected, abs=0.006)


def test_d_prime_is_finite_and_odd():
    assert metrics.d_prime(1.0) == pytest.approx(-metrics.d_prime(0.0), rel=1e-6)
    assert math.isfinite(metrics.d_prime(1.0)) and metrics.d_prime(1.0) == metrics.d_prime(1.0 - 1e-9)
    many = metrics.d_prime(np.array([0.2, 0.8]))
    assert many[0] == pytest.approx(-many[1])


def test_two_habits_of_d_prime():
    score, label = ranked(0, 1000)
    areas = [metrics.roc_auc(score[:, i], label[:, i]) for i in range(7)]
    assert metrics.mean_d_prime(score, label) == pytest.approx(np.mean([metrics.d_prime(a) for a in areas]))
    assert metrics.d_prime_of_mean_auc(score, label) == pytest.approx(metrics.d_prime(float(np.mean(areas))))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [3, 10**6])
def test_lwlrap_equals_scikit_learn_weighted_by_labels(seed, levels):
    score, label = ranked(seed, levels)
    labelled = (label == 1).any(axis=1)
    truth, counts = label[labelled], label[labelled].sum(axis=1)
    expected = label_ranking_average_precision_score(truth, score[labelled], sample_weight=counts)
    assert metrics.lwlrap(score, label) == pytest.approx(expected, abs=1e-12)
    classes = metrics.lwlrap_per_class(score, label)
    assert np.average(classes.value, weights=label.sum(axis=0)) == pytest.approx(expected, abs=1e-12)


def test_lwlrap_and_top_n_chance_are_means_over_random_scores():
    generator = np.random.default_rng(1)
    label = np.array([[1, 0, 0, 0, -1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], np.int8)
    scores = [generator.random(label.shape) for _ in range(4000)]
    ranking = [metrics.lwlrap(score, label) for score in scores]
    first = [metrics.top_n(score, label, 2) for score in scores]
    assert metrics.lwlrap_chance(label) == pytest.approx(np.mean(ranking), abs=4 * np.std(ranking) / 63)
    assert metrics.top_n_chance(label, 2) == pytest.approx(np.mean(first), abs=4 * np.std(first) / 63)


def test_top_n_counts_clips_with_one_hit_and_ranks_ties_last():
    label = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], np.int8)
    score = np.array([[0.2, 0.9, 0.1], [0.1, 0.2, 0.9], [0.5, 0.2, 0.1]])
    assert metrics.top_n(score, label, 1) == 0.5
    assert metrics.top_n(score, label, 2) == 1.0
    assert metrics.top_n(np.zeros((3, 3)), label, 2) == 0.0
    with pytest.raises(ValueError, match="between 1 and the 3 classes, not 4"):
        metrics.top_n(score, label, 4)


@pytest.mark.parametrize("levels", [4, 10**6])
def test_an_unknown_entry_changes_nothing(levels):
    score, label = ranked(5, levels)
    hidden = label.copy()
    hidden[5:25, 2] = -1
    label[30, 0] = hidden[30, 0] = 1
    hidden[30, 3:6] = -1
    other = score.copy()
    other[hidden == -1] = np.random.default_rng(9).random(int((hidden == -1).sum()))
    for metric in (
        lambda s, y: metrics.per_class(s, y).mean,
        lambda s, y: metrics.per_class(s, y, metrics.roc_auc).mean,
        metrics.mean_d_prime,
        metrics.lwlrap,
        metrics.top_n,
    ):
        assert metric(score, hidden) == metric(other, hidden)
    assert metrics.average_precision(score[:, 2], hidden[:, 2]) == pytest.approx(
        average_precision_score(np.delete(label[:, 2], np.s_[5:25]), np.delete(score[:, 2], np.s_[5:25]))
    )
    keep = hidden[30] >= 0
    assert metrics.lwlrap(score[30:31], hidden[30:31]) == metrics.lwlrap(score[30:31, keep], hidden[30:31, keep])


def test_classes_without_positives_or_negatives_are_skipped_and_counted():
    score, label = ranked(2, 1000)
    label[:, 3], label[:, 5] = 0, 1
    label[4:8, 5] = -1
    result = metrics.per_class(score, label)
    assert result.column.tolist() == [0, 1, 2, 4, 6] and result.skipped == 2
    assert result.mean == pytest.approx(
        np.mean([metrics.average_precision(score[:, i], label[:, i]) for i in result.column])
    )
    with pytest.raises(ValueError, match="none of 7 classes"):
        _ = metrics.per_class(score, np.zeros_like(label)).mean
    with pytest.raises(ValueError, match="none of 7 classes"):
        metrics.mean_d_prime(score, np.zeros_like(label))


def test_accuracies():
    label = np.eye(3, dtype=np.int8)[[0, 0, 0, 1]]
    decision = np.array([0, 0, 1, 1])
    assert metrics.accuracy(decision, label) == 0.75
    assert metrics.balanced_accuracy(decision, label) == pytest.approx((2 / 3 + 1) / 2)
    silent = np.concatenate([label, np.zeros((5, 3), np.int8)])
    assert metrics.accuracy(np.zeros(9, int), silent) == 0.75
    with pytest.raises(ValueError, match="none of 2 clips"):
        metrics.accuracy(np.zeros(2, int), np.zeros((2, 3), np.int8))
    with pytest.raises(ValueError, match="none of 2 clips"):
        metrics.balanced_accuracy(np.zeros(2, int), np.zeros((2, 3), np.int8))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [3, 10**6])
def test_weighted_pairs_equal_a_loop_over_copies_that_see_themselves_once(seed, levels):
    generator = np.random.default_rng(seed)
    positive, negative = generator.integers(0, levels, 15) / levels, generator.integers(0, levels, 40) / levels
    p_weight, n_weight = generator.integers(0, 4, (6, 15)), generator.integers(0, 4, (6, 40))
    value = metrics.weighted_pair_average_precision(positive, negative, p_weight, n_weight)
    for one, p, n in zip(value, p_weight, n_weight, strict=True):
        precisions = []
        for i, score in enumerate(positive):
            true = 1 + sum(p[j] for j in range(15) if j != i and positive[j] >= score)
            precisions.append(true / (true + n[negative >= score].sum()))
        assert one == pytest.approx(np.average(precisions, weights=p), abs=1e-12)
    ones = metrics.weighted_pair_average_precision(positive, negative, np.ones((1, 15)), np.ones((1, 40)))
    assert ones[0] == pytest.approx(metrics.pair_average_precision(positive, negative), abs=1e-12)


def test_replicates_are_centred_even_with_few_positives_at_chance():
    generator = np.random.default_rng(0)
    score, label = generator.random((1500, 40)), (generator.random((1500, 40)) < 0.01).astype(np.int8)
    weight = metrics.multiplicities(len(score), 100, generator)
    value = metrics.per_class(score, label).mean
    replicates = metrics.mean_average_precision_replicates(score, label, weight)
    low, high = metrics.percentile_interval(replicates)
    assert low < value < high and np.mean(replicates) == pytest.approx(value, rel=0.05)
    copies = [metrics.per_class(np.repeat(score, w, 0), np.repeat(label, w, 0)).mean for w in weight[:20]]
    assert np.mean(copies) > 1.15 * value  # why copies must not vouch for one another


def test_a_replicate_without_positives_is_nan_and_left_out():
    nothing, once = np.zeros((1, 3), int), np.ones((1, 3), int)
    items = np.array([0.1, 0.4, 0.8])
    weight = np.concatenate([nothing, once])
    value = metrics.weighted_pair_average_precision(items, items, weight, np.concatenate([once, once]))
    assert np.isnan(value[0]) and value[1] == metrics.pair_average_precision(items, items)
    assert metrics.percentile_interval(value) == (value[1], value[1])
    assert metrics.mean_known(np.array([value, [0.5, value[1]]])).tolist() == [0.5, value[1]]
    assert metrics.percentile_interval(value[:1]) == (None, None)


def test_blocks_of_replicates_do_not_matter(monkeypatch):
    score, label = ranked(1, 6)
    weight = metrics.multiplicities(len(score), 9, np.random.default_rng(0))
    whole = metrics.mean_average_precision_replicates(score, label, weight)
    monkeypatch.setattr(metrics, "REPLICATE_BLOCK", 100)
    parts = metrics.mean_average_precision_replicates(score, label, weight)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_replicates_average_the_classes_they_have():
    score, label = ranked(4, 6)
    label[2:, 3] = 0  # one positive: many replicates lack it
    label[:, 5] = 0
    weight = metrics.multiplicities(len(score), 9, np.random.default_rng(0))
    assert (weight.sum(axis=1) == len(score)).all()
    values = []
    for i in (0, 1, 2, 3, 4, 6):
        kinds = label[:, i] == 1, label[:, i] == 0
        parts = [score[kind, i] for kind in kinds] + [weight[:, kind] for kind in kinds]
        values.append(metrics.weighted_pair_average_precision(*parts))
    assert np.isnan(values[3]).any()
    expected = np.nanmean(values, axis=0)
    np.testing.assert_allclose(metrics.mean_average_precision_replicates(score, label, weight), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("score", "label", "said"),
    [
        (np.zeros((3, 2)), np.zeros((2, 3), np.int8), r"scores are \[3, 2\] but labels \[2, 3\]"),
        (np.full((2, 2), np.nan), np.zeros((2, 2), np.int8), "4 of 4 scores are not finite"),
        (np.zeros((2, 2)), np.full((2, 2), 7, np.int8), "labels are 1, 0 or -1, not 7"),
    ],
)
def test_malformed_input_is_named(score, label, said):
    with pytest.raises(ValueError, match=said):
        metrics.per_class(score, label)


def test_one_kind_alone_has_no_metric():
    with pytest.raises(ValueError, match="has 2 and 0"):
        metrics.average_precision(np.array([0.1, 0.2]), np.array([1, 1]))
    with pytest.raises(ValueError, match="has 0 and 2"):
        metrics.roc_auc(np.array([0.1, 0.2]), np.array([0, 0]))
    with pytest.raises(ValueError, match="has 0 and 1"):
        metrics.pair_average_precision(np.zeros(0), np.zeros(1))
    with pytest.raises(ValueError, match="none of 1 clips"):
        metrics.lwlrap(np.zeros((1, 2)), np.zeros((1, 2), np.int8))

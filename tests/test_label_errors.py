"""Errors in labels: flags and pruned clips by brute force, noise put in to the last clip, comparisons."""

import numpy as np
import pytest

from soundssl import labels
from soundssl.labels import Draw, LabelSet, Noise
from soundssl.labels.errors import lq_loss, proportion


def of(label, classes=None, **more) -> LabelSet:
    label = np.array(label, np.int8)
    keys = np.array([f"{i}.wav" for i in range(len(label))], object)
    classes = classes or [f"c{i}" for i in range(label.shape[1])]
    return LabelSet(label, classes, keys, np.zeros(len(label)), np.full(len(label), np.inf), **more)


def single(count: int, classes: int, **more) -> LabelSet:
    return of(np.eye(classes, dtype=np.int8)[np.arange(count) % classes], **more)


def test_the_surest_implicit_negatives_are_flagged_and_no_others():
    generator = np.random.default_rng(0)
    label = generator.choice(np.array([0, 0, 0, 1, -1], np.int8), (200, 20))
    rated = (generator.random(label.shape) < 0.3).astype(np.uint8)
    score = generator.random(label.shape).astype(np.float32).round(1)  # many ties
    flagged = labels.flag(of(label, rated=rated), score, 0.1).label
    for column in range(20):
        implicit = np.flatnonzero((label[:, column] == 0) & (rated[:, column] == 0))
        order = sorted(implicit, key=lambda row: (-score[row, column], row))
        wanted = label[:, column].copy()
        wanted[order[: int(0.1 * len(implicit) + 1e-9)]] = -1
        assert np.array_equal(flagged[:, column], wanted)
    assert np.array_equal(labels.flag(of(label), score, 0.0).label, label)
    everything = labels.flag(of(np.zeros((100, 1))), np.ones((100, 1)), 0.02).label
    assert (everything == -1).sum() == 2, "ties do not exceed the share"


def test_teachers_are_ranked_among_themselves_and_unscored_segments_stay():
    score = np.concatenate([np.linspace(0.5, 0.9, 50), np.linspace(0, 0.1, 50)])[:, None]
    score[7] = np.nan
    flagged = labels.flag(of(np.zeros((100, 1))), score, 0.1, np.repeat([0, 1], 50)).label[:, 0] == -1
    assert flagged[:50].sum() == 4 and flagged[50:].sum() == 5 and not flagged[7]
    with pytest.raises(ValueError, match="from 0 to below 1"):
        labels.flag(of(np.zeros((1, 1))), np.ones((1, 1)), 1.0)
    with pytest.raises(ValueError, match="do not fit"):
        labels.flag(of(np.zeros((1, 1))), np.ones((2, 1)), 0.1)


@pytest.mark.parametrize(("percentile", "dropped"), [(99, 1), (96, 3), (93, 5), (100, 0)])
def test_a_percentile_of_sixty_four_drops_the_published_counts(percentile, dropped):
    loss = np.random.default_rng(0).permutation(64).astype(float)
    stay = labels.prune(single(64, 2), loss, percentile, np.ones(64, bool))
    assert (~stay).sum() == dropped and set(loss[~stay]) == set(range(64 - dropped, 64))


def test_pruning_leaves_the_validation_and_the_unscored_alone():
    loss = np.array([9.0, 1, 2, 3, np.nan])
    chosen = np.array([False, True, True, True, True])
    assert labels.prune(single(5, 2), loss, 50, chosen).tolist() == [True, True, True, False, True]
    assert labels.prune(single(5, 2), loss, 50, np.zeros(5, bool)).all()
    with pytest.raises(ValueError, match="percentile 0 "):
        labels.prune(single(5, 2), loss, 0, chosen)


def test_the_loss_has_its_limits():
    probability = np.random.default_rng(0).dirichlet(np.ones(4), 30)
    label = np.eye(4, dtype=np.int8)[np.arange(30) % 4]
    given = probability[np.arange(30), np.arange(30) % 4]
    assert np.allclose(lq_loss(probability, label, 1.0), 1 - given, atol=1e-7)
    assert np.allclose(lq_loss(probability, label, 0.0), -np.log(given), atol=1e-5)
    assert np.allclose(lq_loss(probability, label, 1e-7), -np.log(given), atol=1e-5)
    assert np.isnan(lq_loss(probability[:1], np.zeros((1, 4)), 0.5)).all()


def test_symmetric_noise_is_exact_and_keeps_the_truth():
    split = np.array(["train"] * 80 + ["test"] * 20, object)
    noisy = labels.add_noise(single(100, 5, split=split), Noise(wrong=0.4), chosen=split == "train", seed=1)
    wrong = (noisy.label != noisy.truth).any(1)
    assert wrong.sum() == 32 and not wrong[80:].any() and (noisy.label.sum(1) == 1).all()
    again = labels.add_noise(single(100, 5), Noise(wrong=0.4), chosen=split == "train", seed=1)
    assert np.array_equal(again.label, noisy.label)
    assert np.array_equal(noisy.truth, single(100, 5).label)


def test_half_of_the_noise_comes_from_outside_the_vocabulary():
    split = np.array(["train"] * 400 + ["test"] * 100, object)
    given = single(500, 10, split=split)
    noisy = labels.add_noise(given, Noise(wrong=0.4, outside=0.5), list(range(6)), split == "train", seed=0)
    train = noisy.split == "train"
    outside = train & ~(noisy.truth == 1).any(1)
    inside = train & ~outside & (noisy.label != noisy.truth).any(1)
    assert noisy.label.shape[1] == 6 and (noisy.label[train].sum(1) == 1).all()
    assert outside.sum() == 60 and inside.sum() == 60 and train.sum() == 300, "a fifth each of 240 + 60"
    assert (~train).sum() == 60 and np.array_equal(noisy.label[~train], noisy.truth[~train])
    with pytest.raises(ValueError, match="sounds from outside the vocabulary are wanted, there are 40"):
        labels.add_noise(given, Noise(wrong=0.4, outside=0.5), list(range(9)), split == "train")


def test_a_confusion_says_what_becomes_of_a_class():
    confusion = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 5]])
    noisy = labels.add_noise(single(30, 3), Noise(wrong=1.0, confusion=confusion))
    assert (noisy.label.argmax(1) == (np.arange(30) + 1) % 3).all()
    with pytest.raises(ValueError, match="says nothing of what class number 2 becomes"):
        labels.add_noise(single(30, 3), Noise(wrong=1.0, confusion=np.diag([1, 1], 1)))
    with pytest.raises(ValueError, match="does not fit 3 classes"):
        labels.add_noise(single(30, 3), Noise(wrong=1.0, confusion=np.eye(2)))


def test_missing_labels_are_lost_to_the_share():
    label = (np.random.default_rng(0).random((100, 4)) < 0.5).astype(np.int8)
    noisy = labels.add_noise(of(label, rated=np.ones_like(label)), Noise(missing=0.4))
    assert (label - noisy.label).sum() == round(0.4 * label.sum()) and (noisy.label <= label).all()
    assert noisy.rated is None, "who rated is no longer told"
    with pytest.raises(ValueError, match="segments of one class each"):
        labels.add_noise(of(label), Noise(wrong=0.1))
    with pytest.raises(ValueError, match="the share missing is 2"):
        labels.add_noise(of(label), Noise(missing=2))


def test_noise_is_characterised_by_a_checked_sample():
    given = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [1, 0]], np.int8)
    checked = np.array([[1, 0], [0, 1], [0, 0], [1, 1], [0, 1], [-1, -1]], np.int8)
    first, second, overall = labels.compare(given, checked, ["a", "b"])
    assert (first.given, first.present) == (3, 2)
    assert [round(value[0], 3) for value in (first.right, first.inside, first.outside, first.missing)] == [
        0.333,
        0.333,
        0.333,
        0.5,
    ]
    assert second.right[0] == 1.0 and second.missing[0] == pytest.approx(1 / 3)
    assert overall.given == 5 and overall.right == proportion(3, 5) and first.right[1] < 1 / 3 < first.right[2]
    same = labels.compare(checked, checked, ["a", "b"])[-1]
    assert same.kappa == pytest.approx(1.0) and same.right[0] == 1.0
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        labels.compare(given, checked, ["a", "b", "c"])


def test_segments_are_drawn_by_class_fraction_and_skew():
    counts = [60, 60, 60, 60]
    given = of(np.eye(4, dtype=np.int8)[np.repeat(np.arange(4), counts)])
    assert labels.sample(given, Draw(per_class=7)).label.sum(0).tolist() == [7] * 4
    assert len(labels.sample(given, Draw(fraction=0.25))) == 60
    skewed = labels.sample(given, Draw(skew=1.2)).label.sum(0)
    assert skewed.tolist() == [round(60 / i**1.2) for i in range(1, 5)]
    top = labels.sample(of(np.eye(4, dtype=np.int8)[[0, 0, 1, 2, 2, 3]]), Draw(classes=2))
    assert top.classes == ["c0", "c2"] and len(top) == 4
    chosen = np.arange(240) < 120
    kept = labels.sample(given, Draw(per_class=5), chosen)
    assert kept.label.sum(0).tolist() == [5, 5, 60, 60], "what is not chosen stays"
    with pytest.raises(ValueError, match="cannot be drawn"):
        labels.sample(given, Draw(fraction=0))


def test_the_surest_classes_become_labels():
    score = np.array([[0.9, 0.2, 0.6, 0.6], [0.1, 0.2, 0.3, 0.05]])
    assert labels.top(score, 2).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]
    assert labels.top(score, 2, 0.25).tolist() == [[1, 0, 1, 0], [0, 0, 1, 0]]
    assert labels.top(score, 0, 0.5).tolist() == [[1, 0, 1, 1], [0, 0, 0, 0]]


def test_keywords_nominate_classes():
    keywords = {"Dog": ["dog", "barking"], "Cat": ["cat", "-catalogue"], "Hot dog": ["hot dog"]}
    texts = ["Dogs and DOG_barking", "the cat, in a catalogue", "a hotdog", "hot-dog stand", ""]
    found = [[name for name, _ in one] for one in labels.nominate(texts, keywords)]
    assert found == [["Dog"], [], [], ["Dog", "Hot dog"], []]

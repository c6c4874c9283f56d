"""Splits of labels: contamination counted against brute force, the least there is, stratification, what is kept."""

import itertools

import numpy as np
import pytest

from soundssl.labels import LabelSet, contamination, least_contaminated, stratified
from soundssl.labels.splits import Clips, clips_of, folds, named


def clips(group, present) -> Clips:
    group, present = np.asarray(group), np.asarray(present, bool)
    return Clips(np.arange(len(group)), group, np.arange(len(group)), present)


def made(generator, count: int, uploaders: int, classes: int, several: bool = False) -> Clips:
    present = np.eye(classes, dtype=bool)[generator.integers(0, classes, count)]
    if several:
        present |= generator.random(present.shape) < 0.15
    return clips(generator.integers(0, uploaders, count), present)


def brute_force(given: Clips, validation: np.ndarray) -> tuple[int, int]:
    within = between = 0
    for i in np.flatnonzero(validation):
        of_group = [j for j in np.flatnonzero(~validation) if given.group[j] == given.group[i]]
        shares = any((given.present[i] & given.present[j]).any() for j in of_group)
        within += shares
        between += bool(of_group) and not shares
    return within, between


@pytest.mark.parametrize("several", [False, True])
def test_contamination_is_that_of_every_pair(several):
    generator = np.random.default_rng(1)
    for _ in range(20):
        given = made(generator, 30, 6, 4, several)
        validation = generator.random(30) < 0.3
        found = contamination(given, validation)
        assert (found.within, found.between) == brute_force(given, validation)
        assert found.clips == validation.sum()


@pytest.mark.parametrize("several", [False, True])
def test_a_collection_of_thirty_uploaders_is_divided_without_contamination(several):
    generator = np.random.default_rng(2)
    for seed in range(5):
        given = made(generator, 600, 30, 10, False)
        if several:  # each uploader has two classes, sometimes together
            of = np.stack([given.group % 10, (given.group // 3) % 10])
            present = np.zeros((600, 10), bool)
            present[np.arange(600), of[generator.integers(0, 2, 600), np.arange(600)]] = True
            both = np.flatnonzero(generator.random(600) < 0.2)
            present[both[:, None], of[:, both].T] = True
            given = given._replace(present=present)
        division = least_contaminated(given, 0.1, seed)
        found = contamination(given, division.validation)
        assert found.within == division.unavoidable == 0 and not division.lacking
        total, validated = given.present.sum(0), given.present[division.validation].sum(0)
        assert (validated >= 1).all() and (validated < total).all()
        if not several:
            assert 0.06 <= division.validation.mean() <= 0.2
            alike = contamination(given, stratified(given, 0.1, seed).validation)
            assert alike.within > 0.5 * alike.clips, "what knows no uploaders is contaminated"


def test_the_least_contamination_is_that_of_all_divisions():
    """Of small collections of one class a clip all divisions with each class of two clips on both sides are tried."""
    generator = np.random.default_rng(3)
    unavoidable = 0
    for _ in range(25):
        given = made(generator, 9, 3, 3)
        total = given.present.sum(0)
        least = 9
        for choice in itertools.product([False, True], repeat=9):
            validation = np.array(choice)
            got = given.present[validation].sum(0)
            if ((got >= 1) & (got < total))[total >= 2].all():
                least = min(least, brute_force(given, validation)[0])
        division = least_contaminated(given, 0.1)
        assert brute_force(given, division.validation)[0] == division.unavoidable == least
        assert not division.lacking
        unavoidable += least
    assert unavoidable, "some of them have a class of one uploader"


def test_stratification_keeps_the_share_of_every_class():
    generator = np.random.default_rng(4)
    given = made(generator, 400, 30, 8, True)
    validation = stratified(given, 0.25).validation
    share = given.present[validation].sum(0) / given.present.sum(0)
    assert np.abs(share - 0.25).max() < 0.06 and abs(validation.mean() - 0.25) < 0.02
    assert not np.array_equal(validation, stratified(given, 0.25, seed=1).validation)
    assert np.array_equal(validation, stratified(given, 0.25).validation)


def test_segments_of_a_clip_stay_together_and_other_splits_as_they_are():
    keys = np.array(["a", "b", "a", "c", "d"], object)
    label = np.eye(2, dtype=np.int8)[[0, 0, 1, 1, 0]]
    of = LabelSet(label, ["x", "y"], keys, np.zeros(5), np.ones(5), uploader=np.array(["u", "v", "u", "", ""], object))
    given = clips_of(of, "uploader")
    assert given.first.tolist() == [0, 1, 3, 4] and given.present.tolist() == [[1, 1], [1, 0], [0, 1], [1, 0]]
    assert len(set(given.group)) == 4, "clips of no known uploader have nothing in common"
    validation, chosen = np.array([True, False, False, False]), np.array([True, True, False, True])
    assert named(of, given, validation, chosen).tolist() == ["validation", "train", "validation", "", "train"]


def test_folds_are_of_whole_recordings_and_clips_that_come_later_move_no_others():
    generator = np.random.default_rng(5)
    keys = np.array([f"{i}.wav" for i in range(900)], object)
    recording = np.array([f"r{i}" if i % 4 else "" for i in generator.integers(0, 300, 900)], object)
    of = LabelSet(np.ones((900, 1), np.int8), ["x"], keys, np.zeros(900), np.ones(900), recording=recording)
    fold = folds(of, "recording", 5)
    assert set(fold) == set("12345")
    for name in set(recording) - {""}:
        assert len(set(fold[recording == name])) == 1, "a recording is of one fold"
    assert len(set(fold[recording == ""])) == 5, "those of none are on their own"
    chosen = generator.permutation(900)[:50]
    assert np.array_equal(folds(of.rows(chosen), "recording", 5), fold[chosen])
    count = np.unique(folds(of, "key", 5), return_counts=True)[1]
    assert np.abs(count - 180).max() < 4 * np.sqrt(900 * 0.2 * 0.8), "about as many in each"
    known = LabelSet(np.ones((2, 1), np.int8), ["x"], np.array(["a.wav", "b.wav"], object), np.zeros(2), np.ones(2))
    assert folds(known, "key", 4096).tolist() == ["472", "2824"], "the same for ever, on every machine"
    with pytest.raises(ValueError, match="have no uploaders"):
        folds(known, "uploader", 2)


def test_what_cannot_be_divided_is_said():
    given = made(np.random.default_rng(0), 10, 3, 2)
    for share in (0.0, 1.0):
        for divide in (least_contaminated, stratified):
            with pytest.raises(ValueError, match="lies between 0 and 1"):
                divide(given, share)
    bare = LabelSet(np.ones((1, 1), np.int8), ["x"], np.array(["a"], object), np.zeros(1), np.ones(1))
    with pytest.raises(ValueError, match="have no uploaders"):
        clips_of(bare, "uploader")
    assert clips_of(bare, "recording").group.tolist() == [0]

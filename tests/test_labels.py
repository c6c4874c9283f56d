"""What labels say of clips, windows and segments: brute force over every word, and how fast a batch is answered."""

import pickle
import time

import numpy as np
import pytest

from soundssl import files, labels
from soundssl.labels import Index, Segments

KEYS = [f"clip {i}" for i in range(5)]


def draw(generator: np.random.Generator, count: int, classes: int = 3) -> Segments:
    """Draw segments on whole seconds, so that times meet; some are empty, endless, or of other clips."""
    start = generator.integers(-1, 8, count).astype("f8")
    end = np.where(generator.random(count) < 0.3, np.inf, start + generator.choice([-1, 0, 1, 2, 5], count))
    key = generator.choice(np.array([*KEYS[:-1], "elsewhere"], object), count)
    return Segments(key, start, end, generator.integers(-1, 2, (count, classes)).astype("i1"))


def heard(said: Segments, key: str, moment: float) -> list[int]:
    """Return the highest word on each class about a moment of a clip, one segment after another."""
    found = [-1] * said.label.shape[1]
    for s in range(len(said.key)):
        if said.key[s] == key and said.start[s] <= moment < said.end[s]:
            found = [max(pair) for pair in zip(found, said.label[s].tolist(), strict=True)]
    return found


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(labels.moments, "BLOCK", 3)


def test_clips_and_windows_agree_with_brute_force(blocks):
    generator = np.random.default_rng(0)
    for _ in range(40):
        said = draw(generator, int(generator.integers(0, 30)))
        index = Index(said, KEYS)
        clip, centre = generator.integers(0, 5, 30), generator.uniform(-2, 12, 30).round(int(generator.integers(2)))
        of_clips, of_windows = index.of_clips(), index.of_windows(clip, centre)
        assert of_clips.dtype == of_windows.dtype == np.int8
        for i, key in enumerate(KEYS):
            own = said.label[said.key == key]
            assert of_clips[i].tolist() == (own.max(0).tolist() if len(own) else [-1] * 3)
        for w in range(30):
            assert of_windows[w].tolist() == heard(said, KEYS[clip[w]], centre[w])


def test_moments_find_the_segments_that_hold_them():
    """Many lengths in one clip, a background over all of it among them."""
    generator = np.random.default_rng(1)
    start, length = generator.uniform(0, 100, 400), 10.0 ** generator.uniform(-3, 2, 400)
    start[:2], length[:2] = 0.0, (np.inf, 150.0)
    said = Segments(np.full(400, "a"), start, start + length, np.zeros((400, 1), "i1"))
    moment = generator.uniform(-1, 120, 200)
    place, segment = Index(said, ["b", "a"]).holding(np.ones(200, int), moment)
    held = (start <= moment[:, None]) & (moment[:, None] < start + length)
    assert (np.diff(place) >= 0).all() and len(place) == held.sum()
    assert np.unique(np.stack([place, segment], 1), axis=0).tolist() == np.argwhere(held).tolist()


def test_a_segment_begins_at_its_start_and_ends_before_its_end():
    third = np.nextafter(0.3, 1)
    said = Segments(np.array(["a", "a"]), np.array([0.1, third]), np.array([0.3, 0.4]), np.eye(2, dtype="i1"))
    moments = np.array([np.nextafter(0.1, 0), 0.1, np.nextafter(0.3, 0), 0.3, third, 0.4])
    found = Index(said, ["a"]).of_windows(np.zeros(6, int), moments)
    assert found.tolist() == [[-1, -1], [1, 0], [1, 0], [-1, -1], [0, 1], [-1, -1]]


def test_clips_of_one_key_share_what_is_said_of_it():
    said = Segments(np.array(["a", "b"]), np.zeros(2), np.ones(2), np.array([[1], [0]], "i1"))
    index = Index(said, ["a", "b", "a", "c"])
    assert index.of_clips().tolist() == [[1], [0], [1], [-1]]
    assert index.of_windows(np.arange(4), np.full(4, 0.5)).tolist() == [[1], [0], [1], [-1]]
    assert index.at_windows(np.array([2, 1]), np.zeros(2), np.full(2, 0.5)).tolist() == [[1], [0]]


def test_no_segments_and_no_windows_say_nothing():
    said = draw(np.random.default_rng(0), 0)
    index = Index(said, KEYS)
    assert (index.of_clips() == -1).all() and index.of_clips().shape == (5, 3)
    assert (index.of_windows(np.arange(5), np.ones(5)) == -1).all()
    assert (index.at_windows(np.arange(5), np.ones(5), np.ones(5)) == -1).all()
    none = np.zeros(0, int)
    full = Index(draw(np.random.default_rng(0), 9), KEYS)
    assert full.of_windows(none, np.zeros(0)).shape == full.at_windows(none, np.zeros(0), np.zeros(0)).shape == (0, 3)
    assert Index(said, []).of_clips().shape == (0, 3)


def test_labels_given_to_windows_do_not_reach_into_those_that_overlap_them():
    """Each segment starts with one window, in any order: that window alone has its labels, others none."""
    generator = np.random.default_rng(2)
    clip, start = np.repeat(np.arange(5), 20), np.tile(np.arange(20) * 0.48, 5)
    order = generator.permutation(100)
    clip, start, rows = clip[order], start[order], generator.permutation(100)[:40]
    label = generator.integers(-1, 2, (40, 3)).astype("i1")
    said = Segments(np.array(KEYS)[clip[rows]], start[rows], start[rows] + 0.96, label)
    found = Index(said, KEYS).at_windows(clip, start, start + 0.48)
    assert (found[rows] == label).all() and (np.delete(found, rows, axis=0) == -1).all()


@pytest.mark.parametrize("odd", ["no window", "no clip", "one window twice"])
def test_where_a_segment_has_no_window_of_its_own_all_count_at_the_centre(odd):
    clip, start = np.repeat([0, 1], 10), np.tile(np.arange(10) * 0.48, 2)
    at = {"no window": ("clip 1", 0.1), "no clip": ("elsewhere", 0.48), "one window twice": ("clip 0", 0.48)}[odd]
    key, begin = np.array(["clip 0", at[0]]), np.array([0.48, at[1]])
    index = Index(Segments(key, begin, begin + 0.96, np.eye(2, dtype="i1")), KEYS)
    found = index.at_windows(clip, start, start + 0.48)
    assert (found == index.of_windows(clip, start + 0.48)).all() and (found[:2, 0] == 1).all()


def test_segments_are_joined_at_their_centres_and_endless_ones_by_the_clip(blocks):
    generator = np.random.default_rng(3)
    for _ in range(40):
        said, asked = draw(generator, 25), draw(generator, 25)
        found = labels.of_segments(said, asked.key, asked.start, asked.end)
        whole = Index(said, list(asked.key)).of_clips()
        for i in range(25):
            middle = (asked.start[i] + asked.end[i]) / 2
            expected = whole[i].tolist() if np.isinf(asked.end[i]) else heard(said, asked.key[i], middle)
            assert found[i].tolist() == expected


def test_keys_are_found_among_others():
    assert labels.rows_of(["b", "x", "a", "b"], ["a", "b", "c"]).tolist() == [1, -1, 0, 1]
    assert labels.rows_of(["a"], ["a", "b", "a"]).tolist() == [2] and labels.rows_of([], ["a"]).tolist() == []


def test_columns_are_joined_by_name():
    label = np.array([[1, 0], [0, 1]], np.int8)
    assert labels.align(label, ["wind", "bark"], ["bark", "cat", "wind"]).tolist() == [[0, -1, 1], [1, -1, 0]]
    assert labels.align(label, ["wind", "bark"], []).shape == (2, 0)


def test_an_index_of_a_file_goes_to_workers(toy):
    known, clips = files.Labels(toy.labels), files.Features(toy.features).clips
    index = pickle.loads(pickle.dumps(Index(known, clips.key)))
    assert (index.of_clips() == 1).sum(1).tolist() == [1] * 24
    said = {key: label for key, label in zip(known.key, known.label.tolist(), strict=True)}
    assert index.of_windows(np.arange(24), np.ones(24)).tolist() == [said[key] for key in clips.key]


@pytest.mark.parametrize(("clips", "seconds"), [(10_000, 10.0), (1, 86_400.0)])
def test_a_batch_among_many_segments_takes_no_longer_than_it_may(clips, seconds):
    """64 windows among 100,000 segments: a millisecond is the contract, ten are failed; a loop takes a second."""
    generator = np.random.default_rng(0)
    keys, start = [f"{i}" for i in range(clips)], generator.uniform(0, seconds, 100_000)
    end = start + generator.exponential(1.0, 100_000)
    end[:3] = np.inf  # a background
    key = np.array(keys, object)[generator.integers(0, clips, 100_000)]
    index = Index(Segments(key, start, end, generator.integers(-1, 2, (100_000, 50)).astype("i1")), keys)
    clip, centre, taken = generator.integers(0, clips, 64), generator.uniform(0, seconds, 64), []
    for _ in range(20):
        begun = time.process_time()
        index.of_windows(clip, centre)
        taken.append(time.process_time() - begun)
    assert min(taken) < 10e-3

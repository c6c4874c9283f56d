"""Events to targets by brute force over every window and event; tables with onset and offset, from file to labels."""

import time

import numpy as np
import pytest

from soundssl import datasets, labels
from soundssl.labels import LabelSet, Timeline
from soundssl.labels import events as timing
from soundssl.tables import TableError

KEYS = ["a", "b", "c"]


def strong(generator, segments=3, events=20, classes=3):
    """Draw labelled segments with events; some are without length, some go on for ever, some are before any window."""
    label = generator.integers(-1, 2, (segments, classes)).astype("i1")
    onset = generator.integers(-2, 20, events) / 2
    offset = onset + generator.choice([0, 0, 0.25, 0.5, 1, 3, np.inf], events)
    columns = {
        "segment": generator.integers(0, segments, events).astype("i4"),
        "class": generator.integers(0, classes, events).astype("i2"),
        "onset": onset,
        "offset": offset,
    }
    key = generator.choice(np.array([*KEYS, "elsewhere"], object), segments)
    start, end = np.zeros(segments), np.full(segments, np.inf)
    return LabelSet(label, list("xyz"), key, start, end, events=columns)


def heard(said, key, start, end, share):
    """Return the word on each class of a window, one segment and one event after another."""
    word = [-1] * len(said.classes)
    for row in np.flatnonzero(said.key == key):
        own = said.events["segment"] == row
        for column in range(len(word)):
            mine = own & (said.events["class"] == column)
            word[column] = max(word[column], 0 if mine.any() else int(said.label[row, column]))
            for onset, offset in zip(said.events["onset"][mine], said.events["offset"][mine], strict=True):
                overlap = min(offset, end) - max(onset, start)
                enough = overlap > 0 and overlap >= share * min(offset - onset, end - start)
                if enough or (onset == offset and start <= onset < end):
                    word[column] = 1
    return word


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_targets_agree_with_brute_force(share):
    generator = np.random.default_rng(0)
    for _ in range(15):
        said = strong(generator)
        clip, start = generator.integers(0, 3, 40), generator.integers(0, 40, 40) / 4
        end = start + generator.choice([0.5, 1.0, 2.0], 40)  # a grid need not be regular
        found = labels.targets(said, KEYS, clip, start, end, share)
        expected = [heard(said, KEYS[c], s, e, share) for c, s, e in zip(clip, start, end, strict=True)]
        assert found.dtype == np.int8 and found.tolist() == expected


def test_without_events_targets_are_those_of_segments():
    said = strong(np.random.default_rng(1))
    said = labels.weak(said)
    clip, start = np.array([0, 1, 2, 0]), np.array([0.0, 1.0, 2.0, 3.0])
    expected = labels.Index(said, KEYS).of_windows(clip, start + 0.5)
    assert np.array_equal(labels.targets(said, KEYS, clip, start, start + 1), expected)


def test_diffuse_labels_are_present_throughout():
    said = timing.from_events(["a", "a"], ["x", "y"], np.array([1.0, 2.0]), np.array([2.0, 3.0]), clips=["b"])
    assert (said.key.tolist(), said.label.tolist()) == (["a", "b"], [[1, 1], [0, 0]])
    windows = (np.array([0, 0, 0, 1]), np.arange(4.0), np.arange(4.0) + 1)
    assert labels.targets(said, ["a", "b"], *windows).tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]
    assert labels.targets(labels.diffuse(said), ["a", "b"], *windows).tolist() == [[1, 1]] * 3 + [[0, 0]]


def test_explicit_negatives_are_zeros_and_the_rest_unknown():
    label = np.array([[0, -1], [1, -1], [0, 0], [-1, -1]], "i1")
    said = LabelSet(label, ["x", "y"], np.array(["a"] * 4, object), np.arange(4.0), np.arange(4.0) + 1)
    assert labels.negatives(said).tolist() == [True, False, False, False]
    found = labels.targets(said, ["a"], np.zeros(4, int), np.arange(4.0), np.arange(4.0) + 1)
    assert found.tolist() == label.tolist()


def test_a_share_that_is_none_is_refused():
    timeline = Timeline(strong(np.random.default_rng(2)), None, KEYS)
    with pytest.raises(ValueError, match="from 0 to 1"):
        timeline.of_windows(np.zeros(1, int), np.zeros(1), np.ones(1), 1.5)


def test_a_hundred_thousand_events_take_less_than_seconds():
    generator, count = np.random.default_rng(3), 100_000
    onset = generator.uniform(0, 9, count)
    keys = np.array([f"clip {i}" for i in range(10_000)], object)
    said = timing.from_events(
        keys[generator.integers(0, 10_000, count)], generator.choice(list("abcdefgh"), count), onset, onset + 1, keys
    )
    clip = np.repeat(np.arange(10_000), 10)
    start = np.tile(np.arange(10) * 0.96, 10_000)
    began = time.process_time()
    found = labels.targets(said, said.key, clip, start, start + 0.96)
    assert time.process_time() - began < 3
    assert 0.3 < (found == 1).any(1).mean() < 1


def table(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    return datasets.load("csv", tmp_path / "t.csv")


def test_a_table_with_onset_and_offset_has_a_row_an_event(tmp_path):
    text = "path,onset,offset,class,split\na.wav,1,2,dog,x\nb.wav,,,,y\na.wav,0.5,0.5,cat;dog,x\na.wav,,,rain,x\n"
    one, other = table(tmp_path, text)
    assert one.classes == ("dog", "cat", "rain") and one.split == "x"
    assert one.events == (("dog", 1.0, 2.0), ("cat", 0.5, 0.5), ("dog", 0.5, 0.5))
    assert (other.key, other.classes, other.events) == ("b.wav", (), ())


def test_start_and_end_go_on_cutting_clips(tmp_path):
    one, other = table(tmp_path, "path,start,end,onset,offset,class\na.wav,0,10,1,2,dog\na.wav,10,20,3,4,cat\n")
    assert (one.key, one.events) == ("a.wav@0-10", (("dog", 1.0, 2.0),))
    assert (other.key, other.events) == ("a.wav@10-20", (("cat", 3.0, 4.0),))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.wav,2,1,dog,x", "line 3: onset and offset are seconds"),
        ("a.wav,-1,1,dog,x", "line 3: onset and offset are seconds"),
        ("a.wav,1,,dog,x", "line 3: onset and offset are seconds"),
        ("a.wav,1,inf,dog,x", "line 3: onset and offset are seconds"),
        ("a.wav,1,2,,x", "line 3: an event has no class"),
        ("a.wav,1,2,dog,y", "line 3: the split of a.wav is 'y', and 'x' above"),
    ],
)
def test_rows_that_cannot_be_are_named(tmp_path, row, words):
    with pytest.raises(TableError, match=words):
        table(tmp_path, f"path,onset,offset,class,split\na.wav,0,1,dog,x\n{row}\n")


def test_windows_of_segments_have_their_own_events_alone():
    generator = np.random.default_rng(5)
    for share in (0.0, 0.5):
        said = strong(generator, segments=6, events=40)
        rows = np.array([5, 0, 3])
        moments = labels.Moments(said.label, said.events, rows)
        row, start = generator.integers(0, 3, 50), generator.integers(0, 40, 50) / 4
        keys = np.array([f"{i}" for i in range(6)], object)
        alone = LabelSet(said.label, said.classes, keys, said.start - 9, said.end, events=said.events)
        expected = labels.targets(alone, keys, rows[row], start, start + 1, share)
        assert np.array_equal(moments.of_windows(row, start, start + 1, share), expected)
        assert moments.timed.tolist() == [bool((said.events["segment"] == one).any()) for one in rows]

"""Classification from strong, weak and mixed labels: what a window is told, and which examples make up a batch."""

import builder
import numpy as np
import pytest

from soundssl import files, objectives
from soundssl.objectives import classification

KEYS = [f"clip-{i:02}" for i in range(20)]
EVENTS = [(0, 0, 0.0, 2.0), (0, 1, 6.0, 7.0), (1, 1, 3.0, 3.5)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two clips of 8 s with events, seventeen weakly labelled ones, and one in which nothing is heard."""
    folder = tmp_path_factory.mktemp("strong")
    frames = np.random.default_rng(0).normal(size=(800, 64)).astype("f2")
    features = builder.features(folder / "f.h5", {key: frames for key in KEYS})
    label = np.zeros((20, 2), int)
    label[0], label[1, 1], label[2:19, 0] = 1, 1, 1
    said = builder.labels(folder / "l.h5", builder.whole(KEYS), ["dog", "cat"], label, events=EVENTS)
    return files.Features(features), files.Labels(said)


def examples(mixed, **options):
    inputs = objectives.Inputs(mixed[0], np.ones(20, bool), labels=mixed[1])
    return classification.Examples(inputs, classification.Options(loss="bce", **options), 0)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_window_is_told_what_it_overlaps(mixed, overlap):
    own = examples(mixed, overlap=overlap)
    keys = [(epoch, row) for epoch in range(60) for row in (0, 1, 2)]
    batch = own.__getitems__(keys)
    for (epoch, row), label in zip(keys, batch["label"].tolist(), strict=True):
        first = np.random.default_rng([0, epoch, row]).integers(own.low[row], own.high[row] + 1)
        start = (first - own.begin[row]) * 0.01
        if row == 2:
            assert label == [1, 0]  # a weak clip, wherever
            continue
        expected = [0, 0]
        for segment, column, onset, offset in EVENTS:
            heard = min(offset, start + 0.96) - max(onset, start)
            if segment == row and heard > 1e-9 and heard >= overlap * min(offset - onset, 0.96) - 1e-9:
                expected[column] = 1
        assert label == expected
    assert 0 < batch["label"][:, 1].float().mean() < 0.5


def test_without_events_segments_are_labelled_throughout(mixed):
    own = examples(mixed, events=False)
    assert own.__getitems__([(epoch, 0) for epoch in range(20)])["label"].tolist() == [[1, 1]] * 20
    assert sorted(own.arrange(0)) == list(range(20))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_share_of_every_batch_is_strong(mixed, share):
    own = examples(mixed, strong=share)
    order = np.concatenate([own.arrange(epoch) for epoch in range(10)])
    strong = order < 2
    for first in range(0, len(order), 4):
        assert strong[first : first + 4].sum() == 4 * share
    if share < 1:
        count = np.bincount(order[~strong], minlength=20)[2:]
        assert count.min() >= 1 and count.max() <= 10  # weak examples take turns
    assert np.array_equal(own.arrange(3), examples(mixed, strong=share).arrange(3))


def test_share_zero_takes_examples_as_they_come(mixed):
    assert sorted(examples(mixed, strong=0.0).arrange(1)) == list(range(20))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strong": 1.5}, "shares from 0 to 1"),
        ({"overlap": -0.1}, "shares from 0 to 1"),
        ({"loss": "ce"}, "give loss=bce"),
    ],
)
def test_options_that_cannot_be_meant(mixed, options, words):
    inputs = objectives.Inputs(mixed[0], np.ones(20, bool), labels=mixed[1])
    with pytest.raises(ValueError, match=words):
        classification.Examples(inputs, classification.Options(**{"loss": "bce", **options}), 0)

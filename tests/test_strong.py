"""evaluate strong: windows against events and rated spans; the command, with and without the packages for events."""

import json
import sys

import builder
import numpy as np
import pytest
from cluster_world import run

from soundssl import files
from soundssl.detection import scoring
from soundssl.evaluations import reading, strong
from soundssl.evaluations.table import Table
from soundssl.ops import metrics

CLASSES = ["cat", "dog"]
EVENTS = [(0, 0, 1.0, 3.0), (0, 1, 2.0, 4.0), (1, 1, 5.0, 8.0), (2, 0, 0.0, 2.0), (4, 1, 3.0, 3.0)]
KEYS = [f"{i}.wav" for i in range(6)]


def test_the_weighted_area_is_that_of_repeated_items():
    generator = np.random.default_rng(0)
    score, label = generator.integers(0, 6, 40) / 6, generator.integers(0, 2, 40)
    weight = generator.integers(0, 3, (20, 40))
    found = metrics.weighted_roc_auc(score, label, weight)
    for row, times in zip(found, weight, strict=True):
        rows = np.repeat(np.arange(40), times)
        assert row == pytest.approx(metrics.roc_auc(score[rows], label[rows]), abs=1e-12)
    assert np.isnan(metrics.weighted_roc_auc(score, label, (label == 1)[None].astype(int)))[0]


def test_a_class_is_scored_on_rated_windows_alone():
    generator = np.random.default_rng(1)
    label = generator.integers(-1, 2, (300, 3))
    label[:, 2] = 1
    score = label * 0.3 + generator.normal(size=label.shape)
    rows = {one["metric"]: one for one in strong.evaluate(Table(score, label, list("abc"))) if one["class"] is None}
    areas = []
    for column in range(2):
        known = label[:, column] >= 0
        areas.append(metrics.roc_auc(score[known, column], label[known, column]))
    assert rows["frame_AUC"]["value"] == pytest.approx(np.mean(areas))
    assert rows["frame_dprime"]["value"] == pytest.approx(np.mean([metrics.d_prime(area) for area in areas]))
    assert rows["skipped_classes"]["value"] == 1 and rows["frame_dprime"]["low"] is None


def test_intervals_are_over_recordings():
    generator = np.random.default_rng(2)
    recording = np.repeat(np.arange(12), 25)
    label = generator.integers(0, 2, (300, 1))
    score = label + generator.normal(size=label.shape) + generator.normal(size=12)[recording][:, None]
    table = Table(score, label, ["a"], recording=recording)
    row = strong.evaluate(table, strong.Options(bootstrap=200), 3)[0]
    apart = strong.evaluate(Table(score, label, ["a"]), strong.Options(bootstrap=200), 3)[0]
    assert row["low"] < row["value"] < row["high"] and apart["low"] < apart["value"] < apart["high"]
    assert row == strong.evaluate(table, strong.Options(bootstrap=200), 3)[0]


@pytest.mark.parametrize(
    ("score", "label", "words"),
    [
        (np.zeros((9, 1)), np.zeros((9, 2)), "do not fit 2 classes"),
        (np.full((9, 2), np.nan), np.zeros((9, 2)), "9 windows have a score that is not finite"),
        (np.zeros((9, 2)), np.zeros((9, 2)), "none of 2 classes has 5 windows with it"),
    ],
)
def test_what_cannot_be_scored_is_said(score, label, words):
    with pytest.raises(ValueError, match=words):
        strong.evaluate(Table(score, label, CLASSES))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Six clips of 10 s, windows of 1 s every half second, scores that are right but for noise."""
    folder = tmp_path_factory.mktemp("strong")
    label = np.zeros((6, 2), int)
    for segment, column, *_ in EVENTS:
        label[segment, column] = 1
    labels = builder.labels(folder / "l.h5", builder.whole(KEYS), CLASSES, label, events=EVENTS, split=list("aaabbb"))
    clip, start = np.repeat(np.arange(6), 19), np.tile(np.arange(19) * 0.5, 6)
    score = np.random.default_rng(4).uniform(0, 0.4, (len(clip), 2))
    for segment, column, onset, offset in EVENTS:
        score[(clip == segment) & (start < offset) & (start + 1 > onset), column] += 0.5
    attributes = {"layer": "probabilities", "class": json.dumps(CLASSES), "window": 1.0, "hop": 0.5}
    scores = builder.embeddings(
        folder / "s.h5", score.astype("f4"), clip=clip, start=start, keys=KEYS, attributes=attributes
    )
    return folder, scores, labels


def test_windows_take_what_they_overlap(world):
    _, scores, labels = world
    table = reading.read_strong(scores, files.Labels(labels))
    own = table.label.reshape(6, 19, 2)
    assert own[0, :, 0].tolist() == [0] + [1] * 5 + [0] * 13 and own[4, :, 1].tolist() == [0] * 5 + [1] * 2 + [0] * 12
    half = reading.read_strong(scores, files.Labels(labels), overlap=0.6).label.reshape(6, 19, 2)
    assert half[0, :, 0].tolist() == [0] * 2 + [1] * 3 + [0] * 14


def test_windows_clips_and_events_are_scored(world, monkeypatch):
    _, scores, labels = world
    monkeypatch.setitem(sys.modules, "sed_eval", None)
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)
    done = run("evaluate", "strong", scores, "--labels", labels, "--bootstrap", 20, "--least", 2)
    assert done.status == 0, done.err
    rows = done.rows()
    assert rows["frame_dprime"] > 3 and 0.9 < rows["weak_mAP"] <= 1 and "event_F1" not in rows
    assert "F1 of events is left out" in done.err and "pip install 'soundssl[sed]'" in done.err
    smooth = run("evaluate", "strong", scores, "--labels", labels, "--least", 2, "--smooth", labels)
    assert smooth.status == 0 and smooth.rows()["frame_dprime"] != rows["frame_dprime"]
    neutral = run("evaluate", "strong", scores, "--labels", labels, "--least", 2, "--smooth", 0).rows()
    assert neutral["frame_dprime"] == pytest.approx(rows["frame_dprime"])
    half = run("evaluate", "strong", scores, "--labels", labels, "--least", 2, "--split", "a")
    assert half.status == 0 and half.rows()["frame_dprime"] != rows["frame_dprime"]


def test_events_by_the_packages_of_the_field(world):
    pytest.importorskip("sed_eval")
    pytest.importorskip("sed_scores_eval")
    _, scores, labels = world
    done = run("evaluate", "strong", scores, "--labels", labels, "--least", 2, "--collar", 1.0)
    assert done.status == 0, done.err
    rows = done.rows()
    assert rows["segment_F1"] > 0.6 and rows["onset_F1"] >= rows["event_F1"] > 0.5
    assert 0 < rows["psds1"] <= rows["psds2"] <= 1


def test_events_of_a_class_that_touch_or_overlap_are_one_in_the_truth(world, tmp_path):
    _, scores, _ = world
    twice = [(0, 0, 1.0, 2.0), (0, 0, 1.5, 2.5), (0, 0, 2.5, 3.0), (0, 1, 1.2, 2.0), (1, 0, 3.0, 4.0)]
    labels = builder.labels(tmp_path / "l.h5", builder.whole(KEYS), CLASSES, np.eye(6, 2, dtype=int), events=twice)
    clips = scoring.clips_of(files.Embeddings(scores), files.Labels(labels), CLASSES)
    assert clips[0].events == [(1.0, 3.0, "cat"), (1.2, 2.0, "dog")] and clips[1].events == [(3.0, 4.0, "cat")]


def test_psds_of_events_that_are_found_exactly_is_one_and_else_less():
    """Whichever pandas is there: the arrays of pandas 3 may not be written to."""
    pytest.importorskip("sed_scores_eval")
    start = np.arange(20) * 0.5  # windows of a second
    clips, missed = [], []
    for number in range(4):
        heard = (start >= number) & (start + 1 <= number + 2)
        score = np.stack([heard, heard[::-1]], 1) * 0.8 + 0.1
        events = [(float(number), number + 2.0, "a"), (8.5 - number, 10.5 - number, "b")]
        clips.append(scoring.Clip(str(number), str(number), events, score, start))
        missed.append(scoring.Clip(str(number), str(number), events, score[:, ::-1], start))
    assert [one["value"] for one in scoring.psds(clips, 1.0, ["a", "b"])] == pytest.approx([1, 1])
    assert scoring.psds(missed, 1.0, ["a", "b"])[0]["value"] < 1  # the second scenario takes a whole clip for its event


def test_bad_input_is_said_in_a_line(world, tmp_path):
    _, scores, labels = world
    plain = builder.embeddings(tmp_path / "e.h5", np.zeros((2, 3), "f4"))
    other = builder.labels(tmp_path / "o.h5", builder.whole(["x"]), CLASSES, [[1, 0]])
    weak = builder.labels(tmp_path / "w.h5", builder.whole(["0.wav"]), CLASSES, [[1, 0]])
    for words, status, line in [
        ((plain, "--labels", labels), 4, "holds embeddings, not scores of classes"),
        ((scores, "--labels", other), 1, "says nothing of the windows and classes of"),
        ((scores, "--labels", tmp_path / "none.h5"), 2, "does not exist"),
        ((scores, "--labels", labels, "--least", 500), 1, "none of 2 classes has 500 windows"),
        ((scores, "--labels", labels, "--smooth", "inf"), 2, "is no number of nats"),
        ((scores, "--labels", labels, "--least", 2, "--smooth", weak), 2, "the labels have no event of the classes"),
        ((scores, "--labels", labels, "--overlap", 2), 2, "--overlap"),
    ]:
        done = run("evaluate", "strong", *words)
        assert done.status == status and line in done.err, (words, done.err)

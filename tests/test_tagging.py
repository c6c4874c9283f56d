"""Tagging: perfect scores, chance, and what unknown labels and several draws do."""

import numpy as np
import pytest

from soundssl.evaluations import tagging
from soundssl.evaluations.table import Table

CLASSES = ["a", "b", "c", "d", "e", "f"]


def labels(clips: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((clips, len(CLASSES))) < 0.3).astype(np.int8)


def overall(rows: list[dict]) -> dict[str, dict]:
    return {row["metric"]: row for row in rows if row["class"] is None}


def test_the_truth_as_score_is_perfect():
    label = labels(50)
    label = label[label.any(1)]
    score = label + 0.1 * np.random.default_rng(0).random(label.shape)
    rows = overall(tagging.evaluate(Table(score, label, CLASSES)))
    for metric in ("mAP", "AUC", "lwlrap", "top1", "top5"):
        assert rows[metric]["value"] == pytest.approx(1.0), metric
    assert rows["dprime"]["value"] > 5


def test_random_scores_are_at_chance():
    label = labels(4000)
    rows = overall(tagging.evaluate(Table(np.random.default_rng(1).random(label.shape), label, CLASSES)))
    for metric in ("mAP", "AUC", "lwlrap", "top1", "top5", "dprime"):
        assert rows[metric]["value"] == pytest.approx(rows[metric]["chance"], abs=0.03), metric


def test_unknown_labels_change_nothing():
    label, generator = labels(60), np.random.default_rng(2)
    score = generator.random(label.shape)
    label[:20] = -1
    found = overall(tagging.evaluate(Table(score, label, CLASSES)))["mAP"]["value"]
    known = Table(score[20:], label[20:], CLASSES)
    assert found == pytest.approx(overall(tagging.evaluate(known))["mAP"]["value"])
    tested = Table(score, label, CLASSES, test=np.arange(60) >= 20)
    assert tagging.evaluate(tested) == tagging.evaluate(known)


def test_the_score_of_a_clip_is_the_mean_of_its_windows():
    label, generator = labels(40), np.random.default_rng(4)
    score = generator.random((40, 3, len(CLASSES)))
    windows = Table(score.reshape(120, -1), label, CLASSES, clip=np.repeat(np.arange(40), 3))
    expected = tagging.evaluate(Table(score.mean(1), label, CLASSES))
    for one, other in zip(tagging.evaluate(windows), expected, strict=True):
        assert one == {**other, "value": pytest.approx(other["value"])}


def test_intervals_hold_the_value_and_errors_are_named():
    label = labels(80)
    score = label + np.random.default_rng(3).normal(0, 1, label.shape)
    row = overall(tagging.evaluate(Table(score, label, CLASSES), tagging.Options(bootstrap=100)))["mAP"]
    assert row["low"] < row["value"] < row["high"]
    with pytest.raises(ValueError, match=r"scores \[80, 5\] do not fit 6 classes"):
        tagging.evaluate(Table(score[:, :5], label, CLASSES))
    with pytest.raises(ValueError, match="2 clips have no window"):
        tagging.evaluate(Table(score[:78], label, CLASSES))
    score[3] = np.nan
    with pytest.raises(ValueError, match="1 clips have a score that is not finite"):
        tagging.evaluate(Table(score, label, CLASSES))

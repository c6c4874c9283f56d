"""Tagging: perfect scores, chance, and what unknown labels and several draws do."""

import numpy as np
import pytest

from soundssl.evaluations import tagging

CLASSES = ["a", "b", "c", "d", "e", "f"]


def labels(clips: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((clips, len(CLASSES))) < 0.3).astype(np.int8)


def overall(rows: list[dict]) -> dict[str, dict]:
    return {row["metric"]: row for row in rows if row["class"] is None}


def test_the_truth_as_score_is_perfect():
    label = labels(50)
    label = label[label.any(1)]
    rows = overall(tagging.evaluate(label + 0.1 * np.random.default_rng(0).random(label.shape), label, CLASSES))
    for metric in ("mAP", "AUC", "lwlrap", "top1", "top5"):
        assert rows[metric]["value"] == pytest.approx(1.0), metric
    assert rows["dprime"]["value"] > 5


def test_random_scores_are_at_chance():
    label = labels(4000)
    rows = overall(tagging.evaluate(np.random.default_rng(1).random(label.shape), label, CLASSES))
    for metric in ("mAP", "AUC", "lwlrap", "top1", "top5", "dprime"):
        assert rows[metric]["value"] == pytest.approx(rows[metric]["chance"], abs=0.03), metric


def test_unknown_labels_change_nothing():
    label, generator = labels(60), np.random.default_rng(2)
    score = generator.random(label.shape)
    label[:20] = -1
    found = overall(tagging.evaluate(score, label, CLASSES))["mAP"]["value"]
    assert found == pytest.approx(overall(tagging.evaluate(score[20:], label[20:], CLASSES))["mAP"]["value"])


def test_intervals_hold_the_value_and_errors_are_named():
    label = labels(80)
    score = label + np.random.default_rng(3).normal(0, 1, label.shape)
    row = overall(tagging.evaluate(score, label, CLASSES, tagging.Options(bootstrap=100)))["mAP"]
    assert row["low"] < row["value"] < row["high"]
    with pytest.raises(ValueError, match=r"scores \[80, 5\] do not fit labels \[80, 6\] of 6 classes"):
        tagging.evaluate(score[:, :5], label, CLASSES)
    score[3] = np.nan
    with pytest.raises(ValueError, match="1 clips have a score that is not finite"):
        tagging.evaluate(score, label, CLASSES)

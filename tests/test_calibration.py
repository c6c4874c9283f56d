"""Thresholds and probabilities: against brute force, and honest on scores whose truth is known."""

import math

import numpy as np
import pytest

from soundssl.detection import calibration


def draw(seed: int, recordings: int = 60, windows: int = 10, separation: float = 2.0, share: float = 0.3):
    """Draw windows of recordings: labels, and scores that rise with them."""
    generator = np.random.default_rng(seed)
    recording = np.repeat(np.arange(recordings), windows)
    label = (generator.random(recordings * windows) < share).astype(np.int8)
    score = 1 / (1 + np.exp(-(separation * label + generator.normal(0, 1, len(label)) - separation / 2)))
    return score, label, recording


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("precision", [None, 0.6, 0.9])
def test_the_threshold_is_the_best_of_all(seed, precision):
    generator = np.random.default_rng(seed)
    score, true = np.round(generator.random(30), 1), generator.random(30) < 0.4
    chosen = calibration.best_threshold(score, true, precision)
    found = {t: calibration.at_threshold(score, true, t) for t in np.unique(score)}
    here = calibration.at_threshold(score, true, chosen)
    if precision is None:
        assert here[2] == pytest.approx(max(f1 for _, _, f1 in found.values()))
    else:
        enough = [
            (recall, right) for t, (right, recall, _) in found.items() if right >= precision and (score >= t).sum() >= 3
        ]
        if enough:
            assert here[0] >= precision and here[1] == pytest.approx(max(enough)[0])


def test_intervals_hold_what_new_recordings_give():
    held = 0
    for seed in range(20):
        chosen = calibration.choose(*draw(seed), precision=0.8, draws=60, seed=seed)
        score, label, _ = draw(1000 + seed, recordings=2000)
        right, recall, _ = calibration.at_threshold(score, label == 1, chosen.threshold)
        held += chosen.precision_interval[0] <= right <= chosen.precision_interval[1]
        assert abs(chosen.precision - right) < 0.2 and abs(chosen.recall - recall) < 0.25
    assert held >= 15  # 95 % of 20, with room for 20 draws


def test_probabilities_are_what_they_say():
    score, label, recording = draw(0, recordings=400)
    skewed = score**4  # ranks are kept, the numbers mean nothing any more
    true = label == 1
    before = calibration.reliability(skewed, true)
    after = calibration.reliability(calibration.cross_fitted(skewed, true, recording), true)
    assert after < 0.04 < before
    scale, offset = calibration.fit_logistic(skewed, true)
    assert np.all(np.diff(calibration.probability(np.linspace(0, 1, 50), scale, offset)) >= 0)


def test_scores_against_the_truth_say_nothing_but_the_share():
    score, label, _ = draw(1)
    scale, offset = calibration.fit_logistic(1 - score, label == 1)
    assert scale == 0 and calibration.probability(0.2, scale, offset) == pytest.approx(label.mean(), abs=0.02)


def test_classes_told_apart_without_a_fault_stay_finite():
    score, label = np.repeat([0.0, 1.0], 50), np.repeat([0, 1], 50)
    scale, offset = calibration.fit_logistic(score, label == 1)
    assert math.isfinite(scale) and 0.9 < calibration.probability(1.0, scale, offset) < 1


def test_unknown_labels_count_for_nothing():
    score, label, recording = draw(2)
    noise = np.random.default_rng(3).random(200)
    more = np.append(score, noise), np.append(label, np.full(200, -1)), np.append(recording, np.arange(200))
    assert calibration.choose(*more) == calibration.choose(score, label, recording)


@pytest.mark.parametrize(
    "label", [np.zeros(20, np.int8), np.ones(20, np.int8), np.full(20, -1), np.eye(1, 20, dtype=np.int8)[0]]
)
def test_too_little_is_said_to_be_too_little(label):
    chosen = calibration.choose(np.linspace(0, 1, 20), label, np.repeat(np.arange(10), 2))
    assert math.isnan(chosen.threshold) and chosen.windows == (label >= 0).sum()

"""Scores to events: against a walk window by window, and the laws of thresholds, gaps and lengths."""

import numpy as np
import pytest

from soundssl.detection.decisions import Rule, decide, extents


def walk(score, start, window, rule):
    """Return the events by brute force, a class and a window at a time."""
    low, high = extents(start, window)
    found = []
    for k in range(score.shape[1]):
        on, off = (
            np.broadcast_to(t, score.shape[1])[k]
            for t in (rule.threshold, rule.threshold if rule.release is None else rule.release)
        )
        runs = []
        for i in range(len(score)):
            among = not rule.top or k in np.argsort(-score[i], kind="stable")[: rule.top]
            stays = score[i, k] >= off and among
            joined = i and low[i] <= high[i - 1] + 1e-6
            if stays and runs and runs[-1][3] == i - 1 and joined:
                runs[-1][1], runs[-1][3] = high[i], i
                runs[-1][2] = max(runs[-1][2], score[i, k] if score[i, k] >= on else -1)
            elif stays:
                runs.append([low[i], high[i], score[i, k] if score[i, k] >= on else -1, i])
        merged = []
        for begin, end, most, _ in (run for run in runs if run[2] >= 0):
            if rule.gap and merged and begin - merged[-1][1] <= rule.gap + 1e-6:
                merged[-1][1:] = [end, max(most, merged[-1][2])]
            else:
                merged.append([begin, end, most])
        found += [(begin, k, end, most) for begin, end, most in merged if end - begin >= rule.least - 1e-6]
    return sorted(found)


@pytest.mark.parametrize("seed", range(40))
def test_events_are_those_of_a_walk(seed):
    generator = np.random.default_rng(seed)
    count, classes = int(generator.integers(0, 30)), int(generator.integers(1, 4))
    score = np.round(generator.random((count, classes)), 1)
    hop = float(generator.choice([0.24, 0.48, 0.96, 1.5]))
    kept = np.sort(generator.choice(count + 5, count, replace=False))  # with holes
    rule = Rule(
        threshold=generator.choice([0.3, 0.5, 0.9], classes) if seed % 2 else 0.5,
        release=0.3 if seed % 3 else None,
        gap=float(generator.choice([0, 0.5, 2])),
        least=float(generator.choice([0, 1.0])),
        top=int(generator.integers(0, 3)),
    )
    found = decide(score, kept * hop, 0.96, rule)
    ours = [(a, b, c, d) for a, b, c, d in zip(found.start, found.number, found.end, found.score, strict=True)]
    assert np.allclose(np.array(ours).reshape(-1, 4), np.array(walk(score, kept * hop, 0.96, rule)).reshape(-1, 4))


@pytest.mark.parametrize("hop", [0.12, 0.24, 0.48, 0.96])
@pytest.mark.parametrize("middle", [3.0, 3.17, 5.9])
def test_a_burst_is_found_in_its_place(hop, middle):
    start = np.arange(0, 9, hop)
    heard = (start <= middle + 0.2) & (start + 0.96 >= middle - 0.2)  # every window that holds some of it
    found = decide(heard[:, None].astype(float), start, 0.96, Rule())
    assert len(found) == 1 and abs((found.start[0] + found.end[0]) / 2 - middle) <= hop / 2 + 1e-9
    assert abs(found.start[0] - (middle - 0.2)) <= 0.96 and abs(found.end[0] - (middle + 0.2)) <= 0.96


def test_windows_share_out_the_whole_recording():
    low, high = extents(np.array([0, 0.48, 0.96, 5.0]), 0.96)
    assert np.allclose(low, [0, 0.72, 1.2, 5.0]) and np.allclose(high, [0.72, 1.2, 1.92, 5.96])
    found = decide(np.ones((4, 1)), np.array([0, 0.48, 0.96, 5.0]), 0.96, Rule())
    assert np.allclose(found.start, [0, 5]) and np.allclose(found.end, [1.92, 5.96])


def test_a_lower_threshold_never_hears_less():
    generator = np.random.default_rng(0)
    score, start = generator.random((200, 2)), np.arange(200) * 0.48
    covered = [
        float((found.end - found.start).sum())
        for t in (0.9, 0.5, 0.1)
        for found in [decide(score, start, 0.96, Rule(t))]
    ]
    assert covered == sorted(covered)


@pytest.mark.parametrize(
    ("score", "start", "words"),
    [
        (np.ones(3), np.ones(3), "do not fit"),
        (np.ones((3, 1)), np.ones(2), "do not fit"),
        (np.full((1, 1), np.nan), np.zeros(1), "not finite"),
    ],
)
def test_misfits_are_named(score, start, words):
    with pytest.raises(ValueError, match=words):
        decide(score, start, 0.96, Rule())
    with pytest.raises(ValueError, match="would end before it begins"):
        Rule(0.5, 0.6)

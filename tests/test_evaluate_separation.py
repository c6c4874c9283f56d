"""evaluate separation: perfect tracks score perfectly, the mixture gains nothing, assignments are the best of all."""

import itertools
import json

import numpy as np
import pytest
import torch
from separation_world import write_classes, write_waves
from test_separate import write_separator

from soundssl import files
from soundssl.commands import main
from soundssl.evaluations import separation as task
from soundssl.ops import separation
from soundssl.separation import mixtures

OPTIONS = task.Options()


def sources(count: int = 6, samples: int = 4000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 2, samples)).astype(np.float32)


def value(rows: list[dict], metric: str, name: str | None = None) -> float:
    return next(row["value"] for row in rows if row["metric"] == metric and row["class"] == name)


def test_perfect_tracks_in_any_order_score_perfectly():
    pair = sources()
    tracks = np.concatenate([pair[:, 1:], 0.0 * pair[:, :1], pair[:, :1]], 1)
    found = task.measure(pair, tracks, OPTIONS)
    assert (found["si_snr_improvement"] > 60).all() and (found["summed_tracks_improvement"] > 60).all()
    assert not found["over_separation"].any() and found["consistency_error"].max() < 1e-6


def test_the_mixture_as_every_track_gains_nothing():
    pair = sources()
    tracks = np.repeat(pair.sum(1, keepdims=True) / 4, 4, axis=1)
    found = task.measure(pair, tracks, OPTIONS)
    for name in ("si_snr_improvement", "summed_tracks_improvement"):
        assert found[name] == pytest.approx(np.zeros(6), abs=1e-6)
    assert (found["over_separation"] == 2).all()


def test_split_sources_are_summed_but_count_as_over_separated():
    pair, share = sources(), np.random.default_rng(1).uniform(0.3, 0.7, (6, 1, 4000)).astype("f4")
    tracks = np.concatenate([share * pair[:, :1], (1 - share) * pair[:, :1], pair[:, 1:]], 1)
    found = task.measure(pair, tracks, OPTIONS)
    assert (found["summed_tracks_improvement"] > 60).all() and (found["over_separation"] == 1).all()
    assert (found["si_snr_improvement"] < found["summed_tracks_improvement"] - 20).all(), "sums are not the headline"


def test_mixtures_are_separated_too_little_enough_or_too_much():
    """Tracks are heard re the quietest source: at -20 dB one of a hundredth of its energy just is."""
    pair = sources(3)
    pair[:, 1] *= 0.1
    nothing = np.zeros_like(pair[:, 0])
    one = [pair[0].sum(0), nothing[0], nothing[0]]
    tracks = np.stack([one, [*pair[1], 0.09 * pair[1, 1]], [*pair[2], 0.11 * pair[2, 1]]])
    found = task.measure(pair, tracks.astype("f4"), OPTIONS)
    rates = [found[name].tolist() for name in ("under_separated", "equally_separated", "over_separated")]
    assert rates == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert value(task.evaluate([found], None, [], OPTIONS), "equally_separated") == pytest.approx(1 / 3)


def test_what_is_lacking_is_told():
    pair = sources()
    assert task.measure(pair, 0.9 * pair, OPTIONS)["consistency_error"] == pytest.approx(np.full(6, 0.1), rel=1e-3)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_both_assignments_are_the_best_of_all(count):
    generator = torch.Generator().manual_seed(count)
    pair = torch.randn(4, 2, 500, generator=generator, dtype=torch.float64)
    tracks = torch.randn(4, count, 500, generator=generator, dtype=torch.float64) + 0.5 * pair[:, :1]
    best = torch.full((4, 2), -torch.inf, dtype=torch.float64)
    for choice in itertools.product([0.0, 1.0], repeat=count):
        second = torch.tensor(choice, dtype=torch.float64)[:, None]
        estimates = torch.stack([((1 - second) * tracks).sum(1), (second * tracks).sum(1)], 1)
        scores = separation.si_snr(pair, estimates)
        best = torch.where((scores.mean(1) > best.mean(1))[:, None], scores, best)
    found = separation.assigned_si_snr(pair, tracks)
    assert torch.allclose(found, best, rtol=1e-6)
    single = task.measure(pair.numpy(), tracks.numpy(), OPTIONS)["si_snr_improvement"]
    each = separation.si_snr(pair[:, :, None], tracks[:, None]).numpy()
    wanted = [
        max((row[0, a] + row[1, b]) / 2 for a, b in itertools.permutations(range(count), 2)) for row in each
    ] - separation.si_snr(pair, pair.sum(1, keepdim=True)).mean(1).numpy()
    assert single == pytest.approx(wanted)


def test_sources_alone_are_left_whole_or_not():
    alone = sources()[:, 0]
    whole = np.stack([0 * alone, alone], 1)
    found = task.measure_alone(alone, whole, OPTIONS)
    assert (found["preservation"] > 60).all() and not found["over_separation_alone"].any()
    halves = np.stack([alone * (np.arange(4000) < 2000), alone * (np.arange(4000) >= 2000)], 1)
    found = task.measure_alone(alone, halves, OPTIONS)
    assert found["preservation"] == pytest.approx(np.zeros(6), abs=0.6) and (found["over_separation_alone"] == 1).all()


def test_rows_average_batches_and_classes():
    pair, label = sources(4), np.eye(3, dtype="i1")[np.array([[0, 1], [0, 1], [1, 2], [2, 0]])]
    measured = [task.measure(part, 0.5 * part + 0.1 * part[:, ::-1], OPTIONS) for part in (pair[:3], pair[3:])]
    rows = task.evaluate(measured, label, ["a", "b", "c"], task.Options(bootstrap=50))
    each = np.concatenate([one["by_source"] for one in measured])
    overall = rows[0]
    assert overall["value"] == pytest.approx(each.mean()) and overall["count"] == 4 and overall["chance"] == 0
    assert overall["low"] <= overall["value"] <= overall["high"]
    assert value(rows, "si_snr_improvement", "b") == pytest.approx(np.mean([each[0, 1], each[1, 1], each[2, 0]]))
    assert task.evaluate(measured, label, ["a", "b", "c"], task.Options(bootstrap=50)) == rows
    with pytest.raises(ValueError, match="no mixture was measured"):
        task.evaluate([], None, [], OPTIONS)
    with pytest.raises(ValueError, match=r"sources \[4, 2, 4000\] and tracks \[3, 2, 4000\]"):
        task.measure(pair, pair[:3], OPTIONS)


def test_pairs_are_of_different_recordings_and_classes():
    recording, label = np.array([0, 0, 1, 2, 3]), np.eye(3, dtype="i1")[[0, 0, 0, 1, 2]]
    label[4] = -1  # nothing is known of it
    generator = np.random.default_rng(0)
    pairs = task.draw(recording, None, 200, generator)
    assert pairs.shape == (200, 2) and (recording[pairs[:, 0]] != recording[pairs[:, 1]]).all()
    assert set(map(tuple, np.sort(task.draw(recording, label, 200, generator), 1))) == {(0, 3), (1, 3), (2, 3)}
    few = task.draw(recording, None, 9, generator)
    assert len(np.unique(np.sort(few, 1), axis=0)) == 9, "without repetition where there are as many"
    with pytest.raises(ValueError, match="no two clips are of different recordings and of different classes"):
        task.draw(recording[:3], label[:3], 2, generator)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_any_number_of_sources_is_scored_by_the_best_permutation(count):
    generator = np.random.default_rng(count)
    given = generator.normal(size=(3, count, 3000)).astype("f4")
    noise = 0.1 * generator.normal(size=(3, 4, 3000)).astype("f4")
    noise[:, generator.permutation(4)[:count]] += given
    found = task.measure(given, noise, task.Options(heard=-10))
    assert found["equally_separated"].tolist() == [1, 1, 1] and not found["over_separation"].any()
    assert found["sources"].tolist() == [count] * 3 and "summed_tracks_improvement" not in found
    if count == 1:
        assert "si_snr_improvement" not in found and "by_source" not in found, "nothing to improve on"
        return
    best = []
    for sources, tracks in zip(torch.from_numpy(given), torch.from_numpy(noise), strict=True):
        each = separation.si_snr(sources[:, None], tracks[None]).numpy()
        before = separation.si_snr(sources, sources.sum(0)).numpy().mean()
        options = itertools.permutations(range(4), count)
        best.append(max(each[range(count), order].mean() for order in options) - before)
    assert found["si_snr_improvement"] == pytest.approx(np.array(best))
    assert np.mean(best) == pytest.approx(20 + 10 * np.log10(count - 1), abs=0.5)
    with pytest.raises(ValueError, match="a track or more for each source"):
        task.measure(given, noise[:, : count - 1], OPTIONS)


def test_numbers_of_sources_have_rows_of_their_own_where_they_differ():
    one, three = sources(2)[:, :1], np.random.default_rng(5).normal(size=(4, 3, 2000)).astype("f4")
    silent = np.zeros((4, 1, 2000), "f4")
    batches = [(one, np.concatenate([one, one], 1)), (three, np.concatenate([three[:, :2], silent], 1))]
    measured = [task.measure(given, tracks, OPTIONS) for given, tracks in batches]
    label = np.eye(3, dtype="i1")[np.tile(np.arange(3), (4, 1))]
    rows = task.evaluate(measured, label, ["a", "b", "c"], task.Options(bootstrap=20))
    assert value(rows, "over_separated") == pytest.approx(1 / 3) and value(rows, "under_separated") == pytest.approx(
        2 / 3
    )
    assert value(rows, "over_separated_1_source") == 1 and value(rows, "under_separated_3_sources") == 1
    assert value(rows, "si_snr_improvement_3_sources") == value(rows, "si_snr_improvement")
    assert not any(row["metric"] == "si_snr_improvement_1_source" for row in rows)
    assert value(rows, "si_snr_improvement", "a") > 50 > value(rows, "si_snr_improvement", "c"), (
        "sources keep their class"
    )
    alike = task.evaluate(measured[1:], None, [], OPTIONS)
    assert not any(row["metric"].endswith("sources") for row in alike)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_mixtures_of_any_number_are_of_different_recordings_and_classes(count):
    recording, label = np.array([0, 0, 1, 2, 3, 4]), np.eye(4, dtype="i1")[[0, 0, 0, 1, 2, 3]]
    generator = np.random.default_rng(0)
    drawn = task.draw(recording, None, 100, generator, count)
    assert drawn.shape == (100, count) and all(len(set(recording[mixed])) == count for mixed in drawn)
    of_classes = task.draw(recording, label, 60, generator, count)
    assert all(len(set(label[mixed].argmax(1))) == count for mixed in of_classes)
    assert set(of_classes.ravel()) == set(range(6)), "every clip is drawn"
    few = task.draw(recording, None, 5, generator, count)
    assert len(np.unique(np.sort(few, 1), axis=0)) == 5, "without repetition where there are as many"
    with pytest.raises(ValueError, match="no 6 clips are of different recordings"):
        task.draw(recording, None, 1, generator, 6)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    write_waves(folder / "waves.h5")
    write_classes(folder / "labels.h5")
    write_separator(folder / "s.safetensors")
    return folder


def evaluate(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "separation", *map(str, words), "--device", "cpu", "--precision", "float32"])
    return ended.value.code or 0


def test_excerpts_are_of_equal_energy(world):
    generator = np.random.default_rng(0)
    (drawn,) = mixtures.read(world / "waves.h5", world / "labels.h5", ["train"], 5, generator)
    assert set(drawn.clip.ravel()) <= set(range(6)) and (drawn.clip.sum(1) % 2 == 1).all()
    batches = list(mixtures.excerpts(drawn, 0.5, 2, generator))
    assert [len(batch) for batch in batches] == [2, 2, 1] and batches[0].shape[1:] == (2, 8000)
    energy = np.square(np.concatenate(batches), dtype="f8").sum(2)
    assert energy[:, 0] == pytest.approx(energy[:, 1], rel=1e-5)


def test_the_command_scores_and_draws(world, tmp_path, capsys):
    words = [world / "waves.h5", "-m", world / "s.safetensors", "--labels", world / "labels.h5", "--threads", 1]
    more = ["--count", 3, "--seconds", 0.5, "--batch-size", 2]
    assert evaluate(*words, *more, "--picture", tmp_path / "tracks.png") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["evaluation"] == "separation" and rows[0]["count"] == 3 and rows[0]["input"] == "waves.h5"
    assert value(rows, "consistency_error") < 1e-5 and value(rows, "over_separation_alone") <= 2
    assert np.isfinite(value(rows, "si_snr_improvement", "low")) and np.isfinite(value(rows, "preservation"))
    assert (tmp_path / "tracks.png").read_bytes()[:4] == b"\x89PNG"
    assert evaluate(words[0], *words[1:3], *more[2:], "--count", 5, "--sources", "1-3") == 0
    numbered = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counts = {row["metric"]: row["count"] for row in numbered}
    assert counts["equally_separated"] == 5 and counts["si_snr_improvement"] == 3
    assert [counts[f"over_separated_{each}"] for each in ("1_source", "2_sources", "3_sources")] == [2, 2, 1]
    assert evaluate(*words, *more, "-o", tmp_path / "scores.jsonl") == 0
    assert [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()] == rows


def test_what_cannot_be_scored_is_said(world, toy, tmp_path, capsys):
    encoder = write_separator(tmp_path / "e.safetensors", encoder="plain")
    good = ["-m", world / "s.safetensors"]
    for status, fact, words in (
        (4, "e.safetensors is an encoder, not a separator", [world / "waves.h5", "-m", encoder, "--seconds", 0.5]),
        (4, "separation is scored on waveform features: make them with", [toy.features, *good]),
        (1, "has no split '7'; it has 'test', 'train'", [world / "waves.h5", *good, "--split", 7]),
        (2, "'0' is neither a number from 1 nor a range of them", [world / "waves.h5", *good, "--sources", 0]),
        (2, "'4-2' is neither a number from 1 nor a range", [world / "waves.h5", *good, "--sources", "4-2"]),
        (1, "s.safetensors gives 3 tracks, too few for 4 sources", [world / "waves.h5", *good, "--sources", "2-4"]),
        (1, "no 9 clips are of different recordings; give more", [world / "waves.h5", *good, "--sources", 9]),
        (2, "is one of the inputs", [world / "waves.h5", *good, "--picture", world / "waves.h5"]),
    ):
        assert evaluate(*words) == status
        assert fact in capsys.readouterr().err


def test_silent_clips_are_named(tmp_path):
    from test_tracks import write_tracks

    made = write_tracks(tmp_path / "w.h5", {"a": np.zeros(16000, "f4"), "b": np.ones(16000, "f4")})
    source = files.Features(made)
    generator = np.random.default_rng(0)
    assert mixtures.excerpt(source, 3, 20000, generator).sum() == 16000
    with pytest.raises(Exception, match=r"w.h5: a is next to silent; leave it out, or give longer --seconds"):
        mixtures.excerpt(source, 0, 8000, generator)

"""Evaluations: their contract, chance and perfect scores, and the rules of which pairs and neighbours count."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from soundssl import evaluations
from soundssl.evaluations import knn, retrieval, shallow
from soundssl.ops import metrics, neighbors

OF_EMBEDDINGS = ("retrieval", "knn", "shallow")
CLASSES = ["bark", "rain", "siren", "speech", "wind"]


def overall(rows: list[dict]) -> dict[str, dict]:
    return {one["metric"]: one for one in rows if one["class"] is None}


def of_classes(rows: list[dict]) -> dict[str, dict]:
    return {one["class"]: one for one in rows if one["class"] is not None}


@dataclasses.dataclass
class Clips:
    """Clips of one class each, two windows a clip, about four clips a recording."""

    embedding: np.ndarray
    clip: np.ndarray
    label: np.ndarray
    recording: np.ndarray

    def part(self, remainder: int) -> np.ndarray:
        return np.arange(len(self.label)) % 3 == remainder


def clips(separation: float, count: int = 240, seed: int = 0) -> Clips:
    """Windows scattered about a centre of their class, `separation` from the origin."""
    generator = np.random.default_rng(seed)
    of_class = generator.permutation(np.arange(count) % len(CLASSES))
    clip = np.repeat(np.arange(count), 2)
    centre = separation * np.linalg.qr(generator.standard_normal((8, 8)))[0][: len(CLASSES)]
    embedding = (centre[of_class[clip]] + generator.standard_normal((len(clip), 8))).astype(np.float32)
    label = np.eye(len(CLASSES), dtype=np.int8)[of_class]
    return Clips(embedding, clip, label, np.array([f"r{i // 4}" for i in range(count)]))


def run(name: str, data: Clips, seed: int = 0, **chosen) -> list[dict]:
    """Run an evaluation with options fit for a test."""
    module = evaluations.load(name)
    arrays = data.embedding, data.clip, data.label
    if name == "retrieval":
        options = retrieval.Options(**({"per_class": 30} | chosen))
        return module.evaluate(retrieval.clip_means(*arrays[:2], len(data.label)), data.label, CLASSES, options, seed)
    if name == "knn":
        everywhere = np.ones(len(data.label), bool)
        return module.evaluate(*arrays, CLASSES, data.recording, everywhere, everywhere, knn.Options(**chosen), seed)
    options = shallow.Options(**({"hidden": (16,), "epochs": 15, "batch_size": 32, "learning_rate": 1e-2} | chosen))
    return module.evaluate(*arrays, CLASSES, data.part(0), data.part(1), data.part(2), options, seed)


# The contract of every evaluation -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_rows_are_whole_and_overall_ones_come_first(name):
    rows = run(name, clips(2.0))
    assert all(set(one) == {"metric", "class", "value", "low", "high", "chance", "count"} for one in rows)
    named = [one["class"] is not None for one in rows]
    assert named == sorted(named) and [one["class"] for one in rows if one["class"]] == CLASSES
    assert all(isinstance(one["value"], float) and isinstance(one["count"], int) for one in rows)
    assert overall(rows)["mAP"]["value"] == pytest.approx(np.mean([one["value"] for one in of_classes(rows).values()]))
    assert overall(rows)["mAP"]["count"] == len(CLASSES)


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_separate_classes_are_perfect_and_random_ones_at_chance(name):
    assert overall(run(name, clips(40.0)))["mAP"]["value"] == pytest.approx(1.0, abs=1e-6)
    at_random = overall(run(name, clips(0.0, 600), **({"per_class": 100} if name == "retrieval" else {})))["mAP"]
    assert at_random["value"] == pytest.approx(at_random["chance"], abs=0.05)


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_the_seed_decides_everything(name):
    data = clips(1.0)
    assert run(name, data, seed=1, bootstrap=10) == run(name, data, seed=1, bootstrap=10)
    torch.manual_seed(5)
    assert run(name, data, seed=1, bootstrap=10) != run(name, data, seed=2, bootstrap=10)


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_intervals_contain_the_value_and_bootstrap_changes_no_value(name):
    data = clips(1.5)
    with_interval, without = run(name, data, bootstrap=200), run(name, data)
    assert [one["value"] for one in with_interval] == [one["value"] for one in without]
    mean = overall(with_interval)["mAP"]
    assert mean["low"] < mean["value"] < mean["high"] and mean["high"] - mean["low"] < 0.3
    assert all(one["low"] is None and one["high"] is None for one in without)


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_a_class_without_positives_is_skipped_and_counted(name):
    data = clips(2.0)
    data.label[:, 2] = 0
    rows = run(name, data)
    assert overall(rows)["skipped_classes"]["value"] == 1.0 and overall(rows)["skipped_classes"]["count"] == 5
    assert overall(rows)["mAP"]["count"] == 4 and list(of_classes(rows)) == CLASSES[:2] + CLASSES[3:]


def test_tables_and_their_imports():
    with pytest.raises(ValueError, match="no evaluation is called 'retreival': did you mean retrieval"):
        evaluations.load("retreival")
    with pytest.raises(ValueError, match="there are retrieval, knn, "):
        evaluations.load("zzz")
    code = "import sys, soundssl.evaluations; print([m for m in ('numpy', 'torch', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_recovery_reproduces_the_paper():
    def score(value, accuracy):
        rows = [evaluations.row("mAP", value, 527), evaluations.row("top1", accuracy, 9)]
        return [*rows, evaluations.row("skipped_classes", 0.0, 527), evaluations.row("AP", value, 3, name="bark")]

    rows = evaluations.recovery(score(0.562, 0.2), score(0.423, 0.1), score(0.790, 0.3)[:1])
    assert rows[0]["recovery"] == pytest.approx(0.379, abs=5e-4)
    assert all("recovery" not in one for one in rows[1:])
    both = evaluations.recovery(score(0.669, 0.2), score(0.421, 0.1), score(0.784, 0.3))
    assert both[0]["recovery"] == pytest.approx(0.683, abs=5e-4) and both[1]["recovery"] == pytest.approx(0.5)
    assert all("recovery" not in one for one in both[2:])
    tied = evaluations.recovery(score(0.5, 0.2), score(0.4, 0.1), score(0.6, 0.1))
    assert tied[0]["recovery"] == pytest.approx(0.5) and tied[1]["recovery"] is None, "nothing to recover"


# Query by example -----------------------------------------------------------------------------------------------


def test_chance_of_a_hundred_and_a_hundred_is_that_of_the_paper():
    assert retrieval.chance(100, 100) == pytest.approx(4950 / 14950) == pytest.approx(0.331, abs=2e-4)
    vectors = np.random.default_rng(0).standard_normal((400, 64))
    label = (np.arange(400) < 200).astype(np.int8)[:, None]
    mean = overall(retrieval.evaluate(vectors, label, ["x"], retrieval.Options(draws=5)))["mAP"]
    assert mean["chance"] == pytest.approx(0.3311, abs=1e-4)
    assert mean["value"] == pytest.approx(mean["chance"], abs=0.02)


def test_pairs_are_those_of_a_double_loop():
    generator = np.random.default_rng(3)
    vectors = neighbors.unit(generator.standard_normal((30, 5)))
    vectors[4] = vectors[9] = vectors[20] = 0.0
    label = (generator.random(30) < 0.4).astype(np.int8)
    label[[4, 20]], label[9] = 1, 0
    positive, negative = retrieval.draw_clips(label, 8, generator)
    assert len(positive) == len(negative) == 8 and (label[positive] == 1).all() and (label[negative] == 0).all()
    pairs = [(vectors[i] @ vectors[j], 1) for a, i in enumerate(positive) for j in positive[a + 1 :]]
    pairs += [(vectors[i] @ vectors[j], 0) for i in positive for j in negative]
    similarity, truth = np.array(pairs).T
    expected = average_precision_score(truth, np.round(similarity * 2**20))
    assert retrieval.class_average_precision(vectors, positive, negative) == pytest.approx(expected, abs=1e-3)
    targets, others = retrieval.pair_similarities(vectors, np.array([4, 20, 0]), np.array([9]))
    assert targets.tolist()[0] == 0.0 and others.tolist() == [0.0, 0.0, 0.0]


def test_all_clips_silent_is_exactly_chance():
    label = np.array([[1]] * 6 + [[0]] * 9, np.int8)
    mean = overall(retrieval.evaluate(np.zeros((15, 4)), label, ["x"], retrieval.Options(bootstrap=5)))["mAP"]
    assert mean["value"] == pytest.approx(mean["chance"]) == pytest.approx(15 / (15 + 36))


def test_copies_of_a_clip_tie():
    generator = np.random.default_rng(0)
    copies = np.tile(generator.random(6144), (60, 1))
    targets, others = retrieval.pair_similarities(neighbors.unit(copies), np.arange(31), np.arange(31, 60))
    assert set(targets.tolist()) == set(others.tolist()) == {1.0}


def test_few_clips_are_all_used_and_unknown_ones_never_drawn():
    label = np.array([1, 1, 1, -1, -1, 0, 0, 0, 0, -1], np.int8)
    positive, negative = retrieval.draw_clips(label, 100, np.random.default_rng(0))
    assert positive.tolist() == [0, 1, 2] and len(negative) == 3 and set(negative) <= {5, 6, 7, 8}
    positive, negative = retrieval.draw_clips(label, 2, np.random.default_rng(0))
    assert len(positive) == len(negative) == 2
    scarce = retrieval.draw_clips(np.array([1, 1, 1, 0], np.int8), 3, np.random.default_rng(0))
    assert retrieval.chance(*map(len, scarce)) == 0.5


def test_unknown_clips_change_nothing():
    generator = np.random.default_rng(0)
    vectors, label = generator.standard_normal((50, 6)), (generator.random((50, 2)) < 0.5).astype(np.int8)
    label[40:] = -1
    rows = retrieval.evaluate(vectors, label, ["a", "b"])
    vectors[40:] = generator.standard_normal((10, 6))
    assert retrieval.evaluate(vectors, label, ["a", "b"]) == rows


def test_replicates_of_retrieval_pair_no_clip_with_itself():
    generator = np.random.default_rng(0)
    vectors = neighbors.unit(generator.standard_normal((12, 4)))
    positive, negative = np.arange(5), np.arange(5, 12)
    weight = metrics.multiplicities(12, 6, generator)
    values = retrieval.class_replicates(vectors, positive, negative, weight)
    for value, one in zip(values, weight, strict=True):
        pairs = [(i, j) for i in positive for j in range(i + 1, 12)]
        count = np.array([one[i] * one[j] for i, j in pairs])
        similarity = np.array([float(vectors[i] @ vectors[j]) for i, j in pairs])
        target = np.array([j < 5 for _, j in pairs])
        precisions = []
        for pair in np.flatnonzero(target):
            before = (similarity >= similarity[pair]) & (np.arange(len(pairs)) != pair)
            precisions.append((1 + count[before & target].sum()) / (1 + count[before].sum()))
        assert value == pytest.approx(np.average(precisions, weights=count[target]), abs=1e-6)
    ones = retrieval.class_replicates(vectors, positive, negative, np.ones((1, 12), int))
    assert ones[0] == pytest.approx(retrieval.class_average_precision(vectors, positive, negative))


def test_clip_means_leave_clips_without_windows_at_zero():
    means = retrieval.clip_means(np.array([[1.0, 3.0], [3.0, 5.0], [7.0, 7.0]]), np.array([2, 2, 0]), 3)
    assert means.tolist() == [[7.0, 7.0], [0.0, 0.0], [2.0, 4.0]]


def test_malformed_retrieval_is_named():
    label = np.array([[1], [0]], np.int8)
    with pytest.raises(ValueError, match="none of 1 classes has two positive clips"):
        retrieval.evaluate(np.eye(2), label, ["x"])
    with pytest.raises(ValueError, match=r"do not fit: \[2, 2\] and \[2, 1\]"):
        retrieval.evaluate(np.eye(2), label, ["x", "y"])
    with pytest.raises(ValueError, match="1 clip vectors are not finite"):
        retrieval.evaluate(np.array([[np.nan], [1.0]]), label, ["x"])
    with pytest.raises(ValueError, match="needs per_class >= 2"):
        retrieval.evaluate(np.eye(2), label, ["x"], retrieval.Options(per_class=1))


# Nearest neighbours ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [{}, {"unit": "window"}, {"unit": "window", "k": 40, "vote": "majority"}])
def test_every_protocol_finds_separate_classes(chosen):
    rows = overall(run("knn", clips(40.0), **chosen))
    assert rows["accuracy"]["value"] == rows["balanced_accuracy"]["value"] == 1.0
    assert rows["balanced_accuracy"]["chance"] == 0.2 and rows["accuracy"]["count"] == 240
    chance = overall(run("knn", clips(0.0, 600), **chosen))["balanced_accuracy"]
    assert chance["value"] == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("unit", ["clip", "window"])
def test_own_recording_is_never_a_neighbour(unit):
    """Recordings are points far apart holding one class each, whose label only they carry: others cannot help."""
    recording = np.repeat(np.arange(10), 4)
    centre = 10.0 * np.random.default_rng(0).standard_normal((10, 6))
    label = np.eye(10, dtype=np.int8)[recording]
    names = [str(i) for i in range(10)]
    everywhere = np.ones(40, bool)
    arrays = centre[recording], np.arange(40), label, names
    rows = knn.evaluate(*arrays, recording, everywhere, everywhere, knn.Options(unit=unit))
    assert overall(rows)["accuracy"]["value"] == 0.0
    own = knn.evaluate(*arrays, np.arange(40), everywhere, everywhere, knn.Options(unit=unit, k=3))
    assert overall(own)["accuracy"]["value"] == 1.0


def test_votes_ask_only_known_neighbours_and_ties_go_to_the_nearer():
    label = np.array([[1, 0], [1, 0], [0, 1], [0, -1]], np.int8)
    similarity, index = np.array([[0.9, 0.5, 0.4]]), np.array([[2, 0, 3]])
    share, support = knn.votes(similarity, index, label)
    np.testing.assert_allclose(share, [[1 / 3, 1 / 2]])
    np.testing.assert_allclose(support, [[0.5, 0.9]])
    share, support = knn.votes(similarity, np.array([[0, 2, -1]]), label)
    assert share.tolist() == [[0.5, 0.5]] and knn.decide(share, support).tolist() == [0]
    share, support = knn.votes(similarity, np.array([[2, 0, -1]]), label)
    assert knn.decide(share, support).tolist() == [1]
    share, support = knn.votes(np.full((1, 3), -np.inf), np.full((1, 3), -1), label)
    assert not share.any() and not support.any()


def test_majority_of_majorities():
    """Two windows of clip 0 lie by class x, one by class y; each is asked for three neighbours."""
    base = np.array([[1, 0], [1, 0.01], [0.9, 0.1], [0, 1], [0.01, 1], [0.1, 0.9]])
    embedding = np.concatenate([[[1, 0.02], [1, 0.03], [0.02, 1]], base])
    clip, label = np.array([0, 0, 0, 1, 2, 3, 4, 5, 6]), np.array([[1, 0]] * 4 + [[0, 1]] * 3, np.int8)
    owner, query = np.arange(7), np.arange(7) == 0
    options = knn.Options(k=3, unit="window", vote="majority")
    score, _ = knn.clip_scores(neighbors.unit(embedding), clip, label, owner, query, ~query, options)
    np.testing.assert_allclose(score[0], [2 / 3, 1 / 3], atol=1e-6)
    rows = knn.evaluate(embedding, clip, label, ["x", "y"], owner, query, ~query, options)
    assert overall(rows)["accuracy"]["value"] == 1.0


def test_blocks_of_votes_do_not_matter(monkeypatch):
    rows = run("knn", clips(1.0), unit="window")
    monkeypatch.setattr(knn, "VOTE_BLOCK", 35)
    assert run("knn", clips(1.0), unit="window") == rows


def test_zero_vectors_and_several_classes_a_clip_are_no_error():
    data = clips(2.0)
    data.embedding[:6] = 0.0
    data.label[:, 0] |= data.label[:, 1]
    rows = overall(run("knn", data, bootstrap=5))
    assert "balanced_accuracy" not in rows and math.isfinite(rows["mAP"]["value"])


def test_malformed_knn_is_named():
    data = clips(1.0, 10)
    everywhere, nowhere = np.ones(10, bool), np.zeros(10, bool)
    arrays = data.embedding, data.clip, data.label, CLASSES, data.recording
    with pytest.raises(ValueError, match="needs query and base clips, has 0 and 10"):
        knn.evaluate(*arrays, nowhere, everywhere)
    with pytest.raises(ValueError, match="1 query or base clips have no window"):
        knn.evaluate(data.embedding[2:], data.clip[2:], *arrays[2:], everywhere, everywhere)
    with pytest.raises(ValueError, match="10 clips and 4 classes do not fit"):
        knn.evaluate(*arrays[:3], CLASSES[:4], data.recording, everywhere, everywhere)
    with pytest.raises(ValueError, match="needs k >= 1"):
        knn.evaluate(*arrays, everywhere, everywhere, knn.Options(k=0))
    with pytest.raises(ValueError, match="need a clip number each"):
        knn.evaluate(data.embedding, data.clip[1:], *arrays[2:], everywhere, everywhere)


# Shallow classifier ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (16,), (16, 16)])
def test_shallow_learns_and_reports_every_metric(hidden):
    rows = overall(run("shallow", clips(4.0), hidden=hidden))
    wanted = ["mAP", "AUC", "dprime", "dprime_of_mean_auc", "lwlrap", "top1", "top5", "skipped_classes"]
    assert list(rows) == [*wanted, "training_clips"]
    assert rows["mAP"]["value"] > 0.9 > 2 * rows["mAP"]["chance"] and rows["top1"]["value"] > 0.85
    assert rows["top5"]["value"] == rows["top5"]["chance"] == 1.0 and rows["training_clips"]["value"] == 80.0
    assert rows["top1"]["chance"] == pytest.approx(0.2)


def test_a_few_labels_a_class_are_drawn_and_averaged():
    data = clips(3.0)
    few = run("shallow", data, per_class=3, draws=2)
    assert overall(few)["training_clips"]["value"] == 15.0 and overall(few)["training_clips"]["count"] == 2
    assert overall(run("shallow", data))["mAP"]["value"] > overall(few)["mAP"]["value"] > 0.4
    drawn = shallow.draw_clips(data.label, data.part(0), 3, np.random.default_rng(0))
    assert data.label[drawn].sum(axis=0).tolist() == [3] * 5 and not (drawn & ~data.part(0)).any()


def test_test_labels_never_reach_training():
    data, options = clips(1.0), shallow.Options(hidden=(), epochs=2, per_class=5, draws=1)
    arrays, parts = (data.embedding, data.clip), (CLASSES, data.part(0), data.part(1), None, options)
    mixed = data.label.copy()
    mixed[~data.part(0)] = -1
    mixed[data.part(1)] = np.roll(data.label[data.part(1)], 1, axis=0)
    windows = [shallow.Windows(torch.from_numpy(data.embedding), data.clip, label) for label in (data.label, mixed)]
    one, two = (shallow.fit(w, data.part(0), None, options, 3) for w in windows)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert shallow.evaluate(*arrays, data.label, *parts) != shallow.evaluate(*arrays, mixed, *parts)


def test_inputs_are_standardised_by_training_windows():
    data = clips(2.0)
    data.embedding[:, 3] = 7.0
    windows = shallow.Windows(torch.from_numpy(data.embedding), data.clip, data.label)
    rows = windows.of(data.part(0))
    mean, deviation = shallow.moments(windows, rows)
    np.testing.assert_allclose(mean, data.embedding[rows].mean(axis=0), atol=1e-5)
    expected = data.embedding[rows].std(axis=0)
    expected[3] = 1.0
    np.testing.assert_allclose(deviation, expected, rtol=1e-4)
    scaled = dataclasses.replace(data, embedding=data.embedding * 1000 - 5)
    assert overall(run("shallow", scaled))["mAP"]["value"] == pytest.approx(
        overall(run("shallow", data))["mAP"]["value"], abs=0.03
    )


def test_clip_scores_are_mean_probabilities_of_windows():
    data = clips(1.0, 12)
    windows = shallow.Windows(torch.from_numpy(data.embedding), data.clip, data.label)
    network = shallow.fit(windows, data.part(0), None, shallow.Options(epochs=1), 0)
    probability = network(windows.embedding).sigmoid().detach().numpy().reshape(12, 2, -1).mean(axis=1)
    np.testing.assert_allclose(
        shallow.clip_scores(network, windows, data.part(1)), probability[data.part(1)], rtol=1e-5
    )


def test_best_validation_epoch_is_kept_and_steps_bound(monkeypatch):
    data = clips(1.0)
    windows = shallow.Windows(torch.from_numpy(data.embedding), data.clip, data.label)
    options = shallow.Options(hidden=(), epochs=50, patience=2, batch_size=16)
    reached = iter([0.3, 0.9, 0.5, 0.4, 0.99])
    seen = []

    def score(network, *_):
        seen.append([p.detach().clone() for p in network.parameters()])
        return np.zeros((80, 5))

    class Mean:
        @property
        def mean(self):
            return next(reached)

    monkeypatch.setattr(shallow, "clip_scores", score)
    monkeypatch.setattr(shallow.metrics, "per_class", lambda *_: Mean())
    network = shallow.fit(windows, data.part(0), data.part(1), options, 0)
    assert len(seen) == 4
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), seen[1], strict=True))
    bounded = dataclasses.replace(options, steps=10)  # one epoch of 160 windows is ten steps
    network = shallow.fit(windows, data.part(0), None, bounded, 0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), seen[0], strict=True))


def test_malformed_shallow_is_named():
    data = clips(1.0, 30)
    arrays = data.embedding, data.clip, data.label, CLASSES
    train, test = data.part(0), data.part(1)
    with pytest.raises(ValueError, match="10 test clips are in another part too"):
        shallow.evaluate(*arrays, train, train)
    with pytest.raises(ValueError, match="test must pick some of 30 clips: 0 of"):
        shallow.evaluate(*arrays, train, np.zeros(30, bool))
    with pytest.raises(ValueError, match="1 test clips have no window"):
        shallow.evaluate(data.embedding[4:], data.clip[4:], data.label, CLASSES, train, test)
    with pytest.raises(ValueError, match=r"labels \[30, 5\] do not fit 4 classes"):
        shallow.evaluate(*arrays[:3], CLASSES[:4], train, test)
    unknown = np.where(train[:, None], -1, data.label).astype(np.int8)
    with pytest.raises(ValueError, match="none of 10 training clips has both a window and a known label"):
        shallow.evaluate(data.embedding, data.clip, unknown, CLASSES, train, test)

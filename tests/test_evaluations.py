"""Evaluations: their contract, chance and perfect scores, and the rules of which pairs and neighbours count."""

import dataclasses
import inspect
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from soundssl import evaluations
from soundssl.evaluations import knn, retrieval
from soundssl.evaluations.table import Table
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

    def table(self, **sides) -> Table:
        return Table(self.embedding, self.label, CLASSES, clip=self.clip, recording=self.recording, **sides)

    def divided(self) -> Table:
        return self.table(train=self.part(0), test=self.part(1), validation=self.part(2))


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
    few = {"hidden": (16,), "epochs": 15, "batch_size": 32, "learning_rate": 1e-2}
    usual = {"retrieval": {"per_class": 30}, "knn": {}, "shallow": few}[name]
    module, table = evaluations.load(name), data.divided() if name == "shallow" else data.table()
    return module.evaluate(table, module.Options(**(usual | chosen)), seed)


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


@pytest.mark.parametrize("name", [name for name in evaluations.EVALUATIONS if name not in ("separation", "onscreen")])
def test_every_evaluation_has_one_shape(name):
    """Separation, also of what is on screen, takes what was measured of mixtures, batch by batch."""
    module = evaluations.load(name)
    assert list(inspect.signature(module.evaluate).parameters) == ["table", "options", "seed"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        module.Options().anything = 1


def test_the_table_of_evaluations_and_its_imports():
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
    mean = overall(retrieval.evaluate(Table(vectors, label, ["x"]), retrieval.Options(draws=5)))["mAP"]
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
    silent = Table(np.zeros((15, 4)), label, ["x"])
    mean = overall(retrieval.evaluate(silent, retrieval.Options(bootstrap=5)))["mAP"]
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
    rows = retrieval.evaluate(Table(vectors, label, ["a", "b"]))
    vectors[40:] = generator.standard_normal((10, 6))
    assert retrieval.evaluate(Table(vectors, label, ["a", "b"])) == rows


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


def test_malformed_retrieval_is_named():
    label = np.array([[1], [0]], np.int8)
    with pytest.raises(ValueError, match="none of 1 classes has two positive clips"):
        retrieval.evaluate(Table(np.eye(2), label, ["x"]))
    with pytest.raises(ValueError, match=r"values \[2\] are no vectors"):
        retrieval.evaluate(Table(np.ones(2), label, ["x"]))
    with pytest.raises(ValueError, match="1 clip vectors are not finite"):
        retrieval.evaluate(Table(np.array([[np.nan], [1.0]]), label, ["x"]))
    with pytest.raises(ValueError, match="needs per_class >= 2"):
        retrieval.Options(per_class=1)


# Nearest neighbours ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [{}, {"level": "window"}, {"level": "window", "k": 40, "vote": "majority"}])
def test_every_protocol_finds_separate_classes(chosen):
    rows = overall(run("knn", clips(40.0), **chosen))
    assert rows["accuracy"]["value"] == rows["balanced_accuracy"]["value"] == 1.0
    assert rows["balanced_accuracy"]["chance"] == 0.2 and rows["accuracy"]["count"] == 240
    chance = overall(run("knn", clips(0.0, 600), **chosen))["balanced_accuracy"]
    assert chance["value"] == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("level", ["clip", "window"])
def test_own_recording_is_never_a_neighbour(level):
    """Recordings are points far apart holding one class each, whose label only they carry: others cannot help."""
    recording = np.repeat(np.arange(10), 4)
    centre = 10.0 * np.random.default_rng(0).standard_normal((10, 6))
    label = np.eye(10, dtype=np.int8)[recording]
    names = [str(i) for i in range(10)]
    arrays = centre[recording], label, names
    rows = knn.evaluate(Table(*arrays, recording=recording), knn.Options(level=level))
    assert overall(rows)["accuracy"]["value"] == 0.0
    own = knn.evaluate(Table(*arrays), knn.Options(level=level, k=3))
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
    options = knn.Options(k=3, level="window", vote="majority")
    score, _ = knn.clip_scores(neighbors.unit(embedding), clip, label, owner, query, ~query, options)
    np.testing.assert_allclose(score[0], [2 / 3, 1 / 3], atol=1e-6)
    rows = knn.evaluate(Table(embedding, label, ["x", "y"], clip=clip, test=query), options)
    assert overall(rows)["accuracy"]["value"] == 1.0


def test_blocks_of_votes_do_not_matter(monkeypatch):
    rows = run("knn", clips(1.0), level="window")
    monkeypatch.setattr(knn, "VOTE_BLOCK", 35)
    assert run("knn", clips(1.0), level="window") == rows


def test_zero_vectors_and_several_classes_a_clip_are_no_error():
    data = clips(2.0)
    data.embedding[:6] = 0.0
    data.label[:, 0] |= data.label[:, 1]
    rows = overall(run("knn", data, bootstrap=5))
    assert "balanced_accuracy" not in rows and math.isfinite(rows["mAP"]["value"])


def test_malformed_knn_is_named():
    data = clips(1.0, 10)
    with pytest.raises(ValueError, match="needs query and base clips, has 0 and 10"):
        knn.evaluate(data.table(test=np.zeros(10, bool)))
    with pytest.raises(ValueError, match="1 query or base clips have no window"):
        knn.evaluate(Table(data.embedding[2:], data.label, CLASSES, clip=data.clip[2:]))
    with pytest.raises(ValueError, match=r"values \[10\] are no vectors"):
        knn.evaluate(Table(np.ones(10), data.label, CLASSES))
    for wrong in ({"k": 0}, {"level": "recording"}, {"vote": "all"}):
        with pytest.raises(ValueError, match="needs k >= 1, level clip or window, vote share or majority"):
            knn.Options(**wrong)
    with pytest.raises(ValueError, match="ties go to the nearer or the first class, not 'last'"):
        knn.Options(ties="last")
    with pytest.raises(ValueError, match="is a recording or a clip, not 'window'"):
        knn.Options(leave_out="window")

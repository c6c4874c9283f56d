"""Protocols: presets of tagging and shallow, means of windows, two score files compared, tiled short clips."""

import json

import builder
import numpy as np
import pytest
from cluster_world import run

from soundssl import files
from soundssl.commands import featurize
from soundssl.evaluations import comparison, reading, row, shallow, tagging
from soundssl.evaluations.table import Table
from soundssl.ops import metrics
from soundssl.ops.spectrogram import PRESETS, log_mel

CLASSES = ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Probabilities of thirty clips of three windows, their labels, and two score files."""
    folder, generator = tmp_path_factory.mktemp("protocols"), np.random.default_rng(0)
    label = np.eye(5, dtype=np.int8)[np.arange(30) % 5]
    score = generator.dirichlet(np.ones(5), 90) + 0.5 * np.repeat(label, 3, axis=0)
    keys = [f"{i}.wav" for i in range(30)]
    builder.embeddings(folder / "p.h5", score.astype("f4"), clip=np.repeat(np.arange(30), 3), keys=keys,
                       attributes={"layer": "probabilities", "class": json.dumps(CLASSES)})  # fmt: skip
    builder.labels(folder / "l.h5", builder.whole(keys), CLASSES, label, split=["train"] * 15 + ["test"] * 15)
    return folder, score.astype("f4"), label


def test_windows_are_averaged_arithmetically_or_geometrically(world):
    folder, score, _ = world
    known = files.Labels(folder / "l.h5")
    by_clip = score.reshape(30, 3, 5).astype("f8")
    plain = reading.read_scores(folder / "p.h5", known).value
    assert np.allclose(plain, by_clip.mean(1), atol=1e-6)
    geometric = reading.read_scores(folder / "p.h5", known, mean="geometric").value
    assert np.allclose(geometric, by_clip.prod(1) ** (1 / 3), atol=1e-5)


@pytest.mark.parametrize("preset", [name for name in tagging.PRESETS if name != "none"])
def test_a_preset_gives_its_metrics_and_no_others(world, preset):
    folder = world[0]
    done = run("evaluate", "tagging", folder / "p.h5", "--labels", folder / "l.h5", "--preset", preset)
    rows = [json.loads(line) for line in done.out.splitlines()]
    names = {one["metric"] for one in rows} | {
        "lwlrap of classes" for one in rows if one["metric"] == "lwlrap" and one["class"]
    }
    assert names == set(tagging.PRESETS[preset])
    assert sum(one["class"] is not None for one in rows) == (5 if preset in ("fsd50k", "audioset", "dcase2019") else 0)
    known = files.Labels(folder / "l.h5")
    mean = "geometric" if preset == "fsdnoisy18k" else "arithmetic"
    score = reading.read_scores(folder / "p.h5", known, mean=mean).value
    found = {one["metric"]: one["value"] for one in rows if one["class"] is None}
    wanted = {
        "fsd50k": ("mAP", metrics.per_class(score, known.label).mean),
        "fsdnoisy18k": ("accuracy", float((score.argmax(1) == known.label.argmax(1)).mean())),
        "dcase2018": ("MAP@3", metrics.average_precision_at(score, known.label)),
        "dcase2019": ("lwlrap", metrics.lwlrap(score, known.label)),
        "audioset": ("top1", metrics.top_n(score, known.label)),
    }[preset]
    assert found[wanted[0]] == pytest.approx(wanted[1])


def test_average_precision_at_three_is_that_of_brute_force():
    generator = np.random.default_rng(1)
    score, label = generator.random((40, 6)), (generator.random((40, 6)) < 0.3).astype(np.int8)
    each = []
    for s, y in zip(score, label, strict=True):
        order, hits, total = np.argsort(-s), 0, 0.0
        for rank, column in enumerate(order[:3], 1):
            if y[column]:
                hits += 1
                total += hits / rank
        if y.any():
            each.append(total / min(3, y.sum()))
    assert metrics.average_precision_at(score, label) == pytest.approx(np.mean(each))
    with pytest.raises(ValueError, match="none of 2 clips has a class"):
        metrics.average_precision_at(score[:2], np.zeros((2, 6)))


def test_chance_of_the_first_three_is_that_of_scores_at_random():
    generator = np.random.default_rng(2)
    label = np.eye(5, dtype=np.int8)[generator.integers(0, 5, 4000)]
    rows = tagging.evaluate(Table(generator.random((4000, 5)), label, CLASSES), tagging.Options(metrics=("MAP@3",)))
    assert rows[0]["value"] == pytest.approx(rows[0]["chance"], abs=0.02) and len(rows) == 1


def test_differences_are_paired_and_grow_with_the_size_of_a_class():
    sizes = [2**i for i in range(8)]
    first = [row("mAP", 0.5, 8), *(row("AP", 0.5, n, name=str(n)) for n in sizes)]
    second = [row("mAP", 0.6, 8), *(row("AP", 0.5 + 0.03 * i, n, name=str(n)) for i, n in enumerate(sizes))]
    found = {one["metric"]: one for one in comparison.compare(first, second) if one["class"] is None}
    assert found["mAP"]["value"] == pytest.approx(0.1) and found["mAP"]["first"] == 0.5
    assert found["mean AP"]["value"] == pytest.approx(0.105)
    assert found["mean AP"]["low"] < 0.105 < found["mean AP"]["high"]
    assert found["AP by doubling of the class"]["value"] == pytest.approx(0.03)
    same = comparison.compare(first, first)
    assert all(one["value"] == 0 for one in same) and len(same) == 11
    with pytest.raises(ValueError, match="no score in common"):
        comparison.compare(first, [row("accuracy", 0.5, 8)])


def test_folds_are_paired_and_their_means_left_out():
    rows = [
        {**row("AP", value, 4, name="a"), "split": split} for split, value in (("1", 0.2), ("2", 0.4), ("mean", 0.3))
    ]
    found = comparison.compare(rows, [{**one, "value": one["value"] + 0.1} for one in rows])
    assert [one.get("split") for one in found if one["class"]] == ["1", "2"]
    assert found[0]["value"] == pytest.approx(0.1) and found[0]["count"] == 2


def test_score_files_are_compared_on_the_command_line(world, tmp_path):
    folder = world[0]
    words = ["evaluate", "tagging", folder / "p.h5", "--labels", folder / "l.h5"]
    for split in ("train", "test"):
        assert run(*words, "--split", split, "-o", tmp_path / f"{split}.jsonl").status == 0
    done = run("evaluate", "compare", tmp_path / "train.jsonl", tmp_path / "test.jsonl")
    values = done.rows()
    scores = {split: files.read_scores(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    first, second = (next(one["value"] for one in rows if one["metric"] == "mAP") for rows in scores.values())
    assert done.status == 0 and values["mAP"] == pytest.approx(second - first)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"metric": "x", "class": None, "value": 1.0}) + "\n")
    assert run("evaluate", "compare", other, tmp_path / "test.jsonl").status == 1
    assert run("evaluate", "compare", tmp_path / "none.jsonl", other).status == 2
    assert run("evaluate", "compare", folder / "l.h5", other).status == 4


def test_shallow_presets_bring_splits_rate_and_batch(world):
    folder = world[0]
    words = ["evaluate", "shallow", folder / "p.h5", "--labels", folder / "l.h5", "--epochs", 1]
    assert run(*words).status == 2
    assert run(*words, "--preset", "tut18").rows()["training_clips"] == 15
    done = run(*words, "--preset", "audioset")
    assert done.status == 1 and "no split 'eval'" in done.err
    assert run(*words, "--preset", "audioset", "--train", "train", "--test", "test").status == 0
    assert shallow.PRESETS["tut18"].items() >= {"learning_rate": 2e-4, "batch_size": 128}.items()


@pytest.mark.parametrize("preset", PRESETS)
def test_front_ends_of_fonseca_repeat_short_clips(preset):
    wanted = "tile" if preset in ("fsd50k", "uclser20", "fsdnoisy18k") else "skip"
    assert featurize._short(preset) == wanted


def test_the_front_end_of_the_papers_of_noisy_labels_has_its_constants():
    front_end = PRESETS["fsdnoisy18k"]
    assert front_end.frame_rate == 50 and front_end.window_frames == 100 and front_end.bands == 96
    assert front_end.window_length / front_end.sample_rate == pytest.approx(0.04)
    tone = 0.5 * np.sin(2 * np.pi * 15000 * np.arange(44100) / 44100)
    frames = log_mel(tone, front_end)
    assert frames.shape == (51, 96) and 80 <= frames[25].argmax() < 96, "what 16 kHz would not hear"


def test_scores_of_the_same_clips_are_paired_over_recordings():
    """A shift that helps every recording is sure where either score alone is not; the order of classes is no matter."""
    generator = np.random.default_rng(3)
    label = np.eye(3, dtype=np.int8)[generator.integers(0, 3, 120)]
    noise, recording = generator.normal(0, 1, label.shape), np.repeat(np.arange(40), 3)
    one = Table(noise + 0.8 * label, label, CLASSES[:3], recording=recording)
    other = Table(
        (noise + 1.3 * label)[:, [2, 0, 1]], label[:, [2, 0, 1]], [CLASSES[i] for i in (2, 0, 1)], recording=recording
    )
    found = {each["metric"]: each for each in comparison.compare_clips(one, other, 300) if each["class"] is None}
    alone = {each["metric"]: each for each in tagging.evaluate(one, tagging.Options(300)) if each["class"] is None}
    for metric in ("mAP", "top1"):
        assert 0 < found[metric]["low"] < found[metric]["value"] < found[metric]["high"], metric
        assert found[metric]["value"] == pytest.approx(found[metric]["second"] - found[metric]["first"])
    assert found["mAP"]["high"] - found["mAP"]["low"] < alone["mAP"]["high"] - alone["mAP"]["low"]
    same = comparison.compare_clips(one, one, 50)
    assert {each["value"] for each in same} == {0.0} and same[0]["low"] == same[0]["high"] == 0
    for changed, said in (
        (Table(other.value, other.label, ["x", "y", "z"], recording=recording), "score other classes"),
        (Table(one.value, one.label, one.classes, recording=recording[::-1]), "score other clips"),
        (Table(one.value, 1 - one.label, one.classes, recording=recording), "labels of the two differ"),
    ):
        with pytest.raises(ValueError, match=said):
            comparison.compare_clips(one, changed)


def test_scores_of_clips_are_compared_on_the_command_line(world, tmp_path):
    scores, labels = world[0] / "p.h5", world[0] / "l.h5"
    words = ("--labels", labels, "--split", "test", "--bootstrap", 20)
    done = run("evaluate", "compare", scores, scores, *words)
    assert done.status == 0 and done.rows()["mAP"] == 0, done.err
    (tmp_path / "s.jsonl").write_text('{"metric": "mAP", "class": null, "value": 1}\n')
    for given, said in (
        ((scores, scores), "give --labels"),
        ((scores, tmp_path / "s.jsonl"), "give two of one kind"),
        ((tmp_path / "s.jsonl", tmp_path / "s.jsonl", *words[:2]), "--labels goes with scores of clips"),
    ):
        done = run("evaluate", "compare", *given)
        assert done.status == 2 and said in " ".join(done.err.split()), done.err

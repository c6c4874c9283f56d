"""evaluate onscreen and evaluate coincidence: perfect and trivial estimates, the filter, and bad input."""

import json

import builder
import numpy as np
import pytest
from cluster_world import run
from separation_world import write_waves
from test_onscreen import train

from soundssl import coincidence, files
from soundssl.evaluations import onscreen as task

NOISE = np.random.default_rng(0)


def value(rows, metric):
    return next(row for row in rows if row["metric"] == metric)


def measured(probability, count=6):
    """Measure perfect tracks, the first source in two of them, with given probabilities."""
    sources = NOISE.normal(size=(count, 2, 4000)).astype("f4")
    tracks = np.stack([0.4 * sources[:, 0], sources[:, 1], 0.6 * sources[:, 0]], 1)
    return task.measure(sources, tracks, np.tile(np.array(probability, "f4"), (count, 1)))


def test_a_perfect_classifier_keeps_the_seen_and_suppresses_the_rest():
    rows = task.evaluate(measured([1, 0, 1]), measured([0.01, 0.01, 0.01]), task.Options(bootstrap=50))
    assert value(rows, "si_snr_improvement")["value"] > 60 and value(rows, "auc")["value"] == 1.0
    assert value(rows, "suppression")["value"] == pytest.approx(40, abs=0.1)
    assert value(rows, "si_snr_improvement_oracle")["value"] > 60
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_half_the_mixture_gets_what_stands_beside_every_figure():
    rows = task.evaluate(measured([0.5] * 3), measured([0.5] * 3))
    for name in ("si_snr_improvement", "si_snr", "suppression", "suppression_on_off", "auc"):
        one = value(rows, name)
        assert one["value"] == pytest.approx(one["chance"], abs=0.02), name
    assert value(rows, "suppression")["chance"] == pytest.approx(6.02, abs=0.01)
    with pytest.raises(ValueError, match="with something on screen and on some without"):
        task.evaluate(measured([0.5] * 3), measured([0.5] * 3, 0))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Write waves with pictures, an on-screen model, labels; log-mel features and a model of coincidence."""
    folder = tmp_path_factory.mktemp("video")
    waves = write_waves(folder / "waves.h5", pictures=True)
    assert train(waves, folder / "onscreen.safetensors").status == 0
    keys = [f"clip-{i:02}" for i in range(8)]
    builder.labels(folder / "l.h5", builder.whole(keys), ["on-screen"], [[1 - i % 2] for i in range(8)])
    assert run("featurize", waves, "-o", folder / "f.h5", "-q", "-j", 1).status == 0
    options = ["--encoder", "space-to-depth", "--size", 8, "--steps", 2, "--batch-size", 4, "--threads", 1]
    small = ["--set", "modality=image", "--precision", "float32"]
    done = run("train", folder / "f.h5", "--objective", "coincidence", *options, *small, "-o", folder / "c.safetensors")
    assert done.status == 0, done.err
    return folder


def test_evaluate_onscreen_prints_every_figure_beside_that_of_half_the_mixture(world):
    words = [world / "waves.h5", "-m", world / "onscreen.safetensors", "--labels", world / "l.h5"]
    done = run("evaluate", "onscreen", *words, "--count", 4, "--seconds", 1, "--threads", 1)
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert {row["evaluation"] for row in rows} == {"onscreen"} and all(np.isfinite(row["value"]) for row in rows)
    assert value(rows, "si_snr_improvement")["chance"] == 0 and value(rows, "auc")["count"] == 8


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["w", "-m", "c", "--labels", "l"], 4, "is an encoder, not a separator"),
        (["w", "-m", "o", "--labels", "l", "--on-screen-class", "seen"], 1, "has no class 'seen'; it has on-screen"),
        (["w", "-m", "o", "--labels", "l", "--split", "none"], 1, "has no split 'none'"),
        (["f", "-m", "o", "--labels", "l"], 4, "on-screen separation is scored on waveform features"),
    ],
)
def test_bad_input_of_evaluate_onscreen(world, words, status, said):
    names = {"w": "waves.h5", "f": "f.h5", "l": "l.h5", "c": "c.safetensors", "o": "onscreen.safetensors"}
    done = run("evaluate", "onscreen", *(world / names[word] if word in names else word for word in words))
    assert (done.status, said in done.err) == (status, True), done.err


def test_the_filter_lists_the_clips_that_reach_a_probability(world, tmp_path, monkeypatch):
    words = [world / "f.h5", "-m", world / "c.safetensors", "--threads", 1]
    done = run("evaluate", "coincidence", *words)
    assert done.status == 0, done.err
    rows = {row["key"]: row["probability"] for row in map(json.loads, done.out.splitlines())}
    assert list(rows) == [f"clip-{i:02}" for i in range(8)] and all(0 < each < 1 for each in rows.values())
    monkeypatch.setattr(coincidence, "BATCH", 1)  # a long recording is no one batch
    again = run("evaluate", "coincidence", *words)
    assert [json.loads(line)["probability"] for line in again.out.splitlines()] == pytest.approx(
        list(rows.values()), abs=5e-3
    )
    monkeypatch.undo()
    least = sorted(rows.values())[4]  # as it was printed
    listed = run("evaluate", "coincidence", *words, "--at-least", least, "-o", tmp_path / "list.txt")
    assert listed.status == 0 and "4 of 8 clips reach" in listed.err
    assert set((tmp_path / "list.txt").read_text().split()) == {key for key, each in rows.items() if each >= least}
    done = train(world / "waves.h5", tmp_path / "m.safetensors", "--clips", tmp_path / "list.txt",
                 "--coincidence", world / "c.safetensors")  # fmt: skip
    assert done.status == 0, done.err
    before, after = (files.read_model(path) for path in (world / "c.safetensors", tmp_path / "m.safetensors"))
    assert after.config["heads"]["onscreen"]["audio"] == before.config["encoder"]
    name = "head.coincidence.image.backbone.projection.weight"
    there = after.tensors["head.onscreen.scope.image.backbone.projection.weight"]
    assert there.shape == before.tensors[name].shape and np.abs(there - before.tensors[name]).max() < 0.05


def test_models_without_pictures_and_features_without_are_refused(world, tmp_path):
    done = run("evaluate", "coincidence", world / "f.h5", "-m", world / "onscreen.safetensors")
    assert done.status == 4, done.err
    bare = write_waves(tmp_path / "w.h5")
    assert run("featurize", bare, "-o", tmp_path / "f.h5", "-q", "-j", 1).status == 0
    done = run("evaluate", "coincidence", tmp_path / "f.h5", "-m", world / "c.safetensors")
    assert (done.status, "holds no pictures; make it from videos" in done.err) == (4, True), done.err
    done = run("evaluate", "coincidence", world / "f.h5", "-m", world / "c.safetensors", "-o", tmp_path / "x.png")
    assert (done.status, "would be JSON lines" in done.err) == (2, True), done.err

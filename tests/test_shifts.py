"""Consistency under shifts: shares by hand, where windows move, what comes in at a border, the command and curves."""

import csv
import json

import numpy as np
import pytest
from cluster_world import run
from test_training import BANDS, CLIPS, write_features
from test_validation import plan, toy  # noqa: F401 (a fixture)

from soundssl import device, files, models, shifts, training
from soundssl.evaluations import consistency
from soundssl.model import Model
from soundssl.ops.spectrogram import DECIBELS, silence


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):  # noqa: F811
    output = tmp_path_factory.mktemp("shifts") / "m.safetensors"
    with device.start("cpu", "float32", 1) as accelerator:
        chosen = plan("baseline-cnn", {"classification": {}}, steps=1, batch_size=2)
        assert training.Job(chosen, toy[0], accelerator, labels=toy[1]).run(output)
    return output


class Ramp:
    """Stand in for a model: the one class of two is high where the first band of a window is high."""

    width, classes = 2, ["low", "high"]

    def __call__(self, windows):
        high = (windows[:, :, 0].mean(1) > 0).astype(np.float32)
        return np.stack([1 - high, high], 1)


def test_shares_are_those_counted_by_hand():
    score = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    one = score.copy()
    one[0] = [0, 1]
    table = consistency.Shifted(
        score, {("frames", 1): one, ("frames", 3): score, ("bands", 1): 1 - score}, np.arange(4)
    )
    rows = {row["metric"]: row for row in consistency.evaluate(table, consistency.Options(bootstrap=200))}
    values = {name: row["value"] for name, row in rows.items()}
    expected = {"consistency_frames_1": 0.75, "consistency_frames_3": 1.0, "consistency_frames": 0.875}
    assert values == {**expected, "consistency_bands_1": 0.0}
    assert rows["consistency_frames_1"]["low"] < 0.75 < rows["consistency_frames_1"]["high"]
    assert all(row["count"] == 4 for row in rows.values())
    with pytest.raises(ValueError, match="no window"):
        consistency.evaluate(consistency.Shifted(score[:0], {}, np.arange(0)))


def test_windows_move_along_the_clip_and_bands_upwards(toy, trained):  # noqa: F811
    source = files.Features(toy[0])
    net = Model(files.read_model(trained), device.choose("cpu", "float32"))
    frames = np.arange(160 * BANDS, dtype=np.float32).reshape(160, BANDS)
    first, moved = (shifts._moved(frames, source, net, ("frames", n), (0, 5), "floor") for n in (0, 3))
    assert len(first) == 1 and np.array_equal(first[0], frames[:96]) and np.array_equal(moved[0], frames[3:99])
    low = silence(0.01, "natural")
    up = {
        fill: shifts._moved(frames, source, net, ("bands", 2), (0, 5), fill)[0]
        for fill in ("floor", "edge", "circular")
    }
    for fill, windows in up.items():
        assert np.array_equal(windows[:, 2:], frames[:96, :-2])
        expected = {"floor": low, "edge": frames[:96, :1], "circular": frames[:96, -2:]}[fill]
        assert np.allclose(windows[:, :2], expected)
    down = shifts._moved(frames, source, net, ("bands", -1), (-2, 2), "edge")[0]
    assert np.array_equal(down[:, :-1], frames[2:98, 1:]) and np.array_equal(down[:, -1], frames[2:98, -1])
    short = shifts._moved(frames[:50], source, net, ("frames", 0), (0, 5), "floor")
    assert short.shape == (1, 96, BANDS) and np.allclose(short[0, 50:], low)
    assert silence(1e-10, DECIBELS) == pytest.approx(-100)


def test_scores_of_clips_are_means_of_windows(toy, trained, monkeypatch):  # noqa: F811
    source = files.Features(toy[0])
    net = Model(files.read_model(trained), device.choose("cpu", "float32"))
    monkeypatch.setattr(Model, "output", lambda self, layer: Ramp())
    chosen = np.arange(CLIPS) < 4
    found = shifts.shifted(source, net, (1, 3), clips=chosen)
    assert found.score.shape == (4, 2) and list(found.shifted) == [
        (axis, number) for axis in ("frames", "bands") for number in (1, 3)
    ]
    windows = shifts.shifted(source, net, (1,), clips=chosen, level="window")
    assert windows.clip.tolist() == [0, 1, 2, 3] and np.allclose(windows.score, found.score)


def test_the_command_scores_and_draws(toy, trained, tmp_path):  # noqa: F811
    table, picture, scores = tmp_path / "c.csv", tmp_path / "c.png", tmp_path / "s.jsonl"
    words = ["evaluate", "consistency", toy[0], "-m", trained, "--split", "test", "--shifts", "1,5"]
    done = run(*words, "--curve", table, "--curve", picture, "--clips", "clip-20", "-o", scores, "--bootstrap", 20)
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [row["metric"] for row in rows][:3] == ["consistency_frames_1", "consistency_frames_5", "consistency_frames"]
    assert all(0 <= row["value"] <= 1 and row["count"] == 8 and row["fill"] == "floor" for row in rows)
    with open(table, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 25 and {line["clip"] for line in lines} == {"clip-20"}
    middle = [float(line["probability"]) for line in lines if line["shift"] == "0"]
    assert middle[0] == pytest.approx(middle[1]) and picture.stat().st_size > 1000
    for more, fact in (
        (["--shifts", "0"], "not a list of numbers from 1 on"),
        (["--shifts", "1,1"], "each once"),
        (["--clips", "a"], "give it, or leave them out"),
        (["--clips", "nobody", "--curve", table], "has no clip 'nobody'"),
        (["--curve", tmp_path / "c.h5"], "--curve"),
    ):
        done = run(*words, *more)
        assert done.status == 2 and fact in " ".join(done.err.replace("│", " ").split()), done.err


def test_a_model_without_a_classifier_and_another_front_end_are_refused(toy, trained, tmp_path):  # noqa: F811
    plain = tmp_path / "plain.safetensors"
    encoder = models.build("plain", 8)
    config = {**files.read_model(trained).config, "encoder": "plain", "heads": {}}
    files.write_model(plain, training.tensors_of(encoder, {}), config, inputs=[], made_from="x")
    done = run("evaluate", "consistency", toy[0], "-m", plain)
    assert done.status == 1 and "the model has no classifier" in done.err
    other = write_features(tmp_path / "other.h5", fmax=7000.0)
    done = run("evaluate", "consistency", other, "-m", trained)
    assert done.status == 4 and "another front end" in done.err

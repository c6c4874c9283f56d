"""Curves for TensorBoard: its own reader finds the figures of the log, also where a run went on."""

import json
import math
import sys

import builder
import numpy as np
import program
import pytest

from soundssl.dependencies import DependencyError
from soundssl.ops.spectrogram import FrontEnd
from soundssl.training.curves import CurvesLog


def curves_of(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: {each.step: each.value for each in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def line(stage, step, loss):
    return {"stage": stage, "step": step, "loss": loss, "triplet.active": loss / 2, "note": "text", "lost": None}


def test_curves_are_those_of_the_log_and_steps_count_on_over_stages(tmp_path):
    log = CurvesLog(tmp_path / "log.jsonl", tmp_path / "curves", [20, 10])
    for stage, step, loss in ((0, 10, 4.0), (0, 20, 3.0), (1, 10, math.nan)):
        log.write(line(stage, step, loss))
    found = curves_of(tmp_path / "curves")
    assert found["triplet/active"] == pytest.approx({10: 2.0, 20: 1.5, 30: math.nan}, nan_ok=True)
    assert set(found) == {"loss", "triplet/active"}


def test_a_run_that_goes_on_drops_what_its_state_does_not_know(tmp_path):
    path = tmp_path / "log.jsonl"
    log = CurvesLog(path, tmp_path / "curves", [40])
    for step in (10, 20, 30):
        log.write(line(0, step, 1.0))
    again = CurvesLog(path, tmp_path / "curves", [40])
    again.cut_back(lambda each: each["step"] <= 10)
    again.write(line(0, 20, 7.0))
    assert curves_of(tmp_path / "curves")["loss"] == {10: 1.0, 20: 7.0}
    assert [json.loads(each)["step"] for each in path.read_text().splitlines()] == [10, 20]
    afresh = CurvesLog(path, tmp_path / "curves", [40])
    afresh.cut_back(lambda each: False)
    afresh.write(line(0, 10, 5.0))
    assert curves_of(tmp_path / "curves")["loss"] == {10: 5.0}


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(DependencyError, match=r"tensorboard, which is not installed; pip install 'soundssl\[tens"):
        CurvesLog(tmp_path / "log.jsonl", tmp_path / "curves", [1])
    assert not (tmp_path / "curves").exists()


def test_train_writes_curves_and_refuses_a_folder_that_is_a_file(tmp_path):
    pytest.importorskip("tensorboard")
    generator = np.random.default_rng(0)
    clips = [generator.normal(size=(200, 64)) for _ in range(6)]
    end = {**FrontEnd().attributes(), "resampler": "none"}
    features = builder.features(tmp_path / "features.h5", clips, attributes=end)
    words = ["train", features, "--objective", "contrastive", "--encoder", "space-to-depth", "--steps", 2]
    words += ["--batch-size", 4, "-o", tmp_path / "model.safetensors", "-q", "--tensorboard"]
    assert program.run(*words, tmp_path / "curves").status == 0
    lines = [json.loads(each) for each in (tmp_path / "model.safetensors.metrics.jsonl").read_text().splitlines()]
    assert curves_of(tmp_path / "curves")["loss"] == pytest.approx({each["step"]: each["loss"] for each in lines})
    done = program.run(*words, features, "--force")
    assert done.status == 2 and "is a file" in done.stderr, done.stderr

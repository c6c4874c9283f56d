"""The measurement of what thresholds promise, on the toy set: its recordings are what they say, its table is whole."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cluster_world import run

from soundssl import files


@pytest.fixture
def calibrated(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    import calibrated

    yield calibrated
    sys.modules.pop("calibrated")


def test_recordings_hold_the_clips_where_their_labels_say(calibrated, toy, tmp_path):
    source, known = files.Features(toy.features), files.Labels(toy.labels)
    labels = calibrated.string(source, known, "1", tmp_path / "r", 0)
    heard = labels.label.sum(1)
    assert set(heard.tolist()) == {0, 1} and (heard == 1).sum() == (source.clips.split == "1").sum()
    for key in sorted(set(labels.key)):
        sound, rate = soundfile.read(tmp_path / "r" / key)
        own = np.flatnonzero(labels.key == key)
        assert labels.end[own[-1]] == pytest.approx(len(sound) / rate)
        assert (labels.start[own[1:]] == labels.end[own[:-1]]).all()
        for row in own:
            level = np.sqrt(np.mean(sound[round(labels.start[row] * rate) : round(labels.end[row] * rate)] ** 2))
            assert (level < 2 * calibrated.LEVEL) == (heard[row] == 0)


def test_the_table_has_a_line_for_each_way(calibrated, toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(calibrated, "DRAWS", 10)
    model = tmp_path / "model.safetensors"
    words = ("--objective", "classification", "--labels", toy.labels, "--steps", 8, "--batch-size", 8, "--size", 16)
    assert run("train", toy.features, *words, "-q", "-o", model).status == 0
    words = [str(toy.features), "--labels", str(toy.labels), "--models", str(model), "--calibrate", "1", "--test", "2"]
    made = ["--work", str(tmp_path), "-o", str(tmp_path / "t.md"), "--results", str(tmp_path / "R.md")]
    assert calibrated.main([*words, *made]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4 and {line.count("|") for line in lines} == {9}
    for line in lines[2:]:
        promised, found = float(line.split("|")[3]), float(line.split("|")[4].split()[0])
        assert 0 <= promised <= 1 and 0 <= found <= 1
    assert "<!-- calibrated: begin -->" in (tmp_path / "R.md").read_text("utf-8")
    assert calibrated.main(["gone.h5", *words[1:], *made]) == 1

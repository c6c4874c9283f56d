"""Examples that compare runs: their table, the clips that are drawn, and rules that make every file once."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from test_examples import EXAMPLES, make

sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "transfer")]
import comparison  # noqa: E402
import few  # noqa: E402


def write(path: Path, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"metric": "top1", "class": None, "value": value, "chance": 0.1, "low": None, "high": None, "count": 3}
    path.write_text(json.dumps({"evaluation": "tagging", "input": "x", **line}) + "\n", "utf-8")


def test_a_table_has_means_over_folds_and_an_interval_over_seeds(tmp_path):
    for seed, offset in (("0", 0.0), ("1", 0.1), ("2", 0.2)):
        for fold, value in (("1", 0.3), ("2", 0.5)):
            write(tmp_path / fold / "max" / seed / "tagging.scores.jsonl", value + offset)
    made = comparison.table(tmp_path, ["max"], ["tagging:top1:accuracy"], ["1", "2"], ["0", "1", "2"])
    assert made.splitlines() == ["| | accuracy |", "|---|---|", "| max | 0.500 ± 0.248 |"]  # 4.303 · 0.1 / √3
    assert comparison.cell(np.array([0.25])) == "0.250"


def test_a_few_clips_of_each_class_are_drawn_from_the_splits_allowed():
    label = np.eye(3, dtype=np.int8)[np.arange(30) % 3]
    allowed = np.arange(30) < 20
    rows = few.draw(label, allowed, 4, 0)
    assert label[rows].sum(0).tolist() == [4, 4, 4] and rows.max() < 20 and len(set(rows.tolist())) == 12
    assert few.draw(label, allowed, 4, 0).tolist() == rows.tolist() != few.draw(label, allowed, 4, 1).tolist()
    assert len(few.draw(label, allowed, 100, 0)) == 20


@pytest.mark.parametrize(("example", "models"), [("shift", 5 * 2), ("transfer", 2 + 2 * 4)])
def test_every_model_of_an_example_is_trained_once(example, models, tmp_path):
    settings = ["ESC=nowhere", f"WORK={tmp_path}", "SEEDS=0 1" if example == "shift" else "FOLDS=5"]
    done = make(EXAMPLES / example, "-n", *settings)
    assert done.returncode == 0, done.stderr
    trainings = [line for line in done.stdout.replace("\\\n", "").splitlines() if " train " in line]
    assert len(trainings) == models
    outputs = [line.split(" -o ")[1].split()[0] for line in trainings]
    assert len(set(outputs)) == models

"""Transfer: clips as one vector, dropout and weight decay of the small classifier, the published protocol."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from cluster_world import run
from test_evaluations import clips, overall
from test_validation import toy  # noqa: F401 (a fixture)

from soundssl.evaluations import shallow
from soundssl.evaluations.table import Table


def test_windows_lie_side_by_side_in_their_order_and_short_clips_end_in_zeros():
    value = np.arange(10, dtype=np.float32).reshape(5, 2)
    table = Table(value, np.eye(3, dtype=np.int8), list("abc"), clip=np.array([1, 0, 1, 2, 1]))
    made = table.pooled("concat")
    expected = [[2, 3, 0, 0, 0, 0], [0, 1, 4, 5, 8, 9], [6, 7, 0, 0, 0, 0]]
    assert made.value.tolist() == expected and made.of_clips
    assert table.pooled("mean").value.tolist() == [[2, 3], [4, 5], [6, 7]]
    with pytest.raises(ValueError, match="not 'sum'"):
        table.pooled("sum")


@pytest.mark.parametrize("pool", ["mean", "concat"])
def test_a_classifier_of_clips_learns(pool):
    data = clips(4.0)
    table = data.table(train=data.part(0), test=data.part(1))
    options = shallow.Options(hidden=(16,), pool=pool, dropout=0.3, weight_decay=1e-4, epochs=30, learning_rate=2e-2)
    first = shallow.evaluate(table, options)
    assert overall(first)["mAP"]["value"] > 0.85
    torch.rand(3)
    assert first == shallow.evaluate(table, options)  # dropout draws from a generator of its own


def test_dropout_is_of_training_alone_and_keeps_the_mean():
    drop = shallow.Dropout(0.3, torch.Generator().manual_seed(0))
    given = torch.ones(200, 100)
    made = drop(given)
    assert float((made == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(made.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(given), given)


def test_weight_decay_makes_weights_smaller():
    data = clips(2.0)
    windows = shallow.Windows(torch.from_numpy(data.embedding), data.clip, data.label)
    options = shallow.Options(hidden=(), epochs=40, learning_rate=0.05)
    plain, decayed = (
        shallow.fit(windows, data.part(0), None, dataclasses.replace(options, weight_decay=decay), 0).layers[0].weight
        for decay in (0.0, 1.0)
    )
    assert decayed.norm() < 0.5 * plain.norm()
    for wrong in ({"dropout": 1.0}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError, match="needs dropout"):
            shallow.Options(**wrong)


def test_the_preset_sets_folds_pooling_and_rate(toy, tmp_path):  # noqa: F811
    assert shallow.PRESETS["esc50"]["pool"] == "concat" and shallow.PRESETS["esc50"]["dropout"] == 0.3
    scores = tmp_path / "s.jsonl"
    words = ["evaluate", "shallow", toy[0], "--labels", toy[1], "--preset", "esc50", "--epochs", 1, "--hidden", 8]
    done = run(*words, "-o", scores)
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "test", "mean"} and {"top1", "mAP"} <= {
        row["metric"] for row in rows
    }
    done = run(*words, "--dropout", 1)
    assert done.status == 2 and "dropout" in done.err
    assert run(*words, "--pool", "sum").status == 2

"""Laws of the estimate: told once, at the pace of the first steps, and with what takes less where it is long."""

import dataclasses

import numpy as np
import pytest
from test_training import write_features

from soundssl import curriculum, device, files, models, objectives, training
from soundssl.training.estimate import FIRST, LONG, WARMING, Estimate, duration

PLAN = {"stage": [{"objective": {"mixit": {}}}]}


def told(work, pace: float, remedy: str = "") -> dict[int, str]:
    """Return what is said at which step where every step takes `pace` seconds, and the first ten times as long."""
    taken = [0]
    estimate = Estimate(work, remedy, lambda: pace * (taken[0] + 9))
    lines = {}
    for step in range(1, sum(steps for steps, _ in work) + 1):
        taken[0] = step
        if line := estimate.step():
            lines[step] = line
    return lines


def test_the_whole_is_told_once_after_ten_steps_without_the_first():
    assert told([(300, 64)], 2.0, "less") == {FIRST: "2.0 s a step: about 10 minutes for the 300 steps"}
    assert told([(FIRST, 64)], 2.0) == {}
    assert WARMING < FIRST


def test_a_stage_costs_what_its_examples_do():
    assert told([(20, 10), (40, 40)], 1.0) == {FIRST: "1.0 s a step: about 3 minutes for the 60 steps"}


def test_what_takes_less_is_said_where_it_is_long():
    pace = LONG / 100
    assert told([(100, 8)], pace, "be brief")[FIRST].endswith("; be brief")
    assert "brief" not in told([(99, 8)], pace, "be brief")[FIRST]


@pytest.mark.parametrize("seconds", [1, 59, 130, 7000, 20000, 400000])
def test_durations_are_near_what_they_name(seconds):
    number, unit = duration(seconds).split()
    length = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[unit.removesuffix("s")]
    assert float(number) * length == pytest.approx(seconds, rel=0.1)


def test_a_training_says_how_long_it_takes(tmp_path):
    features = files.Features(write_features(tmp_path / "f.h5"))
    stage = {"objective": {"contrastive": {"views": "same"}}, "steps": FIRST + 1, "batch_size": 2}
    said: list[str] = []
    with device.start("cpu", "float32", 1) as accelerator:
        training.train(
            curriculum.from_data({"encoder": "draft", "size": 8, "stage": [stage]}),
            models.build("draft", 8),
            objectives.Inputs(features, np.ones(len(features.clips.key), bool)),
            accelerator,
            seed=0,
            workers=0,
            checkpoint=training.Checkpoint(tmp_path / "m", "x", 1e9),
            log=files.Log(None),
            say=said.append,
        )
    (line,) = [line for line in said if line.endswith(f"for the {FIRST + 1} steps")]
    assert float(line.split()[0]) > 0


def test_a_separator_takes_a_smaller_batch_on_a_cpu_unless_it_is_given():
    plan = curriculum.from_data(PLAN)
    assert curriculum.settle(plan, gpu=False).stage[0].batch_size == curriculum.SEPARATED_ON_A_CPU
    assert curriculum.settle(plan, gpu=True).stage[0].batch_size == curriculum.Stage().batch_size
    renamed = curriculum.replace(plan, {"tracks": 3})
    assert renamed == dataclasses.replace(plan, tracks=3)
    given = curriculum.from_data({"stage": [{"objective": {"mixit": {}}, "batch_size": 20}]})
    assert {curriculum.settle(given, gpu).stage[0].batch_size for gpu in (False, True)} == {20}
    triplet = curriculum.from_data({"stage": [{"objective": {"triplet": {}}}]})
    assert curriculum.settle(triplet, gpu=False).stage[0].batch_size == curriculum.Stage().batch_size
    with pytest.raises(ValueError, match=r"batch_size .* is 0; it must be at least 1"):
        curriculum.from_data({"stage": [{"objective": {"mixit": {}}, "batch_size": 0}]})

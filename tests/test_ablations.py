"""The ablations of contrast: their rules name every command, their plans are curricula, their table keeps its sums."""

import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from test_examples import EXAMPLES, make

from soundssl import curriculum

sys.path.insert(0, str(EXAMPLES / "contrast"))
import ablations

FOLDER = EXAMPLES / "contrast"


def dry_run(corpus: Path, *words: str) -> list[str]:
    """Return the commands that make would run, a line each."""
    settings = (f"ESC={corpus}", f"CORPUS={corpus}", "SEEDS=4 5", "FOLDS=2", "STEPS=7", "WORK=nowhere")
    done = make(FOLDER, "-n", *settings, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\\\n", "").splitlines()


@pytest.fixture
def corpus(tmp_path):
    for name in ("features.h5", "labels.h5"):
        (tmp_path / name).touch()
    return tmp_path


def plans_of(lines: list[str]) -> dict[str, curriculum.Curriculum]:
    """Return the curricula that the rules would write, by row, of one seed."""
    found = {}
    for line in lines:
        target = re.search(r"> nowhere/7-steps/2/([\w-]+)/4/plan.toml", line)
        if target:
            text = "\n".join(re.findall(r"'([^']*)'", line)[1:])
            found[target[1]] = curriculum.from_data(tomllib.loads(text))
    return found


def test_every_row_is_a_curriculum_and_trained_on_the_other_folds(corpus):
    lines = dry_run(corpus, "all")
    plans = plans_of(lines)
    changes = ["none", "time", "band", "crop", "reversal", "compression", "masks", "noise", "blur"]
    assert set(plans) == {"same", "crops", "mixback-raw", "mixback", "crop-masks", *changes}
    given = {row: plan.stage[0].objective["contrastive"] for row, plan in plans.items()}
    assert given["mixback-raw"] == {"views": "mixback", "adjust": False, "weight": 1.0}
    assert all(given[name] == {"views": "mixback", "augment": name, "weight": 1.0} for name in changes)
    assert all(plan.stage[0].steps == 7 for plan in plans.values())
    trained = [line for line in lines if " soundssl train " in line]
    assert len(trained) == 2 * len(plans) and all("--split 1,3,4,5 " in line for line in trained)
    scored = [line for line in lines if " evaluate " in line]
    assert len(scored) == 3 * 2 * (len(plans) + 1), "three tasks, two seeds, log-mel too"
    assert all(("--no-standardise" in line) != ("/log-mel/" in line) for line in scored if " linear " in line)


def test_rows_of_tracks_are_trained_on_what_a_separator_of_other_folds_made(corpus):
    lines = dry_run(corpus, "separated", "processors", "EARLIER=3 5", "SEPARATION_STEPS=9")
    commands = [line for line in lines if line.startswith(sys.executable)]
    separator = next(line for line in commands if "--objective mixit" in line)
    assert "--split 1,3,4,5 --steps 9 " in separator and "--keep 3,5 " in separator
    separated = next(line for line in commands if " separate " in line)
    folder = "nowhere/separation/2/separator"
    assert re.findall(r"-m (\S+)", separated)[1:] == [
        f"{folder}.step-3.safetensors", f"{folder}.step-5.safetensors", f"{folder}.safetensors"
    ]  # fmt: skip
    trained = [line for line in commands if " train " in line and "mixit" not in line]
    assert trained and all("train nowhere/separation/2/features.h5" in line for line in trained)
    plans = plans_of(lines)
    joint = plans["joint"].stage[0].objective
    assert joint["contrastive"] == joint["coincidence"] == {"views": "separated", "augment": "masks", "weight": 1.0}
    assert list(plans["coincidence"].stage[0].objective) == ["coincidence"]
    processors = [plans[row].stage[0].objective["contrastive"]["processors"] for row in ("earliest", "latest")]
    assert processors == ["0", "3"] and "processors" not in plans["track"].stage[0].objective["contrastive"]


def test_features_are_those_of_the_other_example(tmp_path):
    (tmp_path / "meta.csv").touch()
    words = ("-n", f"ESC={tmp_path}", f"CORPUS={tmp_path / 'made'}", "SEEDS=0", "WORK=nowhere", "views")
    printed = make(FOLDER, *words).stdout
    assert f"featurize --dataset esc50 {tmp_path} -o {tmp_path / 'made'}/features.h5" in printed


def write_scores(run: Path, row: str, values: list[float]) -> None:
    for seed, value in enumerate(values):
        folder = run / "5" / row / str(seed)
        folder.mkdir(parents=True)
        for task, (metric, _) in ablations.COLUMNS.items():
            line = {"metric": metric, "class": None, "value": value, "chance": 0.1}
            (folder / f"{task}.scores.jsonl").write_text(json.dumps(line) + "\n")


def test_the_table_has_intervals_and_gains_and_keeps_other_sections(tmp_path, capsys):
    write_scores(tmp_path, "log-mel", [0.4, 0.4, 0.4])
    write_scores(tmp_path, "crops", [0.5, 0.6, 0.7])
    results = tmp_path / "RESULTS.md"
    results.write_text("# Mine\n")
    words = ["views", str(tmp_path), "--folds", "5", "--seeds", "0", "1", "2", "--rows", "log-mel", "crops"]
    words += ["-o", str(tmp_path / "t.md"), "--results", str(results), "--command", "make X"]
    assert ablations.main(words) == ablations.main(words) == 0
    text = results.read_text()
    assert text.startswith("# Mine\n") and text.count("contrast-views-5: begin") == 1 and "`make X`" in text
    assert "| two windows of a clip | 0.600 (0.352 … 0.848) | +0.200 |" in text
    assert ablations.interval(np.array([0.25])) == "0.250"
    assert ablations.main([*words, "--rows", "log-mel", "same"]) == 1
    assert "same" in capsys.readouterr().err.strip().splitlines()[-1]


def test_every_row_has_a_title():
    text = (FOLDER / "Makefile").read_text("utf-8")
    rows = re.findall(r"^(?:ROWS_\w+|CHANGES|SEPARATED) = (.*)$", text, re.MULTILINE)
    named = {word for line in rows for word in line.split() if "$" not in word}
    assert named <= set(ablations.TITLES) and set(re.findall(r"^ROWS_(\w+)", text, re.MULTILINE)) == set(
        ablations.GROUPS
    )

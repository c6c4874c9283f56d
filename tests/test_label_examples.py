"""The experiments with errors of labels run whole on sounds made up; their statistics are those of their parts."""

import subprocess
import sys
from pathlib import Path

import builder
import numpy as np
import pytest

from soundssl import datasets, files
from soundssl.ops import metrics

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import label_errors
import mixtures
from collections_world import sound, write

CLASSES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Forty clips of four classes in five folds, a window of 16 by 16 each."""
    folder, generator = tmp_path_factory.mktemp("examples"), np.random.default_rng(0)
    keys, folds = [f"{i}.wav" for i in range(40)], [str(1 + i // 8) for i in range(40)]
    builder.features(folder / "f.h5", {key: generator.normal(i % 4, 1, (20, 16)) for i, key in enumerate(keys)},
                     split=folds, attributes={"window_frames": 16, "bands": 16})  # fmt: skip
    label = np.eye(4, dtype=np.int8)[np.arange(40) % 4]
    builder.labels(folder / "l.h5", builder.whole(keys), CLASSES, label, split=folds)
    return folder


@pytest.mark.parametrize(
    ("experiment", "held", "lines"), [("noisy", "5", 1), ("missing", "5", 3), ("balance", "4,5", 2)]
)
def test_an_experiment_writes_its_table_and_its_section(experiment, held, lines, world, monkeypatch, capsys):
    monkeypatch.setattr(label_errors, "METHODS", {"prune": label_errors.PUBLISHED})
    monkeypatch.setattr(label_errors, "SHARES", (0, 10))
    monkeypatch.setattr(label_errors, "EXPONENTS", (1.0,))
    monkeypatch.setattr(label_errors, "KINDS", {"half from outside": 0.5})
    monkeypatch.setattr(label_errors, "INSIDE", 3)
    monkeypatch.setattr(label_errors, "WRONG", 0.25)
    monkeypatch.setattr(label_errors, "REPLICATES", 20)
    words = ["--features", world / "f.h5", "--labels", world / "l.h5", "--held", held, "--work", world / experiment]
    words += [
        "--seeds",
        0,
        "--steps",
        2,
        "--batch",
        4,
        "--threads",
        1,
        "-o",
        world / "t.md",
        "--results",
        world / "r.md",
    ]
    assert label_errors.main([experiment, *map(str, words), "--section", experiment]) == 0
    table = (world / "t.md").read_text().splitlines()
    assert len(table) == 2 + lines and capsys.readouterr().out.splitlines() == table
    assert f"<!-- {experiment}: begin -->" in (world / "r.md").read_text()
    for row in table[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        for value, low, high in (
            cell.replace("(", "").replace(")", "").replace("… ", "").split() for cell in cells if "…" in cell
        ):
            assert 0 <= float(low) <= float(value) + 0.05 and float(value) <= float(high) + 0.05 and float(high) <= 1


def test_an_experiment_without_labels_says_so(world, capsys):
    words = [
        "noisy",
        "--features",
        world / "f.h5",
        "--labels",
        world / "x.h5",
        "--held",
        "5",
        "--work",
        world,
        "-o",
        "t",
    ]
    assert label_errors.main(list(map(str, words))) == 1
    assert "x.h5 does not exist" in capsys.readouterr().err


def test_means_over_seeds_and_trivial_scores():
    label = np.eye(3, dtype=np.int8)[np.arange(30) % 3]
    right = [(label + 0.0, label), (np.roll(label, 1, 1) + 0.0, label)]
    assert label_errors.mean_of(right, label_errors.accuracy).startswith("0.500 (0.500")
    assert label_errors.mean_of(right[:1], label_errors.mean_average_precision) == "1.000 (1.000 … 1.000)"
    assert label_errors.chance_of(label) == pytest.approx(metrics.average_precision_chance(10, 30))


def test_mixtures_are_of_two_classes_of_a_fold(tmp_path):
    rows = [f"{i}.wav,{1 + i % 2},{i % 3},{CLASSES[i % 3]},{i}" for i in range(6)]
    write(tmp_path / "esc" / "meta.csv", "filename,fold,target,category,src_file", *rows)
    for i in range(6):
        sound(tmp_path / "esc" / "audio" / f"{i}.wav", 0.2 + 0.05 * i)
    table = tmp_path / "m.csv"
    assert mixtures.main([str(tmp_path / "esc"), str(tmp_path / "m"), str(table), "--count", "5"]) == 0
    clips = datasets.load("csv", table)
    assert len(clips) == 5 and all(len(clip.classes) == 2 and clip.path.is_file() for clip in clips)
    assert {clip.split for clip in clips} <= {"1", "2"}
    assert 3200 <= len(mixtures.sound(clips[0].path)) <= 7200 and files.made_from(table) is None
    assert mixtures.main([str(tmp_path), str(tmp_path / "m"), str(table)]) == 1


@pytest.mark.parametrize("name", ["noisy", "missing", "balance"])
def test_makefiles_say_what_they_take(name):
    words = ["make", "-C", Path(label_errors.__file__).parent / name, "SOUNDSSL=soundssl", "PYTHON=python3"]
    told = subprocess.run([*words, "help"], capture_output=True, text=True)
    assert told.returncode == 0 and f"make -C examples/{name} ESC=" in told.stdout
    refused = subprocess.run(words, capture_output=True, text=True)
    assert refused.returncode == 2 and "name the folder of a collection" in refused.stderr

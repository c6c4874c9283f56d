"""The quick start runs whole on a toy corpus, then knows that nothing is to be done; other examples are well-formed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from program import for_makefiles, for_scripts

from soundssl import curriculum

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))
import budgets  # noqa: E402
import report  # noqa: E402
import table  # noqa: E402


def make(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run make with this interpreter and this soundssl, apart from any make that runs the tests."""
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "SMALL", "WORK"}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    dry = "-n" in words
    program = f"{sys.executable} -m soundssl" if dry else for_makefiles()
    return subprocess.run(
        [
            "make",
            "-C",
            str(folder),
            f"SOUNDSSL={program}",
            f"PYTHON={sys.executable if dry else for_scripts()}",
            *words,
        ],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory):
    """The toy run of the quick start: its folder and what it printed."""
    pytest.importorskip("matplotlib")
    work = tmp_path_factory.mktemp("quick-start")
    done = make(EXAMPLES, "-j2", "SMALL=1", f"WORK={work}")
    assert done.returncode == 0, done.stdout + done.stderr
    return work, done.stdout


def test_the_quick_start_prints_a_table_and_draws_a_picture(quick_start):
    work, printed = quick_start
    found = json.loads((work / "report.json").read_text())
    rows = ["log-mel", "untrained", "contrast", "coincidence", "both", "categories", "supervised"]
    assert list(found["rows"]) == rows
    for row in found["rows"].values():
        assert row["metric"] == "mAP" and 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    ends = [found["rows"][row]["value"] for row in ("log-mel", "supervised")]
    middle = found["rows"]["categories"]
    assert middle["recovery"] == pytest.approx((middle["value"] - ends[0]) / (ends[1] - ends[0]))
    assert found["gain"] == pytest.approx(found["rows"]["both"]["value"] - ends[0])
    assert [tagger["questions"] for tagger in found["recognisers"].values()] == [5, 5]
    score = {name: tagger["mAP"]["value"] for name, tagger in found["recognisers"].items()}
    assert found["ratio"] == pytest.approx(score["consolidated"] / score["random"])
    assert report.table(found) in printed
    for name in ("report.png", "budgets.png"):
        assert (work / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_budgets_are_compared_on_the_same_clips_with_intervals(quick_start):
    work, printed = quick_start
    lines = [json.loads(line) for line in (work / "budgets.jsonl").read_text().splitlines()]
    assert {(line["way"], line["seed"]) for line in lines} == {
        (way, seed) for way in ("complete", "random", *budgets.WAYS) for seed in (0, 1)
    }
    for line in lines:
        assert 0 <= line["mAP"] <= 1 and 0 <= line["accuracy"] <= 1
        if line["way"] == "random":
            assert line["precision"] == 1 and line["labelled"] == line["budget"]
    assert "| 5 | clusters, our best way |" in printed and "| all | all labels |" in printed


def test_a_grouping_has_the_default_steps_of_cluster_unless_told(quick_start, tmp_path):
    """As the whole form of the quick start has it, whose small form tells."""
    rows = Path(shutil.copy(quick_start[0] / "categories.embeddings.h5", tmp_path / "rows.embeddings.h5"))
    last = {}
    for told in (None, 5):
        budgets.clusters(rows, 3, 0, 0.0, told)
        last[told] = json.loads((tmp_path / "clusters.h5.metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert last[5] == 5 and last[None] >= 300


def test_how_many_random_labels_equal_a_score_is_read_off_their_curve():
    lines = [{"way": "random", "budget": 10 * 2**step, "accuracy": 0.1 * (step + 1)} for step in range(3)]
    assert budgets.equal(lines, 0.2, "accuracy") == "20"
    assert budgets.equal(lines, 0.25, "accuracy") == "28", "half-way on a logarithmic axis"
    assert budgets.equal(lines, 0.05, "accuracy") == "< 10" and budgets.equal(lines, 0.9, "accuracy") == "> 40"


def test_a_skewed_draw_keeps_of_each_class_its_share():
    label = np.repeat(np.arange(5), 100)
    clips = budgets.skewed(label, np.arange(0, 500, 2), 1.0, np.random.default_rng(0))
    assert sorted(np.bincount(label[clips]), reverse=True) == [50, 25, 17, 12, 10]
    assert (clips % 2 == 0).all(), "of the clips that were given"


def test_what_is_made_is_not_made_again_and_what_is_missing_is(quick_start):
    work, _ = quick_start
    settings = ("SMALL=1", f"WORK={work}")
    assert make(EXAMPLES, "-q", *settings).returncode == 0, "nothing is to be done"
    (work / "labels.h5").rename(work / "labels.away")
    wanted = make(EXAMPLES, "-n", *settings).stdout
    (work / "labels.away").rename(work / "labels.h5")
    assert "featurize" in wanted and "evaluate" in wanted


def test_too_small_a_gain_is_one_line_and_a_failure(quick_start, capsys, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda folder, found: None)
    assert report.main([str(quick_start[0]), "--least", "1.5"]) == 1
    assert "at least +1.50 is expected" in capsys.readouterr().err.strip().splitlines()[-1]
    assert report.main([str(quick_start[0]), "--least", "-1"]) == 0


def test_neighbours_are_of_other_recordings():
    angle = np.array([0.0, 0.1, 0.2, 0.4, 3.0])
    clips = report.Clips(
        np.arange(5), np.array(list("aabcd")), np.array(list("xxxyy")), np.stack([np.cos(angle), np.sin(angle)], 1)
    )
    assert report.nearest(clips, 0).tolist() == [2, 3, 4]


def test_a_dry_run_of_esc_10_names_every_command(tmp_path):
    folder = EXAMPLES / "esc10"
    settings = (f"ESC={tmp_path}", "SEEDS=4 5", "FOLDS=2", "METHODS=noise supervised", "MINUTES=10", "WORK=nowhere")
    assert "name the folder that ESC-10 lies in" in make(folder, "-n", *settings).stderr
    (tmp_path / "meta.csv").touch()
    lines = make(folder, "-n", *settings).stdout
    lines = [line for line in lines.replace("\\\n", "").splitlines() if line.startswith(sys.executable)]
    assert f"featurize --dataset esc50 {tmp_path}" in lines[0]
    trained = [line.split() for line in lines if " soundssl train " in line]
    assert [words[words.index("-o") + 1] for words in trained if "500" in words] == [
        f"nowhere/500-steps/2/{row}/{seed}/model.safetensors" for row in ("noise", "supervised") for seed in (4, 5)
    ]
    drawn = [line for line in lines if " sample-triplets " in line]
    assert all("--split 1,3,4,5" in line for line in drawn)
    assert all(("--labels" in line) == ("--sampler supervised" in line) for line in drawn)
    runs = 4 * 2  # log-mel, untrained, noise and supervised, with two seeds each
    for words in ("retrieval", "knn", "shallow"):
        assert sum(f" evaluate {words} " in line for line in lines) == runs * (2 if words == "shallow" else 1)
    assert sum("--query 2 --base 1,3,4,5" in line for line in lines) == runs
    assert sum("--per-class 20" in line for line in lines) == runs


def write_scores(folder: Path, row: str, values: list[float]) -> None:
    for seed, value in enumerate(values):
        (folder / "5" / row / str(seed)).mkdir(parents=True)
        for task, (metric, _, _) in table.COLUMNS.items():
            line = {"metric": metric, "class": None, "value": value, "chance": 0.25}
            (folder / "5" / row / str(seed) / f"{task}.scores.jsonl").write_text(json.dumps(line) + "\n")


def test_the_table_of_results_keeps_other_sections(tmp_path):
    for row, values in (("log-mel", [0.4, 0.4]), ("joint", [0.5, 0.7]), ("supervised", [0.8, 0.8])):
        write_scores(tmp_path, row, values)
    results = tmp_path / "RESULTS.md"
    results.write_text("# Mine\n\n<!-- esc10-5: begin -->\nstale\n<!-- esc10-5: end -->\n\n## After\n")
    words = [str(tmp_path), "--folds", "5", "--seeds", "0", "1", "--rows", "log-mel", "joint", "supervised"]
    words += ["--section", "esc10-5", "--title", "Mine too"]
    assert table.main([*words, "-o", str(tmp_path / "t.md"), "--results", str(results), "--command", "make X"]) == 0
    first = results.read_text()
    assert "stale" not in first and first.startswith("# Mine\n") and first.endswith("end -->\n\n## After\n")
    assert "| joint | 0.600 ± 0.141 | 50 ± 35 % | 0.600 ± 0.141 |" in first and "`make X`" in first
    assert table.main([*words, "-o", str(tmp_path / "t.md"), "--results", str(results), "--command", "make X"]) == 0
    assert results.read_text() == first


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_every_curriculum_is_read_and_says_what_it_costs(path):
    assert curriculum.from_toml(path).stage
    opening = path.read_text("utf-8")
    for word in ("Paper", "Command", "Data", "Machine", "Score"):
        assert f"# {word}" in opening


@pytest.mark.slow
def test_table_1_has_every_row(quick_start, tmp_path):
    settings = ("SMALL=1", "STEPS=2", "BATCH=8", "SEEDS=3", "THREADS=1", f"CORPUS={quick_start[0]}", f"WORK={tmp_path}")
    done = make(EXAMPLES / "table1", "-j2", *settings, f"RESULTS={tmp_path / 'RESULTS.md'}")
    assert done.returncode == 0, done.stdout + done.stderr
    written = (tmp_path / "RESULTS.md").read_text()
    for letter in "abcdefghijk":
        assert f"{letter})" in written, letter

"""The examples of sound and picture run whole in their small form, and what they leave says what it claims."""

import csv
import json
import math

import numpy as np
import pytest
import soundfile
from test_examples import EXAMPLES, make

from soundssl import files, media

VIDEOS = 16  # of the small forms: four of each kind


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def table(path) -> dict[str, tuple[set[str], str]]:
    """Return the classes and the split of each video."""
    with open(path, newline="", encoding="utf-8") as stream:
        return {row["path"]: (set(row["class"].split(";")), row["split"]) for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def onscreen(tmp_path_factory):
    """The small run of examples/onscreen: its folder."""
    work = tmp_path_factory.mktemp("onscreen")
    done = make(EXAMPLES, "onscreen", "SMALL=1", f"WORK={work}")
    assert done.returncode == 0, done.stdout + done.stderr
    return work


@pytest.fixture(scope="module")
def machine_labels(tmp_path_factory):
    """The small run of examples/machine-labels: its folder."""
    pytest.importorskip("timm")
    work = tmp_path_factory.mktemp("machine-labels")
    done = make(EXAMPLES, "machine-labels", "SMALL=1", f"WORK={work}")
    assert done.returncode == 0, done.stdout + done.stderr
    return work


def test_every_video_of_the_example_is_heard_and_seen(onscreen):
    known = table(onscreen / "labels.csv")
    waves, features = files.Features(onscreen / "waves.h5"), files.Features(onscreen / "features.h5")
    assert len(known) == VIDEOS and set(waves.clips.key) == set(features.clips.key) == set(known)
    assert waves.waveform and not features.waveform
    assert (np.diff(waves.image_offset) > 0).all() and waves.images.shape[1:] == (32, 32, 3)
    assert np.array_equal(waves.images[:], features.images[:])
    for split in ("train", "test"):
        seen = ["on-screen" in classes for classes, where in known.values() if where == split]
        assert sum(seen) == len(seen) / 2, "half of the videos show what is heard"


def test_scores_of_what_is_on_screen_are_finite_beside_half_the_mixture(onscreen):
    found = {row["metric"]: row for row in lines(onscreen / "exact" / "0.jsonl")}
    chance = {"si_snr_improvement": 0, "auc": 0.5, "suppression": 20 * math.log10(2)}
    for metric, value in chance.items():
        assert found[metric]["chance"] == pytest.approx(value) and math.isfinite(found[metric]["value"])
        assert found[metric]["count"] > 0
    assert 0 <= found["auc"]["value"] <= 1
    written = (onscreen / "scores.txt").read_text("utf-8")
    rows = [line.split("|")[1].strip() for line in written.splitlines() if line.startswith("| ")]
    assert (
        rows == ["loss, seed", "half the mixture", "exact, 0"]
        and "videos that it kept 50% show their sound; of all 50%" in written
    )
    for row in lines(onscreen / "coincidence.jsonl"):
        assert 0 < row["probability"] < 1 and row["key"] in table(onscreen / "labels.csv")
    assert len(lines(onscreen / "coincidence.jsonl")) == VIDEOS


def test_what_is_seen_and_what_is_not_lie_beside_each_video(onscreen):
    found = files.Features(onscreen / "separated.h5")
    tracks = ~found.recorded
    assert found.attributes["estimates"] == "on-screen, off-screen" and tracks.sum() == 2 * VIDEOS
    seen = found.tracks.onscreen
    assert (seen[~tracks] == -1).all() and ((seen[tracks] >= 0) & (seen[tracks] <= 1)).all()
    assert len(list((onscreen / "listen").iterdir())) == 3 * VIDEOS
    name = found.clips.key[0]
    on, off, both = (
        soundfile.read(onscreen / "listen" / f"{name}.{kind}.wav")[0] for kind in ("on-screen", "off-screen", "mixture")
    )
    np.testing.assert_allclose(on + off, both, atol=1e-3)
    sound = np.concatenate(list(media.read_audio(onscreen / "videos" / name, 16000)))
    np.testing.assert_allclose(both[: len(sound)], sound[: len(both)], atol=1e-3)


def test_what_stands_is_not_made_again(onscreen):
    assert make(EXAMPLES / "onscreen", "-q", "SMALL=1", f"WORK={onscreen}").returncode == 0


def trainings(example: str, work, *words: str) -> list[str]:
    """Return the trainings of a whole example, as lines that name their output last; nothing is run."""
    done = make(EXAMPLES / example, "-n", f"WORK={work}", *words)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.replace("\\\n", " ").splitlines() if " soundssl train " in line]


@pytest.mark.parametrize("esc", [[], ["ESC=/esc"]])
def test_runs_of_the_whole_example_are_what_their_places_say(tmp_path, esc):
    """Each loss, with two tracks or four, on the nets of coincidence or none; only ESC-10 goes into the results."""
    runs = ["fresh/0", "exact/1", "exact-4/0", "multi-instance/0", "active-combinations-4/2", "fresh-4/0"]
    found = trainings("onscreen", tmp_path, f"RUNS={' '.join(runs)}", *esc)
    assert "--objective coincidence" in found.pop(0)
    for run, line in zip(runs, found, strict=True):
        name, seed = run.split("/")
        loss = name.removesuffix("-4").replace("fresh", "exact")
        assert (
            f"-o {tmp_path}/{run}.safetensors" in line and f"--set loss={loss} " in line and f"--seed {seed} " in line
        )
        assert f"--tracks {4 if name.endswith('-4') else 2} " in line
        assert ("--coincidence " in line) == ("--set freeze=true" in line) == (not name.startswith("fresh"))
    for example in ("onscreen", "machine-labels"):
        dry = make(EXAMPLES / example, "-n", f"WORK={tmp_path}", *esc).stdout
        assert ("--results ../RESULTS.md" in dry) == bool(esc)


def test_methods_of_the_whole_example_learn_from_the_labels_that_they_name(tmp_path):
    found = trainings("machine-labels", tmp_path, "METHODS=half all supervised", "SEEDS=0")
    learnt = {line.split(f"{tmp_path}/test/")[-1].split("/")[0]: line for line in found}
    assert set(learnt) == {"tagger", "half", "all", "supervised"}
    labels = dict.fromkeys(("half", "all"), "machine") | {"supervised": "labelled", "tagger": "tagged"}
    for name, line in learnt.items():
        assert f"--labels {tmp_path}/{labels[name]}.labels.h5" in line
        assert ("--set visual=half" in line) == (name == "half")


def test_taggers_say_what_they_see_and_hear_of_videos_they_never_learnt_from(machine_labels):
    learnt, labelled = (set(table(machine_labels / each / "labels.csv")) for each in ("tagged", "labelled"))
    assert len(labelled) == VIDEOS and not learnt & labelled
    for name in ("seen", "heard"):
        scores = files.Embeddings(machine_labels / f"{name}.h5")
        assert scores.attributes["layer"] == "probabilities" and set(scores.clips.key) == labelled
        assert ((scores.embedding[:] >= 0) & (scores.embedding[:] <= 1)).all()
        assert set(scores.clip) == set(range(VIDEOS))
    found = files.Labels(machine_labels / "machine.labels.h5")
    visual = np.array(found.modality) == "visual"
    assert (found.origin == 2).all() and set(found.key) == labelled and visual.sum() == 4 == (~visual).sum()
    assert ((found.label[:, visual] == 1).sum(1) == 2).all(), "two labels of what is seen a clip"
    assert (found.label[:, ~visual] == 1).sum() == round(1.5 * VIDEOS), "1.5 of what is heard on average"


def test_a_net_of_sound_learns_the_labels_of_machines_and_is_scored_beside_the_tagger(machine_labels):
    model = files.read_model(machine_labels / "test" / "half" / "0" / "model.safetensors")
    known = files.Labels(machine_labels / "machine.labels.h5")
    assert model.config["stage"][0]["objective"]["classification"]["visual"] == "half"
    assert model.config["heads"]["classification"]["classes"] == known.classes
    for name in ("log-mel", "picture-tagger", "tagger", "half"):
        for task in ("retrieval", "shallow"):
            rows = lines(machine_labels / "test" / name / "0" / f"{task}.scores.jsonl")
            found = {row["metric"]: row for row in rows if row["class"] is None}
            assert 0 <= found["mAP"]["value"] <= 1 and found["mAP"]["count"] >= 1
            assert 0 < found["mAP"]["chance"] < 1
    written = (machine_labels / "results.md").read_text("utf-8")
    rows = [line.split("|")[1].strip() for line in written.splitlines() if line.startswith("| ")]
    assert rows == ["", "log-mel", "picture-tagger", "tagger", "half"]

"""detect: bursts at known times are found in every format; files of every fate; thresholds worth what they say."""

import csv
import json
import os
import signal
import time

import numpy as np
import program
import pytest
import soundfile
from conftest import RATE, run, synthesise

from soundssl import files
from soundssl.detection import formats
from soundssl.detection.events import Event

BURSTS = {"a.wav": [("tone", 4.0), ("clicks", 12.5)], "deep/b.wav": [("chirp", 8.0)]}  # class and middle, seconds
LENGTH = 2.0  # seconds of a burst
SECONDS = 20.0


@pytest.fixture(scope="module")
def recogniser(toy, tmp_path_factory):
    """Train a recogniser of the toy set's classes."""
    path = tmp_path_factory.mktemp("recogniser") / "recogniser.safetensors"
    words = ("--objective", "classification", "--encoder", "draft", "--steps", 40, "--batch-size", 8)
    done = run("train", toy.features, "--labels", toy.labels, *words, "--learning-rate", 0.003, "-q", "-o", path)
    assert done.status == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Write recordings of noise, a class of the recogniser too, with bursts at known times."""
    folder, generator = tmp_path_factory.mktemp("recordings"), np.random.default_rng(5)
    for name, bursts in BURSTS.items():
        sound = synthesise("noise", generator, SECONDS)
        for kind, middle in bursts:
            first = round((middle - LENGTH / 2) * RATE)
            sound[first : first + round(LENGTH * RATE)] = synthesise(kind, generator, LENGTH)
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, sound, RATE)
    return folder


def detect(*words, **options):
    return run("detect", *words, "--threads", 1, "-j", 1, "--precision", "float32", **options)


def check(events) -> None:
    """Assert that every burst is among the events, with its middle and its ends in their places."""
    for name, bursts in BURSTS.items():
        for kind, middle in bursts:
            own = [event for event in events if event.name == kind and event.path.endswith(name)]
            near = [event for event in own if abs((event.start + event.end) / 2 - middle) < 1]
            assert near, (name, kind, events)
            best = max(near, key=lambda event: event.end - event.start)
            assert (
                abs((best.start + best.end) / 2 - middle) <= 0.48 + 1e-6
            )  # a hop: windows at its edges hold two sounds
            assert abs(best.start - (middle - 1)) <= 0.96 and abs(best.end - (middle + 1)) <= 0.96


@pytest.mark.parametrize("name", ["csv", "tsv", "jsonl", "raven", "label-studio", "aoef", "parquet"])
def test_bursts_are_found_in_their_places_in_every_format(name, recogniser, recordings, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"all{formats.FORMATS[name].suffix}"
    done = detect(recordings, "-m", recogniser, "-o", output, "--format", name)
    assert (done.status, done.stdout) == (0, ""), done.stderr
    assert "scores are those of the recogniser, not probabilities" in done.stderr
    check(formats.read(output.read_bytes(), output, name))
    others = {"all.selections.files.txt"} if name == "raven" else set()
    assert set(os.listdir(tmp_path)) == {output.name, *others}


@pytest.mark.parametrize("name", ["audacity", "raven", "csv"])
def test_a_folder_takes_a_file_for_each_recording(name, recogniser, recordings, tmp_path):
    done = detect(recordings, "-m", recogniser, "-o", f"{tmp_path}/out/", "--format", name)
    assert done.status == 0, done.stderr
    events = []
    for recording in BURSTS:
        path = tmp_path / "out" / f"{recording}{formats.FORMATS[name].suffix}"
        events += formats.read(path.read_bytes(), path, name, str(recordings / recording))
    check(events)


def test_a_labels_file_is_read_by_evaluate(recogniser, recordings, tmp_path):
    done = detect(recordings, "-m", recogniser, "-o", tmp_path / "l.h5")
    assert done.status == 0, done.stderr
    labels = files.Labels(tmp_path / "l.h5")
    names = [labels.classes[column] for column in (labels.label == 1).argmax(1)]
    check([Event(*each) for each in zip(labels.key, labels.start, labels.end, names, strict=True)])
    assert run("info", tmp_path / "l.h5", "--verify").status == 0


def test_a_features_file_and_a_pipe(recogniser, recordings, tmp_path):
    assert run("featurize", recordings, "-o", tmp_path / "f.h5", "-j", 1).status == 0
    done = detect(tmp_path / "f.h5", "-m", recogniser, "-o", "-", cwd=tmp_path)
    assert done.status == 0 and os.listdir(tmp_path) == ["f.h5"]
    check(formats.read(done.stdout.encode(), formats.Path("x.csv")))


def test_thresholds_gaps_and_lengths(recogniser, recordings, tmp_path):
    def events(*words):
        done = detect(recordings, "-m", recogniser, "-o", "-", *words, cwd=tmp_path)
        assert done.status == 0, done.stderr
        return list(csv.DictReader(done.stdout.splitlines()))

    usual = events()
    assert all(float(event["score"]) >= 0.5 for event in usual)
    assert all(float(event["score"]) >= 0.9 for event in events("--threshold", 0.9))
    assert all(float(e["end_s"]) - float(e["start_s"]) >= 1.4 for e in events("--min-length", 1.4))
    assert len(events("--gap", 60)) <= len({(e["path"], e["class"]) for e in usual})
    everything = events("--threshold", 0, "--top", 1, "--gap", 0)
    covered = sum(float(e["end_s"]) - float(e["start_s"]) for e in everything if e["path"].endswith("a.wav"))
    assert covered == pytest.approx(SECONDS, abs=1.0)  # one class at a time, always one


def test_calibrated_thresholds_are_used_and_said(recogniser, toy, recordings, tmp_path):
    table = tmp_path / "thresholds.csv"
    done = detect(toy.folder, "-m", recogniser, "--calibrate", toy.labels, "-o", table)
    assert done.status == 0 and "4 thresholds; scores are" in done.stderr, done.stderr
    rows = list(csv.DictReader(table.open()))
    assert [row["class"] for row in rows] == ["chirp", "clicks", "noise", "tone"]
    assert all(0 <= float(row["threshold"]) <= 1 and 0 <= float(row["recall"]) <= 1 for row in rows)
    done = detect(recordings, "-m", recogniser, "--threshold", table, "-o", "-", cwd=tmp_path)
    assert done.status == 0 and "scores are calibrated probabilities" in done.stderr
    events = formats.read(done.stdout.encode(), formats.Path("x.csv"))
    assert {event.model for event in events} == {"recogniser.safetensors (calibrated)"}
    table.write_text("class;threshold\nchirp;0,5\n")  # edited by hand, in a spreadsheet
    done = detect(recordings, "-m", recogniser, "--threshold", table, "-o", "-", cwd=tmp_path)
    assert {event.name for event in formats.read(done.stdout.encode(), formats.Path("x.csv"))} == {"chirp"}


def test_examples_to_listen_to(recogniser, recordings, tmp_path):
    done = detect(
        recordings, "-m", recogniser, "-o", tmp_path / "d.csv", "--clips", tmp_path / "listen", "--examples", 1
    )
    assert done.status == 0, done.stderr
    found = sorted((tmp_path / "listen").glob("*/*.wav"))
    assert {path.parent.name for path in found} >= {"tone", "clicks", "chirp"}
    sound, rate = soundfile.read(found[0])
    assert rate == RATE and len(sound) / rate >= 1.0 and np.abs(sound).max() > 0.05


def test_broken_and_short_files_cost_nothing_else(recogniser, recordings, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.wav").write_bytes((recordings / "a.wav").read_bytes())
    (folder / "broken.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    (folder / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "short.wav", np.zeros(4000), RATE)
    done = detect(folder, "-m", recogniser, "-o", tmp_path / "d.csv")
    assert done.status == 3 and "broken.wav" in done.stderr and "empty.wav" in done.stderr, done.stderr
    assert {row["class"] for row in csv.DictReader((tmp_path / "d.csv").open())} >= {"tone", "clicks"}
    assert detect(folder, "-m", recogniser, "-o", tmp_path / "d.csv", "--allow-skipped").status == 0


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("-o", "x.txt"), 1, "may be raven or audacity; say which with --format"),
        (("-o", "x.doc"), 1, "names no format; give --format"),
        (("-o", "x.txt", "--format", "audacity"), 2, "a label track holds one recording"),
        (("-o", "-", "--format", "parquet"), 2, "cannot be sent through a pipe"),
        (("--threshold", "nan"), 2, "is no number; give one"),
        (("--threshold", "missing.csv"), 2, "missing.csv does not exist"),
        (("--threshold", "0.5", "--release", "0.6"), 2, "would end before it begins"),
        (("--calibrate", "l.h5", "--format", "csv"), 2, "thresholds are one table"),
    ],
)
def test_bad_options_have_their_line(words, status, said, recogniser, recordings, tmp_path):
    done = detect(recordings, "-m", recogniser, *words, cwd=tmp_path)
    assert done.status == status and said in " ".join(done.stderr.split()), done.stderr
    assert os.listdir(tmp_path) == []


def test_a_model_without_classes_and_labels_of_nothing_are_refused(recogniser, recordings, toy, tmp_path):
    encoder = tmp_path / "encoder.safetensors"
    words = ("--objective", "contrastive", "--steps", 1, "--batch-size", 4, "--size", 4, "-q", "-o", encoder)
    assert run("train", toy.features, *words).status == 0
    done = detect(recordings, "-m", encoder, "-o", tmp_path / "d.csv")
    assert done.status == 4 and "has no classes; train a recogniser" in done.stderr
    done = detect(recordings, "-m", recogniser, "--calibrate", toy.labels, "-o", tmp_path / "t.csv")
    assert done.status == 1 and "says nothing of the windows" in done.stderr
    (tmp_path / "bad.csv").write_text("class,threshold\nchirp,much\n")
    done = detect(recordings, "-m", recogniser, "--threshold", tmp_path / "bad.csv")
    assert done.status == 1 and "line 2: threshold 'much' is no number" in done.stderr


def test_a_folder_of_somebody_else_stays(recogniser, recordings, tmp_path):
    mine = tmp_path / "d.csv.detect"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    done = detect(recordings, "-m", recogniser, "-o", tmp_path / "d.csv")
    assert done.status == 2 and "which is not ours; move it away" in done.stderr
    assert os.listdir(mine) == ["notes.txt"]


@pytest.mark.parametrize("wait", [0.2, 0.6])
def test_a_killed_run_goes_on_to_the_same_bytes(wait, recogniser, recordings, tmp_path):
    words = ["detect", recordings, "-m", recogniser, "--precision", "float32", "--threads", 1, "-j", 1, "-o"]
    assert run(*words, tmp_path / "whole.csv").status == 0
    process = program.start(*words, tmp_path / "killed.csv")
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run(*words, tmp_path / "killed.csv").status == 0
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["killed.csv", "whole.csv"]


def test_json_lines_hold_what_tables_hold(recogniser, recordings, tmp_path):
    rows = {}
    for name in ("csv", "jsonl"):
        rows[name] = detect(recordings, "-m", recogniser, "-o", "-", "--format", name, cwd=tmp_path).stdout
    parsed = [json.loads(line) for line in rows["jsonl"].splitlines()]
    assert [row["class"] for row in parsed] == [row["class"] for row in csv.DictReader(rows["csv"].splitlines())]


def test_a_device_takes_the_table_and_nothing_stands_beside_it(recogniser, recordings, tmp_path):
    before = set(os.listdir("/dev"))
    done = detect(recordings, "-m", recogniser, "-o", "/dev/null", "--format", "csv", cwd=tmp_path)
    assert done.status == 0 and os.listdir(tmp_path) == [], done.stderr
    assert not {name for name in set(os.listdir("/dev")) - before if name.startswith("null")}


def test_recordings_that_are_gone_are_named_where_examples_are_wanted(recogniser, recordings, tmp_path):
    sound, rate = soundfile.read(recordings / "a.wav")
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", sound, rate)
    assert run("featurize", tmp_path / "in", "-o", tmp_path / "f.h5", "-j", 1).status == 0
    (tmp_path / "in" / "a.wav").unlink()
    done = detect(tmp_path / "f.h5", "-m", recogniser, "-o", tmp_path / "d.csv", "--clips", tmp_path / "listen")
    assert done.status == 0 and "a.wav" in done.stderr and "its examples are left out" in done.stderr
    assert "0 WAV files" in done.stderr

"""detect --smooth and --taxonomy: neutral ones change nothing, others what they should, bad ones in a line."""

import csv
import json

import builder
import numpy as np
import pytest
from cluster_world import run


@pytest.fixture(scope="module")
def heard(toy, tmp_path_factory):
    """Train a recogniser of the toy set's classes; return words that listen to it."""
    path = tmp_path_factory.mktemp("recogniser") / "recogniser.safetensors"
    words = ("--objective", "classification", "--encoder", "plain", "--steps", 10, "--batch-size", 8, "-q", "-o", path)
    done = run("train", toy.features, "--labels", toy.labels, *words)
    assert done.status == 0, done.err
    return ("detect", toy.features, "-m", path, "--threads", 1, "--precision", "float32")


def events(done) -> list[dict]:
    assert done.status == 0, done.err
    return list(csv.DictReader(open("x.csv", encoding="utf-8")))


def test_neutral_smoothing_gives_the_same_events(heard, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = (*heard, "--threshold", 0.3, "-o", "x.csv")
    plain = events(run(*words))
    assert plain and events(run(*words, "--smooth", 0)) == plain
    assert events(run(*words, "--smooth", 3)) != plain


def test_potentials_may_come_from_labels_and_classes_imply_their_parents(heard, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = builder.labels(
        tmp_path / "l.h5",
        builder.whole(["x"]),
        ["tone"],
        [[1]],
        events=[(0, 0, 5.0 * i, 5.0 * i + 2) for i in range(9)],
    )
    nodes = [{"id": "/t", "name": "tone", "child_ids": ["/c"]}, {"id": "/c", "name": "chirp", "child_ids": []}]
    (tmp_path / "o.json").write_text(json.dumps(nodes))
    words = (
        *heard,
        "--threshold",
        0,
        "--hop",
        0.96,
        "-o",
        "x.csv",
        "--smooth",
        said,
        "--taxonomy",
        tmp_path / "o.json",
    )
    most = {(row["path"], row["class"]): float(row["score"]) for row in events(run(*words))}
    clips = {path for path, _ in most}
    assert clips and all(most[path, "chirp"] <= most[path, "tone"] for path in clips)
    assert np.isfinite(list(most.values())).all()


def test_what_cannot_be_used_is_said_in_a_line(heard, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weak = builder.labels(tmp_path / "weak.h5", builder.whole(["x"]), ["tone"], [[1]])
    (tmp_path / "o.json").write_text('[{"id": "/r", "name": "Rain"}]')
    (tmp_path / "bad.json").write_text("{")
    for option, value, status, line in [
        ("--smooth", "nan", 2, "is no number of nats"),
        ("--smooth", tmp_path / "none.h5", 2, "does not exist"),
        ("--smooth", heard[1], 4, "labels"),
        ("--smooth", weak, 2, "the labels have no event of the classes of the recogniser; give strong labels"),
        ("--taxonomy", tmp_path / "none.json", 2, "does not exist"),
        ("--taxonomy", tmp_path / "bad.json", 2, "is not an ontology"),
        ("--taxonomy", tmp_path / "o.json", 2, "the ontology has none of 4 classes of the recogniser"),
    ]:
        done = run(*heard, "-o", "x.csv", option, value)
        assert done.status == status and line in done.err, (option, value, done.err)
        assert not (tmp_path / "x.csv").exists()

"""soundssl labels: every verb on files and back, its bad input in one line, and whose splits count first."""

import json

import builder
import numpy as np
import pytest
from cluster_world import run

from soundssl import files, labels
from soundssl.evaluations import reading

CLASSES = ["Dog", "Bark", "Bell"]
ONTOLOGY = [
    {"id": "/a", "name": "Animal", "child_ids": ["/d"]},
    {"id": "/d", "name": "Dog", "child_ids": ["/b"]},
    {"id": "/b", "name": "Bark", "child_ids": []},
    {"id": "/e", "name": "Bell", "child_ids": []},
]
KEYS = [f"{i:02}.wav" for i in range(12)]
OF = [0, 1, 2] * 4


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Twelve clips of three uploaders, scores of two windows each that are right but for the first clip."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "ontology.json").write_text(json.dumps(ONTOLOGY))
    label = np.eye(3, dtype=np.int8)[OF]
    split = ["train"] * 9 + ["test"] * 3
    builder.labels(
        folder / "l.h5", builder.whole(KEYS), CLASSES, label, split=split,
        **{"segment/uploader": [f"u{i // 4}" for i in range(12)], "class_id": ["/d", "/b", "/e"]},
    )  # fmt: skip
    score = np.repeat(0.1 + 0.8 * label, 2, axis=0).astype("f4")
    score[:2] = [0.05, 0.9, 0.05]
    builder.embeddings(
        folder / "p.h5", score, clip=np.repeat(np.arange(12), 2), start=np.tile([0, 0.48], 12), keys=KEYS,
        attributes={"layer": "probabilities", "class": json.dumps(CLASSES)},
    )  # fmt: skip
    return folder


def made(world, *words) -> files.Labels:
    out = world / "out.h5"
    done = run("labels", *words, "-o", out, "--force")
    assert done.status == 0, done.err
    return files.Labels(out)


def test_propagate_merge_and_tree(world):
    graph = ["--ontology", world / "ontology.json"]
    up = made(world, "propagate", world / "l.h5", *graph)
    assert up.label.sum(0).tolist() == [8, 4, 4] and up.identifiers == ["/d", "/b", "/e"]
    assert up.attributes["verb"] == "propagate"
    merged = made(world, "merge", world / "l.h5", *graph, "--least", 5)
    assert merged.classes == ["Dog", "Bell"] and merged.label.sum(0).tolist() == [8, 4]
    roots = json.loads(run("labels", "tree", world / "l.h5", *graph).out)
    assert [(root["class"], root["own"], root["below"]) for root in roots] == [("Dog", 4, 8), ("Bell", 4, 4)]
    below = json.loads(run("labels", "tree", world / "l.h5", *graph, "--below", "Dog", "--depth", 1).out)
    assert [(root["class"], root["children"]) for root in below] == [("Dog", [])]


def test_the_output_stands_for_its_inputs_and_is_named(world, tmp_path):
    source = builder.labels(tmp_path / "x.labels.h5", builder.whole(KEYS), CLASSES, np.eye(3, dtype=np.int8)[OF])
    words = ["labels", "sample", source, "--per-class", 2]
    first = run(*words)
    assert first.status == 0 and first.out.strip() == str(tmp_path / "x.sample.labels.h5")
    assert "up to date" in run(*words).err
    assert "6 of 12 segments" in run(*words, "--seed", 1).err


def test_split_says_what_the_sides_share(world):
    out = world / "out.h5"
    done = run("labels", "split", world / "l.h5", "--by", "uploader", "--validation", 0.25, "-o", out, "--force")
    assert done.status == 0 and "WC 0.0% (0)" in done.err
    divided = files.Labels(out)
    assert set(divided.split) == {"train", "validation"} and divided.uploader is not None
    only = made(world, "split", world / "l.h5", "--by", "uploader", "--split", "train", "--method", "stratified",
                "--validation", 0.3)  # fmt: skip
    assert list(only.split[9:]) == ["test"] * 3 and set(only.split[:9]) == {"train", "validation"}


def test_split_divides_into_folds(world, tmp_path):
    out = tmp_path / "f.h5"
    words = ("labels", "split", world / "l.h5", "--by", "key", "--folds", 2, "--split", "train", "-o", out)
    done = run(*words)
    assert done.status == 0 and "9 clips in 2 folds of " in done.err
    found = files.Labels(out)
    assert list(found.split[9:]) == ["test"] * 3 and set(found.split[:9]) == {"1", "2"}
    assert (
        "up to date"
        in run("labels", "split", world / "l.h5", "--by", "key", "--folds", 2, "--split", "train", "-o", out).err
    )
    done = run("labels", "split", world / "l.h5", "--by", "key", "--folds", 50, "-o", tmp_path / "g.h5")
    assert "of 50 folds are empty; take fewer --folds" in done.err and done.status == 0


def test_flag_prune_and_top_read_scores(world):
    flagged = made(world, "flag", world / "l.h5", "--scores", world / "p.h5", "--share", 13)
    assert np.argwhere(flagged.label == -1).tolist() == [[0, 1], [1, 0], [0, 2]] or (flagged.label == -1).sum() == 3
    assert flagged.label[0, 1] == -1, "what the teacher hears there"
    out = world / "out.h5"
    done = run("labels", "prune", world / "l.h5", "--scores", world / "p.h5", "--percentile", 88, "--split", "train",
               "-o", out, "--force")  # fmt: skip
    assert done.status == 0 and "1 of 9 segments dropped" in done.err
    assert [json.loads(line)["dropped"] for line in done.out.splitlines()] == [1, 0, 0]
    assert list(files.Labels(out).key) == KEYS[1:]
    machine = made(world, "top", world / "p.h5", "--top", 1)
    assert machine.label.argmax(1).tolist() == [1, *OF[1:]] and (machine.origin == 2).all() and not machine.rated.any()
    windows = made(world, "top", world / "p.h5", "--top", 2, "--threshold", 0.5, "--level", "window")
    assert len(windows.key) == 24 and windows.label.sum() == 24


def test_noise_and_compare(world):
    noisy = made(world, "noise", world / "l.h5", "--wrong", 1 / 3, "--split", "train")
    assert (noisy.label != noisy.truth).any(1).sum() == 3 and labels.of_file(noisy).truth is not None
    row = json.loads(run("labels", "compare", world / "out.h5", world / "l.h5").out)
    assert row["right"] == 0.75 and row["inside"] == 0.25 and row["outside"] == 0 and row["right_low"] < 0.75
    assert len(run("labels", "compare", world / "out.h5", world / "l.h5", "--classes").out.splitlines()) == 4
    (world / "c.csv").write_text("class,becomes,share\nDog,Bark,1\nBark,Bell,1\nBell,Dog,1\n")
    turned = made(world, "noise", world / "l.h5", "--wrong", 1, "--confusion", world / "c.csv")
    assert turned.label.argmax(1).tolist() == [(one + 1) % 3 for one in OF]
    foreign = made(world, "noise", world / "l.h5", "--wrong", 0.4, "--outside", 0.5, "--vocabulary", "/d,Bark")
    assert foreign.classes == ["Dog", "Bark"] and (foreign.truth.sum(1) == 0).sum() == 2


def test_nominate_writes_a_sheet(world):
    (world / "m.csv").write_text('path,title,tags\na.wav,My Dog,"pets, dog"\nb.wav,Church bell,\nc.wav,Rain,\n')
    (world / "k.csv").write_text("class,keyword\nDog,dog;hound\nBell,bell\nBell,-doorbell\n")
    out = world / "q.csv"
    out.unlink(missing_ok=True)
    done = run("labels", "nominate", world / "m.csv", world / "k.csv", "-o", out)
    assert done.status == 0 and "2 candidates for 2 of 3 recordings" in done.err
    assert out.read_text() == "path,candidate,keyword,class\na.wav,Dog,dog,\nb.wav,Bell,bell,\n"
    again = run("labels", "nominate", world / "m.csv", world / "k.csv", "-o", out)
    assert again.status == 2 and "may hold answers" in again.err


@pytest.mark.parametrize(
    ("words", "status", "fact"),
    [
        ("propagate l.h5 --ontology none.json", 2, "none.json does not exist"),
        ("propagate l.h5 --ontology k.txt", 2, "is not an ontology"),
        ("propagate p.h5 --ontology ontology.json", 4, "holds embeddings, not labels"),
        ("merge l.h5 --ontology ontology.json --least 0", 2, "'--least'"),
        ("tree l.h5 --ontology ontology.json --below Cat", 2, "no class is called 'Cat'"),
        ("split l.h5 --validation 1", 2, "1 does not lie between 0 and 1"),
        ("split l.h5 --split x", 1, "has no split 'x'"),
        ("split l.h5 --folds 1", 2, "'--folds'"),
        ("split l.h5 --folds 3 --seed 1", 2, "folds are by a checksum; leave out --validation, --method and --seed"),
        ("split l.h5 --folds 3 --split x", 1, "has no split 'x'"),
        ("flag l.h5 --scores p.h5 --share 100", 2, "does not lie from 0 to below 100"),
        ("flag l.h5 --scores p.h5 --scores p.h5", 1, "which another file scores too"),
        ("flag l.h5 --scores l.h5", 4, "holds labels, not embeddings"),
        ("prune l.h5 --scores p.h5", 2, "say which of the splits test, train are trained on"),
        ("prune l.h5 --scores p.h5 --percentile 0", 2, "0 does not lie above 0 to 100"),
        ("prune l.h5 --scores p.h5 --q 2", 2, "2 does not lie from 0 to 1"),
        ("noise l.h5 --wrong 2", 2, "2 does not lie from 0 to 1"),
        ("noise l.h5 --wrong 0.1 --outside 0.5", 2, "give --vocabulary"),
        ("noise l.h5 --wrong 0.1 --vocabulary Cat", 1, "no class is called 'Cat'"),
        ("noise l.h5 --wrong 0.1 --confusion k.txt", 1, "has no column class"),
        ("sample l.h5 --fraction 0", 2, "0 does not lie above 0 to 1"),
        ("top l.h5", 4, "holds labels, not embeddings"),
        ("nominate k.txt k.txt -o bad.csv", 1, "has no column path or file"),
        ("compare l.h5 other.h5", 1, "says nothing of"),
        ("sample l.h5 --per-class 1 -o l.h5", 2, "is one of the inputs"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_line_and_a_status(world, words, status, fact):
    (world / "k.txt").write_text("a,b\n1,2\n")
    if not (world / "other.h5").exists():
        builder.labels(world / "other.h5", builder.whole(["x"]), CLASSES, [[1, 0, 0]])
    given = [world / word if "." in word and not word[0].isdigit() else word for word in words.split()]
    done = run("labels", *given, *([] if "-o" in words or words[:4] in ("tree", "comp") else ["-o", world / "bad.h5"]))
    assert done.status == status and fact in done.err.replace("\n", " "), done.err
    assert not (world / "bad.h5").exists()


def test_the_split_of_the_labels_comes_before_that_of_the_features(world, tmp_path):
    builder.embeddings(tmp_path / "e.h5", np.eye(3, dtype="f4")[OF], keys=KEYS, split=["a", "b"] * 6)
    known = files.Labels(world / "l.h5")
    assert len(reading.read_embeddings(tmp_path / "e.h5", known, splits=["test"]).label) == 3
    with pytest.raises(files.reading.SoundsslError, match=r"l\.h5 has no split 'c'"):
        reading.read_embeddings(tmp_path / "e.h5", known, splits=["c"])
    builder.labels(tmp_path / "bare.h5", builder.whole(KEYS), CLASSES, np.eye(3, dtype=np.int8)[OF])
    assert len(reading.read_embeddings(tmp_path / "e.h5", files.Labels(tmp_path / "bare.h5"), splits=["a"]).label) == 6

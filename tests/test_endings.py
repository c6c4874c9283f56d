"""Endings: an output is of the format that its name promises, or is refused before any work."""

import csv

import numpy as np
import pytest
from cluster_world import run
from test_questions import write_model

from soundssl import files
from soundssl.commands.target import PROMISES


@pytest.fixture(scope="module")
def model(toy, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("endings") / "m.safetensors", toy.features)


# What is written, by whom, and a name that promises something else.
WRONG = {
    "featurize": (["featurize", "FOLDER"], "x.csv", "HDF5, not CSV; name it x.h5"),
    "labels": (["featurize", "--dataset", "csv", "TABLE", "-o", "x.h5", "--labels"], "x.csv", "HDF5, not CSV"),
    "waves": (["featurize", "--representation", "waveform", "FOLDER"], "x.wav", "HDF5, not sound"),
    "join": (["featurize", "FEATURES", "--copy"], "x.parquet", "HDF5, not Parquet"),
    "join vectors": (["embed", "E.h5", "--copy"], "x.csv", "HDF5, not CSV"),
    "sample-triplets": (["sample-triplets", "FEATURES"], "x.json", "HDF5, not JSON"),
    "separate": (["separate", "FOLDER", "-m", "MODEL"], "x.wav", "HDF5, not sound"),
    "train": (["train", "FEATURES", "--objective", "contrastive"], "x.pt", "safetensors, not PyTorch"),
    "train to h5": (["train", "FEATURES", "--objective", "contrastive"], "x.h5", "name it x.safetensors"),
    "embed": (["embed", "FEATURES", "-m", "MODEL"], "x.TSV", "HDF5, NPY, CSV or Parquet, not TSV; name it x.h5"),
    "cluster": (["cluster", "E.h5", "--k", "2"], "x.npy", "HDF5, not NPY"),
    "picture": (["cluster", "E.h5", "--k", "2", "--picture"], "x.pdf", "PNG, not a picture; name it x.png"),
    "label-clusters": (["label-clusters", "C.h5"], "x.csv", "HDF5, not CSV"),
    "questions": (["label-clusters", "C.h5", "--questions"], "x.xlsx", "CSV or text, not a spreadsheet"),
    "scores": (["evaluate", "retrieval", "E.h5", "--labels", "LABELS"], "x.csv", "JSON lines, JSON or text, not CSV"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_name_that_promises_another_format_is_refused(what, toy, model, tmp_path):
    words, name, told = WRONG[what]
    known = {"FOLDER": toy.folder, "TABLE": toy.table, "FEATURES": toy.features, "MODEL": model, "LABELS": toy.labels}
    words = [known.get(word, tmp_path / word if word.endswith(".h5") else word) for word in words]
    (tmp_path / "C.h5").write_bytes(b"")  # it is refused before anything is read
    if "E.h5" in WRONG[what][0]:
        run("embed", toy.features, "-m", model, "-o", tmp_path / "E.h5", "--device", "cpu", "-q")
    last = words[-1] in ("--labels", "--picture", "--questions")
    before = sorted(tmp_path.iterdir())
    done = run(*words, *([] if last else ["-o"]), tmp_path / name)
    assert done.status == 2 and " ".join(told.split()) in " ".join(done.err.split()), done.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["x", "x.features", "x.hdf5", "x.H5", "x.2"])
def test_other_names_are_taken_as_they_are(name, toy, tmp_path):
    assert run("featurize", toy.features, "--copy", "-o", tmp_path / name, "-q").status == 0
    assert files.kind_of(tmp_path / name) == "features"


def test_every_format_has_an_ending_to_propose():
    assert {"HDF5", "safetensors", "CSV", "PNG", "JSON lines"} <= set(PROMISES.values())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("more", [[], ["--store", "float16", "--split", "1"]])
def test_vectors_for_other_programs_are_those_of_the_embeddings_file(ending, more, toy, model, tmp_path):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    words = ["embed", toy.features, "-m", model, "--hop", 0.48, "--device", "cpu", "-q", *more]
    assert run(*words, "-o", tmp_path / "e.h5").status == 0
    done = run(*words, "-o", tmp_path / f"e.{ending}")
    assert done.status == 0, done.err
    found = files.Embeddings(tmp_path / "e.h5")
    rows = read(tmp_path / f"e.{ending}")
    assert [row["clip"] for row in rows] == [found.clips.key[clip] for clip in found.clip]
    assert [row["split"] for row in rows] == [found.clips.split[clip] for clip in found.clip]
    file, start = found.clips.heard(found.clip[:], found.start[:])
    assert [row["file"] for row in rows] == list(file)
    assert np.allclose([float(row["start"]) for row in rows], start, atol=1e-6)
    assert np.allclose([float(row["end"]) for row in rows], start + 0.96, atol=1e-6)
    assert np.array_equal(np.array([row["vector"] for row in rows], "f4"), found.embedding[:].astype("f4"))
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob("*.partial"))


def read(path) -> list[dict]:
    """Return the rows of a table, each with its vector."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return [{**row, "vector": row["embedding"]} for row in parquet.read_table(path).to_pylist()]
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{**row, "vector": [float(row[f"e{i}"]) for i in range(8)]} for row in rows]


def test_a_cell_of_csv_is_no_formula(toy, model, tmp_path):
    source = files.Features(toy.features)
    with files.replace(tmp_path / "t.csv") as partial:
        from soundssl.files import exports

        clips = source.clips
        clips.key = np.array(["=1+1", *clips.key[1:]], object)
        windows = next(iter(source.windows(96, 96, 1)))
        exports._write_csv(partial, iter([(np.zeros((1, 2)), windows)]), clips, 0.96, 2, "f4")
    assert (tmp_path / "t.csv").read_text().splitlines()[1].startswith("'=1+1,")


def test_parquet_without_pyarrow_is_refused_before_any_work(toy, model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    done = run("embed", toy.features, "-m", model, "-o", tmp_path / "e.parquet", "--device", "cpu", "-q")
    assert done.status == 1 and "pip install 'soundssl[parquet]'" in done.err and not list(tmp_path.iterdir())

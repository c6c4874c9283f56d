"""NaN never leaves with status 0: numbers that are not finite, or too large to compute with, end in one line."""

import json
from datetime import UTC, datetime

import builder
import h5py
import numpy as np
import pytest
import safetensors.numpy
import soundfile
from cluster_world import run
from stored_models import unpack

from soundssl import SoundsslError, clustering, files, load_model
from soundssl.clustering import Centres, Rows

PLAIN = ("--device", "cpu", "--precision", "float32", "--threads", 1, "-q")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Write features of a sound, a recogniser, embeddings of planted rows and clusters of them."""
    folder = tmp_path_factory.mktemp("finite")
    sound = np.random.default_rng(0).normal(0, 0.1, 3 * 16000)
    soundfile.write(folder / "sound.wav", sound, 16000)
    assert run("featurize", folder / "sound.wav", "-o", folder / "f.h5", "-j", 1, "-q").status == 0
    unpack("classification", folder)
    rows = np.random.default_rng(0).normal(0, 1, (40, 4)).astype("f4")
    builder.embeddings(folder / "e.h5", rows, clip=np.arange(40) // 4, start=np.arange(40) % 4 * 0.96)
    builder.clusters(folder / "c.h5", np.arange(40) % 2, np.eye(2, 4), clip=np.arange(40) // 4)
    keys = [f"clip-{i:02}" for i in range(10)]
    builder.labels(folder / "l.h5", builder.whole(keys), ["a", "b"], [[i % 2, 1 - i % 2] for i in range(10)])
    return folder


def spoiled(path, column, value=np.nan, row=0):
    """Put a number into a row of a column, in the place of what is there; return the path."""
    with h5py.File(path, "r+") as file:
        file[column][row] = value
    return path


def copied(world, name, folder):
    (folder / name).write_bytes((world / name).read_bytes())
    return folder / name


def refused(done, *said, output=None, status=4):
    """Assert that a command ended in one line with what it says, and wrote nothing."""
    assert done.status == status and done.err.count("\n") == 1, done.err
    assert all(each in done.err for each in said), done.err
    assert "NaN" not in done.out
    assert output is None or not output.exists()


@pytest.fixture(scope="module")
def recogniser(world):
    return world / "classification.safetensors"


@pytest.mark.parametrize("layer", ["embedding", "probabilities"])
@pytest.mark.parametrize("name", ["e.h5", "e.npy", "e.csv"])
def test_embed_refuses_features_that_are_not_finite(world, recogniser, tmp_path, layer, name):
    features = spoiled(copied(world, "f.h5", tmp_path), "frames", row=100)
    output = tmp_path / f"{layer}-{name}"
    done = run("embed", features, "-m", recogniser, "--layer", layer, "-o", output, *PLAIN)
    refused(done, "windows hold numbers that are not finite", output=output, status=1)


def test_detect_refuses_features_that_are_not_finite(world, recogniser, tmp_path):
    features = spoiled(copied(world, "f.h5", tmp_path), "frames", row=100)
    done = run("detect", features, "-m", recogniser, "-o", tmp_path / "d.csv", *PLAIN)
    refused(done, "not finite", output=tmp_path / "d.csv", status=1)


def damaged_model(world, folder, value):
    model = files.read_model(world / "classification.safetensors")
    name = next(name for name, tensor in model.tensors.items() if tensor.ndim == 4)
    tensors = {**model.tensors, name: model.tensors[name].copy()}
    tensors[name][0, 0] = value
    metadata = {**model.attributes}
    safetensors.numpy.save_file(tensors, folder / "damaged.safetensors", metadata)
    return folder / "damaged.safetensors", name


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_and_named(world, tmp_path, value):
    path, name = damaged_model(world, tmp_path, value)
    refused(run("embed", world / "f.h5", "-m", path, "-o", tmp_path / "e.h5", *PLAIN), name, "not finite")
    refused(run("detect", world / "f.h5", "-m", path, "-o", tmp_path / "d.csv", *PLAIN), name, "not finite")
    with pytest.raises(files.FormatError, match="not finite"):
        load_model(path)
    assert files.verify(path) == [f"{name} has numbers that are not finite"]


def test_what_a_net_makes_of_a_waveform_is_finite_or_an_error(world, recogniser, monkeypatch):
    model = load_model(recogniser, "cpu", "float32")
    monkeypatch.setattr(model.accelerator.__class__, "run", lambda *_: np.full((1, 2), 3e38, "f4"))
    with pytest.raises(SoundsslError, match="what the net gives is not finite"):
        model.embed(np.zeros(16000, "f4"), 16000)


def test_numbers_beyond_float16_are_said_with_their_place(world, recogniser, tmp_path, monkeypatch):
    model = load_model(recogniser, "cpu", "float32")
    monkeypatch.setattr(model.accelerator.__class__, "run", lambda *given: np.full((len(given[2]), 4), 1e6, "f4"))
    words = ("embed", world / "f.h5", "-m", recogniser, "-o", tmp_path / "e.h5", "--raw")
    done = run(*words, "--store", "float16", *PLAIN)
    refused(done, "sound.wav at 0 s has numbers beyond float16; --store float32 holds them", status=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e18, 1e36])
@pytest.mark.parametrize("method", [("--k", 2), ("--k", 2, "--method", "kmeans"), ("--assign", "c.h5")])
def test_rows_that_are_not_finite_or_too_large_are_not_clustered(world, tmp_path, value, method):
    if method[-1] == "kmeans":
        pytest.importorskip("faiss")
    words = [world / word if word == "c.h5" else word for word in method]
    path, output = spoiled(copied(world, "e.h5", tmp_path), "embedding", value, row=7), tmp_path / "out.h5"
    done = run("cluster", path, *words, "--context", 0, "-o", output, *PLAIN)
    said = "has a length beyond 1e+15" if np.isfinite(value) else "is not finite"
    refused(done, f"row 7 of the embeddings {said}", output=output, status=1)


def test_numbers_of_64_bits_that_32_do_not_hold_are_not_clustered(tmp_path):
    matrix = np.random.default_rng(0).normal(0, 1, (40, 4))
    matrix[3] = 1e300
    np.save(tmp_path / "m.npy", matrix)
    done = run("cluster", tmp_path / "m.npy", "--k", 2, "-o", tmp_path / "out.h5", *PLAIN)
    refused(done, "row 3 of the embeddings is not finite", status=1)


@pytest.mark.parametrize(("column", "value"), [("weight", np.nan), ("weight", 1e30)])
def test_centres_that_are_not_finite_assign_nothing(world, tmp_path, column, value):
    path = spoiled(copied(world, "c.h5", tmp_path), column, value)
    done = run("cluster", world / "e.h5", "--assign", path, "-o", tmp_path / "out.h5", *PLAIN)
    refused(done, "c.h5 is damaged", "finite", output=tmp_path / "out.h5")


def test_centres_may_be_far_from_one(world):
    rows = Rows(np.random.default_rng(0).normal(0, 1e12, (40, 4)).astype("f4"))
    found = clustering.assign(rows, Centres(np.eye(2, 4, dtype="f4") * 1e12, "kmeans", "euclidean", 0.0))
    assert np.isfinite(found.similarity).all() and json.dumps(found.summary.figures(), allow_nan=False)


@pytest.mark.parametrize("copy", [(), ("--copy",)])
def test_embeddings_that_are_not_finite_are_not_joined(world, tmp_path, copy):
    other = spoiled(copied(world, "e.h5", tmp_path), "embedding", row=5)
    builder.embeddings(tmp_path / "z.h5", np.ones((3, 4), "f4"), keys=["x", "y", "z"])
    done = run("embed", other, tmp_path / "z.h5", *copy, "-o", tmp_path / "out.h5", "-q")
    refused(done, "finite", output=tmp_path / "out.h5", status=4)


# Rows that are referred to are not read: their mean speaks for them, and test_rows_joined_unread for what it hides.
@pytest.mark.parametrize(("column", "copy"), [("mean", ()), ("mean", ("--copy",)), ("frames", ("--copy",))])
def test_features_that_are_not_finite_are_not_joined(world, tmp_path, column, copy):
    other = spoiled(copied(world, "f.h5", tmp_path), column)
    about = {**files.Features(world / "f.h5").front_end(), "image_rate": 1.0}
    builder.features(tmp_path / "z.h5", {"z": np.ones((200, 64))}, attributes=about)
    done = run("featurize", other, tmp_path / "z.h5", *copy, "-o", tmp_path / "out.h5", "-q")
    refused(done, "finite", output=tmp_path / "out.h5", status=4 if column == "mean" else 1)


@pytest.fixture(scope="module")
def unread(world, tmp_path_factory):
    """Join features by reference of which one holds a row that is not finite, as its mean does not tell."""
    folder = tmp_path_factory.mktemp("unread")
    about = {**files.Features(world / "f.h5").front_end(), "image_rate": 1.0}
    keys = [f"clip-{i:02}" for i in range(6)]
    for first in (0, 3):
        clips = {key: np.random.default_rng(0).normal(0, 1, (200, 64)) for key in keys[first : first + 3]}
        builder.features(folder / f"{first}.h5", clips, attributes=about)
    spoiled(folder / "0.h5", "frames", row=100)
    assert run("featurize", folder / "0.h5", folder / "3.h5", "-o", folder / "all.h5", "-q").status == 0
    builder.labels(folder / "l.h5", builder.whole(keys), ["a", "b"], [[i % 2, 1 - i % 2] for i in range(6)])
    return folder


LEARN = ("--steps", 2, "--batch-size", 12, "--encoder", "draft", "--checkpoint-every", 0)


@pytest.mark.parametrize(
    "words",
    [
        ("embed", "-m", "MODEL"),
        ("detect", "-m", "MODEL"),
        ("search", "-m", "MODEL", "--like", "clip-04@1"),
        ("evaluate", "retrieval", "--labels", "LABELS"),
        ("evaluate", "knn", "--labels", "LABELS"),
        ("train", "--objective", "classification", "--labels", "LABELS", *LEARN),
        ("train", "--objective", "contrastive", *LEARN),
    ],
    ids=lambda words: " ".join(map(str, words[:3])),
)
def test_rows_joined_unread_are_refused_by_whoever_reads_them(words, unread, recogniser, tmp_path):
    at = 2 if words[0] == "evaluate" else 1
    given = [{"MODEL": recogniser, "LABELS": unread / "l.h5"}.get(word, word) for word in words]
    output = tmp_path / {"train": "out.safetensors", "evaluate": "out.jsonl"}.get(words[0], "out.csv")
    plain = () if words[0] in ("evaluate", "search") else PLAIN
    done = run(*given[:at], unread / "all.h5", *given[at:], "-o", output, *plain)
    assert done.status in (1, 4) and "NaN" not in done.out
    assert "not finite" in done.err or "the loss is nan" in done.err, done.err
    assert not output.exists()


@pytest.mark.parametrize("task", ["retrieval", "knn"])
def test_values_that_are_not_finite_are_not_evaluated(world, tmp_path, task):
    path = spoiled(copied(world, "e.h5", tmp_path), "embedding", row=5)
    refused(run("evaluate", task, path, "--labels", world / "l.h5"), "e.h5 is damaged: it holds numbers that are not")
    matrix = np.ones((10, 4))
    matrix[2, 2] = np.inf
    np.save(tmp_path / "m.npy", matrix)
    refused(run("evaluate", task, tmp_path / "m.npy", "--labels", world / "l.h5"), "m.npy is damaged")


def test_a_column_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(SoundsslError, match=r"weight would hold .* not finite, first in row 1"):
        builder.labels(tmp_path / "l.h5", builder.whole("ab"), ["x"], [[1], [0]], weight=[1, np.nan])
    with pytest.raises(SoundsslError, match=r"embedding would hold .* first in row 2"):
        builder.embeddings(tmp_path / "e.h5", np.float32([[1], [2], [np.inf]]))
    assert not list(tmp_path.iterdir())
    builder.labels(tmp_path / "l.h5", builder.whole("ab"), ["x"], [[1], [0]])  # whose ends are infinite


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(SoundsslError, match=r"the weights encoder\.a are not finite and are not written"):
        builder.model(tmp_path / "m.safetensors", {"encoder.a": np.float32([1, np.nan])}, {})
    assert not list(tmp_path.iterdir())


def test_figures_that_are_not_finite_are_null_in_lines_of_json(tmp_path):
    files.Log(tmp_path / "log").write({"step": 1, "loss": 0.5, "accuracy": float("nan")})
    line = json.loads((tmp_path / "log").read_text())
    assert abs(datetime.fromisoformat(line.pop("time")) - datetime.now(UTC)).total_seconds() < 60
    assert line == {"step": 1, "loss": 0.5, "accuracy": None}

"""What the head of a file says is checked by type and range when it is opened, and ends in one line."""

import json

import builder
import h5py
import numpy as np
import pytest
import safetensors.numpy
from builder import columns, write
from cluster_world import run
from stored_models import unpack

from soundssl import files
from soundssl.device import choose
from soundssl.embedding import Job
from soundssl.files import reading
from soundssl.files.schema import KINDS, SHARED_ATTRIBUTES
from soundssl.model import Model

READERS = {
    "features": files.Features,
    "embeddings": files.Embeddings,
    "clusters": files.Clusters,
    "labels": files.Labels,
    "triplets": files.Triplets,
}
# Of each sort of attribute, what it never is.
WRONG = {
    "text": [3, np.zeros(3)],
    "integer": ["words", 2.5, np.nan, -(2**40), np.zeros(2, "i8")],
    "number": ["words", np.nan, np.inf, np.zeros(2), h5py.Empty("f8")],
    "names": ["[", "{}", "[1]", "", 3, "[" * 100_000],
    "files": ["not JSON", "[1]", '[{"file": "a"}]', '[{"role": 1, "file": 2, "uuid": 3}]'],
    "models": ["not JSON", '[{"file": "a"}]'],
    "any": [np.zeros(2), np.nan],
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Write a file of every kind, and return the folder."""
    folder = tmp_path_factory.mktemp("heads")
    for kind in KINDS:
        write(folder / f"{kind}.h5", kind, columns(kind))
    return folder


@pytest.fixture(autouse=True)
def unprobed(monkeypatch):
    """Read files without a child for each: none of these makes HDF5 loop, and test_probe.py has those that do."""
    monkeypatch.setattr(reading, "probe", lambda *paths: None)


def changed(good, folder, kind, change):
    path = folder / f"{kind}.h5"
    path.write_bytes((good / path.name).read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_of_another_type_or_out_of_range_are_named(kind, good, tmp_path):
    READERS[kind](good / f"{kind}.h5")
    known = {**SHARED_ATTRIBUTES, **KINDS[kind].attributes}
    for name in known.keys() - {"kind", "schema"}:
        beyond = [known[name].low - 1] if np.isfinite(known[name].low) else []
        for value in [*WRONG[known[name].what], *beyond]:
            path = changed(good, tmp_path, kind, lambda file, name=name, value=value: file.attrs.create(name, value))
            with pytest.raises(files.FormatError, match=rf"is damaged: .*(attribute {name} is|decode)"):
                READERS[kind](path)
            assert files.attributes_of(path) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_that_are_needed_and_missing_are_named(kind, good, tmp_path):
    for name, what in {**SHARED_ATTRIBUTES, **KINDS[kind].attributes}.items():
        if what.needed:
            path = changed(good, tmp_path, kind, lambda file, name=name: file.attrs.__delitem__(name))
            with pytest.raises(files.FormatError, match=f"attribute {name} is missing"):
                READERS[kind](path)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_out_of_range_are_named(kind, good, tmp_path):
    for name, column in KINDS[kind].columns.items():
        if name.startswith("part/") or column.types == "str" or column.shape in ("[N,D]", "[K,D]"):
            continue
        wrong = [column.low - 1] if np.isfinite(column.low) and not column.types.startswith("u") else []
        wrong += [column.high + 1] if np.isfinite(column.high) else []
        wrong += [99] * bool(column.rows) + [-1, 99] * bool(column.ends)
        wrong += [np.nan] if "f" in column.types and not column.types.startswith("f2|") else []
        for value in wrong:

            def spoil(file, name=name, value=value):
                file[name][(0,) * file[name].ndim] = value

            with pytest.raises(files.FormatError, match=rf"{kind}\.h5 is damaged: {name} (has numbers|does not cover)"):
                READERS[kind](changed(good, tmp_path, kind, spoil))


def grouped(file):
    del file["clip/key"]
    file.create_group("clip/key")


def bottomless(file):
    file["clip/again"] = file["clip"]


def enormous(file):
    shape = file["clip/key"].shape
    del file["clip/start"]
    file.create_dataset("clip/start", (2**40, *shape[1:]), "f8", chunks=(1024,))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (grouped, "dataset clip/key is missing"),
        (bottomless, "clip"),
        (enormous, r"dataset clip/start (has shape|would take 8796093022208 bytes)"),
        (lambda file: file.attrs.create("schema", "new"), "another program|schema"),
        (lambda file: file.attrs.create("kind", np.zeros(2)), "another program"),
    ],
)
def test_what_is_built_otherwise_is_refused(change, fact, good, tmp_path):
    path = changed(good, tmp_path, "features", change)
    if change is bottomless:  # a group within itself is odd, and harms nobody
        assert run("info", path).status in (0, 4)
        return
    with pytest.raises(files.FormatError, match=fact):
        files.Features(path)
    done = run("info", path)
    assert done.status == 4 and done.err.count("\n") == 1


def test_a_part_that_fetches_its_rows_from_elsewhere_is_refused(good, tmp_path):
    front = {**builder.FRONT_END}
    for name in "ab":
        builder.features(tmp_path / f"{name}.h5", {name: np.ones((5, 64))}, attributes=front)
    assert run("featurize", tmp_path / "a.h5", tmp_path / "b.h5", "-o", tmp_path / "both.h5", "-q").status == 0
    (tmp_path / "secret").write_bytes(bytes(5 * 64 * 2))
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        shape, kind = file["frames"].shape, file["frames"].dtype
        del file["frames"]
        file.create_dataset("frames", shape, kind, external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(files.FormatError, match=r"b\.h5, a part of .*both\.h5, fetches frames .*it is not trusted"):
        files.Features(tmp_path / "both.h5")


# --- models, matrices ---


@pytest.fixture(scope="module")
def front_end(tmp_path_factory):
    """Write features of the front end that the stored models have."""
    return builder.features(tmp_path_factory.mktemp("front") / "f.h5", {"a": np.zeros((96, 64))})


def remade(path, metadata=None, **config):
    """Write a model again with other metadata or another configuration."""
    model = files.read_model(path)
    whole = {name: value for name, value in {**model.config, **config}.items() if value is not ...}
    said = {**model.attributes, "config": json.dumps(whole), **(metadata or {})}
    said = {name: value for name, value in said.items() if value is not None}
    safetensors.numpy.save_file(model.tensors, path, said)
    return path


@pytest.mark.parametrize(
    "config",
    [
        *({name: value} for name in ("size", "bands", "frames") for value in (0, -1, "many", 2.5, None, ...)),
        {"encoder": 3}, {"encoder": ...}, {"unit_length": "yes"}, {"front_end": []}, {"front_end": {}}, {"norm": 3},
        {"heads": []}, {"heads": {"classification": 3}}, {"net": 3}, {"front_end": 3}, {"tracks": "four"},
        {"heads": {"classification": {"classes": 3}}}, {"heads": {"classification": {}}}, {"encoder": "nonsense"},
        {"size": 5}, {"bands": 128}, {"net": {"pooling": "none"}},
    ],
)  # fmt: skip
def test_models_with_another_configuration_are_refused(config, front_end, tmp_path):
    path = remade(unpack("classification", tmp_path), **config)
    with pytest.raises((files.FormatError, ValueError), match=r"."):
        model = Model(files.read_model(path), choose("cpu", "float32"))
        model.output("probabilities")(np.zeros((1, model.config["frames"], model.config["bands"]), "f2"))
        Job(files.Features(front_end), model)


@pytest.mark.parametrize(
    "metadata",
    [{"schema": "words"}, {"schema": None}, {"uuid": None}, {"inputs": "{"}, {"inputs": "[3]"}, {"config": "["}],
)
def test_models_with_other_metadata_are_refused(metadata, tmp_path):
    path = remade(unpack("triplet", tmp_path), metadata)
    for call in (files.read_model, files.inspect):
        with pytest.raises(files.FormatError, match=r"triplet\.safetensors is damaged: .*; train it again"):
            call(path)
    assert files.model_made_from(path) is None or "config" in metadata


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"


@pytest.mark.parametrize(
    "header",
    [
        HEADER.replace("(2, 2)", "(2, 10**9)"), HEADER.replace("(2, 2)", "(99999999999, 99999999999)"),
        HEADER.replace("(2, 2)", "(-2, 2)"), HEADER.replace("(2, 2)", "(2, 2.5)"), HEADER.replace("<f4", "<f3"),
        HEADER.replace("<f4", "O"), HEADER.replace("(2, 2)", "(" * 500), HEADER[:20], "\0" * 40,
        HEADER.replace("(2, 2)", "(0, 2)"), HEADER.replace("'<f4'", "[('a', '<f4')]"), "[" * 900,
    ],
)  # fmt: skip
def test_matrices_with_another_header_are_refused(header, tmp_path):
    text = header.encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    path = tmp_path / "m.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16))
    done = run("cluster", path, "--k", 2, "-o", tmp_path / "c.h5", "-q")
    assert done.status in (1, 4) and done.err.count("\n") == 1 and "fault of soundssl" not in done.err, done.err

"""info from the outside: what it says of every kind of file, and what --verify finds."""

import json
import shutil

import h5py
import numpy as np
import pytest
import safetensors.numpy
from builder import CONFIG, columns, model, write

from soundssl import commands, files
from soundssl.commands import main
from soundssl.files.schema import KINDS


@pytest.fixture
def info(capfd):
    """Give a function that runs info in this process and returns status, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["info", *map(str, words)])
        out = capfd.readouterr()
        return ended.value.code or 0, out.out, out.err

    return run


def test_a_features_file_and_what_it_was_made_of(toy, info, tmp_path):
    status, out, err = info(toy.features, "--verify")
    found = json.loads(out)
    assert (status, err) == (0, "") and found["faults"] == []
    assert (found["kind"], found["clips"], found["skipped"], found["images"]) == ("features", 24, 0, 6)
    assert found["attributes"]["window_function"] == "hann, periodic" and found["splits"] == ["1", "2", "3"]
    assert found["made_of"] == [{"depth": 1, **found["made_of"][0], "role": "media", "state": "media"}]
    assert "soundssl featurize" in found["command"]
    status, out, _ = info(toy.labels)
    [source, media] = json.loads(out)["made_of"]
    assert (source["role"], source["file"], source["state"]) == ("features", toy.features.name, "here")
    assert media["depth"] == 2 and media["role"] == "media"
    shutil.copy(toy.labels, tmp_path / "l.h5")
    assert json.loads(info(tmp_path / "l.h5")[1])["made_of"][0]["state"] == "missing"
    write(tmp_path / toy.features.name, "features", columns("features"))
    assert json.loads(info(tmp_path / "l.h5")[1])["made_of"][0]["state"] == "another one now"


def test_it_is_a_function_too(tmp_path, capsys):
    write(tmp_path / "a.h5", "labels", columns("labels"))
    commands.info.info(tmp_path / "a.h5")
    assert json.loads(capsys.readouterr().out)["kind"] == "labels"
    with pytest.raises(files.Missing, match=r"none\.h5 does not exist; check the path"):
        commands.info.info(tmp_path / "none.h5", verify=True)


def test_as_a_table(toy, info, tmp_path):
    status, out, _ = info(toy.features, "--table", "--verify")
    assert status == 0 and out.splitlines()[0].split() == ["fact", "value"]
    assert "all of it was read, and is sound" in out and "hop_length" in out and "media" in out
    made = columns("features")
    made |= {"skipped/path": [f"{i}.wav" for i in range(30)], "skipped/reason": ["empty file"] * 30}
    made.pop("skipped/made_from")
    write(tmp_path / "a.h5", "features", made)
    out = info(tmp_path / "a.h5", "--table")[1]
    assert "19.wav" in out and "20.wav" not in out and out.endswith("and 10 more; --json names all\n")
    assert len(json.loads(info(tmp_path / "a.h5", "--json")[1])["skipped_inputs"]) == 30


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_something_to_say(tmp_path, info, kind):
    write(tmp_path / "a.h5", kind, columns(kind))
    status, out, _ = info(tmp_path / "a.h5")
    found = json.loads(out)
    assert status == 0 and found["kind"] == kind and set(columns(kind)) == set(found["datasets"])


def test_a_model(tmp_path, info):
    tensors = {"encoder.w": np.arange(6, dtype="f4").reshape(2, 3)}
    model(tmp_path / "m.safetensors", tensors, {})
    found = json.loads(info(tmp_path / "m.safetensors", "--verify")[1])
    assert (found["kind"], found["parameters"], found["config"], found["faults"]) == ("model", 6, CONFIG, [])
    tensors["encoder.w"][0, 0] = np.nan
    metadata = files.read_model(tmp_path / "m.safetensors").attributes
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors", metadata)
    status, _, err = info(tmp_path / "m.safetensors", "--verify")
    assert status == 4 and "encoder.w has numbers that are not finite; make it again" in err
    (tmp_path / "a.txt").write_text("words")
    assert info(tmp_path / "a.txt")[0] == 4 and info(tmp_path / "none")[0] == 2


def spoil(name: str, place, value):
    def change(file: h5py.File) -> None:
        values = file[name][()]
        values[place] = value
        file[name][...] = values

    return change


FAULTS = [
    ("features", spoil("frames", (5, 3), np.nan), "frames has 1 numbers that are not finite"),
    ("features", spoil("clip/image_offset", -1, 3), "clip/image_offset does not cover images"),
    ("features", spoil("mean", 2, 70), "mean is not that of the frames"),
    ("features", spoil("clip/parent", 0, 24), "clip/parent refers to rows -1 to 24, clip/key has 24"),
    ("labels", spoil("label", (0, 0), 3), "label has values other than 1, 0 and -1"),
    ("labels", spoil("segment/end", 0, -1), "segment/end lies before segment/start"),
    ("labels", spoil("segment/start", 0, np.nan), "segment/start has 1 numbers that are not finite"),
]


@pytest.mark.parametrize(("kind", "change", "fault"), FAULTS, ids=[fault for *_, fault in FAULTS])
def test_faults_are_named(toy, tmp_path, info, kind, change, fault):
    path = tmp_path / "a.h5"
    shutil.copy(getattr(toy, kind), path)
    with h5py.File(path, "a") as file:
        change(file)
    status, out, err = info(path, "--verify")
    assert status == 4 and fault in json.loads(out)["faults"] and fault in err and err.count("\n") == 1


def test_a_key_that_is_there_twice_is_a_fault(toy, tmp_path, info):
    shutil.copy(toy.features, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["clip/key"][0] = file["clip/key"][1]
    assert "clip/key has a key twice" in info(tmp_path / "a.h5", "--verify")[2]

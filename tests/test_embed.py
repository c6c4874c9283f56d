"""embed: every window of every clip once, at its time, with the vector that the encoder gives its frames."""

import numpy as np
import pytest
import torch

from soundssl import files, models
from soundssl.commands import main

SIZE = 8


@pytest.fixture(scope="module")
def model(toy, tmp_path_factory):
    """Write an untrained model for the toy set's front end."""
    torch.manual_seed(0)
    source = files.Features(toy.features)
    network = models.build("plain", SIZE)
    config = {
        **{"encoder": "plain", "size": SIZE, "bands": 64, "frames": 96, "norm": "batch", "unit_length": True},
        **{"front_end": source.front_end(), "heads": {}},
    }
    tensors = {f"encoder.{name}": value.numpy() for name, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("embed") / "m.safetensors"
    files.write_model(path, tensors, config, inputs=[], made_from="test")
    return path


def embed(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["embed", *map(str, words), "--device", "cpu", "--precision", "float32", "--threads", "1", "-q"])
    return ended.value.code or 0


@pytest.mark.parametrize(("hop", "step"), [(0.96, 96), (0.5, 50)])
def test_windows_times_and_vectors_are_right(toy, model, tmp_path, hop, step):
    assert embed(toy.features, "-m", model, "-o", tmp_path / "e.h5", "--hop", hop, "--split", "2,3") == 0
    found, source = files.Embeddings(tmp_path / "e.h5"), files.Features(toy.features)
    chosen = np.flatnonzero(source.clips.in_splits(["2", "3"]))
    wanted = [(clip, k) for clip in chosen for k in range(0, np.diff(source.offset)[clip] - 95, step)]
    assert list(zip(found.clip, found.start, strict=True)) == [(clip, k / 100) for clip, k in wanted]
    assert list(found.clips.key) == list(source.clips.key) and found.attributes["hop"] == hop
    trained = files.read_model(model)
    network = models.restore(trained.config, trained.tensors).eval()
    windows = np.stack([source.frames[source.offset[clip] + k :][:96] for clip, k in wanted]).astype(np.float32)
    with torch.no_grad():
        vectors = network(torch.from_numpy(windows)).numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.abs(found.embedding[:] - vectors).max() < 1e-4


def test_the_bare_matrix_is_the_same(toy, model, tmp_path):
    assert embed(toy.features, "-m", model, "-o", tmp_path / "e.h5", "--no-provenance") == 0
    assert embed(toy.features, "-m", model, "-o", tmp_path / "e.npy") == 0
    assert np.array_equal(files.read_matrix(tmp_path / "e.npy"), files.Embeddings(tmp_path / "e.h5").embedding[:])
    assert embed(toy.features, "-m", model, "-o", tmp_path / "f.h5", "--no-provenance") == 0
    assert (tmp_path / "e.h5").read_bytes() == (tmp_path / "f.h5").read_bytes()


def test_features_of_another_front_end_are_refused(toy, model, tmp_path, capsys):
    trained = files.read_model(model)
    other = {**trained.config, "front_end": {**trained.config["front_end"], "fmin": 60.0}}
    files.write_model(tmp_path / "m.safetensors", trained.tensors, other, inputs=[], made_from="test")
    assert embed(toy.features, "-m", tmp_path / "m.safetensors", "-o", tmp_path / "e.h5") == 4
    assert "was trained on: fmin 125.0 instead of 60.0; make the features again" in capsys.readouterr().err
    assert not (tmp_path / "e.h5").exists()

"""embed: every window of every clip once, at its time, with the vector that the encoder gives its frames."""

import h5py
import numpy as np
import pytest
import torch

from soundssl import SoundsslError, device, files, models, objectives
from soundssl.commands import main
from soundssl.commands.embed import embed as embed_command
from soundssl.embedding import Job
from soundssl.model import Model

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


def test_a_window_is_as_long_as_the_front_end_says(toy, tmp_path, capsys):
    def run(*words: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, words), "-q"])
        return ended.value.code or 0

    assert run("featurize", toy.folder, "--preset", "mm-videos", "-o", tmp_path / "f.h5") == 0
    assert run("sample-triplets", tmp_path / "f.h5", "--count", 50, "-o", tmp_path / "t.h5") == 0
    source, recipes = files.Features(tmp_path / "f.h5"), files.Triplets(tmp_path / "t.h5")
    ends = source.offset[np.searchsorted(source.offset, recipes.columns["anchor"], side="right")]
    assert recipes.attributes["window_frames"] == source.window == 100
    assert (recipes.columns["anchor"] + 100 <= ends).all()
    inputs = objectives.Inputs(
        source, np.ones(len(source.clips), bool), triplets=recipes, labels=files.Labels(toy.labels)
    )
    for name in ("triplet", "coincidence", "contrastive", "clustering", "classification"):
        module = objectives.load(name)
        batch = module.Examples(inputs, module.Options(), 0).__getitems__([(0, 0), (0, 1)])
        assert batch["anchor" if name == "triplet" else "window"].shape == (2, 100, 64), name
    net = ["--encoder", "plain", "--size", SIZE, "--steps", 1, "--batch-size", 4, "--device", "cpu"]
    model = tmp_path / "m.safetensors"
    assert run("train", tmp_path / "f.h5", "--triplets", tmp_path / "t.h5", *net, "-o", model) == 0
    assert embed(tmp_path / "f.h5", "-m", model, "-o", tmp_path / "e.h5") == 0
    found = files.Embeddings(tmp_path / "e.h5")
    assert files.read_model(model).config["frames"] == 100 and found.attributes["window"] == 1.0
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file.attrs["window_frames"] = 96
    other = ["train", tmp_path / "f.h5", "-o", tmp_path / "n.safetensors", *net]
    assert run(*other, "--triplets", tmp_path / "t.h5") == 4
    assert "was drawn for windows of 100 frames" in capsys.readouterr().err
    assert run(*other, "--objective", "coincidence", "--init", model) == 1
    assert "was trained on windows of 100 frames" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["e.h5", "e.npy"])
def test_a_run_that_was_ended_goes_on_to_the_same_bytes(toy, model, tmp_path, monkeypatch, capsys, name):
    words = [toy.features, "-m", model, "--hop", "0.3", "--batch-size", 16, "--no-provenance"]
    assert embed(*words, "-o", tmp_path / f"whole-{name}") == 0
    batches = -(-len(files.Features(toy.features).grid(96, 30)[0]) // 16)
    calls: list[int] = []

    def run_until(last: int) -> None:
        def counted(self, network, windows, run=device.Accelerator.run):
            calls.append(len(windows))
            if len(calls) == last:
                raise KeyboardInterrupt
            return run(self, network, windows)

        monkeypatch.setattr(device.Accelerator, "run", counted)

    run_until(4)
    assert embed(*words, "-o", tmp_path / name) == 130
    assert not (tmp_path / name).exists() and "goes on from here" in capsys.readouterr().err
    with open(tmp_path / f"{name}.parts" / "vectors", "ab") as file:
        file.write(bytes(5 * 4 * SIZE + 3))  # as if it had been killed while it wrote a batch
    monkeypatch.undo()
    calls.clear()
    run_until(-1)
    assert embed(*words, "-o", tmp_path / name) == 0
    assert calls[0] == 16 and len(calls) == batches - 3
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert not (tmp_path / f"{name}.parts").exists()


def test_what_one_precision_began_another_does_not_go_on_with(toy, model, tmp_path, monkeypatch):
    """Neither rows that are left, nor a finished output: `auto` stands for what it chose."""

    def job(dtype: torch.dtype) -> Job:
        accelerator = device.Accelerator(torch.device("cpu"), dtype, "")
        return Job(files.Features(toy.features), Model(files.read_model(model), accelerator), hop=0.5, batch_size=16)

    single, half, output = job(torch.float32), job(torch.bfloat16), tmp_path / "e.h5"
    assert single.made_from != half.made_from

    def stopped(self, network, windows, run=device.Accelerator.run):
        if (tmp_path / "e.h5.parts" / "vectors").stat().st_size:
            raise KeyboardInterrupt
        return run(self, network, windows)

    monkeypatch.setattr(device.Accelerator, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        half.run(output)
    monkeypatch.undo()
    single.run(output)
    single.run(tmp_path / "whole.h5")
    assert (files.Embeddings(output).embedding[:] == files.Embeddings(tmp_path / "whole.h5").embedding[:]).all()
    assert job(torch.float32).made_from == files.made_from(output) == single.made_from


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 40])
def test_vectors_are_kept_by_whole_batches(tmp_path, count):
    rows = np.random.default_rng(0).standard_normal((count, 3)).astype("f4")

    def kept(made_from: str = "one", afresh: bool = False) -> files.Vectors:
        return files.Vectors(tmp_path / "e.h5", made_from, (16, 3), "float32", afresh)

    first = kept()
    assert first.done == 0 and first.take() is None
    for i in range(0, count, 16):
        first.add(rows[i : i + 16])
    with pytest.raises(SoundsslError, match="another run is writing"):
        kept()
    first.close()
    again = kept()
    assert again.done == count // 16 * 16
    for i in range(0, again.done, 16):
        assert np.array_equal(again.take(), rows[i : i + 16])
    assert again.take() is None
    again.close()
    other = kept("another")
    assert other.done == 0
    other.close()
    assert kept("another", afresh=True).done == 0
    other.discard()
    assert not (tmp_path / "e.h5.parts").exists()


def test_the_function_of_the_command_is_called_from_python(toy, model, tmp_path, capsys):
    embed_command([toy.features], model, tmp_path / "e.h5")
    source, found = files.Features(toy.features), files.Embeddings(tmp_path / "e.h5")
    assert len(found.clip) == len(source.grid(96, 96)[0]) and found.attributes["hop"] == 0.96
    said = capsys.readouterr()
    assert said.out == "" and f"{len(found.clip)} windows of {len(source.clips)} clips" in said.err
    embed_command([toy.features], model, tmp_path / "e.h5")
    assert "is up to date" in capsys.readouterr().err


def test_raw_vectors_are_what_the_net_gives(toy, model, tmp_path, capsys):
    assert embed(toy.features, "-m", model, "-o", tmp_path / "e.h5", "--no-provenance") == 0
    assert embed(toy.features, "-m", model, "-o", tmp_path / "r.h5", "--raw") == 0
    scaled, raw = files.Embeddings(tmp_path / "e.h5"), files.Embeddings(tmp_path / "r.h5")
    trained, source = files.read_model(model), files.Features(toy.features)
    windows = next(source.windows(96, 96, 20)).frames
    with torch.no_grad():
        given = models.restore(trained.config, trained.tensors).eval()(torch.from_numpy(windows).float()).numpy()
    assert np.abs(raw.embedding[: len(windows)] - given).max() < 1e-4
    length = np.linalg.norm(raw.embedding[:], axis=1)
    assert np.abs(length - 1).min() > 1e-3, "or the test says nothing"
    assert np.abs(raw.embedding[:] / length[:, None] - scaled.embedding[:]).max() < 1e-5
    assert raw.attributes["raw"] == 1 and "raw" not in scaled.attributes
    assert embed(toy.features, "-m", model, "-o", tmp_path / "e.h5", "--no-provenance", "--raw") == 0
    again = files.Embeddings(tmp_path / "e.h5").embedding[:]
    assert np.array_equal(again, raw.embedding[:]), "an output of the other kind does not stand"
    assert embed(toy.features, "-m", model, "-o", tmp_path / "n.h5", "--raw", "--layer", "projection") == 2
    assert "of embeddings alone; leave out --raw" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "n.h5").exists()


def test_raw_and_scaled_vectors_are_not_joined(toy, model, tmp_path, capsys):
    for part, more in (("1/2", []), ("2/2", ["--raw"])):
        assert embed(toy.features, "-m", model, "-o", tmp_path / f"{part[0]}.h5", "--part", part, *more) == 0
    assert embed(tmp_path / "1.h5", tmp_path / "2.h5", "-o", tmp_path / "e.h5") == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "raw" in said and "join files that were made alike" in said


def test_layers_are_refused_in_words(toy, model, tmp_path, capsys):
    for layer, status, fact in (
        ("logit", 2, "'logit' is not one of 'embedding', 'logits', 'probabilities', 'projection'"),
        ("logits", 1, "the model has no classifier; train one with --objective classification"),
        ("projection", 1, "the model has no projection; train one with --objective contrastive"),
    ):
        assert embed(toy.features, "-m", model, "-o", tmp_path / "e.h5", "--layer", layer) == status
        said = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert fact in said, said
    assert not (tmp_path / "e.h5").exists()

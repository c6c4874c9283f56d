"""The common API of HEAR: what its validator checks of a module, and other modules of it as embedders."""

import sys

import numpy as np
import pytest
import soundfile
import torch
from cluster_world import run
from test_validation import plan, toy  # noqa: F401 (a fixture)

from soundssl import SoundsslError, device, files, hear, training
from soundssl.model import load_model
from soundssl.ops.spectrogram import WAVEFORM

MODULE = """
import torch
class Model(torch.nn.Module):
    sample_rate, scene_embedding_size, timestamp_embedding_size, factor = 8000, 3, 3, 1.0
def load_model(path=""):
    model = Model()
    model.factor = float(open(path).read()) if path else 1.0
    return model
def get_timestamp_embeddings(audio, model):
    count = audio.shape[1] // 800
    parts = audio[:, : count * 800].unflatten(1, (count, 800)).abs().mean(2)
    moments = (torch.arange(count) + 0.5) * 100.0
    return model.factor * torch.stack([parts, parts, parts], 2), moments.expand(len(audio), count)
"""


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):  # noqa: F811
    output = tmp_path_factory.mktemp("hear") / "m.safetensors"
    with device.start("cpu", "float32", 1) as accelerator:
        chosen = plan("baseline-cnn", {"contrastive": {}}, steps=1, batch_size=4)
        assert training.Job(chosen, toy[0], accelerator).run(output)
    return output


def test_the_checks_of_the_validator_hold(trained):
    """The rules of hear-validator: kinds, sizes, shapes, types, and timestamps in milliseconds within the sound."""
    model = hear.load_model(str(trained))
    assert isinstance(model, torch.nn.Module) and model.sample_rate in (16000, 22050, 32000, 44100, 48000)
    for name in ("sample_rate", "scene_embedding_size", "timestamp_embedding_size"):
        assert type(getattr(model, name)) is int and getattr(model, name) > 0
    audio = torch.rand(2, round(model.sample_rate * 0.74), generator=torch.Generator().manual_seed(0)) * 2 - 1
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    assert embeddings.dtype == torch.float32 and embeddings.ndim == 3 and timestamps.ndim == 2
    assert embeddings.shape[:2] == timestamps.shape == (2, 15) and embeddings.shape[2] == model.timestamp_embedding_size
    gaps = timestamps[0].diff()
    assert (gaps > 0).all() and torch.allclose(gaps, torch.full_like(gaps, 50.0)) and torch.isfinite(embeddings).all()
    assert timestamps.min() >= 0 and timestamps.max() <= 740 and timestamps.max() > 600  # milliseconds
    scenes = hear.get_scene_embeddings(audio, model)
    assert scenes.shape == (2, model.scene_embedding_size) and scenes.dtype == torch.float32
    torch.testing.assert_close(hear.get_scene_embeddings(audio[1:], model), scenes[1:])
    assert hear.get_scene_embeddings(audio[:, :10], model).shape == (1 + 1, 8)  # a sound shorter than any window
    with pytest.raises(ValueError, match="is needed"):
        hear.get_scene_embeddings(audio[0], model)


def test_an_embedding_is_that_of_the_window_about_its_moment(trained):
    model, whole = hear.load_model(trained), load_model(trained, "cpu", "float32")
    sound = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    embeddings, timestamps = hear.get_timestamp_embeddings(torch.from_numpy(sound)[None], model)
    row = int((timestamps[0] == 1000).nonzero())
    begin = 16000 - 48 * 160  # half of 96 frames of 10 ms before the moment
    expected, _ = whole.embed(sound[begin : begin + 15600], 16000)
    np.testing.assert_allclose(embeddings[0, row].numpy(), expected[0], atol=1e-4)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "loudness_hear.py").write_text(MODULE)
    (tmp_path / "not_hear.py").write_text("load_model = None")
    monkeypatch.syspath_prepend(tmp_path)
    yield "hear:loudness_hear"
    sys.modules.pop("loudness_hear", None)


def test_another_module_embeds_waveforms(module, toy, trained, tmp_path):  # noqa: F811
    media, waves = tmp_path / "media", tmp_path / "waves.h5"
    media.mkdir()
    for number, level in enumerate((0.1, 0.5)):
        soundfile.write(media / f"{number}.wav", np.full(16000 * (number + 1), level), 16000)
    done = run("featurize", media, "--representation", "waveform", "--window", 0.5, "-o", waves, "-q")
    assert done.status == 0, done.err
    output, weights = tmp_path / "e.h5", tmp_path / "factor.txt"
    weights.write_text("2.0")
    done = run("embed", waves, "-m", module, "--weights", weights, "-o", output)
    assert done.status == 0 and "of 2 clips" in done.err, done.err
    made = files.Embeddings(output)
    assert made.embedding.shape == (30, 3) and np.bincount(made.clip[:]).tolist() == [10, 20]
    np.testing.assert_allclose(made.start[:3], [0.0, 0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(made.embedding[5], 0.2, atol=0.02)
    for words, status, fact in (
        (["embed", waves, "-m", "hear:nobody_hear", "-o", output], 1, "install it, or name another"),
        (["embed", waves, "-m", "hear:not_hear", "-o", output], 1, "no get_timestamp_embeddings"),
        (["embed", toy[0], "-m", module, "-o", output], 4, "a module of HEAR takes"),
        (["embed", waves, "-m", module, "--raw", "-o", output], 2, "leave out --layer, --raw"),
        (["embed", toy[0], "-m", trained, "--weights", weights, "-o", output], 2, "make one with train --weights"),
    ):
        done = run(*words)
        assert done.status == status and fact in " ".join(done.err.replace("│", " ").split()), done.err


def test_a_separator_embeds_nothing(tmp_path):
    from soundssl import models

    config = {"encoder": "tdcn-stft-small", "tracks": 2, "consistency": "energy", "frames": 16000}
    config |= {"front_end": WAVEFORM.attributes(), "net": {}, "unit_length": False, "size": 8, "bands": 1}
    net = models.build_separator("tdcn-stft-small", 2, "energy")
    path = tmp_path / "s.safetensors"
    files.write_model(path, training.tensors_of(net, {}), config, inputs=[], made_from="x")
    with pytest.raises(SoundsslError, match="is a separator"):
        hear.load_model(path)

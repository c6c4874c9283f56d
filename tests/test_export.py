"""Models for other programs: the same numbers in torch.export and ONNX, whatever the batch; what cannot be exported."""

import dataclasses

import numpy as np
import pytest
import torch
from cluster_world import run
from test_validation import plan, toy  # noqa: F401 (a fixture)

from soundssl import SoundsslError, device, export, files, training
from soundssl.model import load_model
from soundssl.ops.spectrogram import PRESETS, log_mel


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):  # noqa: F811
    output = tmp_path_factory.mktemp("export") / "m.safetensors"
    with device.start("cpu", "float32", 1) as accelerator:
        chosen = plan("baseline-cnn", {"classification": {}}, steps=2, batch_size=4)
        assert training.Job(chosen, toy[0], accelerator, labels=toy[1]).run(output)
    return output


def windows_of(toy):  # noqa: F811
    return next(files.Features(toy[0]).windows(96, 64, 10)).frames.astype(np.float32)


@pytest.mark.parametrize("name", ["vggish", "mm-videos", "panns", "bird"])
def test_the_layer_gives_the_frames_of_the_front_end(name):
    front_end = PRESETS[name]
    layer = export.LogMelLayer(front_end, 12)
    sound = np.random.default_rng(0).normal(0, 0.1, (2, layer.samples)).astype(np.float32)
    unpadded = dataclasses.replace(front_end, padding="none")
    expected = np.stack([log_mel(each, unpadded) for each in sound])
    np.testing.assert_allclose(layer(torch.from_numpy(sound)).numpy(), expected, atol=2e-3)


def test_a_program_of_torch_gives_the_same_numbers_at_any_batch(toy, trained, tmp_path):  # noqa: F811
    path = tmp_path / "m.pt2"
    done = run("export", trained, "--layer", "probabilities", "-o", path)
    assert done.status == 0 and "96 x 64 (frames x bands), gives 4 numbers" in done.err, done.err
    program = torch.export.load(path).module()
    given = windows_of(toy)
    expected = load_model(trained, "cpu", "float32").output("probabilities")(given)
    for batch in (1, 3, 10):
        made = program(torch.from_numpy(given[:batch])).detach().numpy()
        np.testing.assert_allclose(made, expected[:batch], atol=1e-5)


def test_onnx_gives_the_same_probabilities_on_ten_clips(toy, trained, tmp_path):  # noqa: F811
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, model = tmp_path / "m.onnx", load_model(trained, "cpu", "float32")
    export.export(model, path, layer="probabilities")
    session, given = runtime.InferenceSession(str(path)), windows_of(toy)
    expected = model.output("probabilities")(given)
    for batch in (1, 10):
        (made,) = session.run(None, {"windows": given[:batch]})
        np.testing.assert_allclose(made, expected[:batch], atol=1e-4)
    export.export(model, path, layer="probabilities", given="waveform")
    sound = np.random.default_rng(0).normal(0, 0.1, (10, 15600)).astype(np.float32)
    (made,) = runtime.InferenceSession(str(path)).run(None, {"waveform": sound})
    expected = np.concatenate([model.probabilities(each, 16000)[0] for each in sound])
    np.testing.assert_allclose(made, expected, atol=2e-3)  # features are stored in float16


def test_what_cannot_be_exported_says_why(trained, tmp_path):
    for words, status, fact in (
        (["-o", tmp_path / "m.h5"], 2, "ends in none of .onnx, .pt2"),
        (["--layer", "tracks"], 2, "choose from embedding"),
        (["--layer", "projection", "-o", tmp_path / "m.pt2"], 1, "the model has no"),
    ):
        done = run("export", trained, *words)
        assert done.status == status and fact in " ".join(done.err.replace("│", " ").split()), done.err
    with pytest.raises(SoundsslError, match="export windows"):
        export.LogMelLayer(PRESETS["uclser20"], 101)
    with pytest.raises(ValueError, match="the ending says the format"):
        export.export(load_model(trained, "cpu", "float32"), tmp_path / "m.zip")
    assert not list(tmp_path.iterdir())

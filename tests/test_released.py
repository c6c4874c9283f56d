"""Weights that others released: the numbers of an independent pass, what does not fit by name, front ends in words."""

import numpy as np
import pytest
import safetensors.torch
import torch
from cluster_world import run
from test_training import write_features
from torch.nn import functional

from soundssl import SoundsslError, files, models, weights
from soundssl.models import cnn14, released
from soundssl.ops.spectrogram import PRESETS, SLANEY_AREA_MEL, log_mel, mel_matrix

FRAMES, BANDS = 32, 32
CHANNELS = ((1, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512))
VARIABLES = ("conv1", "conv2", "conv3/conv3_1", "conv3/conv3_2", "conv4/conv4_1", "conv4/conv4_2")
PORT = (0, 3, 6, 8, 11, 13)


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, torch.Tensor]:
    """Random weights under the names and in the shapes of the released checkpoint of VGGish."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) * (2 / np.prod(shape[:-1])) ** 0.5

    found = {}
    for name, (before, after) in zip(VARIABLES, CHANNELS, strict=True):
        found |= {f"vggish/{name}/weights": draw(3, 3, before, after), f"vggish/{name}/biases": draw(after) / 10}
    sides = {"fc1/fc1_1": (FRAMES // 16 * (BANDS // 16) * 512, 4096), "fc1/fc1_2": (4096, 4096), "fc2": (4096, 128)}
    for name, shape in sides.items():
        found |= {f"vggish/{name}/weights": draw(*shape), f"vggish/{name}/biases": draw(shape[1]) / 10}
    return found


def as_port(checkpoint: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the same weights as the PyTorch port names them."""
    found = {}
    for name, number in zip(VARIABLES, PORT, strict=True):
        found[f"features.{number}.weight"] = checkpoint[f"vggish/{name}/weights"].permute(3, 2, 0, 1).contiguous()
        found[f"features.{number}.bias"] = checkpoint[f"vggish/{name}/biases"]
    for number, name in zip((0, 2, 4), ("fc1/fc1_1", "fc1/fc1_2", "fc2"), strict=True):
        found[f"embeddings.{number}.weight"] = checkpoint[f"vggish/{name}/weights"].T.contiguous()
        found[f"embeddings.{number}.bias"] = checkpoint[f"vggish/{name}/biases"]
    return found


def vggish_by_hand(checkpoint, windows):
    """Run the released VGGish in the order of axes that it was released in: batch, height, width, channel."""
    maps = windows[..., None]
    for name in VARIABLES:
        kernel, bias = checkpoint[f"vggish/{name}/weights"], checkpoint[f"vggish/{name}/biases"]
        padded = functional.pad(maps, (0, 0, 1, 1, 1, 1))
        height, width = maps.shape[1:3]
        total = torch.zeros(*maps.shape[:3], kernel.shape[3], dtype=maps.dtype)
        for i in range(3):
            for j in range(3):
                total += padded[:, i : i + height, j : j + width] @ kernel[i, j]
        maps = (total + bias).clamp(min=0)
        if name not in ("conv3/conv3_1", "conv4/conv4_1"):
            maps = maps.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).amax((2, 4))
    vector = maps.flatten(1)
    for name in ("fc1/fc1_1", "fc1/fc1_2"):
        vector = (vector @ checkpoint[f"vggish/{name}/weights"] + checkpoint[f"vggish/{name}/biases"]).clamp(min=0)
    return vector @ checkpoint["vggish/fc2/weights"] + checkpoint["vggish/fc2/biases"]


@pytest.mark.parametrize("layout", ["checkpoint", "port"])
def test_released_vggish_gives_the_numbers_of_a_pass_by_hand(checkpoint, layout, tmp_path):
    path = tmp_path / ("vggish.safetensors" if layout == "checkpoint" else "vggish.pth")
    if layout == "checkpoint":
        safetensors.torch.save_file(checkpoint, path)
    else:
        torch.save(as_port(checkpoint), path)
    with torch.device("meta"):
        encoder = models.build("vggish", 128, BANDS, FRAMES)
    encoder.to_empty(device="cpu")
    encoder.mean.zero_()
    encoder.deviation.fill_(1)
    assert released.fill(encoder, "vggish", weights.read(path).tensors) == []
    windows = torch.randn(2, FRAMES, BANDS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = {
        name: value.double() for name, value in checkpoint.items()
    }  # in float32 the order of sums alone makes 1e-5
    with torch.no_grad():
        found, expected = encoder.double().eval()(windows), vggish_by_hand(exact, windows)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def panns_state(widths, bands):
    generator = torch.Generator().manual_seed(0)

    def norm(name, size):
        return {
            f"{name}.weight": torch.rand(size, generator=generator) + 0.5,
            f"{name}.bias": torch.randn(size, generator=generator) / 10,
            f"{name}.running_mean": torch.randn(size, generator=generator) / 10,
            f"{name}.running_var": torch.rand(size, generator=generator) + 0.5,
            f"{name}.num_batches_tracked": torch.tensor(3),
        }

    state, before = norm("bn0", bands), 1
    for number, width in enumerate(widths, 1):
        for part, channels in ((1, before), (2, width)):
            kernel = torch.randn(width, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
            state |= {f"conv_block{number}.conv{part}.weight": kernel, **norm(f"conv_block{number}.bn{part}", width)}
        before = width
    state |= {
        "fc1.weight": torch.randn(before, before, generator=generator) / before**0.5,
        "fc1.bias": torch.ones(before),
    }
    apart = {"fc_audioset.weight": torch.zeros(527, before), "logmel_extractor.melW": torch.zeros(513, 64)}
    return {**state, **apart}


def cnn14_by_hand(state, windows, blocks):
    def norm(name, maps, axis):
        shape = [1] * maps.ndim
        shape[axis] = -1
        mean, variance, scale, shift = (
            state[f"{name}.{key}"].view(shape) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (maps - mean) / (variance + 1e-5).sqrt() * scale + shift

    maps = norm("bn0", windows, 2)[:, None]
    for number in range(1, blocks + 1):
        for part in (1, 2):
            kernel = state[f"conv_block{number}.conv{part}.weight"]
            maps = functional.conv2d(maps, kernel, padding=1)
            maps = norm(f"conv_block{number}.bn{part}", maps, 1).clamp(min=0)
        if number < blocks:
            rows, columns = maps.shape[2] // 2 * 2, maps.shape[3] // 2 * 2
            maps = maps[:, :, :rows, :columns].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    steps = maps.mean(3)
    vector = steps.max(2).values + steps.mean(2)
    return (vector @ state["fc1.weight"].T + state["fc1.bias"]).clamp(min=0)


@pytest.mark.parametrize("scale", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_released_cnn14_gives_the_numbers_of_a_pass_by_hand(scale, tmp_path, monkeypatch):
    widths = tuple(width // scale for width in cnn14.WIDTHS)
    monkeypatch.setattr(cnn14, "WIDTHS", widths)
    state = panns_state(widths, 64)
    path = tmp_path / "Cnn14.pth"
    torch.save({"model": state, "iteration": 1}, path)
    encoder = models.build("cnn14", widths[-1], 64, 70)
    assert released.fill(encoder, "cnn14", weights.read(path).tensors) == []
    windows = torch.randn(2, 70, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 10 - 20
    exact = {name: value.double() for name, value in state.items()}
    with torch.no_grad():
        found, expected = encoder.double().eval()(windows), cnn14_by_hand(exact, windows, len(widths))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    lines = released.fill(models.build("cnn14", 8, 64, 70), "cnn14", state)
    assert len(lines) == 2 and all("fc1." in line and "begins afresh" in line for line in lines)


def test_colour_filters_are_averaged_and_what_does_not_fit_is_named():
    torch.manual_seed(0)
    encoder = models.build("timm:test_resnet", 8)
    state = {key: torch.randn(value.shape).abs() for key, value in encoder.backbone.state_dict().items()}
    first = next(key for key, value in state.items() if value.ndim == 4)
    state[first] = torch.randn(state[first].shape[0], 3, *state[first].shape[2:])
    colour = {**state, "fc.weight": torch.zeros(1000, encoder.backbone.fc.in_features), "fc.bias": torch.zeros(1000)}
    lines = released.fill(encoder, "timm:test_resnet", {**colour, "more.of": torch.zeros(3)})
    torch.testing.assert_close(encoder.backbone.state_dict()[first], state[first].mean(1, keepdim=True))
    assert [line.split()[0] for line in lines] == ["fc.weight", "fc.bias", "more.of"]
    wrong = {**state, first: torch.zeros(1, 1, 9, 9)}
    del wrong["bn1.weight"]
    with pytest.raises(ValueError, match=rf"{first} is \[1, 1, 9, 9\] instead of .*; bn1.weight \[\d+\] is lacking"):
        released.fill(encoder, "timm:test_resnet", wrong)


def test_whitening_is_that_of_the_released_postprocessor():
    generator = torch.Generator().manual_seed(0)
    matrix, mean, given = (torch.randn(*shape, generator=generator) for shape in ((4, 4), (4, 1), (5, 4)))
    found = released.whiten(given, {"pca_eigen_vectors": matrix, "pca_means": mean})
    expected = (matrix @ (given.T - mean)).T.clip(-2, 2)
    torch.testing.assert_close(found, expected)
    eight = released.whiten(given, {"pproc.pca_eigen_vectors": matrix, "pproc.pca_means": mean}, quantise=True)
    torch.testing.assert_close(eight, ((expected + 2) * 255 / 4).to(torch.uint8).float())
    with pytest.raises(ValueError, match="no pca_means"):
        released.whiten(given, {"pca_eigen_vectors": matrix})
    with pytest.raises(ValueError, match="not of 4"):
        released.whiten(given, {"pca_eigen_vectors": matrix[:3], "pca_means": mean})


def test_files_that_hold_no_weights_say_so(tmp_path):
    for name, content in (("a.pth", b"nonsense"), ("a.safetensors", b"nonsense"), ("a.npz", b"PK")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SoundsslError, match=r"holds no weights|not a safetensors"):
            weights.read(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "b.pth")
    with pytest.raises(files.FormatError, match="holds no tensors by name"):
        weights.read(tmp_path / "b.pth")
    torch.save({"model": pytest.importorskip}, tmp_path / "c.pth")  # a function: loading it would run code
    with pytest.raises(files.FormatError, match="holds no weights"):
        weights.read(tmp_path / "c.pth")
    with pytest.raises(files.Missing):
        weights.read(tmp_path / "d.pth")


def test_the_front_end_of_panns_is_that_of_its_code():
    front_end = PRESETS["panns"]
    matrix = mel_matrix(front_end)
    assert front_end.mel_scale == SLANEY_AREA_MEL and matrix.shape == (513, 64)
    step = 32000 / 1024
    torch.testing.assert_close(
        torch.from_numpy(matrix[:, 30:].sum(0) * step), torch.ones(34).double(), atol=0.02, rtol=0
    )
    quiet = log_mel(np.zeros(32000, np.float32), front_end)
    assert quiet.shape == (101, 64) and np.allclose(quiet, -100.0, atol=1e-3)
    sound = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    spectrum = np.abs(np.fft.rfft(np.pad(sound, 512, "reflect")[320 * 5 : 320 * 5 + 1024] * window)) ** 2
    expected = 10 * np.log10(np.maximum(spectrum @ matrix, 1e-10))
    assert np.allclose(log_mel(sound, front_end)[5], expected, atol=1e-3)


@pytest.fixture(scope="module")
def panns_features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panns")
    made = PRESETS["panns"].attributes()
    return write_features(folder / "panns.h5", **made), write_features(folder / "vggish.h5")


def test_a_model_is_made_of_released_weights_alone(panns_features, tmp_path, monkeypatch):
    widths = tuple(width // 16 for width in cnn14.WIDTHS)
    monkeypatch.setattr(cnn14, "WIDTHS", widths)
    panns, vggish = panns_features
    given, output = tmp_path / "Cnn14.pth", tmp_path / "m.safetensors"
    torch.save({"model": panns_state(widths, 64)}, given)
    words = ["--encoder", "cnn14", "--size", widths[-1], "--weights", given, "--precision", "float32", "-o", output]
    done = run("train", panns, "--steps", 0, *words)
    assert done.status == 0, done.err
    stored = files.read_model(output)
    assert not stored.config["unit_length"] and stored.config["stage"] == []
    assert '"role": "weights"' in stored.attributes["inputs"] and (stored.tensors["encoder.deviation"] == 1).all()
    assert run("embed", panns, "-m", output, "-o", tmp_path / "e.h5", "-q").status == 0
    pca = tmp_path / "pca.npz"
    np.savez(pca, pca_eigen_vectors=np.eye(widths[-1], dtype="f4"), pca_means=np.zeros((widths[-1], 1), "f4"))
    whiten = ["embed", panns, "-m", output, "-o", tmp_path / "w.h5", "-q", "--whiten", pca, "--precision", "float32"]
    assert run(*whiten, "--quantise").status == 0
    eight = files.Embeddings(tmp_path / "w.h5").embedding[:]
    assert (eight == np.round(eight)).all() and eight.min() >= 0 and eight.max() <= 255 and len(np.unique(eight)) > 2
    np.savez(pca, pca_means=np.zeros((widths[-1], 1), "f4"))
    done = run(*whiten, "--force")
    assert done.status == 4 and "it has no pca_eigen_vectors" in done.err
    assert run("embed", panns, "-m", output, "-o", tmp_path / "w.h5", "--quantise").status == 2
    assert run("train", panns, "--steps", 0, *words).err.count("up to date") == 1
    for more, status, fact in (
        ([vggish, "--steps", 0, *words], 4, "made by another front end than"),
        ([panns, "--steps", 0, "--encoder", "cnn14", "-o", output], 2, "give its --weights, or --init"),
        ([panns, "--steps", 0, "--objective", "triplet", *words], 2, "leave out --objective and --set"),
        ([panns, "--steps", 0, *words, "--size", 7], 4, "0 steps do not train it; give its --size"),
        (
            [panns, "--steps", 0, *words, "--init", output, "-o", tmp_path / "n.safetensors"],
            2,
            "leave out --weights, or --init",
        ),
        ([panns, "--steps", 0, *words, "--encoder", "plain"], 4, "features.0.weight [32, 1, 3, 3] is lacking"),
        ([panns, "--steps", 0, *words, "--weights", tmp_path / "none.pth"], 2, "none.pth"),
        ([panns, "--encoder", "timm:none", "--steps", 0, "--weights", given, "-o", output], 2, "timm has no model"),
    ):
        done = run("train", *more, "--force")
        assert done.status == status and fact in " ".join(done.err.replace("│", " ").split()), done.err


def test_encoders_are_listed_with_their_counts_and_measured():
    listed = run("train", "--list", "encoders")
    assert listed.status == 0 and "771,900,416" in listed.out and "Hershey et al. 2017" in listed.out
    measured = run("train", "--measure", "dnn")
    assert measured.status == 0 and "windows/s" in measured.out and "11,237,087" in measured.out
    assert run("train", "--measure", "vgg16").status == 2

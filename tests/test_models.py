"""Laws of the encoders: sizes of the papers, gradients, normalisation, independence of windows with group norm."""

import subprocess
import sys

import pytest
import torch

from soundssl.models import build


def weights(encoder):
    return sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize(
    "name", ["plain", "resnet18-half", "resnet18", "resnet50", pytest.param("vggish", marks=pytest.mark.slow)]
)
def test_gradients_are_finite_and_reach_the_input_and_every_weight(name):
    torch.manual_seed(0)
    encoder = build(name, size=32)
    windows = torch.randn(2, 96, 64, requires_grad=True)
    embedding = encoder(windows)
    assert embedding.shape == (2, encoder.size)
    # Unit length, as the objectives make it: the released VGGish starts with outputs near 1e-5.
    (torch.nn.functional.normalize(embedding, dim=1) * torch.randn(2, 32)).sum().backward()
    gradients = [windows.grad, *(parameter.grad for parameter in encoder.parameters())]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    assert (windows.grad.abs().sum((1, 2)) > 0).all()
    without = {key for key, parameter in encoder.named_parameters() if not parameter.grad.abs().any()}
    # A residual branch whose last norm starts at zero passes no gradient on in the first step.
    assert all("layer" in key for key in without)


def test_numbers_of_weights_are_those_of_the_libraries():
    # timm's ResNet-50 has 25,557,032 weights for 3 channels and 1,000 classes; the stem loses two channels.
    with torch.device("meta"):
        assert weights(build("resnet50", size=1000)) == 25_557_032 - 2 * 64 * 49
        assert weights(build("resnet18", size=1000)) == 11_689_512 - 2 * 64 * 49
        assert weights(build("resnet18-torchvision", size=1000)) == 11_689_512 - 2 * 64 * 49


@pytest.mark.parametrize("name", ["resnet18-half", "resnet18", "resnet50"])
def test_residual_maps_have_the_published_sizes(name):
    encoder = build(name).eval()
    maps = {}
    for part in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        getattr(encoder.backbone, part).register_forward_hook(
            lambda module, given, made, part=part: maps.update({part: tuple(made.shape[2:])})
        )
    with torch.no_grad():
        encoder(torch.zeros(1, 96, 64))
    assert list(maps.values()) == [(96, 64), (48, 32), (48, 32), (24, 16), (12, 8), (6, 4)]


def test_the_sound_net_of_look_listen_and_learn_has_its_four_blocks():
    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.MaxPool2d)
    layers = [layer for layer in build("vgg-l3").modules() if isinstance(layer, kinds)]
    block = ["Conv2d", "BatchNorm2d"] * 2
    names = [type(layer).__name__ for layer in layers]
    assert names == [*block, *(["MaxPool2d", *block] * 3)]
    convolutions = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert build("vgg-l3", size=8).backbone.projection.in_features == 512


def test_the_draft_has_the_weights_of_plain_and_maps_of_half_the_sides():
    plain, draft = build("plain").eval(), build("draft").eval()
    assert [each.shape for each in draft.parameters()] == [each.shape for each in plain.parameters()]
    maps = []
    for encoder in (plain, draft):
        encoder.backbone.features.register_forward_hook(lambda module, given, made: maps.append(tuple(made.shape[2:])))
        with torch.no_grad():
            encoder(torch.zeros(1, 96, 64))
    assert maps == [(12, 8), (6, 4)]
    assert build("draft", bands=16, frames=16).eval()(torch.zeros(1, 16, 16)).shape == (1, 128)


def test_half_net_has_half_the_widths_everywhere():
    half = [parameter.shape for parameter in build("resnet18-half").backbone.parameters()]
    full = [parameter.shape for parameter in build("resnet18").backbone.parameters()]
    assert len(half) == len(full)
    assert all(2 * narrow[0] == wide[0] for narrow, wide in zip(half[:-2], full[:-2], strict=True))


def test_statistics_normalise_bands_and_travel_with_the_state():
    torch.manual_seed(0)
    plain, fitted = build("plain").eval(), build("plain").eval()
    mean, deviation = torch.randn(64), torch.rand(64) + 0.5
    fitted.set_statistics(mean, deviation)
    windows = torch.randn(2, 96, 64)
    standard = fitted(windows * deviation + mean)
    plain.load_state_dict(fitted.state_dict())
    assert torch.equal(plain.mean, mean) and torch.equal(plain.deviation, deviation)
    plain.set_statistics(torch.zeros(64), torch.ones(64))
    torch.testing.assert_close(standard, plain(windows), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18-half", "plain", "vgg-l3"])
def test_with_group_norm_a_window_does_not_see_its_batch(name):
    torch.manual_seed(0)
    windows = torch.randn(3, 96, 64)
    together = build(name, norm="group")
    alone = torch.cat([together(window[None]) for window in windows])
    torch.testing.assert_close(together(windows), alone, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in together.modules())


def test_same_seed_same_weights_and_channels_last_changes_nothing():
    torch.manual_seed(3)
    first = build("resnet18-half").eval()
    torch.manual_seed(3)
    second = build("resnet18-half").eval().to(memory_format=torch.channels_last)
    windows = torch.randn(2, 96, 64)
    torch.testing.assert_close(first(windows), second(windows), atol=1e-5, rtol=1e-4)


def test_other_window_sizes_fit():
    with torch.device("meta"):
        assert build("vggish", size=8, bands=32, frames=48)(torch.zeros(2, 48, 32)).shape == (2, 8)
    assert build("plain", size=8, bands=40, frames=50)(torch.randn(2, 50, 40)).shape == (2, 8)


def test_refusals_name_the_value():
    with pytest.raises(ValueError, match="no encoder 'resnet19'"):
        build("resnet19")
    with pytest.raises(ValueError, match="'vggish' has no group norm"):
        build("vggish", norm="group")
    with pytest.raises(ValueError, match="norm is 'layer'"):
        build("plain", norm="layer")
    with pytest.raises(ValueError, match="frames 8"):
        build("plain", frames=8)
    encoder = build("plain")
    with pytest.raises(ValueError, match=r"\[batch, frames, 64\]"):
        encoder(torch.zeros(2, 64, 96))
    with pytest.raises(ValueError, match=r"mean has shape \[32\]"):
        encoder.set_statistics(torch.zeros(32), torch.ones(64))
    with pytest.raises(ValueError, match=r"smallest is 0\.0"):
        encoder.set_statistics(torch.zeros(64), torch.zeros(64))
    with pytest.raises(ValueError, match="not finite"):
        encoder.set_statistics(torch.full((64,), torch.nan), torch.ones(64))


def test_the_table_is_free_of_torch():
    code = (
        "import sys, soundssl.models as m; sys.exit('torch' in sys.modules or 'timm' in sys.modules or not m.ENCODERS)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

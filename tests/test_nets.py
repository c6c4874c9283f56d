"""The nets of the papers: weights, multiply-adds and maps as published; gradients in both precisions; restored."""

import math

import pytest
import torch
from test_multiply_adds import by_hooks

from soundssl import files, models, training
from soundssl.models import ENCODERS, build, net
from soundssl.models.multiply_adds import count

LARGE = 10e6  # weights above which a net is trained in slow tests only
SLOW_TO_LEARN = {"vggish": 20}  # steps; without norms its gradients are small at first, and a higher rate throws it off

# Name: published weights, multiply-adds, relative tolerance of each, last map (frames, bands). None: not published.
PUBLISHED = {
    "dnn": (11.2e6, 11.2e6, 0.005, 0.005, None),
    "alexnet": (37.3e6, 767e6, 0.002, 0.002, (2, 2)),
    "vgg-e": (62e6, 2.4e9, 0.005, 0.011, (3, 2)),
    "inceptionv3": (28e6, 4.7e9, 0.005, 0.16, (10, 6)),  # its multiplies are not reached; every map is as published
    "resnet50": (30e6, 1.9e9, 0.01, 0.04, (6, 4)),
    "vggish": (72_141_184, 864e6, 0.0, 0.001, (6, 4)),
    "vggish-bn-fc": (72.1e6, 0.88e9, 0.001, 0.004, (6, 4)),
    "mobilenetv1": (3.75e6, 69.2e6, 0.005, 0.001, (3, 2)),  # YAMNet
    "mobilenetv2": (None, None, 0, 0, (6, 4)),
    "vgg41": (1.26e6, None, 0.002, 0, (13, 12)),
    "vgg42": (4.9e6, None, 0.006, 0, (13, 12)),
    "crnn": (None, None, 0, 0, (12, 2)),
    "vgg-like": (None, None, 0, 0, (12, 12)),
    "resnet18-torchvision": (11.2e6, None, 0.004, 0, (4, 3)),
    "baseline-cnn": (None, None, 0, 0, (6, 24)),
    "dense-se": (None, None, 0, 0, (6, 6)),
    "cnn14": (80_753_615 - 2049 * 527, 21.1e9, 0.0, 0.051, (31, 2)),  # without its layer to 527 classes
    "resnet18": (None, 850e6, 0, 0.001, (6, 4)),
    "resnet18-half": (None, 217e6, 0, 0.002, (6, 4)),
    "plain": (None, 313e6, 0, 0.001, (12, 8)),
    "space-to-depth": (None, 7.1e6, 0, 0.01, (3, 2)),
    "vggish-bn": (None, None, 0, 0, (6, 4)),
    "draft": (None, None, 0, 0, (6, 4)),
    "vgg-l3": (None, None, 0, 0, (12, 8)),
}


def weights(encoder):
    return sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_and_multiply_adds_and_maps_are_those_of_the_papers(name):
    row = net(name)
    found = {}
    with torch.device("meta"):
        encoder = build(name, row.size, row.bands, row.frames).eval()
        for module in encoder.modules():
            module.register_forward_hook(lambda module, given, made: found.setdefault(_shape(made), None))
        window = torch.zeros(1, row.frames, row.bands)
        assert encoder(window).shape == (1, row.size)
        assert (weights(encoder), count(encoder, window)) == (row.weights, row.products)
        assert by_hooks(encoder, window) == row.products
    published, products, close, near, last = PUBLISHED[name]
    assert published is None or math.isclose(row.weights, published, rel_tol=close)
    assert products is None or math.isclose(row.products, products, rel_tol=near)
    shapes = [shape for shape in found if shape not in (None, (1, 1))]
    assert last is None or shapes[-1] == last


def _shape(made):
    return tuple(made.shape[2:]) if isinstance(made, torch.Tensor) and made.ndim == 4 else None


def test_the_listing_names_every_net_with_its_counts():
    assert set(PUBLISHED) == set(ENCODERS)
    assert "1.2M weights, 313M multiply-adds" in ENCODERS["plain"]
    assert "1.97G multiply-adds" in ENCODERS["resnet50"]


def test_mm_videos_bottleneck_and_outputs_have_the_published_weights():
    with torch.device("meta"):
        encoder = build("vggish-bn-fc", 128, 64, 100)
    assert weights(encoder) + 128 * 10_998 + 10_998 == pytest.approx(73.54e6, rel=0.001)
    with torch.device("meta"):
        encoder = build("resnet50", 128, 64, 100, odd="drop").eval()
        maps = encoder.backbone.forward_features(torch.zeros(1, 1, 100, 64))
    assert tuple(maps.shape[2:]) == (6, 4)


SIZES = [pytest.param(name, marks=[pytest.mark.slow] * (net(name).weights > LARGE)) for name in ENCODERS]


@pytest.mark.parametrize("name", SIZES)
def test_a_step_is_finite_in_both_precisions_and_the_net_is_restored(name, tmp_path):
    torch.manual_seed(0)
    frames, bands = (96, 64) if net(name).weights > LARGE else (32, 48)
    encoder = build(name, 8, bands, frames)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    windows = torch.randn(2, frames, bands)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    for dtype in (torch.float32, torch.bfloat16):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = torch.nn.functional.normalize(encoder(windows).float(), dim=1)[:, :4].sum()
        loss.backward()
        gradients = [parameter.grad for parameter in encoder.parameters()]
        assert torch.isfinite(loss) and all(each is not None and torch.isfinite(each).all() for each in gradients)
        optimizer.step()
    moved = [key for key, value in encoder.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > 0.5 * len(gradients)

    config = {"encoder": name, "size": 8, "bands": bands, "frames": frames, "norm": "batch"}
    path = tmp_path / "model.safetensors"
    files.write_model(path, training.tensors_of(encoder, {}), config, inputs=[], made_from="test")
    stored = files.read_model(path)
    again = models.restore(stored.config, stored.tensors).eval()
    torch.testing.assert_close(again(windows), encoder.eval()(windows))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_every_net_learns_which_windows_go_together(name):
    """Two kinds of window, a stripe of energy low or high under noise: their classes are learnt in a few steps."""
    torch.manual_seed(0)
    row = net(name)
    windows = torch.randn(8, row.frames, row.bands)
    low, high = row.bands // 4, row.bands * 3 // 4
    windows[0::2, :, low : low + 6] += 2.0
    windows[1::2, :, high : high + 6] += 2.0
    classes = torch.tensor([0, 1] * 4)
    encoder, head = build(name, row.size, row.bands, row.frames), torch.nn.Linear(row.size, 2)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-4)
    losses = []
    for _ in range(SLOW_TO_LEARN.get(name, 8)):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(head(encoder(windows)), classes)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-2:]) < 0.8 * losses[0], losses


POOLED = [
    "plain",
    "draft",
    "vgg-l3",
    "vgg41",
    "vgg-like",
    "crnn",
    "baseline-cnn",
    "dense-se",
    "mobilenetv1",
    "mobilenetv2",
]
POOLED += ["resnet18-half", "resnet18-torchvision"]
LARGE_POOLED = ["alexnet", "vgg-e", "inceptionv3", "resnet50", "vggish", "vggish-bn-fc", "cnn14"]


@pytest.mark.parametrize("name", [*POOLED, *LARGE_POOLED])
@pytest.mark.parametrize("kind", ["blur3", "tlpf-aps"])
def test_every_net_takes_another_pooling_in_the_place_of_its_own(name, kind):
    with torch.device("meta"):
        usual, other = build(name, 8, 64, 100).eval(), build(name, 8, 64, 100, pooling=kind, filter="3x3").eval()
    own, new = ({key: value.shape for key, value in each.state_dict().items()} for each in (usual, other))
    trained = {key: shape for key, shape in new.items() if shape[-1:] == (9,) and key not in own}
    assert bool(trained) == (kind == "tlpf-aps")
    assert len(new) - len(trained) == len(own)
    with torch.device("meta"):
        assert other(torch.zeros(2, 100, 64)).shape == (2, 8)


@pytest.mark.parametrize("name", ["resnet18-half", "resnet18-torchvision", "mobilenetv2"])
def test_strided_nets_with_aps_train(name):
    torch.manual_seed(0)
    encoder = build(name, 8, 32, 32, pooling="aps")
    encoder(torch.randn(3, 32, 32)).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


def test_timm_backbones_are_built_by_their_names():
    torch.manual_seed(0)
    encoder = build("timm:test_resnet", 8)
    assert encoder(torch.randn(2, 96, 64)).shape == (2, 8)
    encoder(torch.randn(2, 96, 64)).sum().backward()
    assert build("timm:test_vit", 8, 64, 96)(torch.randn(2, 96, 64)).shape == (2, 8)


def test_refusals_of_nets_say_what_they_take():
    with pytest.raises(ValueError, match=r"timm has no model 'resnet5000'; near it are"):
        build("timm:resnet5000")
    with pytest.raises(ValueError, match="timm has no model ''"):
        build("timm:")
    with pytest.raises(ValueError, match="takes no windows of 50 x 64"):
        build("timm:test_vit", 8, 64, 50)
    for name, frames, bands in (("alexnet", 32, 64), ("vgg-e", 96, 20), ("cnn14", 20, 64), ("crnn", 96, 32)):
        with pytest.raises(ValueError, match=f"{name} takes"):
            build(name, 8, bands, frames)
    with pytest.raises(ValueError, match="dropout is 1"):
        build("baseline-cnn", dropout=1.0)
    with pytest.raises(ValueError, match="pooling is 'mean'"):
        build("vgg41", pooling="mean")
    with pytest.raises(ValueError, match="and timm:NAME"):
        build("vgg16")

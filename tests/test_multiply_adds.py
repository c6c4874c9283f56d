"""What the lists say a net computes and weighs is what it does, counted by hooks on its layers; encoders: test_nets."""

import math
import re

import pytest
import torch
from torch import nn

from soundssl.models import IMAGE_TOWERS, SEPARATORS, build_image, build_separator
from soundssl.models.multiply_adds import count

FACTOR = {"M": 1e6, "G": 1e9}
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def by_hooks(net, *inputs):
    """Count convolutions and linear layers without torch's own counter."""
    found = []

    def add(layer, given, made):
        if isinstance(layer, nn.Linear):
            found.append(made.numel() * layer.in_features)
        elif isinstance(layer, nn.GRU):
            found.append(made[0].numel() * 3 * (layer.input_size + layer.hidden_size))
        else:
            found.append(made.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size))

    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.GRU, *CONVOLUTIONS)):
            layer.register_forward_hook(add)
    with torch.no_grad():
        net.eval()(*inputs)
    return sum(found)


def quoted(line, what):
    """Return the number before `what` in the line of a net, and half a unit of its last digit."""
    figure, unit = re.search(rf"([\d.]+)([MG]) {what}", line).groups()
    digits = len(figure.partition(".")[2])
    return float(figure) * FACTOR[unit], 0.51 * 10.0**-digits * FACTOR[unit]


def is_as_quoted(line, multiply_adds, net):
    figure, half = quoted(line, "multiply-adds")
    assert multiply_adds == pytest.approx(figure, abs=half), line
    figure, half = quoted(line, "weights")
    assert sum(weights.numel() for weights in net.parameters()) == pytest.approx(figure, abs=half), line


@pytest.fixture
def shapes_only():
    """Let tensors have shapes and no numbers: the nets are large."""
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("name", IMAGE_TOWERS)
def test_a_tower_computes_what_its_line_says(name, shapes_only):
    net, picture = build_image(name), torch.zeros(1, 128, 128, 3, dtype=torch.uint8)
    is_as_quoted(IMAGE_TOWERS[name], by_hooks(net, picture), net)
    assert "128 px" in IMAGE_TOWERS[name]


@pytest.mark.parametrize("name", SEPARATORS)
def test_a_separator_computes_what_its_line_says_for_a_second_of_four_tracks(name):
    if name.startswith("conv-tasnet"):
        pytest.importorskip("torchaudio")
    net, second = build_separator(name), torch.randn(1, 16000)
    is_as_quoted(SEPARATORS[name], count(net, second), net)
    assert SEPARATORS[name].endswith(" a second")


def test_counts_known_layers_and_leaves_the_net_as_it_was():
    net = nn.Sequential(nn.Conv1d(4, 4, 3, groups=4, padding=1), nn.BatchNorm1d(4), nn.ConvTranspose1d(4, 2, 5, 2))
    net[0].eval()
    assert count(net, torch.randn(2, 4, 10)) == 2 * 10 * 4 * 3 + 2 * 10 * 4 * 2 * 5
    assert [module.training for module in net] == [False, True, True]
    assert net[1].num_batches_tracked == 0
    with pytest.raises(RuntimeError):
        count(net, torch.zeros(2, 3, 10))
    assert net.training and not net[0].training

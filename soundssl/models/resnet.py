"""Residual nets: with a stem that keeps the resolution (Hershey et al. 2017, section 3), or as torchvision has them.

A 96 x 64 window passes 96x64 -(7x7, stride 1)-> 96x64 -(3x3 max pool, stride 2)-> 48x32 -> 24x16 -> 12x8 -> 6x4, is
averaged over the 6 x 4 map and projected linearly to the embedding (Jansen et al. 2018, section 3.2). The half-width
net is no paper's: it trains seven times faster than ResNet-50 on a CPU.

`resnet18-torchvision` has a stem of stride 2; its 512 averages are the embedding of Fonseca et al. 2021, one of another
size goes through a linear layer.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from soundssl.dependencies import needed
from soundssl.models import pooling
from soundssl.models.convolutions import GROUPS, Even

STEM = 64  # channels


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose how maps are normalised and made smaller.

    `norm` is over the batch, or, in the half-width net, within each window. `odd` drops the last row of an odd map
    before a stride, which gives the 6 x 4 last map of MM-Videos (2019) on 100 x 64 (inferred), or keeps it.
    """

    norm: Literal["batch", "group"] = "batch"
    odd: Literal["keep", "drop"] = "keep"


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build a residual net by its name; raise ValueError for a norm that it has not."""
    if name == "resnet18-half":
        net = resnet18_half(size, options.norm)
    elif options.norm != "batch":
        raise ValueError(f"encoder {name!r} has no {options.norm} norm; resnet18-half has")
    else:
        net = {"resnet18": resnet18, "resnet50": resnet50, "resnet18-torchvision": resnet18_torchvision}[name](size)
    _replace_pooling(net, options)
    if options.odd == "drop":
        _drop_odd(net)
    return net


def timm_for(net: str, instead: str = "--encoder plain") -> AbstractContextManager[None]:
    """Return the context in which timm is imported for a net.

    timm imports torchvision, whose library is built for one torch, with or without CUDA.
    """
    remedy = f"install timm and the torchvision of the same build as torch, or choose {instead}"
    return needed(net, "timm", remedy, ("torchvision", "torch"))


def resnet50(size: int) -> nn.Module:
    """Build ResNet-50 with a stride-1 stem. Shape: [batch, 1, frames, bands] to [batch, size]."""
    with timm_for("resnet50"):
        from timm.models.resnet import Bottleneck, ResNet

    block: Any = Bottleneck
    return _keep_resolution(ResNet(block, (3, 4, 6, 3), num_classes=size, in_chans=1))


def resnet18(size: int) -> nn.Module:
    """Build ResNet-18 with a stride-1 stem. Shape: [batch, 1, frames, bands] to [batch, size]."""
    with timm_for("resnet18"):
        from timm.models.resnet import BasicBlock, ResNet

    block: Any = BasicBlock
    return _keep_resolution(ResNet(block, (2, 2, 2, 2), num_classes=size, in_chans=1))


def resnet18_torchvision(size: int) -> nn.Module:
    """Build ResNet-18 with a stem of stride 2. Shape: [batch, 1, frames, bands] to [batch, size]."""
    with timm_for("resnet18-torchvision"):
        from timm.models.resnet import BasicBlock, ResNet

    block: Any = BasicBlock
    return ResNet(block, (2, 2, 2, 2), num_classes=0 if size == 512 else size, in_chans=1)


def resnet18_half(size: int, norm: str = "batch") -> nn.Module:
    """Build ResNet-18 of widths 32, 64, 128 and 256. Shape: [batch, 1, frames, bands] to [batch, size]."""
    with timm_for("resnet18-half"):
        from timm.models.resnet import BasicBlock, ResNet

    layer: Any = nn.BatchNorm2d if norm == "batch" else _group_norm
    block: Any = BasicBlock
    widths = (32, 64, 128, 256)
    net: Any = ResNet(block, (2, 2, 2, 2), channels=widths, num_classes=size, in_chans=1, norm_layer=layer)
    # timm fixes a plain stem at 64 channels: replace it and the block that reads it.
    net.conv1 = nn.Conv2d(1, widths[0], 7, padding=3, bias=False)
    net.bn1 = layer(widths[0])
    net.layer1[0] = block(widths[0], widths[0], norm_layer=layer)
    net.init_weights()
    return net


def _group_norm(channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """Make a group norm; a function because timm drops the arguments bound by `partial`."""
    return nn.GroupNorm(GROUPS, channels, device=device, dtype=dtype)


def _keep_resolution(net: Any) -> nn.Module:
    """Set the stride of the stem's convolution to 1; its weights do not depend on it."""
    net.conv1.stride = (1, 1)
    return net


def _replace_pooling(net: Any, options: Options) -> None:
    """Put what an option names in place of max pooling and of every stride; weights keep their names and shapes.

    As in Zhang 2019 a strided convolution becomes one of stride 1, whose rectified maps are then made smaller. Both
    branches of a block take the same grid.
    """
    if options.pooling == "max":
        return
    width = net.conv1.out_channels
    if net.conv1.stride != (1, 1):
        net.conv1.stride = (1, 1)
        net.act1 = nn.Sequential(net.act1, pooling.subsample(options, width))
    net.maxpool = pooling.pool(options, width, 3, 2, same=True)
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        block = stage[0]
        strided = next((each for each in (block.conv1, block.conv2) if each.stride != (1, 1)), None)
        if strided is None:
            continue
        grid = pooling.Grid()
        strided.stride = (1, 1)
        block.aa = pooling.subsample(options, strided.out_channels, 2, grid)  # timm's place for it, after the ReLU
        shortcut = block.downsample[0]
        shortcut.stride = (1, 1)
        smaller = pooling.subsample(options, shortcut.in_channels, 2, grid, lead=False)
        block.downsample = nn.Sequential(OrderedDict([("smaller", smaller), *block.downsample.named_children()]))


def _drop_odd(net: Any) -> None:
    """Drop the last row or column of an odd map before the stages that halve it."""
    for name in ("layer2", "layer3", "layer4"):
        stage = net.get_submodule(name)
        setattr(net, name, nn.Sequential(OrderedDict([("even", Even()), *stage.named_children()])))

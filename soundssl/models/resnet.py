"""Residual nets whose stem keeps the resolution (Hershey et al. 2017, section 3).

A 96 x 64 window passes 96x64 -(7x7, stride 1)-> 96x64 -(3x3 max pool, stride 2)-> 48x32 -> 24x16 -> 12x8 -> 6x4, is
averaged over the 6 x 4 map and projected linearly to the embedding (Jansen et al. 2018, section 3.2). The half-width
net is no paper's: it trains seven times faster than ResNet-50 on a CPU.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from soundssl.dependencies import needed

GROUPS = 8  # of group norm; divides every width here


@dataclass(frozen=True)
class Options:
    """Choose how maps are normalised: over the batch, or, in the half-width net, within each window."""

    norm: Literal["batch", "group"] = "batch"


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build a residual net by its name; raise ValueError for a norm that it has not."""
    if name == "resnet18-half":
        return resnet18_half(size, options.norm)
    if options.norm != "batch":
        raise ValueError(f"encoder {name!r} has no {options.norm} norm; resnet18-half has")
    return {"resnet18": resnet18, "resnet50": resnet50}[name](size)


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

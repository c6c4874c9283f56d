"""The block that most nets are made of: a convolution without bias, its norm and its rectifier."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

GROUPS = 8  # of group norm; divides every width here
Norm = Literal["batch", "group"]


def convolution(
    before: int, after: int, size: int = 3, norm: Norm = "batch", stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """List a convolution that keeps the size of a map, its norm and its ReLU; weights as He et al. 2015."""
    layer = nn.Conv2d(before, after, size, stride, padding=size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return [layer, norm_of(after, norm), nn.ReLU(inplace=True)]


def norm_of(channels: int, norm: Norm) -> nn.Module:
    """Return batch norm, or group norm, which sees one window at a time."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(GROUPS, channels)


def projection(natural: int, size: int) -> nn.Module:
    """Return the linear layer to an embedding, none where the net's own vector has its size."""
    return nn.Identity() if natural == size else nn.Linear(natural, size)


class MeanAndMaximum(nn.Module):
    """Concatenate the mean and the maximum over a map."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return both. Shape: [batch, channels, frames, bands] to [batch, 2 channels]."""
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)


class Even(nn.Module):
    """Drop the last row or column of a side that is odd."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return a map of even sides, or of one. Shape: [batch, channels, frames, bands]."""
        height, width = maps.shape[2:]
        return maps[:, :, : max(1, height // 2 * 2), : max(1, width // 2 * 2)]

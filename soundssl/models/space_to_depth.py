"""A space-to-depth CNN for sound: squares of four frames by four bands become channels, as its twin for pictures.

No paper's net: a fortieth of the multiply-adds of `plain`, for what hears several tracks of every mixture on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from soundssl.models.convolutions import MeanAndMaximum, Norm, convolution

BLOCK = 4  # frames and bands that become channels
WIDTHS = (32, 64, 128, 256)  # channels of 3x3 convolutions with poolings between


@dataclass(frozen=True)
class Options:
    """Choose how maps are normalised: over the batch, or within each window."""

    norm: Norm = "batch"


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build the net. Shape: [batch, 1, frames, bands] to [batch, size]; sides beyond a multiple of four are dropped."""
    layers: list[nn.Module] = [Whole(), nn.PixelUnshuffle(BLOCK)]
    before = BLOCK**2
    for width in WIDTHS:
        layers += [nn.MaxPool2d(2, ceil_mode=True)] if len(layers) > 2 else []  # a side of one stays
        layers += convolution(before, width, norm=options.norm)
        before = width
    return nn.Sequential(*layers, MeanAndMaximum(), nn.Linear(2 * before, size))


class Whole(nn.Module):
    """Drop rows and columns beyond a multiple of BLOCK."""

    def forward(self, maps: Tensor) -> Tensor:
        """Cut. Shape: [batch, 1, frames, bands]."""
        height, width = maps.shape[2:]
        return maps[:, :, : height // BLOCK * BLOCK, : width // BLOCK * BLOCK]

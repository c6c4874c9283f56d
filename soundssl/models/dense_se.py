"""DenSE of Fonseca et al. 2019 ("Model-agnostic approaches to handling noisy labels"): dense blocks with squeezing.

The normalised input and its 3x3 convolution of 15 filters are concatenated. Four modules follow: batch norm, ReLU, 1x1,
batch norm, ReLU, 3x3, squeeze-and-excitation of ratio 2, concatenated with what came in; each then has a 2x2 pooling.
Inferred: that the 1x1 convolution has as many filters as the 3x3 one, 32 to 256, and a mean over the last map.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from soundssl.models import pooling

STEM = 15  # filters beside the input itself: 16 channels
FIRST, MODULES, MOST = 16, 4, 512  # module i, from 1, has FIRST * 2**i filters, MOST at most
RATIO = 2  # of squeeze-and-excitation


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling."""


class SqueezeExcite(nn.Module):
    """Scale each channel by what two small layers make of the means of all (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, channels // RATIO), nn.ReLU(), nn.Linear(channels // RATIO, channels), nn.Sigmoid()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return scaled maps. Shape: [batch, channels, frames, bands]."""
        return maps * self.layers(maps.mean((2, 3)))[:, :, None, None]


class DenseModule(nn.Module):
    """Concatenate maps with what two convolutions and squeeze-and-excitation make of them."""

    def __init__(self, before: int, filters: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.ReLU(),
            nn.Conv2d(before, filters, 1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False),
            SqueezeExcite(filters),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return more channels. Shape: [batch, before, frames, bands] to [batch, before + filters, frames, bands]."""
        return torch.cat([maps, self.layers(maps)], 1)


class DenSE(nn.Module):
    """Apply the stem, the modules with their poolings, a mean over the map and a linear layer."""

    def __init__(self, size: int, options: Options) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.stem = nn.Conv2d(1, STEM, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        before = 1 + STEM
        for number in range(1, MODULES + 1):
            filters = min(MOST, FIRST * 2**number)
            layers.append(DenseModule(before, filters))
            before += filters
            layers.append(pooling.pool(options, before))
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(before), nn.ReLU())
        self.projection = nn.Linear(before, size)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        normed = self.norm(images)
        maps = self.features(torch.cat([normed, self.stem(normed)], 1))
        return self.projection(maps.mean((2, 3)))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build DenSE. Shape: [batch, 1, frames, bands] to [batch, size]."""
    return DenSE(size, options)

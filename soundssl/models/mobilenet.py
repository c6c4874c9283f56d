"""MobileNets: V1 (Howard et al. 2017) as for 96 x 64 windows, V2 (Sandler et al. 2018) as MM-Videos have it.

V1 keeps every stride, as the public YAMNet does: 96 x 64 becomes 3 x 2. V2 has a first stride of 1, which makes its
last map 6 x 4 of 100 x 64, where odd rows are dropped before a stride (inferred); its 128 numbers before the output are
the embedding. The stem's stride is an option of both.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from soundssl.models import pooling
from soundssl.models.convolutions import Even

V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
V1_STEM = 32
# Expansion, width, number and first stride of the groups of inverted residuals; width 1.0.
V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
V2_STEM, V2_LAST = 32, 1280


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose what makes maps smaller, and the stride of the first convolution; 0 is that of the net's paper."""

    stem_stride: Literal[0, 1, 2] = 0


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build a MobileNet by its name. Shape: [batch, 1, frames, bands] to [batch, size]."""
    if name == "mobilenetv1":
        return MobileNet(_v1(options.stem_stride or 2, options), V1[-1][0], size)
    return MobileNet(_v2(options.stem_stride or 1, options), V2_LAST, size)


class MobileNet(nn.Module):
    """Apply convolutions, a mean over the map and a linear layer."""

    def __init__(self, features: list[nn.Module], width: int, size: int) -> None:
        super().__init__()
        self.features, self.projection = nn.Sequential(*features), nn.Linear(width, size)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        return self.projection(self.features(images).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; add the input where it has the size of the output."""

    def __init__(self, before: int, after: int, stride: int, expansion: int, options: Options) -> None:
        super().__init__()
        hidden = before * expansion
        wide = _convolution(before, hidden, 1, 1, options) if expansion > 1 else []
        self.layers = nn.Sequential(
            *wide,
            *([Even()] if stride > 1 else []),
            *_convolution(hidden, hidden, 3, stride, options, groups=hidden),
            nn.Conv2d(hidden, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.added = stride == 1 and before == after

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps. Shape: [batch, before, frames, bands] to [batch, after, frames / stride, bands / stride]."""
        return maps + self.layers(maps) if self.added else self.layers(maps)


def _v1(stride: int, options: Options) -> list[nn.Module]:
    layers = _convolution(1, V1_STEM, 3, stride, options, ReLU=nn.ReLU)
    before = V1_STEM
    for width, step in V1:
        layers += _convolution(before, before, 3, step, options, groups=before, ReLU=nn.ReLU)
        layers += _convolution(before, width, 1, 1, options, ReLU=nn.ReLU)
        before = width
    return layers


def _v2(stride: int, options: Options) -> list[nn.Module]:
    layers = _convolution(1, V2_STEM, 3, stride, options)
    before = V2_STEM
    for expansion, width, count, first in V2:
        for number in range(count):
            layers.append(InvertedResidual(before, width, first if number == 0 else 1, expansion, options))
            before = width
    return [*layers, *_convolution(before, V2_LAST, 1, 1, options)]


def _convolution(
    before: int, after: int, size: int, stride: int, options: Options, groups: int = 1, ReLU: type[nn.Module] = nn.ReLU6
) -> list[nn.Module]:
    """List a convolution, batch norm, rectifier and what makes the map smaller where max pooling is not chosen."""
    plain = options.pooling == "max"
    layer = nn.Conv2d(before, after, size, stride if plain else 1, size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    smaller = [] if plain or stride == 1 else [pooling.subsample(options, after, stride)]
    return [layer, nn.BatchNorm2d(after), ReLU(inplace=True), *smaller]

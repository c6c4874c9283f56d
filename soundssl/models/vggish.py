"""VGGish (Hershey et al. 2017, in the released definition): VGG configuration A without its last group.

Convolutions of 64, 128, 256, 256, 512, 512 channels with four 2x2 poolings; on 96 x 64 the map is 6 x 4 x 512 = 12288,
then 4096, 4096 and the embedding, which is linear as in the later public definition. No batch norm.

`vggish-bn` and `vggish-bn-fc` are those of MM-Videos (2019): batch norm after every activation, also in fully connected
layers (inferred); in the second those are convolutions, the first of them as large as the last map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from soundssl.models import pooling

GROUPS = ((64,), (128,), (256, 256), (512, 512))  # channels of the convolutions between poolings
HIDDEN = 4096  # units of the two fully connected layers
INITIAL_DEVIATION = 0.01  # of the truncated normal of all weights, as released
MAP = (6, 4)  # frames x bands of the last map in MM-Videos, which the first convolution there covers


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling, and whether the embedding is rectified, as in the first public definition of vggish."""

    output: Literal["linear", "relu"] = "linear"


class Vggish(nn.Module):
    """Apply VGGish; 72,141,184 weights for 96 frames, 64 bands and 128 outputs."""

    def __init__(self, size: int, bands: int, frames: int, options: Options, norm: bool = False) -> None:
        super().__init__()
        self.features = _features(options, norm)
        self.embedding = nn.Sequential(
            nn.Linear((frames // 16) * (bands // 16) * GROUPS[-1][-1], HIDDEN),
            *_active(nn.BatchNorm1d(HIDDEN) if norm else None),
            nn.Linear(HIDDEN, HIDDEN),
            *_active(nn.BatchNorm1d(HIDDEN) if norm else None),
            nn.Linear(HIDDEN, size),
            *([nn.ReLU()] if options.output == "relu" else []),
        )
        _start(self, norm)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        maps = self.features(images).permute(0, 2, 3, 1)  # time, frequency, channel: the order of the released weights
        return self.embedding(maps.flatten(1))


class Convolutional(nn.Module):
    """Apply the fully convolutional VGGish of MM-Videos; what is left of the map is averaged."""

    def __init__(self, size: int, bands: int, frames: int, options: Options) -> None:
        super().__init__()
        self.features = _features(options, True)
        layers: list[nn.Module] = []
        before, kernel = GROUPS[-1][-1], (min(MAP[0], frames // 16), min(MAP[1], bands // 16))
        for width in (HIDDEN, HIDDEN, size):
            layers += [nn.Conv2d(before, width, kernel), *_active(nn.BatchNorm2d(width))]
            before, kernel = width, (1, 1)
        self.embedding = nn.Sequential(*layers)
        _start(self, True)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        return self.embedding(self.features(images)).mean((2, 3))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build a VGGish by its name. Shape: [batch, 1, frames, bands] to [batch, size]."""
    if name == "vggish-bn-fc":
        return Convolutional(size, bands, frames, options)
    return Vggish(size, bands, frames, options, norm=name == "vggish-bn")


def _features(options: Options, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 1
    for group in GROUPS:
        for width in group:
            layers += [nn.Conv2d(before, width, 3, padding=1), *_active(nn.BatchNorm2d(width) if norm else None)]
            before = width
        layers.append(pooling.pool(options, before))
    return nn.Sequential(*layers)


def _active(norm: nn.Module | None) -> list[nn.Module]:
    """List a rectifier and the norm that follows it, if any."""
    return [nn.ReLU(inplace=norm is None), *([norm] if norm is not None else [])]


def _start(net: nn.Module, norm: bool) -> None:
    """Draw weights as released; where maps are normalised as He et al. 2015, since the norm comes after the ReLU."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if norm:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                edge = 2 * INITIAL_DEVIATION  # truncated at two deviations
                nn.init.trunc_normal_(module.weight, std=INITIAL_DEVIATION, a=-edge, b=edge)
            nn.init.constant_(module.get_parameter("bias"), 0)

"""Inception V3 for sound (Hershey et al. 2017): the stem up to and including its first pooling is left out.

A 96 x 64 window passes 96x64 -(1x1, 3x3 valid)-> 94x62 -(3x3 max pool, stride 2)-> 46x30 -> 22x14 -> 10x6 and is
averaged over the last map. There is no auxiliary head and no dropout.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from soundssl.dependencies import needed
from soundssl.models import pooling

STEM = (80, 192)  # channels of what is left of the stem
WIDTH = 2048


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling of the stem; the reductions within the net stay as they are."""


class InceptionV3(nn.Module):
    """Apply the stem, the eleven blocks of Szegedy et al. 2016, a mean over the map and a linear layer."""

    def __init__(self, size: int, options: Options) -> None:
        super().__init__()
        remedy = "install the torchvision of the same build as torch, or choose --encoder plain"
        with needed("inceptionv3", "torchvision", remedy, ("torch",)):
            from torchvision.models import inception

        first, second = STEM
        blocks: list[Any] = [
            inception.InceptionA(second, 32),
            inception.InceptionA(256, 64),
            inception.InceptionA(288, 64),
            inception.InceptionB(288),
            *(inception.InceptionC(768, width) for width in (128, 160, 160, 192)),
            inception.InceptionD(768),
            inception.InceptionE(1280),
            inception.InceptionE(WIDTH),
        ]
        self.stem = nn.Sequential(
            inception.BasicConv2d(1, first, kernel_size=1),
            inception.BasicConv2d(first, second, kernel_size=3),
            pooling.pool(options, second, 3),
        )
        self.blocks = nn.Sequential(*blocks)
        self.projection = nn.Linear(WIDTH, size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        return self.projection(self.blocks(self.stem(images)).mean((2, 3)))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build Inception V3; raise ValueError for a small window. Shape: [batch, 1, frames, bands] to [batch, size]."""
    if frames < 17 or bands < 17:
        raise ValueError(f"inceptionv3 takes windows of 17 frames and 17 bands or more, not {frames} and {bands}")
    return InceptionV3(size, options)

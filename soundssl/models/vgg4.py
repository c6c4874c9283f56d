"""VGG41 and VGG42 of Fonseca et al. 2021 ("Increasing shift invariance in convolutional neural networks").

A 3x3 convolution, then four blocks of two; in the first three a 3x3 maximum of stride 1 between the convolutions, and
behind them the 2x2 pooling whose variants the paper compares. The mean over bands, then the maximum over frames, and a
linear layer: to the classes in the paper, here to the embedding. VGG42 has twice the widths. Kernels are drawn from
N(0, 0.01²), as in the public code.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from soundssl.models import pooling
from soundssl.models.convolutions import Norm, convolution

STEM, BLOCKS = 32, (48, 64, 128, 256)  # channels of VGG41
INITIAL_DEVIATION = 0.01


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling between blocks, the norm, and whether there is a maximum within blocks."""

    norm: Norm = "batch"
    within: bool = True


class Vgg4(nn.Module):
    """Apply the blocks, pool over bands and frames, and apply a linear layer."""

    def __init__(self, size: int, factor: int, options: Options) -> None:
        super().__init__()
        layers = convolution(1, STEM * factor, norm=options.norm)
        before = STEM * factor
        for number, channels in enumerate(BLOCKS, 1):
            width, last = channels * factor, number == len(BLOCKS)
            layers += convolution(before, width, norm=options.norm)
            if options.within and not last:
                layers.append(pooling.DenseMax((3, 3), True, options.borders))
            layers += convolution(width, width, norm=options.norm)
            if not last:
                layers.append(pooling.pool(options, width, same=True))
            before = width
        self.features = nn.Sequential(*layers)
        self.projection = nn.Linear(before, size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        return self.projection(self.features(images).mean(3).amax(2))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build VGG41 or VGG42. Shape: [batch, 1, frames, bands] to [batch, size]."""
    return Vgg4(size, {"vgg41": 1, "vgg42": 2}[name], options)

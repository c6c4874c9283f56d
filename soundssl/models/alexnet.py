"""AlexNet for sound (Hershey et al. 2017): stride 2 x 1 in its first convolution, batch norm instead of LRN.

Convolutions without groups and without padding in the first layer, and a last map of 2 x 2, are inferred: with them the
net has the published 37.3M weights and 767M multiplies at 3,087 outputs.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from soundssl.models import pooling

WIDTHS = (96, 256, 384, 384, 256)  # Krizhevsky et al. 2012, on one device
HIDDEN = 4096
MAP = (2, 2)


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling."""


class AlexNet(nn.Module):
    """Apply five convolutions with three poolings, then two rectified layers and a linear one."""

    def __init__(self, size: int, options: Options) -> None:
        super().__init__()
        first, second, third, fourth, fifth = WIDTHS
        self.features = nn.Sequential(
            *_convolution(1, first, 11, (2, 1), 0),
            pooling.pool(options, first, 3),
            *_convolution(first, second, 5, (1, 1), 2),
            pooling.pool(options, second, 3),
            *_convolution(second, third, 3, (1, 1), 1),
            *_convolution(third, fourth, 3, (1, 1), 1),
            *_convolution(fourth, fifth, 3, (1, 1), 1),
            nn.AdaptiveMaxPool2d(MAP),
        )
        self.embedding = nn.Sequential(
            nn.Linear(fifth * MAP[0] * MAP[1], HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, size),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        return self.embedding(self.features(images).flatten(1))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build AlexNet; raise ValueError for a small window. Shape: [batch, 1, frames, bands] to [batch, size]."""
    if frames < 48 or bands < 40:
        raise ValueError(f"alexnet takes windows of 48 frames and 40 bands or more, not {frames} and {bands}")
    return AlexNet(size, options)


def _convolution(before: int, after: int, size: int, stride: tuple[int, int], padding: int) -> list[nn.Module]:
    layer = nn.Conv2d(before, after, size, stride, padding, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return [layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

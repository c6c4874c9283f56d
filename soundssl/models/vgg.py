"""VGG, configuration E, for sound (Hershey et al. 2017): strides untouched, batch norm after every convolution."""

from dataclasses import dataclass

from torch import Tensor, nn

from soundssl.models import pooling
from soundssl.models.convolutions import convolution

GROUPS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # width and number of the convolutions between poolings
HIDDEN = 4096


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling."""


class VggE(nn.Module):
    """Apply sixteen convolutions with five poolings, then two rectified layers and a linear one."""

    def __init__(self, size: int, bands: int, frames: int, options: Options) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width, count in GROUPS:
            for _ in range(count):
                layers += convolution(before, width)
                before = width
            layers.append(pooling.pool(options, width))
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Sequential(
            nn.Linear((frames // 32) * (bands // 32) * before, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, size),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        return self.embedding(self.features(images).flatten(1))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build VGG-E; raise ValueError for a small window. Shape: [batch, 1, frames, bands] to [batch, size]."""
    if frames < 32 or bands < 32:
        raise ValueError(f"vgg-e takes windows of 32 frames and 32 bands or more, not {frames} and {bands}")
    return VggE(size, bands, frames, options)

"""The VGG-like net of Fonseca et al. 2021 ("Unsupervised contrastive learning of sound event representations").

Three, two and one convolutions of 32, 64 and 128 channels, each group followed by a 2x2 pooling; mean and maximum over
the map; a rectified layer, whose 512 outputs are the paper's embedding.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from soundssl.models import pooling
from soundssl.models.convolutions import MeanAndMaximum, Norm, convolution

GROUPS = ((32, 3), (64, 2), (128, 1))  # width and number of the convolutions before each pooling


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling and the norm."""

    norm: Norm = "batch"


class VggLike(nn.Module):
    """Apply the convolutions, pool over the map, and give the outputs of a rectified layer."""

    def __init__(self, size: int, options: Options) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width, count in GROUPS:
            for _ in range(count):
                layers += convolution(before, width, norm=options.norm)
                before = width
            layers.append(pooling.pool(options, width))
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Sequential(MeanAndMaximum(), nn.Linear(2 * before, size), nn.ReLU(inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        return self.embedding(self.features(images))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build the VGG-like net. Shape: [batch, 1, frames, bands] to [batch, size]."""
    return VggLike(size, options)

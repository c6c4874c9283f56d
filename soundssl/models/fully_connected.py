"""The fully connected net of Hershey et al. 2017: the flattened window and three layers of 1,000 rectified units."""

from dataclasses import dataclass

from torch import Tensor, nn

LAYERS, WIDTH = 3, 1000  # the best of their sweep


@dataclass(frozen=True)
class Options:
    """Leave no choice: the net is as published."""


class FullyConnected(nn.Module):
    """Apply the rectified layers, then a linear one."""

    def __init__(self, size: int, bands: int, frames: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = frames * bands
        for _ in range(LAYERS):
            layers += [nn.Linear(before, WIDTH), nn.ReLU(inplace=True)]
            before = WIDTH
        self.layers = nn.Sequential(*layers)
        self.projection = nn.Linear(before, size)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        return self.projection(self.layers(images.flatten(1)))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build the net. Shape: [batch, 1, frames, bands] to [batch, size]."""
    return FullyConnected(size, bands, frames)

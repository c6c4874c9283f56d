"""The convolutional recurrent net of Fonseca et al. 2021 ("Unsupervised contrastive learning of sound events").

Three 5x5 convolutions of 128 filters with poolings of 2x5, 2x4 and 2x2 (frames x bands), then a bidirectional GRU of 64
units. The outputs of its directions are multiplied: 64 numbers, the paper's embedding. An embedding of another size
goes through a linear layer.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from soundssl.models import pooling
from soundssl.models.convolutions import convolution, projection

WIDTH, KERNEL = 128, 5
POOLS = ((2, 5), (2, 4), (2, 2))  # frames x bands
UNITS = 64


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling, and which step of the backward direction is read.

    The public code reads the last step of both, where the backward direction has seen a single step; `first` reads its
    last state instead.
    """

    backward: Literal["last", "first"] = "last"


class Crnn(nn.Module):
    """Apply the convolutions and the recurrent layer, and multiply the outputs of its directions."""

    def __init__(self, size: int, bands: int, options: Options) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, left = 1, bands
        for pool in POOLS:
            layers += [*convolution(before, WIDTH, KERNEL), pooling.pool(options, WIDTH, pool, pool)]
            before, left = WIDTH, left // pool[1]
        self.features = nn.Sequential(*layers)
        self.recurrent = nn.GRU(WIDTH * left, UNITS, batch_first=True, bidirectional=True)
        self.projection = projection(UNITS, size)
        self.step = -1 if options.backward == "last" else 0

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        steps = self.features(images).permute(0, 2, 1, 3).flatten(2)
        states, _ = self.recurrent(steps)
        return self.projection(states[:, -1, :UNITS] * states[:, self.step, UNITS:])


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build the net; raise ValueError for fewer bands than its poolings take."""
    if bands < 40:
        raise ValueError(f"crnn takes 40 bands or more, not {bands}")
    return Crnn(size, bands, options)

"""CNN14 of PANNs (Kong et al. 2020): six blocks of two 3x3 convolutions, batch norm of each band of the input.

Between blocks a mean over 2x2; at the end the mean over bands, the sum of mean and maximum over frames, and a rectified
layer whose 2,048 outputs are the published embedding. Tensors have the names of the released weights. Its dropout
(0.2 after a block, 0.5 at the end) is an option, as trained.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from soundssl.models import pooling

WIDTHS = (64, 128, 256, 512, 1024, 2048)
EMBEDDING = 2048  # numbers of the released embedding


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose whether numbers are dropped in training, and what follows the mean over 2x2, as published no more."""

    dropout: bool = True


class Block(nn.Module):
    """Apply two convolutions, each with batch norm and ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        for layer in (self.conv1, self.conv2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps. Shape: [batch, before, frames, bands] to [batch, after, frames, bands]."""
        maps = functional.relu_(self.bn1(self.conv1(maps)))
        return functional.relu_(self.bn2(self.conv2(maps)))


class Cnn14(nn.Module):
    """Apply CNN14 to decibels of mel energies."""

    def __init__(self, size: int, bands: int, options: Options) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(bands)
        before = 1
        self.pools = nn.ModuleList()
        for number, width in enumerate(WIDTHS, 1):
            self.add_module(f"conv_block{number}", Block(before, width))
            if number < len(WIDTHS):
                self.pools.append(_mean(options, width))
            before = width
        self.fc1 = nn.Linear(before, size)
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.zeros_(self.fc1.bias)
        self.dropout = options.dropout

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        maps = self.bn0(images.transpose(1, 3)).transpose(1, 3)
        for number in range(1, len(WIDTHS) + 1):
            maps = self.get_submodule(f"conv_block{number}")(maps)
            if number < len(WIDTHS):
                maps = self.pools[number - 1](maps)
            maps = functional.dropout(maps, 0.2, self.training and self.dropout)
        steps = maps.mean(3)
        vector = functional.dropout(steps.amax(2) + steps.mean(2), 0.5, self.training and self.dropout)
        vector = functional.relu_(self.fc1(vector))
        return functional.dropout(vector, 0.5, self.training and self.dropout)


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build CNN14; raise ValueError for a small window. Shape: [batch, 1, frames, bands] to [batch, size]."""
    if frames < 32 or bands < 32:
        raise ValueError(f"cnn14 takes windows of 32 frames and 32 bands or more, not {frames} and {bands}")
    return Cnn14(size, bands, options)


def _mean(options: Options, channels: int) -> nn.Module:
    """Return the mean over 2x2, or a dense one followed by what an option puts in place of every second."""
    if options.pooling == "max":
        return nn.AvgPool2d(2)
    return nn.Sequential(nn.AvgPool2d(2, 1), pooling.subsample(options, channels))

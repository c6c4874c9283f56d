"""A plain convolutional net for CPUs: pairs of 3x3 convolutions between 2x2 poolings, no shortcuts.

No paper's net; the order convolution, norm, ReLU and the concatenated mean and maximum over the map follow the
VGG-like net of Fonseca et al. 2021 ("Unsupervised contrastive learning of sound event representations"). `draft` is the
same net with a stride of 2 in its first convolution, for drafts: it is ours, too, no paper has it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 256)
GROUPS = 8  # of group norm; divides every width
STRIDES = {"plain": 1, "draft": 2}  # of the first convolution


@dataclass(frozen=True)
class Options:
    """Choose how maps are normalised: over the batch, or within each window."""

    norm: Literal["batch", "group"] = "batch"


class Plain(nn.Module):
    """Apply four pairs of convolutions with poolings between, then mean and maximum, then a linear layer."""

    def __init__(self, size: int, norm: str, stride: int):
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in WIDTHS:
            layers += [nn.MaxPool2d(2)] if layers else []
            first = 1 if layers else stride
            layers += [*_convolution(before, width, norm, first), *_convolution(width, width, norm)]
            before = width
        self.features = nn.Sequential(*layers)
        self.projection = nn.Linear(2 * before, size)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        maps = self.features(images).flatten(2)
        return self.projection(torch.cat([maps.mean(2), maps.amax(2)], dim=1))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build the plain net or its draft. Shape: [batch, 1, frames, bands] to [batch, size]."""
    return Plain(size, options.norm, STRIDES[name])


def _convolution(before: int, after: int, norm: str, stride: int = 1) -> list[nn.Module]:
    """List a 3x3 convolution without bias, its norm and its ReLU."""
    convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    layer = nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(GROUPS, after)
    return [convolution, layer, nn.ReLU(inplace=True)]

"""A plain convolutional net for CPUs: pairs of 3x3 convolutions between 2x2 poolings, no shortcuts.

No paper's net; the order convolution, norm, ReLU and the concatenated mean and maximum over the map follow the
VGG-like net of Fonseca et al. 2021 ("Unsupervised contrastive learning of sound event representations"). `draft` is the
same net with a stride of 2 in its first convolution, for drafts: it is ours, too, no paper has it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from soundssl.models import pooling
from soundssl.models.convolutions import convolution

WIDTHS = (32, 64, 128, 256)
STRIDES = {"plain": 1, "draft": 2}  # of the first convolution


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling, and how maps are normalised: over the batch, or within each window."""

    norm: Literal["batch", "group"] = "batch"


class Plain(nn.Module):
    """Apply four pairs of convolutions with poolings between, then mean and maximum, then a linear layer."""

    def __init__(self, size: int, options: Options, stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in WIDTHS:
            layers += [pooling.pool(options, before)] if layers else []
            first = 1 if layers else stride
            layers += convolution(before, width, norm=options.norm, stride=first)
            layers += convolution(width, width, norm=options.norm)
            before = width
        self.features = nn.Sequential(*layers)
        self.projection = nn.Linear(2 * before, size)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        maps = self.features(images).flatten(2)
        return self.projection(torch.cat([maps.mean(2), maps.amax(2)], dim=1))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build the plain net or its draft. Shape: [batch, 1, frames, bands] to [batch, size]."""
    return Plain(size, options, STRIDES[name])

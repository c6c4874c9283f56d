"""The sound net of Arandjelovic and Zisserman 2017 ("Look, listen and learn"), which OpenL3 took over.

The same four blocks as its net for pictures: 64, 128, 256 and 512 channels, two 3x3 convolutions with batch norm and a
2x2 max pooling each, and a last max pooling to 512 numbers, on log-mel windows of any size. Here a linear layer to the
embedding follows, where the paper goes on to its head of both nets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from soundssl.models import image


@dataclass(frozen=True)
class Options:
    """Choose how maps are normalised: over the batch, as in the paper, or within each window."""

    norm: Literal["batch", "group"] = "batch"


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build the net. Shape: [batch, 1, frames, bands] to [batch, size]."""
    return image.vgg(size, options.norm, image.VGG, channels=1)

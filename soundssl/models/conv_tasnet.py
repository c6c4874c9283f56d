"""Conv-TasNet (Luo and Mesgarani 2019), as torchaudio has it, with several tracks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundssl.dependencies import needed

TORCHAUDIO = "install the torchaudio of the same build as torch, or choose --separator tdcn"


@dataclass(frozen=True)
class Options:
    """Leave no choice beside the name, which says the size."""


def build(name: str, tracks: int, options: Options) -> ConvTasNet:
    """Build the core of a separator by its name; raise SoundsslError where torchaudio does not load."""
    return conv_tasnet_small(tracks) if name.endswith("-small") else conv_tasnet(tracks)


class ConvTasNet(nn.Module):
    """Let torchaudio's net mask its learned basis; `size` is that of the masked coefficients of all tracks together.

    The basis works in single precision whatever the rest.
    """

    def __init__(self, tracks: int, **sizes: int) -> None:
        super().__init__()
        with needed("Conv-TasNet", "torchaudio", TORCHAUDIO, ("torch",)):
            from torchaudio.models import ConvTasNet as Net
        self.net: Any = Net(num_sources=tracks, **sizes)
        self.tracks, self.hop = tracks, self.net.enc_stride
        self.size = tracks * self.net.enc_num_feats

    def shares(self, tracks: int) -> nn.Linear:
        """Return a fresh layer that predicts from the mean activations what each track gets of the rest."""
        return nn.Linear(self.size, tracks)

    def forward(self, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Return tracks and mean activations. Shape: [batch, samples] to [batch, tracks, samples] and [batch, size]."""
        samples = mixture.shape[1]
        with torch.autocast(mixture.device.type, enabled=False):
            padded = F.pad(mixture, (self.hop, self.hop + -samples % self.hop))[:, None]
            coefficients = self.net.encoder(padded)
        masks = self.net.mask_generator(coefficients)
        with torch.autocast(mixture.device.type, enabled=False):
            masked = masks.float() * coefficients[:, None]
            tracks = self.net.decoder(masked.flatten(0, 1))[:, 0, self.hop : self.hop + samples]
        return tracks.unflatten(0, (-1, self.tracks)), masked.mean(3).flatten(1)


def conv_tasnet(tracks: int) -> ConvTasNet:
    """Build the net of the paper: 512 coefficients of 1 ms, 24 blocks of width 128, 512 within."""
    return ConvTasNet(tracks)


def conv_tasnet_small(tracks: int) -> ConvTasNet:
    """Build a net for CPUs: 256 coefficients of 2.5 ms, 16 blocks of width 128, 256 within."""
    return ConvTasNet(
        tracks,
        enc_kernel_size=40,
        enc_num_feats=256,
        msk_num_feats=128,
        msk_num_hidden_feats=256,
        msk_num_layers=8,
        msk_num_stacks=2,
    )

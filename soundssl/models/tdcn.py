"""The improved TDCN++: a temporal convolutional net that masks a learned basis or a short-time Fourier transform.

Kavalerov et al. 2019 ("Universal sound separation"), with the improvements of Wisdom et al. 2020 ("Unsupervised sound
separation using mixture invariant training") as in their program. Blocks of dilated convolutions on frames, instance
norm over time, residual sums whose scale starts smaller the deeper they lie, and dense skip connections from the start
of every repeat to the starts of all later ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundssl.ops.separation import Spectrum

COEFFICIENTS, WINDOW, HOP = 256, 40, 20  # of the learned basis; window and hop in samples, 2.5 and 1.25 ms at 16 kHz
STFT_WINDOW, STFT_HOP = 512, 128  # samples, 32 and 8 ms
BLOCKS = 8  # a repeat, with dilations 1, 2, ..., 128
KERNEL = 3  # frames of a depthwise convolution
SLOPE = 0.1  # with which PReLU starts
DECAY = 0.9  # of the scale with which block b starts: 0.9^b
EPSILON = {1: 1e-5, 2: 1e-3}  # added to variances, by revision; the second is that of the authors' program
UNSTATED: dict[str, Any] = {"revision": 1, "skips": False}  # what a model file means that states no options


@dataclass(frozen=True)
class Options:
    """Choose between the net of the authors' program, revision 2, and the first of ours; with skips or without.

    Revision 1 normalises magnitudes of the STFT frame by frame, so that loudness over time is lost; it has biases on
    masks and shares, torch's initial weights and an epsilon of 1e-5. `skips` are the dense skip connections of the
    paper, which the stored default of the authors' program leaves out.
    """

    revision: Literal[1, 2] = 2
    skips: bool = True


def build(name: str, tracks: int, options: Options) -> TDCN:
    """Build the core of a separator by its name."""
    make = tdcn_small if name.endswith("-small") else tdcn
    return make(tracks, "stft" not in name, options)


class Norm(nn.Module):
    """Normalise each channel over time, with one gain and one bias for all of them."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.gain, self.bias, self.epsilon = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(())), epsilon

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise. Shape: [batch, channels, frames]."""
        return F.instance_norm(frames, eps=self.epsilon) * self.gain + self.bias


class JointNorm(Norm):
    """Normalise each example over channels and time together, so that its course over time is kept."""

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise. Shape: [batch, channels, frames]."""
        return F.layer_norm(frames, frames.shape[1:], eps=self.epsilon) * self.gain + self.bias


class FrameNorm(nn.LayerNorm):
    """Normalise every frame on its own, with a gain and a bias for each channel."""

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise. Shape: [batch, channels, frames]."""
        return super().forward(frames.transpose(1, 2)).transpose(1, 2)


class Dense(nn.Module):
    """Map the channels of every frame, with a learned scale of the output and no bias unless asked for."""

    def __init__(self, before: int, after: int, scale: float = 1.0, bias: bool = False) -> None:
        super().__init__()
        self.layer = nn.Conv1d(before, after, 1, bias=False)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.bias = nn.Parameter(torch.zeros(after, 1)) if bias else None

    def forward(self, frames: Tensor) -> Tensor:
        """Map. Shape: [batch, before, frames] to [batch, after, frames]."""
        mapped = F.conv1d(frames, self.layer.weight * self.scale)
        return mapped if self.bias is None else mapped + self.bias


class Block(nn.Module):
    """Widen, convolve each channel over time, narrow, and add to what came in."""

    def __init__(self, width: int, hidden: int, number: int, epsilon: float) -> None:
        super().__init__()
        dilation = 2 ** (number % BLOCKS)
        self.layers = nn.Sequential(
            Dense(width, hidden),
            nn.PReLU(init=SLOPE),
            Norm(epsilon),
            nn.Conv1d(hidden, hidden, KERNEL, padding=dilation, dilation=dilation, groups=hidden),
            nn.PReLU(init=SLOPE),
            Norm(epsilon),
            Dense(hidden, width, DECAY**number),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Add the block's change. Shape: [batch, width, frames]."""
        return frames + self.layers(frames)


class Learned(nn.Module):
    """A basis that is learned: 256 rectified coefficients of 2.5 ms every 1.25 ms, and the waves they stand for."""

    size = COEFFICIENTS

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, COEFFICIENTS, WINDOW, HOP, bias=False)
        self.decoder = nn.ConvTranspose1d(COEFFICIENTS, 1, WINDOW, HOP, bias=False)

    def analyse(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is masked and what the net sees. Shape: [batch, samples] to twice [batch, size, frames]."""
        padded = F.pad(waveform, (HOP, HOP + -waveform.shape[1] % HOP))[:, None]
        coefficients = self.encoder(padded).relu()
        return coefficients, coefficients

    def synthesise(self, coefficients: Tensor, samples: int) -> Tensor:
        """Sum the waves up. Shape: [n, size, frames] to [n, samples]."""
        return self.decoder(coefficients)[:, 0, HOP : HOP + samples]


class Fourier(nn.Module):
    """The short-time Fourier transform of 32 ms every 8 ms; the net sees its magnitude, normalised by `norm`."""

    size = STFT_WINDOW // 2 + 1

    def __init__(self, revision: int = 2) -> None:
        super().__init__()
        epsilon = EPSILON[revision]
        self.spectrum = Spectrum(STFT_WINDOW, STFT_HOP)
        self.norm = FrameNorm(self.size, eps=epsilon) if revision == 1 else JointNorm(epsilon)

    def analyse(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spectrum and what the net sees. Shape: [batch, samples] to twice [batch, size, frames]."""
        spectrum = self.spectrum.analyse(waveform)
        return spectrum, self.norm(spectrum.abs())

    def synthesise(self, spectrum: Tensor, samples: int) -> Tensor:
        """Transform back. Shape: [n, size, frames] to [n, samples]."""
        return self.spectrum.synthesise(spectrum, samples)


class TDCN(nn.Module):
    """Mask a basis, a mask for each track. `size` channels; the basis works in single precision whatever the rest."""

    def __init__(
        self, basis: Learned | Fourier, tracks: int, width: int, hidden: int, repeats: int, options: Options
    ) -> None:
        super().__init__()
        self.basis, self.tracks, self.size, self.revision = basis, tracks, width, options.revision
        epsilon = EPSILON[options.revision]
        self.bottleneck = Dense(basis.size, width, bias=True)
        self.blocks = nn.Sequential(*(Block(width, hidden, number, epsilon) for number in range(repeats * BLOCKS)))
        # A dense layer for every earlier start of a repeat, by the number of the repeat that it leads to.
        self.skips = nn.ModuleList(
            nn.ModuleList(Dense(width, width, bias=True) for _ in range(repeat if options.skips else 0))
            for repeat in range(repeats)
        )
        self.masks = nn.Conv1d(width, tracks * basis.size, 1, bias=options.revision == 1)
        if options.revision > 1:
            self.apply(_initialise)

    def shares(self, tracks: int) -> nn.Linear:
        """Return a fresh layer that predicts from the mean activations what each track gets of the rest."""
        layer = nn.Linear(self.size, tracks, bias=self.revision == 1)
        if self.revision > 1:
            _initialise(layer)
        return layer

    def forward(self, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Return tracks and mean activations. Shape: [batch, samples] to [batch, tracks, samples] and [batch, size]."""
        with torch.autocast(mixture.device.type, enabled=False):
            coefficients, seen = self.basis.analyse(mixture)
        frames = self._through_blocks(self.bottleneck(seen))
        masks = self.masks(frames).sigmoid().unflatten(1, (self.tracks, -1))
        with torch.autocast(mixture.device.type, enabled=False):
            masked = (masks.float() * coefficients[:, None]).flatten(0, 1)
            tracks = self.basis.synthesise(masked, mixture.shape[1])
        return tracks.unflatten(0, (-1, self.tracks)), frames.mean(2)

    def _through_blocks(self, frames: Tensor) -> Tensor:
        starts: list[Tensor] = []
        for repeat in range(len(self.skips)):
            skips: Any = self.skips[repeat]
            for start, skip in zip(starts, skips, strict=False):  # no skips, or one for every start
                frames = frames + skip(start)
            starts.append(frames)
            frames = self.blocks[repeat * BLOCKS : (repeat + 1) * BLOCKS](frames)
        return frames


def _initialise(layer: nn.Module) -> None:
    """Draw a layer's weights as Glorot and Bengio 2010, uniformly, and set its bias to zero, as the authors do."""
    if isinstance(layer, Learned):  # its convolutions are the authors' dense layers between windows and coefficients
        limit = (6 / (WINDOW + COEFFICIENTS)) ** 0.5
        for basis in (layer.encoder, layer.decoder):
            nn.init.uniform_(basis.weight, -limit, limit)
    elif isinstance(layer, (nn.Conv1d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def tdcn(tracks: int, learned: bool, options: Options = Options()) -> TDCN:
    """Build the net of the paper: 32 blocks of width 256, 512 within, on a learned basis or on the STFT."""
    return TDCN(Learned() if learned else Fourier(options.revision), tracks, 256, 512, 4, options)


def tdcn_small(tracks: int, learned: bool, options: Options = Options()) -> TDCN:
    """Build a net for CPUs: 16 blocks of half the width."""
    return TDCN(Learned() if learned else Fourier(options.revision), tracks, 128, 256, 2, options)

"""Separation of waveforms without references: mixture invariant training, consistency, scores and overlap-add.

Mixture invariant training (MixIT; Wisdom et al. 2020, "Unsupervised sound separation using mixture invariant training")
gives the network the sum of two mixtures, shares its tracks out between the two in the best way, and rewards what each
mixture gets. Energies here are sums over samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

SNR_MAX = 30.0  # dB; beyond it nothing is gained (Wisdom et al. 2020, section 3.1)
EPSILON = 1e-8  # energy added inside the logarithm, as the authors' program does
NOTHING = -80.0  # dB, the SI-SNR of an estimate in which nothing is
EXHAUSTIVE = 12  # tracks up to which every assignment is looked at: 4096 of them; above, least squares
PIECE = 2**12  # samples whose products are taken at a time
RIDGE = 1e-6  # share of the mean energy of the tracks that keeps their Gram matrix invertible


# ---------------------------------------------------------------- the loss


def negative_snr(target: Tensor, estimate: Tensor, snr_max: float = SNR_MAX) -> Tensor:
    """Compute the negative thresholded signal-to-noise ratio in dB, of all estimates of the last axis.

    -10 log10(|y|² / (|y - e|² + tau |y|²)) with tau = 10^(-snr_max / 10): its floor is -snr_max (Wisdom et al. 2020,
    equation 2). The term of |y| alone has no gradient. A silent target gives the level of the estimate over EPSILON.

    Shape: twice [..., samples] to [...], float64.
    """
    energy = _energy(target)
    return _decibel(_energy(target - estimate) + 10 ** (-snr_max / 10) * energy) - _decibel(energy)


def mixit(mixtures: Tensor, tracks: Tensor, snr_max: float = SNR_MAX) -> tuple[Tensor, Tensor]:
    """Compute the MixIT loss of each example, in dB, and the assignment of tracks to mixtures that it is taken at.

    The loss is the mean over the mixtures of their negative thresholded signal-to-noise ratios, at the best assignment;
    the gradient flows through the tracks at that one alone. Wisdom et al. 2020, equation 3.

    Shape: mixtures [batch, 2, samples] and tracks [batch, tracks, samples] to [batch], float64, and integers 0 or 1
    [batch, tracks]: the mixture of each track. Raises ValueError where they do not fit.
    """
    return _Mixit.apply(tracks, mixtures, snr_max)


class _Mixit(torch.autograd.Function):
    """Take the loss from the inner products; the waveforms are gone over once for those, and once for the gradient."""

    @staticmethod
    def forward(ctx, tracks: Tensor, mixtures: Tensor, snr_max: float):
        gram = _Gram.of(tracks, mixtures)
        assignment = _best(gram, snr_max)
        noise = torch.cat([gram.noise(n, share[:, None], snr_max) for n, share in enumerate(_shares(assignment))], 1)
        ctx.save_for_backward(tracks, mixtures, assignment, noise)
        ctx.mark_non_differentiable(assignment)
        return (_decibel(noise) - _decibel(gram.energy)).mean(1), assignment

    @staticmethod
    def backward(ctx, slope: Tensor, _):
        tracks, mixtures, assignment, noise = ctx.saved_tensors
        shares = torch.stack(_shares(assignment), 1).to(tracks.dtype)
        left = torch.baddbmm(mixtures, shares, tracks, alpha=-1)  # what each mixture lacks
        factor = (
            -10 / math.log(10) * slope[:, None] / (noise + EPSILON)
        )  # two mixtures, and the square has a slope of 2
        left *= factor.to(left.dtype)[:, :, None]
        return left[torch.arange(len(left), device=left.device)[:, None], assignment], None, None


@torch.no_grad()
def assign(mixtures: Tensor, tracks: Tensor, snr_max: float = SNR_MAX) -> Tensor:
    """Choose for each example the mixture of every track, so that the MixIT loss is least.

    All sums are products of tracks and mixtures (their Gram matrix), so the 2^tracks assignments are scored without the
    waveforms: |x - a S|² = |x|² - 2 a S x + a S S' a'. The products are accumulated in float64, since near a perfect
    separation the terms cancel. Above EXHAUSTIVE tracks the least-squares shares of both mixtures are compared instead
    (Wisdom et al. 2021, "Sparse, efficient, and semantic mixture invariant training").

    Shape and errors as for `mixit`; integers [batch, tracks].
    """
    return _best(_Gram.of(tracks, mixtures), snr_max)


class _Gram(NamedTuple):
    """Hold inner products of tracks with tracks, of mixtures with tracks, and the energies of the mixtures, in float64.

    Shape: [batch, tracks, tracks], [batch, 2, tracks], [batch, 2].
    """

    within: Tensor
    across: Tensor
    energy: Tensor

    @classmethod
    def of(cls, tracks: Tensor, mixtures: Tensor) -> _Gram:
        """Sum over pieces that stay in the cache; raise ValueError where tracks and mixtures do not fit."""
        if tracks.ndim != 3 or mixtures.shape != (len(tracks), 2, tracks.shape[-1]):
            raise ValueError(
                f"mixtures {list(mixtures.shape)} and tracks {list(tracks.shape)}: [batch, 2, samples] and [batch, "
                f"tracks, samples] are needed"
            )
        count = tracks.shape[1]
        total = tracks.new_zeros(len(tracks), count + 2, count + 2, dtype=torch.float64)
        buffer = total.new_empty(len(tracks), count + 2, min(PIECE, tracks.shape[2]))
        for track, mixture in zip(tracks.split(PIECE, 2), mixtures.split(PIECE, 2), strict=True):
            piece = buffer[:, :, : track.shape[2]]
            piece[:, :count], piece[:, count:] = track, mixture
            total.baddbmm_(piece, piece.mT)
        return cls(total[:, :count, :count], total[:, count:, :count], total[:, count:, count:].diagonal(0, 1, 2))

    def noise(self, mixture: int, share: Tensor, snr_max: float) -> Tensor:
        """Return |x - a S|² + tau |x|² of one mixture, under assignments a.

        Shape: [..., assignments, tracks] to [batch, assignments].
        """
        own = self.energy[:, mixture, None]
        inner = (share @ self.within * share).sum(2) - 2 * (self.across[:, mixture, None] * share).sum(2) + own
        return inner.clamp(min=0) + 10 ** (-snr_max / 10) * own


def _best(gram: _Gram, snr_max: float) -> Tensor:
    """Return the assignment of the least loss. Shape: [batch, tracks]."""
    count = gram.within.shape[1]
    if count > EXHAUSTIVE:
        return _least_squares(gram.within, gram.across)
    choices = assignments(count, gram.within.device)
    noise = [_decibel(gram.noise(n, share, snr_max)) for n, share in enumerate(_shares(choices))]
    return choices[torch.stack(noise).sum(0).argmin(1)].long()


def _shares(second: Tensor) -> tuple[Tensor, Tensor]:
    """Return what of every track goes to the first mixture, and what to the second."""
    second = second.double()
    return 1 - second, second


def assignments(count: int, device: torch.device | None = None) -> Tensor:
    """List all ways to share tracks out between two mixtures. Shape: [2^count, count], float64 zeros and ones.

    >>> assignments(2).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    numbers = torch.arange(1 << count, device=device)[:, None]
    return (numbers >> torch.arange(count, device=device) & 1).double()


def _least_squares(within: Tensor, across: Tensor) -> Tensor:
    """Give each track to the mixture that draws the larger share of it. Shape: [batch, tracks]."""
    count = within.shape[1]
    ridge = RIDGE * within.diagonal(dim1=1, dim2=2).mean(1).clamp(min=EPSILON)
    stable = within + ridge[:, None, None] * torch.eye(count, dtype=within.dtype, device=within.device)
    # The ridge keeps it invertible; `solve`, which looks whether it is, would wait for the device.
    return torch.linalg.solve_ex(stable, across.transpose(1, 2)).result.argmax(2)


def _energy(signal: Tensor) -> Tensor:
    return signal.square().sum(-1, dtype=torch.float64)


def _decibel(energy: Tensor) -> Tensor:
    return 10 * torch.log10(energy + EPSILON)


# ---------------------------------------------------------------- consistency


def energy_shares(tracks: Tensor) -> Tensor:
    """Return the share of each track in the energy of all. Shape: [batch, tracks, samples] to [batch, tracks]."""
    energy = tracks.square().sum(2) + EPSILON
    return energy / energy.sum(1, keepdim=True)


def make_consistent(mixture: Tensor, tracks: Tensor, weights: Tensor) -> Tensor:
    """Share out what the tracks lack of their mixture, so that they sum to it.

    s_m + w_m (x - sum s), with weights that sum to one: the projection of Wisdom et al. 2019 ("Differentiable
    consistency constraints for improved deep speech enhancement"), section 3.

    Shape: mixture [batch, samples], tracks [batch, tracks, samples], weights [batch, tracks] to tracks.
    """
    return tracks + weights[:, :, None] * (mixture - tracks.sum(1))[:, None]


# ---------------------------------------------------------------- a basis


class Spectrum:
    """Short-time Fourier transform and back, with the square root of a periodic Hann window on both sides.

    `window` and `hop` in samples; the hop divides the window at least twice, so that the way back is exact.
    """

    def __init__(self, window: int, hop: int) -> None:
        self.window, self.hop, self.bins = window, hop, window // 2 + 1

    def analyse(self, waveform: Tensor) -> Tensor:
        """Transform. Shape: [batch, samples] to [batch, bins, frames], complex."""
        return torch.stft(
            waveform, self.window, self.hop, window=self._hann(waveform), pad_mode="constant", return_complex=True
        )

    def synthesise(self, spectrum: Tensor, samples: int) -> Tensor:
        """Transform back to a number of samples. Shape: [batch, bins, frames] to [batch, samples].

        As `torch.istft`, which looks whether the windows leave a gap and so waits for the device.
        """
        hann = self._hann(spectrum.real)[:, None]
        waves = torch.fft.irfft(spectrum, self.window, dim=1) * hann
        weight = hann.square().expand(1, -1, spectrum.shape[2])
        kept = slice(self.window // 2, self.window // 2 + samples)
        return self._overlapped(waves)[:, kept] / self._overlapped(weight)[:, kept]

    def _overlapped(self, waves: Tensor) -> Tensor:
        """Sum waves, each a hop later than the one before. Shape: [n, window, frames] to [n, samples]."""
        length = self.window + self.hop * (waves.shape[2] - 1)
        return F.fold(waves, (1, length), (1, self.window), stride=(1, self.hop))[:, 0, 0]

    def _hann(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.window, dtype=like.dtype, device=like.device).sqrt()


# ---------------------------------------------------------------- scores


def si_snr(target: Tensor, estimate: Tensor) -> Tensor:
    """Compute the scale-invariant signal-to-noise ratio in dB: that of the estimate's part along the target.

    Le Roux et al. 2019 ("SDR: half-baked or well done?"), without removal of the mean. A silent estimate gets NOTHING.
    Shape: twice [..., samples], which may broadcast, to [...], float64.
    """
    target, estimate = target.double(), estimate.double()
    along = (target * estimate).sum(-1)
    energy, whole = _energy(target), _energy(estimate)
    return _ratio(along, whole, energy)


def _ratio(along: Tensor, whole: Tensor, energy: Tensor) -> Tensor:
    """Return the SI-SNR from the product of estimate and target, and the energies of both."""
    signal = along.square() / (energy + EPSILON)
    ratio = _decibel(signal) - _decibel((whole - signal).clamp(min=0))
    return torch.where(whole > 0, ratio, NOTHING)


def assigned_si_snr(sources: Tensor, tracks: Tensor) -> Tensor:
    """Compute the SI-SNR in dB of two sources, each estimated by a sum of tracks, at the best of all assignments.

    The best is that of the highest mean over both; every track goes to one of them. As in `assign`, sums are products
    of tracks and sources; above EXHAUSTIVE tracks the assignment is that of `assign`.

    Shape: sources [batch, 2, samples] and tracks [batch, tracks, samples] to [batch, 2], float64.
    """
    sources, tracks = sources.double(), tracks.double()
    count = tracks.shape[1]
    within, across, energy = tracks @ tracks.mT, sources @ tracks.mT, _energy(sources)
    second = (
        assign(sources, tracks).double()[:, None] if count > EXHAUSTIVE else assignments(count, tracks.device)[None]
    )
    found = []
    for number, share in enumerate((1 - second, second)):  # [batch or 1, assignments, tracks]
        along = (share * across[:, number, None]).sum(2)
        whole = ((share @ within) * share).sum(2).clamp(min=0)
        found.append(_ratio(along, whole, energy[:, number, None]))
    values = torch.stack(found, 1)  # [batch, 2, assignments]
    return values.gather(2, values.mean(1).argmax(1)[:, None, None].expand(-1, 2, 1))[:, :, 0]


# ---------------------------------------------------------------- long recordings


def overlap_add(
    blocks: Iterable[np.ndarray], separate: Callable[[np.ndarray], np.ndarray], length: int, overlap: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Separate a recording of any length by segments, and yield what is finished of it: mixture and tracks.

    Segments of `length` samples overlap by `overlap` at least; the last one ends with the recording. The network
    numbers its tracks afresh in each segment, so they are put into the order that agrees best with the segment before
    (by their inner products where both overlap), and faded over into each other along a line: where the tracks of
    every segment sum to the mixture, so does the result. Memory is that of a few segments.

    Shape: blocks [samples] each; `separate` maps [samples] to [tracks, samples]; yields [n] and [tracks, n].
    Raises ValueError where the segments cannot overlap so.
    """
    yield from overlap_add_at(blocks, lambda segment, start: separate(segment), length, overlap)


def overlap_add_at(
    blocks: Iterable[np.ndarray], separate: Callable[[np.ndarray, int], np.ndarray], length: int, overlap: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Do as `overlap_add`, and tell `separate` the first sample of each segment too.

    What it returns may have an axis more, [tracks, kinds, samples]: tracks are ordered by the first kind, and the
    others follow. Yields [n] and [tracks, kinds, n] then.
    """
    if not 0 < overlap <= length // 2:
        raise ValueError(f"segments of {length} samples cannot overlap by {overlap}; 1 to {length // 2} can")
    held: tuple[int, np.ndarray, np.ndarray] | None = None  # first sample, mixture and tracks of the segment before
    for start, segment in _segments(blocks, length, length - overlap):
        tracks = separate(segment, start)
        if held is not None:
            begin, before, earlier = held
            yield before[: start - begin], earlier[..., : start - begin]
            tracks = _joined(earlier[..., start - begin :], tracks)
        held = start, segment, tracks
    if held is not None:
        yield held[1], held[2]


def _segments(blocks: Iterable[np.ndarray], length: int, step: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first sample, segment), `step` apart; the last one ends with the recording, as long as the others."""
    waiting, start = np.empty(0, np.float32), 0
    for block in blocks:
        waiting = np.concatenate([waiting, np.asarray(block, np.float32)])
        while len(waiting) >= length + step:
            yield start, waiting[:length]
            waiting, start = waiting[step:], start + step
    if len(waiting) > length:
        yield start, waiting[:length]
        waiting, start = waiting[-length:], start + len(waiting) - length
    if len(waiting):
        yield start, waiting


def _joined(before: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """Return tracks in the order of those before, faded in over the overlap."""
    overlap = before.shape[-1]
    earlier, now = (each if each.ndim == 2 else each[:, 0] for each in (before, tracks))
    _, order = linear_sum_assignment(earlier @ now[:, :overlap].T, maximize=True)
    tracks = tracks[order].copy()
    rising = (np.arange(overlap, dtype=np.float32) + 0.5) / overlap
    tracks[..., :overlap] = before * (1 - rising) + tracks[..., :overlap] * rising
    return tracks

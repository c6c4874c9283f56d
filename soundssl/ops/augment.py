"""Augmentations of log-mel windows: they keep what is heard (Jansen et al. 2018, section 2.2; Fonseca et al. 2021).

The first act on what is under the logarithm, log-mel = log(cell + floor), and take the logarithm last; every parameter
is a tensor with one value an example. Where energies are added, cells that are magnitudes are squared before and rooted
after. The others act on the logarithms and draw what they do from each example's own generator. So the outcome for an
example never depends on its batch.

Shape: windows are [batch, frames, bands] throughout.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from soundssl.ops.checks import may_read
from soundssl.ops.generators import PerExampleGenerator, half_normal
from soundssl.ops.spectrogram import DECIBELS

FLOOR = 0.01  # added to the cells before the logarithm, as VGGish
# Natural units in one of the features' logarithm.
LOGARITHM = {"natural": 1.0, "10": math.log(10), DECIBELS: math.log(10) / 10}


@dataclass(frozen=True)
class LogScale:
    """Say how log-mel values write energies: log(cell + floor), a cell being an energy or the root of one.

    `logarithm` is natural or 10, `spectrum` magnitude or power; the defaults are VGGish's. Take spectrum power to let
    cells count as energies, whatever they are.
    """

    floor: float = FLOOR
    logarithm: str = "natural"
    spectrum: str = "magnitude"

    def cells(self, windows: Tensor) -> Tensor:
        """Undo the logarithm: what was under it, without the floor, at least 0."""
        return (windows.float() * LOGARITHM[self.logarithm]).exp_().sub_(self.floor).clamp_(min=0)

    def windows(self, cells: Tensor) -> Tensor:
        """Take the logarithm of cells, which are overwritten."""
        return cells.add_(self.floor).log_().div_(LOGARITHM[self.logarithm])

    def energies(self, windows: Tensor) -> Tensor:
        """Return the energy of each cell.

        >>> LogScale(floor=0.0).energies(torch.tensor([[[3.0]]]).log())
        tensor([[[9.]]])
        """
        cells = self.cells(windows)
        return cells.square_() if self.spectrum == "magnitude" else cells

    def of_energies(self, energies: Tensor) -> Tensor:
        """Return the log-mel values that have these energies, which are overwritten."""
        return self.windows(energies.sqrt_() if self.spectrum == "magnitude" else energies)


VGGISH = LogScale()


def add_noise(windows: Tensor, deviation: Tensor, seeds: Tensor, scale: LogScale = VGGISH) -> Tensor:
    """Multiply each cell by 1 + |e|, with e normal of the given deviation, drawn from the example's own seed.

    Energy is only ever added. Jansen et al. 2018 find deviation 0.5 best. Shape: `deviation` and `seeds` (integers)
    are [batch]. The same seed gives the same noise whatever else is in the batch.

    >>> add_noise(torch.zeros(1, 2, 2), torch.tensor([0.0]), torch.tensor([7])).abs().max() < 1e-6
    tensor(True)
    """
    _check(windows, deviation=deviation, seeds=seeds)
    _refuse_negative("the noise's deviation", deviation)
    frames, bands = windows.shape[1:]
    factors = half_normal(seeds, frames * bands).view_as(windows).mul_(deviation.view(-1, 1, 1)).add_(1)
    return scale.windows(factors.mul_(scale.cells(windows)))


def translate(windows: Tensor, time_shift: Tensor, band_shift: Tensor, scale: LogScale = VGGISH) -> Tensor:
    """Shift in time circularly and in frequency with zero energy entering at the edge.

    What was at frame t and band f is then at frame (t + time_shift) modulo `frames` and at band f + band_shift. Shape:
    both shifts are integers [batch]. Jansen et al. 2018 draw the time shift from all frames and the band shift from
    -10..10.
    """
    _check(windows, time_shift=time_shift, band_shift=band_shift)
    batch, frames, bands = windows.shape
    device = windows.device
    frame = (torch.arange(frames, device=device) - time_shift[:, None]) % frames
    band = torch.arange(bands, device=device) - band_shift[:, None]
    rows = (frame + frames * torch.arange(batch, device=device)[:, None]).flatten()
    shifted = windows.reshape(batch * frames, bands).index_select(0, rows).view_as(windows)
    source = band.clamp(0, bands - 1)[:, None].expand(batch, frames, bands)
    outside = ((band < 0) | (band >= bands))[:, None]
    nothing = math.log(scale.floor) / LOGARITHM[scale.logarithm]
    return shifted.gather(2, source).masked_fill_(outside, nothing)


def mix(windows: Tensor, others: Tensor, gain: Tensor, scale: LogScale = VGGISH) -> Tensor:
    """Add other windows so that the added energy is `gain` times that of the window.

    p = a + gain (E(a) / E(n)) n in energies, with E the sum of all cells (Jansen et al. 2018, best gain 0.25). A gain
    of 0 and an other without energy leave the window as it is. Shape: `others` as `windows`, `gain` [batch].
    """
    _check(windows, gain=gain)
    if others.shape != windows.shape:
        raise ValueError(f"windows have shape {list(windows.shape)}, the others {list(others.shape)}")
    _refuse_negative("the gain", gain)
    kept, added = scale.energies(windows), scale.energies(others)
    total, other_total = kept.sum((1, 2)), added.sum((1, 2))
    audible = other_total > 0
    ratio = torch.where(audible, gain * total / other_total.where(audible, torch.ones_like(other_total)), 0.0)
    mixed = scale.of_energies(added.mul_(ratio[:, None, None]).add_(kept))
    return torch.where((ratio > 0)[:, None, None], mixed, windows)


def amplify(windows: Tensor, gain: Tensor, scale: LogScale = VGGISH) -> Tensor:
    """Multiply all energies of a window by its gain (1 leaves it as it is). Shape: `gain` [batch]."""
    _check(windows, gain=gain)
    _refuse_negative("the gain", gain)
    return scale.of_energies(scale.energies(windows).mul_(gain[:, None, None]))


def mix_back(windows: Tensor, others: Tensor, share: Tensor, adjust: bool = True, scale: LogScale = VGGISH) -> Tensor:
    """Put another sound into the background: p = (1 - share) a + share (E(a) / E(n)) n, with E the sum of all cells.

    All of them energies: at a share of 0.05 the background lies 13 dB below the window, whatever the front end.

    The energy stays that of the window, however loud the other is (Fonseca et al. 2021, "Unsupervised contrastive
    learning of sound event representations", mix-back). Without `adjust` the ratio of energies is left out: what a loud
    other adds then depends on its level. A share of 0, and with `adjust` an other without energy, leave the window as
    it is. Shape: `others` as `windows`, `share` [batch] in 0..1.
    """
    _check(windows, share=share)
    if others.shape != windows.shape:
        raise ValueError(f"windows have shape {list(windows.shape)}, the others {list(others.shape)}")
    if may_read(share) and ((share < 0) | (share > 1)).any():
        raise ValueError(f"a share is {float(share.min())} … {float(share.max())}; it lies between 0 and 1")
    kept, added = scale.energies(windows), scale.energies(others)
    ratio, changed = share, share > 0
    if adjust:
        total, other_total = kept.sum((1, 2)), added.sum((1, 2))
        changed = changed & (other_total > 0)
        ratio = share * total / other_total.where(changed, torch.ones_like(other_total))
    mixed = scale.of_energies(kept.mul_(1 - share[:, None, None]).add_(added.mul_(ratio[:, None, None])))
    return torch.where(changed[:, None, None], mixed, windows)


# ---------------------------------------------------------------- log-mel windows as pictures
#
# These of Fonseca et al. 2021 act on the logarithm itself. What happens to an example is drawn from its own generator;
# the ranges are those of the published code unless inferred, and each function leaves windows alone at its zero.


def resized_crop(windows: Tensor, generator: PerExampleGenerator, area: float = 0.8, aspect: float = 4 / 3) -> Tensor:
    """Crop a part of the area, its share from U(area, 1), and stretch it to the whole window, bilinearly.

    The crop's aspect ratio is log-uniform between 1 / aspect and aspect. It is relative to that of the window
    (inferred): the paper's windows are nearly square, and others would have few crops. Where ten tries do not fit the
    window stays whole, as the centre crop of the published code then is. Zero: area and aspect 1.
    """
    _check(windows)
    if not (0 < area <= 1 <= aspect):
        raise ValueError(f"area is {area}, which must lie in 0..1, and aspect {aspect}, which must be 1 or more")
    frames, bands = windows.shape[1:]
    share = generator.uniform(area, 1.0, TRIES)
    ratio = generator.uniform(-math.log(aspect), math.log(aspect), TRIES).exp()
    height, width = (frames * (share * ratio).sqrt()).round(), (bands * (share / ratio).sqrt()).round()
    fits = (height >= 1) & (height <= frames) & (width >= 1) & (width <= bands)
    first = fits.float().argmax(1, keepdim=True)
    fitting = fits.any(1)
    high = height.gather(1, first)[:, 0].where(fitting, torch.full_like(share[:, 0], frames))
    wide = width.gather(1, first)[:, 0].where(fitting, torch.full_like(share[:, 0], bands))
    top = (generator.uniform(0, 1) * (frames - high + 1)).floor()
    left = (generator.uniform(0, 1) * (bands - wide + 1)).floor()
    return _stretch(_stretch(windows, top, high, 1), left, wide, 2)


TRIES = 10  # crops drawn for one that fits, as the published code


def _stretch(windows: Tensor, start: Tensor, length: Tensor, axis: int) -> Tensor:
    """Interpolate `length` cells of an axis, from `start` on, to its whole extent; cells are areas, not points."""
    cells = windows.shape[axis]
    place = (torch.arange(cells, device=windows.device) + 0.5) * (length[:, None] / cells) - 0.5
    place = torch.minimum(place.clamp(min=0), length[:, None] - 1) + start[:, None]
    below = place.floor().long().clamp(0, cells - 1)
    weight = (place - below).unsqueeze(3 - axis)
    lower, upper = _taken(windows, below, axis), _taken(windows, (below + 1).clamp(max=cells - 1), axis)
    return lower + weight * (upper - lower)


def _taken(windows: Tensor, source: Tensor, axis: int) -> Tensor:
    """Return windows whose cell i along an axis is their cell source[:, i]."""
    if axis == 2:
        return windows.gather(2, source[:, None].expand_as(windows))
    batch, frames, bands = windows.shape
    rows = source + frames * torch.arange(batch, device=windows.device)[:, None]  # whole rows: copied, not picked
    return windows.reshape(batch * frames, bands).index_select(0, rows.flatten()).view_as(windows)


def compress(windows: Tensor, generator: PerExampleGenerator, least: float = 0.75) -> Tensor:
    """Multiply a window, its logarithms as they are, by u from U(least, 1). Zero: least 1."""
    _check(windows)
    if not 0 <= least <= 1:
        raise ValueError(f"least is {least}; it lies between 0 and 1")
    return windows * generator.uniform(least, 1.0)[:, None, None]


def add_gaussian(windows: Tensor, generator: PerExampleGenerator, deviation: float = 0.01) -> Tensor:
    """Add normal noise to the logarithms, its deviation from U(0, deviation) for each window. Zero: deviation 0."""
    _check(windows)
    if deviation < 0:
        raise ValueError(f"the noise's deviation is {deviation}; it must not be negative")
    size = generator.uniform(0, deviation)
    return generator.normal(windows[0].numel()).mul_(size[:, None]).view_as(windows).add_(windows)


def mask(windows: Tensor, generator: PerExampleGenerator, frames: int = 20, bands: int = 20, count: int = 2) -> Tensor:
    """Fill `count` stripes of frames and as many of bands with the window's least value.

    SpecAugment (Park et al. 2019), with the values of Fonseca et al. 2021. Widths are uniform over 0 … frames - 1, or
    bands - 1. Zero: count 0.
    """
    _check(windows)
    if frames < 1 or bands < 1 or count < 0 or frames - 1 > windows.shape[1] or bands - 1 > windows.shape[2]:
        raise ValueError(
            f"{count} masks of widths below {frames} frames and {bands} bands do not fit windows of "
            f"{windows.shape[1]} frames x {windows.shape[2]} bands"
        )
    hidden = torch.zeros(len(windows), 1, 1, dtype=torch.bool, device=windows.device)
    for axis, widest in ((1, frames), (2, bands)) * count:
        cells, shape = windows.shape[axis], (-1, 1, 1)
        width = generator.integers(0, widest - 1)
        start = (generator.uniform(0, 1) * (cells - width + 1)).floor().long()
        cell = torch.arange(cells, device=windows.device).view((1, -1, 1) if axis == 1 else (1, 1, -1))
        hidden = hidden | ((cell >= start.view(shape)) & (cell < (start + width).view(shape)))
    return torch.where(hidden, windows.amin((1, 2), keepdim=True), windows)


def roll_frames(windows: Tensor, generator: PerExampleGenerator, most: int = 29) -> Tensor:
    """Turn a window in time, circularly, by 1 to `most` frames. Zero: most 0."""
    return _rolled(windows, generator, most, 1)


def roll_bands(windows: Tensor, generator: PerExampleGenerator, most: int = 9) -> Tensor:
    """Turn a window upwards in frequency, circularly, by 1 to `most` bands. Zero: most 0."""
    return _rolled(windows, generator, most, 2)


def _rolled(windows: Tensor, generator: PerExampleGenerator, most: int, axis: int) -> Tensor:
    _check(windows)
    if most < 0:
        raise ValueError(f"the largest shift is {most}; it must not be negative")
    cells = windows.shape[axis]
    shift = generator.integers(min(1, most), most)
    return _taken(windows, (torch.arange(cells, device=windows.device) - shift[:, None]) % cells, axis)


def reverse(windows: Tensor, generator: PerExampleGenerator, share: float = 0.5) -> Tensor:
    """Turn this share of windows round in time (the share is inferred). Zero: share 0."""
    _check(windows)
    if not 0 <= share <= 1:
        raise ValueError(f"the share turned round is {share}; it lies between 0 and 1")
    return torch.where((generator.uniform(0, 1) < share)[:, None, None], windows.flip(1), windows)


def blur(windows: Tensor, generator: PerExampleGenerator, deviation: float = 1.0) -> Tensor:
    """Smooth a window by a Gaussian in time and frequency, its deviation from U(0, deviation) cells (inferred).

    Weights reach three times the largest deviation and sum to one; edges are repeated. Zero: deviation 0.
    """
    _check(windows)
    if not 0 <= deviation <= 10:
        raise ValueError(f"the blur's deviation is {deviation} cells; it lies between 0 and 10")
    size = generator.uniform(0, deviation).clamp(min=1e-3)
    reach = math.ceil(3 * deviation)
    place = torch.arange(-reach, reach + 1, device=windows.device)
    weight = (-0.5 * (place / size[:, None]).square()).exp()
    weight = weight / weight.sum(1, keepdim=True)
    for axis in (1, 2):
        cells = windows.shape[axis]
        padded = F.pad(windows, (0, 0, reach, reach) if axis == 1 else (reach, reach), "replicate")
        windows = torch.zeros_like(windows)
        for step, part in enumerate(weight.T):
            windows.addcmul_(padded.narrow(axis, step, cells), part[:, None, None])
    return windows


def _check(windows: Tensor, **parameters: Tensor) -> None:
    """Refuse windows that are not [batch, frames, bands] and parameters that are not [batch]."""
    if windows.ndim != 3:
        raise ValueError(f"windows have shape {list(windows.shape)}; [batch, frames, bands] is needed")
    for name, value in parameters.items():
        if value.shape != windows.shape[:1]:
            raise ValueError(f"{name} has shape {list(value.shape)}; one value a window is needed, [{len(windows)}]")


def _refuse_negative(name: str, values: Tensor) -> None:
    """Refuse values below zero, where they may be read."""
    if may_read(values) and (values < 0).any():
        raise ValueError(f"{name} is {float(values.min())}; it must not be negative")

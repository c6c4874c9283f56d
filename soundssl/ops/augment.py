"""Changes of log-mel windows that keep what is heard (Jansen et al. 2018, section 2.2).

All act on the energies under the logarithm, log-mel = log(energy + floor), and take the logarithm last. Every
parameter is a tensor with one value an example, so the outcome for an example never depends on its batch.

Shape: windows are [batch, frames, bands] throughout.
"""

import math

import torch
from torch import Tensor

FLOOR = 0.01  # added to the energies before the logarithm, as VGGish


def energies(windows: Tensor, floor: float = FLOOR) -> Tensor:
    """Undo the logarithm: exp(log-mel) - floor, at least 0."""
    return windows.float().exp().sub_(floor).clamp_(min=0)


def add_noise(windows: Tensor, deviation: Tensor, seeds: Tensor, floor: float = FLOOR) -> Tensor:
    """Multiply each energy by 1 + |e|, with e normal of the given deviation, drawn from the example's own seed.

    Energy is only ever added. Jansen et al. 2018 find deviation 0.5 best. Shape: `deviation` and `seeds` (integers)
    are [batch]. The same seed gives the same noise whatever else is in the batch.

    >>> add_noise(torch.zeros(1, 2, 2), torch.tensor([0.0]), torch.tensor([7])).abs().max() < 1e-6
    tensor(True)
    """
    _check(windows, deviation=deviation, seeds=seeds)
    if (deviation < 0).any():
        raise ValueError(f"the noise's deviation is {float(deviation.min())}; it must not be negative")
    frames, bands = windows.shape[1:]
    factors = half_normal(seeds, frames * bands).view_as(windows).mul_(deviation.view(-1, 1, 1)).add_(1)
    return factors.mul_(energies(windows, floor)).add_(floor).log_()


def translate(windows: Tensor, time_shift: Tensor, band_shift: Tensor, floor: float = FLOOR) -> Tensor:
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
    return shifted.gather(2, source).masked_fill_(outside, math.log(floor))


def mix(windows: Tensor, others: Tensor, gain: Tensor, floor: float = FLOOR) -> Tensor:
    """Add other windows so that the added energy is `gain` times that of the window.

    p = a + gain (E(a) / E(n)) n, with E the sum of all cells (Jansen et al. 2018, best gain 0.25). A gain of 0 and
    an other without energy leave the window as it is. Shape: `others` as `windows`, `gain` [batch].
    """
    _check(windows, gain=gain)
    if others.shape != windows.shape:
        raise ValueError(f"windows have shape {list(windows.shape)}, the others {list(others.shape)}")
    if (gain < 0).any():
        raise ValueError(f"the gain is {float(gain.min())}; it must not be negative")
    kept, added = energies(windows, floor), energies(others, floor)
    total, other_total = kept.sum((1, 2)), added.sum((1, 2))
    audible = other_total > 0
    ratio = torch.where(audible, gain * total / other_total.where(audible, torch.ones_like(other_total)), 0.0)
    mixed = added.mul_(ratio[:, None, None]).add_(kept).add_(floor).log_()
    return torch.where((ratio > 0)[:, None, None], mixed, windows)


def scale(windows: Tensor, gain: Tensor, floor: float = FLOOR) -> Tensor:
    """Multiply all energies of a window by its gain (1 leaves it as it is). Shape: `gain` [batch]."""
    _check(windows, gain=gain)
    if (gain < 0).any():
        raise ValueError(f"the gain is {float(gain.min())}; it must not be negative")
    return energies(windows, floor).mul_(gain[:, None, None]).add_(floor).log_()


# ---------------------------------------------------------------- numbers by seed

_SPREAD = -1640531527  # 2³² over the golden ratio, as a signed integer: spreads neighbouring cells
_FIRST, _SECOND = 2146121005, -2073254261  # multipliers of the 32-bit mixing function lowbias32 (Wellons 2018)
_CHUNK = 32  # examples at a time: the intermediate integers then stay in a core's cache


def half_normal(seeds: Tensor, count: int) -> Tensor:
    """Draw absolute values of standard normals by counting: value c of a row depends on its seed and on c alone.

    A hash of (seed, c) gives 23 bits of a uniform variable, the inverse error function makes them normal. Unlike a
    generator's state this is the same on every device and in every batch. Shape: integers [batch] to [batch, count].
    """
    cells = torch.arange(count, device=seeds.device, dtype=torch.int32) * _SPREAD
    low, high = _keys(seeds.long())
    values = torch.empty(len(seeds), count, device=seeds.device)
    for start in range(0, len(seeds), _CHUNK):
        part = slice(start, start + _CHUNK)
        bits = _fold(cells + low[part, None], 16).mul_(_FIRST).bitwise_xor_(high[part, None])
        bits = _fold(bits, 15).mul_(_SECOND).bitwise_right_shift_(9).bitwise_and_(0x7FFFFF)
        torch.erfinv(bits.float().add_(0.5).mul_(2.0**-23), out=values[part])
    return values.mul_(math.sqrt(2))


def _keys(seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Make two 32-bit keys of 64-bit seeds: one is where a row starts counting, the other enters between rounds."""
    lower, upper = ((((half & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000).int() for half in (seeds, seeds >> 32))
    low = _mixed(_mixed(lower + _SPREAD) ^ upper)  # the sum keeps seed 0 from mixing to 0
    return low, _mixed(low * _SPREAD ^ _mixed(upper ^ lower))


def _mixed(integers: Tensor) -> Tensor:
    """Apply lowbias32, a bijection of 32-bit integers; products wrap."""
    return _fold(_fold(_fold(integers.clone(), 16).mul_(_FIRST), 15).mul_(_SECOND), 16)


def _fold(integers: Tensor, bits: int) -> Tensor:
    """Combine integers in place with themselves shifted right; the mask makes the shift of negative ones logical."""
    return integers.bitwise_xor_((integers >> bits).bitwise_and_((1 << (32 - bits)) - 1))


def _check(windows: Tensor, **parameters: Tensor) -> None:
    """Refuse windows that are not [batch, frames, bands] and parameters that are not [batch]."""
    if windows.ndim != 3:
        raise ValueError(f"windows have shape {list(windows.shape)}; [batch, frames, bands] is needed")
    for name, value in parameters.items():
        if value.shape != windows.shape[:1]:
            raise ValueError(f"{name} has shape {list(value.shape)}; one value a window is needed, [{len(windows)}]")

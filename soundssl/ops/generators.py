"""Random numbers per example: what is drawn depends on its seed alone, on every device and in every batch.

The generator is counter-based: value c of a row is a hash of the row's seed and c. Unlike a generator with a state it
gives an example the same numbers whatever else is in the batch, however the batch is spread over processes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SPREAD = -1640531527  # 2³² over the golden ratio, as a signed integer: spreads neighbouring cells
_FIRST, _SECOND = 2146121005, -2073254261  # multipliers of the 32-bit mixing function lowbias32 (Wellons 2018)
_CHUNK = 32  # examples at a time on a CPU: the intermediate integers then stay in a core's cache


class PerExampleGenerator:
    """Draw numbers for the examples of a batch, each from its own seed; every draw counts on.

    Shape: `seeds` integers [batch]. `fork` gives each use of the same seeds a generator of its own.

    >>> together, alone = PerExampleGenerator(torch.tensor([7, 8])), PerExampleGenerator(torch.tensor([8]))
    >>> torch.equal(together.uniform(0, 1)[1:], alone.uniform(0, 1))
    True
    """

    def __init__(self, seeds: Tensor) -> None:
        self.seeds, self.drawn = seeds.long(), 0

    def fork(self, number: int) -> PerExampleGenerator:
        """Return a generator that has nothing to do with this one, nor with that of another number."""
        low, high = _keys(self.seeds + (number + 1) * _SPREAD * 2**20)  # far from the seeds that drawing counts through
        return PerExampleGenerator((low.long() << 32) ^ (high.long() & 0xFFFFFFFF))

    def uniform(self, low: float, high: float, count: int | None = None) -> Tensor:
        """Draw from the open interval. Shape: [batch], or [batch, count]."""
        values = uniform(self._next(), count or 1).mul_(high - low).add_(low)
        return values if count else values[:, 0]

    def integers(self, low: int, high: int) -> Tensor:
        """Draw integers from low to high, both included. Shape: int64 [batch]."""
        return (self.uniform(0, high - low + 1).floor().long() + low).clamp(low, high)

    def normal(self, count: int) -> Tensor:
        """Draw standard normals. Shape: [batch, count]."""
        values = uniform(self._next(), count).mul_(2).sub_(1)
        return torch.erfinv(values, out=values).mul_(math.sqrt(2))

    def _next(self) -> Tensor:
        self.drawn += 1
        return self.seeds + self.drawn * _SPREAD


def uniform(seeds: Tensor, count: int) -> Tensor:
    """Draw from the open unit interval by counting: a hash of (seed, c) gives 23 bits.

    Shape: integers [batch] to [batch, count].
    """
    cells = torch.arange(count, device=seeds.device, dtype=torch.int32) * _SPREAD
    low, high = _keys(seeds.long())
    values = torch.empty(len(seeds), count, device=seeds.device)
    size = _CHUNK if seeds.device.type == "cpu" else max(1, len(seeds))
    for start in range(0, len(seeds), size):
        part = slice(start, start + size)
        bits = _fold(cells + low[part, None], 16).mul_(_FIRST).bitwise_xor_(high[part, None])
        bits = _fold(bits, 15).mul_(_SECOND).bitwise_right_shift_(9).bitwise_and_(0x7FFFFF)
        torch.add(bits, 0.5, out=values[part]).mul_(2.0**-23)
    return values


def half_normal(seeds: Tensor, count: int) -> Tensor:
    """Draw absolute values of standard normals: the inverse error function of uniform ones.

    Shape: integers [batch] to [batch, count].
    """
    values = uniform(seeds, count)
    return torch.erfinv(values, out=values).mul_(math.sqrt(2))


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

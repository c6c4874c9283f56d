"""Entropies of a softmax over many clusters, streamed over chunks of them: nothing of size batch x clusters is held.

The clustering loss of Jansen et al. 2020 ("Coincidence, categorization, and consolidation", section 3.2): with logits
l_ik = scale * cos(z_i, w_k), p_i = softmax(l_i) and q = mean_i p_i, it is L = mean_i H(p_i) - gamma * H(q). With
gamma = 1 it is minus the mutual information of example and cluster (Krause et al. 2010). For a row whose greatest logit
is m_i, let x = l - m, s_i = sum_k exp(x_ik), E_i = sum_k p_ik x_ik, a_k = log q_k and A_i = sum_k p_ik a_k. Then

    H(p_i) = log s_i - E_i,    dL/dl_ik = p_ik / B * (E_i - x_ik + gamma * (a_k - A_i)).

Three passes over the clusters: m and s, then q, A and E, then the gradients. The maximum must be that of the row
itself: with one shift for all rows, E - x would be the difference of two large numbers. For the sum of powers alone any
shift is as good while the powers are normal numbers: they are all positive, and nothing cancels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

CACHE = 2**21  # bytes that the two tiles of a chunk may take on a CPU: level-2 cache of one core
WIDER = 4  # times as many clusters a chunk in bfloat16: rounding the embeddings again for each costs more than cache
CARD = 2**28  # the same on a GPU, where a chunk is one wave of work and the cache does not matter
PIECE = 2**17  # logits of a chunk that all passes but products go over together: half a megabyte, and as much of powers
LOWEST = -75.0  # least logit below the greatest of its row: subnormal exponentials are about fifty times slower
MARGIN = 14.0  # of the greatest logarithm, which sums of powers may reach: for the rounding of logits
SHORTEST = 1e-12  # length below which a vector counts as zero

Multiply = Callable[[Tensor, Tensor, Tensor], Tensor]


class Ranks(Protocol):
    """What processes that share the clusters among them need of one another: reductions in place, over all of them."""

    @property
    def rank(self) -> int:
        """This process's number, from 0."""

    @property
    def count(self) -> int:
        """How many processes there are."""

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""

    def maximum(self, tensor: Tensor) -> None:
        """Replace a tensor by its elementwise maximum over all processes."""


class Entropies(NamedTuple):
    """Hold the loss, both entropies in nats, and how many clusters are the most probable one of any example."""

    loss: Tensor
    conditional: Tensor
    marginal: Tensor
    active: Tensor


def entropies(
    embedding: Tensor,
    weight: Tensor,
    scale: float,
    gamma: float,
    dtype: torch.dtype = torch.float32,
    chunk: int | None = None,
    average: Tensor | None = None,
    momentum: float = 0.9,
    ranks: Ranks | None = None,
) -> Entropies:
    """Return mean_i H(p_i) - gamma * H(q) of p_i = softmax(scale * cos(z_i, w)), differentiable, and its two terms.

    `dtype` is that of the factors in matrix products; sums are float32 (float64 for float64 inputs). `chunk` clusters
    are taken at a time; by default as many as the cache holds. With `average`, H(q) is that of a running average of q,
    so that a batch smaller than the number of clusters sees all of them: `average` (zeros at first) is replaced in
    place by momentum * average + (1 - momentum) * q, which is divided by its sum, and log q in the gradient is that of
    the average. That gradient is not multiplied by 1 - momentum: gamma weighs the same with an average and without.

    With `ranks`, processes that hold the same arguments take a share of the clusters each; what is returned is the
    whole's in all of them. The gradients in a process are those by way of its own clusters, times the number of
    processes: their mean over all, which is what data-parallel training takes, is the whole's.

    Shape: embedding `[batch, d]`, weight `[clusters, d]`, average `[clusters]`. Raises ValueError for others, and for a
    scale that is not positive.

    >>> found = entropies(torch.eye(3), torch.eye(3), scale=60.0, gamma=1.0)
    >>> round(float(found.conditional), 4), round(float(found.marginal), 4), int(found.active)
    (0.0, 1.0986, 3)
    """
    check(embedding, weight, scale)
    if average is not None and average.shape != weight.shape[:1]:
        raise ValueError(f"the average has shape {list(average.shape)}; [{len(weight)}] is needed, a number a cluster")
    exact = embedding.dtype if embedding.dtype == torch.float64 else torch.float32
    piece = CARD if embedding.is_cuda else PIECE
    own = slice(0, len(weight))
    if ranks is not None:
        own = slice(*(len(weight) * number // ranks.count for number in (ranks.rank, ranks.rank + 1)))
    size = chunk or _chunk(embedding, dtype)
    plan = Plan(float(scale), float(gamma), dtype, size, piece, average, momentum, own, ranks)
    return Entropies(*_Entropies.apply(embedding.to(exact), weight.to(exact), plan))


def check(embedding: Tensor, weight: Tensor, scale: float) -> None:
    """Raise ValueError where embeddings `[n, d]` and clusters `[clusters, d]` do not fit, or scale is not above 0."""
    if embedding.ndim != 2 or weight.ndim != 2 or embedding.shape[1] != weight.shape[1]:
        raise ValueError(f"embeddings {list(embedding.shape)} and clusters {list(weight.shape)} do not fit")
    if not len(embedding) or not len(weight):
        raise ValueError(f"{len(embedding)} embeddings and {len(weight)} clusters: at least one of each is needed")
    if not scale > 0:
        raise ValueError(f"scale is {scale}; it must be positive")


def _chunk(embedding: Tensor, dtype: torch.dtype) -> int:
    """Return how many clusters a chunk takes, so that two tiles of logits stay in or near the cache."""
    cache = CARD if embedding.is_cuda else CACHE * (WIDER if dtype == torch.bfloat16 else 1)
    size = cache // (2 * embedding.element_size() * len(embedding))
    return max(64, size // 64 * 64)


class Plan(NamedTuple):
    """Hold what is not differentiated."""

    scale: float
    gamma: float
    dtype: torch.dtype
    chunk: int
    piece: int
    average: Tensor | None
    momentum: float
    own: slice
    ranks: Ranks | None

    def add(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over the processes that share the clusters."""
        if self.ranks is not None:
            for tensor in tensors:
                self.ranks.add(tensor)

    def clear_others(self, tensor: Tensor) -> None:
        """Set to zero what a tensor has of the other processes' clusters."""
        tensor[: self.own.start] = 0.0
        tensor[self.own.stop :] = 0.0


@contextlib.contextmanager
def products(dtype: torch.dtype, device: torch.device) -> Iterator[Multiply]:
    """Yield `multiply(a, b, out)`: a matrix product of factors rounded to `dtype`, summed and returned in float32.

    On a CPU without units for bfloat16 the factors stay float32. All other products within the context are of float32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")

    def on_cpu(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        torch.set_float32_matmul_precision("medium")
        torch.mm(a, b, out=out)
        torch.set_float32_matmul_precision("highest")
        return out

    def on_card(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        return torch.mm(a.bfloat16(), b.bfloat16(), out_dtype=torch.float32, out=out)

    def plain(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        return torch.mm(a, b, out=out)

    half = on_card if device.type == "cuda" else on_cpu
    try:
        yield half if dtype == torch.bfloat16 else plain
    finally:
        torch.set_float32_matmul_precision(before)


class _Tiles:
    """Give this process's clusters in chunks: their columns, unit weights, logits, and a buffer for their powers."""

    def __init__(self, unit: Tensor, weight: Tensor, short: Tensor, plan: Plan, multiply: Multiply) -> None:
        self.weight, self.short, self.own, self.chunk, self.multiply = weight, short, plan.own, plan.chunk, multiply
        self.rows = unit * plan.scale
        width = max(1, min(plan.chunk, plan.own.stop - plan.own.start))
        self.height = max(1, plan.piece // width)
        self.tiles = [unit.new_empty(len(unit) * width) for _ in range(2)]
        self.units = unit.new_empty(width, unit.shape[1])
        greatest = math.log(torch.finfo(unit.dtype).max) - MARGIN
        self.deep = -2 * plan.scale < LOWEST
        self.in_range = plan.scale + math.log(len(weight)) <= greatest

    def shift(self, logits: Tensor, top: Tensor) -> Tensor:
        """Return the logits, in their place, less the greatest of their row, and not far below it."""
        logits.sub_(top[:, None])
        return logits.clamp_(min=LOWEST) if self.deep else logits

    def pieces(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield rows of all tensors, as many as are passed over again and again while they stay in the cache."""
        return zip(*(tensor.split(self.height) for tensor in tensors), strict=True)

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        count = -1
        for first in range(self.own.start, self.own.stop, self.chunk):
            columns = slice(first, min(first + self.chunk, self.own.stop))
            if count != columns.stop - first:  # the first time, and for a last chunk that is shorter
                count = columns.stop - first
                logits, powers = (tile[: len(self.rows) * count].view(-1, count) for tile in self.tiles)
                units = self.units[:count]
                across = units.T
            torch.mul(self.weight[columns], self.short[columns, None], out=units)
            yield columns, units, self.multiply(self.rows, across, logits), powers


class _Entropies(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embedding: Tensor, weight: Tensor, plan: Plan):
        length = torch.linalg.vector_norm(embedding, dim=1, keepdim=True).clamp_(min=SHORTEST)
        unit = embedding / length
        short = torch.linalg.vector_norm(weight, dim=1).clamp_(min=SHORTEST).reciprocal_()
        with products(plan.dtype, embedding.device) as multiply:
            tiles = _Tiles(unit, weight, short, plan, multiply)
            top, share = _normalise(tiles, plan)
            total, mean, cross, logarithm, marginal, active = _marginal(tiles, top, share, plan)
        own = total.log() - mean
        least = len(weight) * -LOWEST * math.exp(LOWEST)  # what powers at LOWEST may add
        own.masked_fill_(own <= least, 0.0)
        conditional = own.mean(dtype=torch.float64)
        loss = (conditional - plan.gamma * marginal).to(embedding.dtype)
        ctx.plan = plan
        # Rounded first: where a row is all in one cluster, A is log q of that one, and they cancel to the last bit.
        total, offset = total.to(top.dtype), mean.to(top.dtype) - plan.gamma * cross.to(top.dtype)
        ctx.save_for_backward(unit, length, weight, short, top, total, offset, logarithm)
        found = loss, conditional.to(embedding.dtype), marginal.to(embedding.dtype), active
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    def backward(ctx, slope: Tensor, *_):
        unit, length, weight, short, top, total, offset, logarithm = ctx.saved_tensors
        processes = 1 if ctx.plan.ranks is None else ctx.plan.ranks.count
        share = slope * processes / (total * len(unit))
        with products(ctx.plan.dtype, unit.device) as multiply:
            tiles = _Tiles(unit, weight, short, ctx.plan, multiply)
            found = _gradients(tiles, top, share, offset, ctx.plan.gamma * logarithm, ctx.needs_input_grad[1])
        rows, weights = found
        if weights is not None:
            ctx.plan.clear_others(weights)
        rows.mul_(ctx.plan.scale * share[:, None])
        rows -= (rows * unit).sum(1, keepdim=True) * unit
        return rows / length, weights, None


def _normalise(tiles: _Tiles, plan: Plan) -> tuple[Tensor, Tensor]:
    """Return the maximum m of each row's logits, and 1 / (rows * sum exp(l - m)).

    Powers of the logits as they are have the full precision of floating point, and cost one pass less; where they could
    leave its range, the maximum so far is taken off first.
    """
    top = tiles.rows.new_full((len(tiles.rows),), -torch.inf)
    total = torch.zeros_like(top, dtype=torch.float64)
    for _, _, logits, _ in tiles:
        for x, m, s in tiles.pieces(logits, top, total):
            new = torch.maximum(m, x.amax(1))
            if not tiles.in_range:
                s.mul_(torch.where(s > 0, m - new, 0.0).exp_())  # the first time, minus infinity less a number
                tiles.shift(x, new)
            m.copy_(new)
            s.add_(x.exp_().sum(1))
    of_own = torch.zeros_like(top) if tiles.in_range else top.clone()
    if plan.ranks is not None:
        plan.ranks.maximum(top)
    total.mul_(torch.exp(of_own - top))
    plan.add(total)
    return top, (total * len(total)).reciprocal().to(top.dtype)


def _marginal(tiles: _Tiles, top: Tensor, share: Tensor, plan: Plan) -> tuple[Tensor, ...]:
    """Return of each row s, E and A; log q; H(q) in float64; and how many clusters are a row's maximum.

    The sum of powers is taken again: a row all in one cluster has a power of one there, and a sum of exactly one.
    """
    logarithm = tiles.rows.new_empty(len(tiles.weight))
    sums = top.new_zeros((3, len(top)), dtype=torch.float64)  # over all chunks
    total, moment, cross = sums
    marginal = torch.zeros((), dtype=torch.float64, device=top.device)
    active = torch.zeros((), dtype=torch.int64, device=top.device)
    least = torch.finfo(top.dtype).tiny
    mass = torch.ones_like(marginal) if plan.average is None else _mass(plan.average, plan.momentum)
    for columns, _, logits, powers in tiles:
        q, greatest = logits.new_zeros(logits.shape[1]), logits.new_full(logits.shape[1:], -torch.inf)
        for x, p, m, each, s, e in tiles.pieces(logits, powers, top, share, total, moment):
            torch.maximum(greatest, tiles.shift(x, m).amax(0), out=greatest)
            torch.exp(x, out=p)
            q.addmv_(p.T, each)
            s.add_(p.sum(1))
            e.add_(x.mul_(p).sum(1))
        active += (greatest == 0).sum()
        if plan.average is not None:
            q = plan.average[columns].mul_(plan.momentum).add_(q, alpha=1 - plan.momentum) / mass
        here = torch.log(q.clamp(min=least), out=logarithm[columns])
        marginal -= torch.dot(q, here)
        cross += torch.mv(powers, here)
    plan.add(sums, marginal, active)
    if plan.average is not None:
        plan.clear_others(plan.average)
        plan.add(plan.average)
    return total, moment.div_(total), cross.div_(total), logarithm, marginal.clamp_(min=0), active


def _mass(average: Tensor, momentum: float) -> Tensor:
    """Return what the running average will sum to: 1 less the share of the zeros it began with."""
    return momentum * average.sum() + (1 - momentum)


def _gradients(
    tiles: _Tiles, top: Tensor, share: Tensor, offset: Tensor, logarithm: Tensor, with_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """Return dL/dz of the unit embeddings less their factor scale * share, and dL/dw of the weights as given."""
    rows = torch.zeros_like(tiles.rows)
    part = torch.empty_like(rows)
    weights = torch.empty_like(tiles.weight) if with_weights else None
    scaled, buffer = tiles.rows * share[:, None], torch.empty_like(tiles.units)
    for columns, units, logits, powers in tiles:
        for x, p, m, o in tiles.pieces(logits, powers, top, offset):
            torch.exp(tiles.shift(x, m), out=p)
            p.mul_(torch.sub(logarithm[columns], x, out=x).add_(o[:, None]))
        rows += tiles.multiply(powers, units, part)
        if weights is not None:
            slope = tiles.multiply(powers.T, scaled, weights[columns])
            along = torch.mul(slope, units, out=buffer[: len(units)]).sum(1, keepdim=True)
            slope.addcmul_(along, units, value=-1).mul_(tiles.short[columns, None])
    return rows, weights


@torch.no_grad()
def modest_scale(embedding: Tensor, clusters: int, scale: float, least: float) -> float:
    """Return the greatest scale, at most `scale`, at which rows are still unsure of centres taken from among them.

    Unsure: the mean entropy of a row is at least the share `least` of log(clusters), that of equal probabilities. Under
    a larger scale a few centres on embeddings that lie close together are sharp at once, and stay where they began.
    The centres are every so many rows; rows that are not finite are left out. To 0.1 % of `scale`.

    Shape: embedding `[n, d]`. Returns `scale` where there are not four rows a cluster to judge by.

    >>> modest_scale(torch.eye(8).repeat(4, 1), clusters=8, scale=20.0, least=0.0)
    20.0
    """
    rows = embedding[embedding.isfinite().all(1)]
    if len(rows) < 4 * clusters:
        return scale
    centres = rows[torch.arange(clusters) * len(rows) // clusters]

    def unsure(at: float) -> bool:
        return float(entropies(rows, centres, at, 1.0).conditional) >= least * math.log(clusters)

    if unsure(scale):
        return scale
    low, high = 0.0, scale
    while high - low > 1e-3 * scale:
        middle = (low + high) / 2
        low, high = (middle, high) if unsure(middle) else (low, middle)
    return high

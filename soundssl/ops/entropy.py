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
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CACHE = 2**21  # bytes that the two tiles of a chunk may take on a CPU: level-2 cache of one core
WIDER = 4  # times as many clusters a chunk in bfloat16: rounding the embeddings again for each costs more than cache
CARD = 2**28  # the same on a GPU, where a chunk is one wave of work and the cache does not matter
MARGIN = 14.0  # of the greatest logarithm, which sums of powers may reach: for the rounding of logits
SHORTEST = 1e-12  # length below which a vector counts as zero
ROWS, WIDTH = 1024, 512  # embeddings and clusters a block, in `assign`
MEMBERS = 16  # clusters a group; a block has `STRIDE` groups
STRIDE = WIDTH // MEMBERS
GROUPS = 2**25  # group maxima held at a time: 128 MB
CROWD = 32  # a row is computed whole where more than a 32nd of its groups may hold the greatest: a copy costs more
PAIRS = 4096  # pairs of row and group computed in float64 at a time
FACTOR_ERROR = {torch.float32: 0.0, torch.bfloat16: 2.0**-8}  # of a cosine, by rounding its factors to this type

Multiply = Callable[[Tensor, Tensor, Tensor], Tensor]


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
) -> Entropies:
    """Return mean_i H(p_i) - gamma * H(q) of p_i = softmax(scale * cos(z_i, w)), differentiable, and its two terms.

    `dtype` is that of the factors in matrix products; sums are float32 (float64 for float64 inputs). `chunk` clusters
    are taken at a time; by default as many as the cache holds. With `average`, H(q) is that of a running average of q,
    so that a batch smaller than the number of clusters sees all of them: `average` (zeros at first) is replaced in
    place by momentum * average + (1 - momentum) * q, which is divided by its sum, and log q in the gradient is that of
    the average. That gradient is not multiplied by 1 - momentum: gamma weighs the same with an average and without.

    Shape: embedding `[batch, d]`, weight `[clusters, d]`, average `[clusters]`. Raises ValueError for others, and for a
    scale that is not positive.

    >>> found = entropies(torch.eye(3), torch.eye(3), scale=60.0, gamma=1.0)
    >>> round(float(found.conditional), 4), round(float(found.marginal), 4), int(found.active)
    (0.0, 1.0986, 3)
    """
    _check(embedding, weight, scale)
    if average is not None and average.shape != weight.shape[:1]:
        raise ValueError(f"the average has shape {list(average.shape)}; [{len(weight)}] is needed, a number a cluster")
    exact = embedding.dtype if embedding.dtype == torch.float64 else torch.float32
    plan = Plan(float(scale), float(gamma), dtype, chunk or _chunk(embedding, dtype), average, momentum)
    return Entropies(*_Entropies.apply(embedding.to(exact), weight.to(exact), plan))


def _check(embedding: Tensor, weight: Tensor, scale: float) -> None:
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
    average: Tensor | None
    momentum: float


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
    """Give the chunks of clusters: their columns, unit weights, logits, and room for their powers."""

    def __init__(self, unit: Tensor, weight: Tensor, short: Tensor, plan: Plan, multiply: Multiply) -> None:
        self.weight, self.short, self.chunk, self.multiply = weight, short, plan.chunk, multiply
        self.rows = unit * plan.scale
        width = min(plan.chunk, len(weight))
        self.tiles = [unit.new_empty(len(unit) * width) for _ in range(2)]
        self.units = unit.new_empty(width, unit.shape[1])
        greatest = math.log(torch.finfo(unit.dtype).max) - MARGIN
        self.in_range = plan.scale + math.log(len(weight)) <= greatest

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        count = -1
        pairs = zip(self.weight.split(self.chunk), self.short[:, None].split(self.chunk), strict=True)
        for number, (weight, short) in enumerate(pairs):
            if count != len(weight):  # the first time, and for a last chunk that is shorter
                count = len(weight)
                logits, powers = (tile[: len(self.rows) * count].view(-1, count) for tile in self.tiles)
                units = self.units[:count]
                across = units.T
            torch.mul(weight, short, out=units)
            columns = slice(number * self.chunk, number * self.chunk + count)
            yield columns, units, self.multiply(self.rows, across, logits), powers


class _Entropies(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embedding: Tensor, weight: Tensor, plan: Plan):
        length = torch.linalg.vector_norm(embedding, dim=1, keepdim=True).clamp_(min=SHORTEST)
        unit = embedding / length
        short = torch.linalg.vector_norm(weight, dim=1).clamp_(min=SHORTEST).reciprocal_()
        with products(plan.dtype, embedding.device) as multiply:
            tiles = _Tiles(unit, weight, short, plan, multiply)
            top, share = _normalise(tiles)
            total, mean, cross, logarithm, marginal, active = _marginal(tiles, top, share, plan)
        conditional = (total.log() - mean).clamp_(min=0).mean(dtype=torch.float64)
        loss = (conditional - plan.gamma * marginal).to(embedding.dtype)
        ctx.plan = plan
        ctx.save_for_backward(unit, length, weight, short, top, total, mean - plan.gamma * cross, logarithm)
        found = loss, conditional.to(embedding.dtype), marginal.to(embedding.dtype), active
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    def backward(ctx, slope: Tensor, *_):
        unit, length, weight, short, top, total, offset, logarithm = ctx.saved_tensors
        share = slope / (total * len(unit))
        with products(ctx.plan.dtype, unit.device) as multiply:
            tiles = _Tiles(unit, weight, short, ctx.plan, multiply)
            found = _gradients(tiles, top, share, offset, ctx.plan.gamma * logarithm, ctx.needs_input_grad[1])
        rows, weights = found
        rows.mul_(ctx.plan.scale * share[:, None])
        rows -= (rows * unit).sum(1, keepdim=True) * unit
        return rows / length, weights, None


def _normalise(tiles: _Tiles) -> tuple[Tensor, Tensor]:
    """Return the maximum m of each row's logits, and 1 / (rows * sum exp(l - m)).

    Powers of the logits as they are have the full precision of floating point, and cost one pass less; where they could
    leave its range, the maximum so far is taken off first.
    """
    top = tiles.rows.new_full((len(tiles.rows),), -torch.inf)
    total = torch.zeros_like(top)
    for _, _, logits, _ in tiles:
        new = torch.maximum(top, logits.amax(1))
        if not tiles.in_range:
            total.mul_(torch.where(total > 0, top - new, 0.0).exp_())  # the first time, minus infinity less a number
            logits.sub_(new[:, None])
        top = new
        total += logits.exp_().sum(1)
    if tiles.in_range:
        total.mul_(torch.exp(-top))
    return top, (total * len(total)).reciprocal()


def _marginal(tiles: _Tiles, top: Tensor, share: Tensor, plan: Plan) -> tuple[Tensor, ...]:
    """Return of each row s, E and A; log q; H(q) in float64; and how many clusters are a row's maximum.

    The sum of powers is taken again: a row all in one cluster has a power of one there, and a sum of exactly one.
    """
    logarithm = tiles.rows.new_empty(len(tiles.weight))
    total, moment, cross = (torch.zeros_like(top) for _ in range(3))
    marginal = torch.zeros((), dtype=torch.float64, device=top.device)
    active = torch.zeros((), dtype=torch.int64, device=top.device)
    least = torch.finfo(top.dtype).tiny
    mass = torch.ones_like(marginal) if plan.average is None else _mass(plan.average, plan.momentum)
    for columns, _, logits, powers in tiles:
        logits.sub_(top[:, None])
        active += (logits.amax(0) == 0).sum()
        torch.exp(logits, out=powers)
        q = torch.mv(powers.T, share)
        if plan.average is not None:
            q = plan.average[columns].mul_(plan.momentum).add_(q, alpha=1 - plan.momentum) / mass
        here = torch.log(q.clamp(min=least), out=logarithm[columns])
        marginal -= torch.dot(q, here)
        cross.addmv_(powers, here)
        total += powers.sum(1)
        moment += powers.mul_(logits).sum(1)
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
    scaled = tiles.rows * share[:, None]
    for columns, units, logits, powers in tiles:
        torch.exp(logits.sub_(top[:, None]), out=powers)
        torch.sub(logarithm[columns], logits, out=logits).add_(offset[:, None])
        powers.mul_(logits)
        rows += tiles.multiply(powers, units, part)
        if weights is not None:
            slope = tiles.multiply(powers.T, scaled, weights[columns])
            slope.sub_((slope * units).sum(1, keepdim=True) * units).mul_(tiles.short[columns, None])
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


class Assignment(NamedTuple):
    """Hold the cluster of each embedding, its probability, and the cosine to its centre. Shape: all `[n]`."""

    cluster: Tensor
    confidence: Tensor
    similarity: Tensor


class _Maxima(NamedTuple):
    """Hold the maximum logit of each group `[n, groups]`, of all `[n]`, and sum exp(logit - maximum) `[n]`."""

    group: Tensor
    top: Tensor
    total: Tensor


class _Centres(NamedTuple):
    """Hold centres as given and the reciprocals of their lengths: a normalised copy of a million is half a gigabyte."""

    weight: Tensor
    short: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> _Centres:
        return cls(weight, torch.linalg.vector_norm(weight, dim=1).clamp_(min=SHORTEST).reciprocal_())

    def exactly(self, rows: Tensor | slice) -> Tensor:
        """Return unit centres in float64. Shape: rows `[...]` to `[..., d]`."""
        return (self.weight[rows] * self.short[rows][..., None]).double()


@torch.no_grad()
def assign(embedding: Tensor, weight: Tensor, scale: float, dtype: torch.dtype = torch.float32) -> Assignment:
    """Return the most probable cluster of each embedding under softmax(scale * cos(z, w)), in blocks.

    The maximum of every group of `MEMBERS` clusters comes from products of factors in `dtype`. Groups whose maximum is
    the greatest within the rounding error of such products are computed again in float64, so the cluster does not
    depend on `dtype`; of equal ones it is the first.

    Shape: embedding `[n, d]`, weight `[clusters, d]`. Raises ValueError for others.

    >>> assign(torch.eye(3)[[2, 0]], torch.eye(3), scale=60.0).cluster.tolist()
    [2, 0]
    """
    _check(embedding, weight, scale)
    units, centres = F.normalize(embedding.float(), eps=SHORTEST), _Centres.of(weight.float())
    rows = max(1, min(ROWS, GROUPS * MEMBERS // len(weight)))
    tolerance = 2 * (FACTOR_ERROR[dtype] + units.shape[1] * torch.finfo(torch.float32).eps / 2)
    parts = []
    with products(dtype, weight.device) as multiply:
        for block in units.split(rows):
            maxima = _group_maxima(block * scale, centres, multiply)
            cluster, similarity = _among(maxima, block, centres, tolerance * scale)
            confidence = (similarity * scale - maxima.top).exp_() / maxima.total
            parts.append((cluster, confidence.clamp_(max=1), similarity))
    return Assignment(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _group_maxima(rows: Tensor, centres: _Centres, multiply: Multiply) -> _Maxima:
    """Multiply in chunks of `WIDTH` clusters; group g of a chunk holds those `STRIDE` apart from its g-th on."""
    tile = rows.new_empty(len(rows), WIDTH)
    group = rows.new_empty(len(rows), -(-len(centres.weight) // WIDTH), STRIDE)
    top, total = rows.new_full((len(rows),), -torch.inf), rows.new_zeros(len(rows))
    for number, (weight, short) in enumerate(zip(*(each.split(WIDTH) for each in centres), strict=True)):
        chunk = weight * short[:, None]
        if len(chunk) < WIDTH:
            tile[:, len(chunk) :] = -torch.inf
            tile[:, : len(chunk)] = multiply(rows, chunk.T, rows.new_empty(len(rows), len(chunk)))
        else:
            multiply(rows, chunk.T, tile)
        group[:, number] = tile.view(-1, MEMBERS, STRIDE).amax(1)
        new = torch.maximum(top, group[:, number].amax(1))
        total.mul_((top - new).exp_())
        top = new
        total += tile.sub_(top[:, None]).exp_().sum(1)
    return _Maxima(group.view(len(rows), -1), top, total)


def _among(maxima: _Maxima, units: Tensor, centres: _Centres, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the cluster and the cosine of each row, computed in float64 for the groups that may hold the greatest."""
    clusters, near = len(centres.weight), maxima.group >= maxima.top[:, None] - tolerance
    crowded = near.count_nonzero(1) > max(4, near.shape[1] // CROWD)
    near &= ~crowded[:, None]
    best = torch.full_like(maxima.top, -torch.inf, dtype=torch.float64)
    cluster = torch.zeros_like(best, dtype=torch.int64)
    members = torch.arange(MEMBERS, device=units.device) * STRIDE
    for row, group in (pair.unbind(1) for pair in near.nonzero().split(PAIRS)):
        column = (group // STRIDE * WIDTH + group % STRIDE)[:, None] + members
        exact = centres.exactly(column.clamp(max=clusters - 1))
        cosine = torch.bmm(exact, units[row].double()[:, :, None])[:, :, 0]
        cosine[column >= clusters] = -torch.inf
        _keep_better(best, cluster, row, cosine, column)
    rows = crowded.nonzero()[:, 0]
    for first in range(0, clusters if len(rows) else 0, PAIRS):
        exact = centres.exactly(slice(first, first + PAIRS))
        column = torch.arange(first, first + len(exact), device=rows.device).expand(len(rows), -1)
        _keep_better(best, cluster, rows, units[rows].double() @ exact.T, column)
    return cluster, best.float()


def _keep_better(best: Tensor, cluster: Tensor, row: Tensor, cosine: Tensor, column: Tensor) -> None:
    """Take over cosines greater than the best of their row, and the first cluster among equal ones, in place."""
    found, last = cosine.amax(1), torch.iinfo(column.dtype).max
    first = torch.where(cosine == found[:, None], column, last).amin(1)
    before = best[row]
    best.scatter_reduce_(0, row, found, "amax")
    cluster[row[best[row] > before]] = last
    equal = found == best[row]
    cluster.scatter_reduce_(0, row[equal], first[equal], "amin")

"""Assign embeddings to the most probable of many clusters: a fast pass over all, an exact one over the few in doubt.

Of softmax(scale * cos(z_i, w_k)) the greatest probability and its cluster are wanted. The fast pass multiplies in the
number type asked for and keeps, of each row and chunk of clusters, the greatest logit and the sum of powers. Chunks
whose greatest logit is, within the rounding error of such products, that of all are computed again in float64, so the
cluster does not depend on the number type.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from soundssl.ops.entropy import MARGIN, SHORTEST, Multiply, check, products

TILE = 2**21  # logits multiplied at a time, 8 MB: factors are rounded anew for every tile
PIECE = 2**18  # logits of a tile that the other passes go over together: 1 MB, half the level-2 cache of a core
CARD = 2**26  # both on a GPU, where the cache does not matter
WIDTH = 512  # clusters a chunk at most
NARROW, CHUNKS = 64, 32  # fewer clusters than CHUNKS of WIDTH are cut into so many, of NARROW or more each
HELD = 2**22  # pairs of row and chunk whose figures are held at a time: 32 MB
PAIRS = 2**20  # pairs of row and cluster computed in float64 at a time: 8 MB
EQUAL = 1e-12  # cosines this close are equal: their sums are taken in different orders
FACTOR_ERROR = {torch.float32: 0.0, torch.bfloat16: 2.0**-8}  # of a cosine, by rounding its factors to this type


class Assignment(NamedTuple):
    """Hold the cluster of each embedding, its probability, and the cosine to its centre. Shape: all `[n]`."""

    cluster: Tensor
    confidence: Tensor
    similarity: Tensor


class _Plan(NamedTuple):
    """Hold the scale, the error that logits may have, and whether powers of logits as they are stay in range.

    `height` rows make a tile, `rows` of them a piece.
    """

    scale: float
    tolerance: float
    as_they_are: bool
    height: int
    rows: int


class _Figures(NamedTuple):
    """Hold of each chunk and row the greatest logit, and the sum of powers of the logits less it, or as they are.

    Shape: `[chunks, n]`.
    """

    greatest: Tensor
    total: Tensor


class _Centres:
    """Give chunks of clusters scaled to length one, in rooms they share: a copy of a million is half a gigabyte."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.short = torch.linalg.vector_norm(weight, dim=1).clamp_(min=SHORTEST).reciprocal_()
        self.width = min(WIDTH, max(NARROW, -(-len(weight) // CHUNKS // NARROW) * NARROW))
        self.count = -(-len(weight) // self.width)
        self.rooms = {
            dtype: weight.new_empty(self.width, weight.shape[1], dtype=dtype) for dtype in (weight.dtype, torch.float64)
        }

    def across(self, number: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the chunk of that number as columns, until the next call. Shape: `[d, clusters]`."""
        chunk = slice(number * self.width, (number + 1) * self.width)
        weight = self.weight[chunk]
        units = torch.mul(weight, self.short[chunk, None], out=self.rooms[weight.dtype][: len(weight)])
        return (units if dtype == units.dtype else self.rooms[dtype][: len(weight)].copy_(units)).T


@torch.no_grad()
def assign(embedding: Tensor, weight: Tensor, scale: float, dtype: torch.dtype = torch.float32) -> Assignment:
    """Return the most probable cluster of each embedding under softmax(scale * cos(z, w)); of equal ones the first.

    `dtype` is that of the factors in the products of the fast pass.

    Shape: embedding `[n, d]`, weight `[clusters, d]`. Raises ValueError for others.

    >>> assign(torch.eye(3)[[2, 0]], torch.eye(3), scale=60.0).cluster.tolist()
    [2, 0]
    """
    check(embedding, weight, scale)
    centres = _Centres(weight.float())
    tile, piece = (CARD, CARD) if weight.is_cuda else (TILE, PIECE)
    plan = _Plan(
        scale,
        2 * scale * (FACTOR_ERROR[dtype] + weight.shape[1] * torch.finfo(torch.float32).eps / 2),
        scale + math.log(centres.width) <= math.log(torch.finfo(torch.float32).max) - MARGIN,
        min(tile // centres.width, len(embedding)),
        max(1, piece // centres.width),
    )
    blocks = embedding.float().split(_rows(len(embedding), plan.height, HELD // centres.count))
    rooms = centres.weight.new_empty(2, centres.count, len(blocks[0]))
    room = rooms.new_empty(plan.height * centres.width)
    parts = []
    for rows in blocks:
        units = F.normalize(rows, eps=SHORTEST)
        figures = _Figures(*rooms[:, :, : len(rows)])
        with products(dtype, units.device) as multiply:
            _fast(units, centres, figures, plan, room, multiply)
        parts.append(_exact(units, centres, figures, plan))
    return Assignment(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _rows(count: int, tile: int, held: int) -> int:
    """Return how many rows a block takes: `held` at most but a tile at least, in whole tiles, all blocks alike."""
    blocks = -(-count // max(tile, held // tile * tile))
    return -(-count // (blocks * tile)) * tile


def _fast(units: Tensor, centres: _Centres, figures: _Figures, plan: _Plan, room: Tensor, multiply: Multiply) -> None:
    """Compute all logits, a tile at a time in the room given, and write the figures, a piece of the tile at a time."""
    blocks = (units * plan.scale).split(plan.height)
    for number in range(centres.count):
        across = centres.across(number)
        for block, *places in zip(blocks, *(each[number].split(plan.height) for each in figures), strict=True):
            tile = multiply(block, across, room[: len(block) * across.shape[1]].view(len(block), -1))
            for logits, greatest, total in zip(*(each.split(plan.rows) for each in (tile, *places)), strict=True):
                torch.amax(logits, 1, out=greatest)
                if not plan.as_they_are:
                    logits.sub_(greatest[:, None])
                torch.sum(logits.exp_(), 1, out=total)


def _exact(units: Tensor, centres: _Centres, figures: _Figures, plan: _Plan) -> Assignment:
    """Compute again the chunks that may hold the greatest logit of a row, and put their sums into the place."""
    greatest, total = figures
    best = units.new_full((len(units),), -torch.inf, dtype=torch.float64)
    cluster = torch.zeros_like(best, dtype=torch.int64)
    near = greatest >= greatest.amax(0) - plan.tolerance
    for number in near.any(1).nonzero()[:, 0].tolist():
        across = centres.across(number, torch.float64)
        for rows in near[number].nonzero()[:, 0].split(PAIRS // centres.width):
            cosine = units[rows].double() @ across
            own = cosine.amax(1)
            first = (cosine >= own[:, None] - EQUAL).to(torch.uint8).argmax(1)
            better = own > best[rows] + EQUAL
            best[rows[better]] = own[better]
            cluster[rows[better]] = number * centres.width + first[better]
            powers = cosine.mul_(plan.scale)
            if not plan.as_they_are:
                powers.sub_(greatest[number, rows, None])
            total[number, rows] = powers.exp_().sum(1).float()
    top = (plan.scale * best).float()
    if plan.as_they_are:
        inverse = total.sum(0).mul_((-top).exp_())
    else:
        inverse = greatest.sub_(top).exp_().mul_(total).sum(0)
    return Assignment(cluster, inverse.reciprocal_().clamp_(max=1), best.float())

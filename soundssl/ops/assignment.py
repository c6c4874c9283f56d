"""Assign embeddings to the most probable of many clusters: a fast pass over all, an exact one over the few in doubt.

Of softmax(scale * cos(z_i, w_k)) the greatest probability and its cluster are wanted. The fast pass multiplies in the
number type asked for and keeps, of each row and chunk of clusters, the greatest logit and the sum of powers. Chunks
that may hold the greatest of all, by what was lost when factors and sums were rounded, are computed again in float64,
the most promising of a row first. So the cluster depends neither on the number type nor on the order of a library's
sums: in float32 that order tells equal centres apart by up to 8e-7. Clusters that lie together share a chunk: with
100,000 centres on windows that are all but equal, fewer chunks are in doubt, which saves a fifth of the time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from soundssl.ops.entropy import LOWEST, MARGIN, SHORTEST, Multiply, check, products

TILE = 2**21  # logits multiplied at a time, 8 MB: factors are rounded anew for every tile
PIECE = 2**18  # logits of a tile that the other passes go over together: 1 MB, half the level-2 cache of a core
CARD = 2**26  # both on a GPU, where the cache does not matter
WIDTH = 512  # clusters a chunk at most
NARROW, CHUNKS = 64, 32  # fewer clusters than CHUNKS of WIDTH are cut into so many, of NARROW or more each
PIVOTS = 1024  # clusters at most that the others are put beside
HELD = 2**22  # pairs of row and chunk whose figures are held at a time: 48 MB
PAIRS = 2**18  # pairs of row and cluster computed again at a time: 2 MB in float64
EQUAL = 1e-12  # cosines this close are equal: their sums are taken in different orders


class Assignment(NamedTuple):
    """Hold the cluster of each embedding, its probability, and the cosine to its centre. Shape: all `[n]`."""

    cluster: Tensor
    confidence: Tensor
    similarity: Tensor


class _Figures(NamedTuple):
    """Hold of each chunk and row the greatest logit, and the sum of powers of the logits less it, or as they are.

    And what the greatest may be at most, before rounding. Shape: `[chunks, n]`.
    """

    greatest: Tensor
    total: Tensor
    highest: Tensor


class _Workspace(NamedTuple):
    """Hold the memory of a block of rows from call to call: taking it anew costs up to a tenth of the time.

    Shape: figures `[3, chunks, n]`, logits `[tile]`, units and scaled `[n, d]`.
    """

    figures: Tensor
    logits: Tensor
    units: Tensor
    scaled: Tensor


class Assigner:
    """Assign embeddings to the most probable cluster under softmax(scale * cos(z, w)); of equal ones to the first.

    `dtype` is that of the factors in the products of the fast pass.

    Shape: weight `[clusters, d]`. Raises ValueError for others, and for a scale that is not positive.

    >>> Assigner(torch.eye(3), scale=60.0)(torch.eye(3)[[2, 0]]).cluster.tolist()
    [2, 0]
    """

    def __init__(self, weight: Tensor, scale: float, dtype: torch.dtype = torch.float32) -> None:
        check(weight[:1], weight, scale)
        self.scale, self.dtype = scale, dtype
        self.width = min(WIDTH, max(NARROW, -(-len(weight) // CHUNKS // NARROW) * NARROW))
        self.as_they_are = scale + math.log(self.width) <= math.log(torch.finfo(torch.float32).max) - MARGIN
        self.tile, self.piece = (CARD, CARD) if weight.is_cuda else (TILE, PIECE)
        order = self._together(weight.float())
        self.units = F.normalize(weight.float()[order], eps=SHORTEST).split(self.width)
        self.clusters = order.split(self.width)
        self.summing = scale * weight.shape[1] * torch.finfo(torch.float32).eps / 2  # error of a logit, by sums
        self.lost = torch.stack([self._lost(chunk).amax() for chunk in self.units])
        self.workspace: _Workspace | None = None

    @torch.no_grad()
    def __call__(self, embedding: Tensor) -> Assignment:
        """Assign embeddings. Shape: `[n, d]`. Raises ValueError for others."""
        check(embedding, self.units[0], self.scale)
        height = min(self.tile // self.width, len(embedding))
        blocks = embedding.float().split(_rows(len(embedding), height, HELD // len(self.units)))
        space = self._space(len(blocks[0]), height)
        parts = []
        for rows in blocks:
            units, scaled = space.units[: len(rows)], space.scaled[: len(rows)]
            torch.mul(F.normalize(rows, eps=SHORTEST, out=units), self.scale, out=scaled)
            figures = _Figures(*space.figures[:, :, : len(rows)])
            with products(self.dtype, units.device) as multiply:
                self._all(scaled, figures, space.logits, multiply)
            cluster, top = self._decide(scaled, units, figures)
            shift = -top if self.as_they_are else figures.greatest.sub_(top)
            confidence = figures.total.mul_(shift.exp_()).sum(0).reciprocal_().clamp_(max=1)
            parts.append((cluster, confidence, top / self.scale))
        return Assignment(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _space(self, rows: int, height: int) -> _Workspace:
        """Return memory for so many rows, in tiles of so many; that of the last call where it is large enough."""
        if self.workspace is None or len(self.workspace.units) < rows:
            empty = self.units[0].new_empty
            pair = (empty(rows, self.units[0].shape[1]) for _ in range(2))
            self.workspace = _Workspace(empty(3, len(self.units), rows), empty(height * self.width), *pair)
        return self.workspace

    def _together(self, weight: Tensor) -> Tensor:
        """Return the clusters in an order in which those nearest to the same one of some pivots follow each other."""
        count = min(PIVOTS, -(-len(weight) // self.width))
        if count == 1:
            return torch.arange(len(weight), device=weight.device)
        place = torch.arange(count, device=weight.device) * len(weight) // count
        pivots = F.normalize(weight[place], eps=SHORTEST).T
        nearest = [(rows @ pivots).argmax(1) for rows in weight.split(max(1, self.tile // count))]
        return torch.cat(nearest).argsort(stable=True)

    def _powers(self, logits: Tensor, greatest: Tensor) -> Tensor:
        """Return powers of the logits, in their place, less the greatest of a row unless they stay in range."""
        return (logits if self.as_they_are else logits.sub_(greatest[:, None]).clamp_(min=LOWEST)).exp_()

    def _all(self, scaled: Tensor, figures: _Figures, space: Tensor, multiply: Multiply) -> None:
        """Compute all logits, a tile at a time in the space given, and write the figures, a piece at a time."""
        height, rows = len(space) // self.width, max(1, self.piece // self.width)
        blocks = scaled.split(height)
        for number, units in enumerate(self.units):
            across = units.T
            for block, *places in zip(blocks, *(each[number].split(height) for each in figures[:2]), strict=True):
                tile = multiply(block, across, space[: len(block) * across.shape[1]].view(len(block), -1))
                for logits, greatest, total in zip(*(each.split(rows) for each in (tile, *places)), strict=True):
                    torch.amax(logits, 1, out=greatest)
                    torch.sum(self._powers(logits, greatest), 1, out=total)

    def _lost(self, units: Tensor) -> Tensor:
        """Return how far vectors are from what the fast pass makes of them. Shape: `[n, d]` → `[n]`."""
        return torch.linalg.vector_norm(units - units.to(self.dtype), dim=1)

    def _decide(self, scaled: Tensor, units: Tensor, figures: _Figures) -> tuple[Tensor, Tensor]:
        """Compute the chunks in doubt in float64; return the cluster of each row and its logit.

        First the chunk where the greatest seems to be: what is found there rules out most of the others.
        """
        greatest, _, highest = figures
        best = units.new_full((len(units),), -torch.inf, dtype=torch.float64)
        found = torch.zeros_like(best, dtype=torch.int64), best
        lost = torch.cat([self._lost(rows) for rows in scaled.split(self.width)])
        torch.outer(self.lost, self.scale + lost, out=highest)
        highest += lost + 2 * self.summing  # how wrong a logit may be, by Cauchy and Schwarz
        promising = torch.zeros_like(greatest, dtype=torch.bool).scatter_(0, greatest.argmax(0, keepdim=True), True)
        highest += greatest
        self._exactly(promising, units, figures, *found)
        self._exactly((highest >= self.scale * best) & ~promising, units, figures, *found)
        return found[0], (self.scale * best).float()

    def _exactly(self, doubtful: Tensor, units: Tensor, figures: _Figures, cluster: Tensor, best: Tensor) -> None:
        """Compute cosines of chunks and rows in float64; write better clusters, and the figures as they are."""
        greatest, total, highest = figures
        for number in doubtful.any(1).nonzero()[:, 0].tolist():
            across = self.units[number].double().T
            for rows in doubtful[number].nonzero()[:, 0].split(PAIRS // self.width):
                rows = rows[highest[number, rows] >= self.scale * best[rows]]
                cosine = units[rows].double() @ across
                own = cosine.amax(1)
                equal = cosine >= own[:, None] - EQUAL
                first = torch.where(equal, self.clusters[number], torch.iinfo(torch.int64).max).amin(1)
                better = (own > best[rows] + EQUAL) | ((own > best[rows] - EQUAL) & (first < cluster[rows]))
                chosen = rows[better]
                best[chosen], cluster[chosen] = own[better], first[better]
                logits, own = (self.scale * cosine).float(), (self.scale * own).float()
                greatest[number, rows] = own
                total[number, rows] = self._powers(logits, own).sum(1)


def _rows(count: int, tile: int, held: int) -> int:
    """Return how many rows a block takes: `held` at most but a tile at least, in whole tiles, all blocks alike."""
    blocks = -(-count // max(tile, held // tile * tile))
    return -(-count // (blocks * tile)) * tile

"""Assign embeddings to the most probable of many clusters: a fast pass over all, exact ones over the few in doubt.

Of softmax(scale * cos(z_i, w_k)) the greatest probability and its cluster are wanted. The fast pass multiplies in the
number type asked for and keeps, of each row and chunk of clusters, the greatest logit and the sum of powers. Chunks
that may hold the greatest of all, by what was lost when the factors were rounded, are computed again in float32, the
most promising of a row first, unless one has been found by then that they cannot reach; rows that this leaves in doubt
are decided in float64. So the cluster does not depend on the number type. Clusters that lie together share a chunk, so
that few chunks are in doubt even where thousands of clusters are all but equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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


class _Rooms(NamedTuple):
    """Hold room for a block of rows, kept from call to call: taking memory anew costs up to a tenth of the time.

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
        self.count = -(-len(weight) // self.width)
        self.as_they_are = scale + math.log(self.width) <= math.log(torch.finfo(torch.float32).max) - MARGIN
        self.tile, self.piece = (CARD, CARD) if weight.is_cuda else (TILE, PIECE)
        order = self._together(weight.float())
        units = weight.float()[order]
        F.normalize(units, eps=SHORTEST, out=units)
        self.units, self.clusters = units.split(self.width), order.split(self.width)
        self.summing = scale * weight.shape[1] * torch.finfo(torch.float32).eps / 2  # error of a logit, by sums
        self.lost = torch.stack([self._lost(chunk).amax() for chunk in self.units])
        self.rooms: _Rooms | None = None

    @torch.no_grad()
    def __call__(self, embedding: Tensor) -> Assignment:
        """Assign embeddings. Shape: `[n, d]`. Raises ValueError for others."""
        check(embedding, self.units[0], self.scale)
        height = min(self.tile // self.width, len(embedding))
        blocks = embedding.float().split(_rows(len(embedding), height, HELD // self.count))
        rooms = self._room(len(blocks[0]), height)
        parts = []
        for rows in blocks:
            units, scaled = rooms.units[: len(rows)], rooms.scaled[: len(rows)]
            torch.mul(F.normalize(rows, eps=SHORTEST, out=units), self.scale, out=scaled)
            figures = _Figures(*rooms.figures[:, :, : len(rows)])
            with products(self.dtype, units.device) as multiply:
                self._all(scaled, figures, rooms.logits, multiply)
            cluster, top, doubtful = self._nearly(scaled, figures)
            left = doubtful.nonzero()[:, 0]
            if len(left):
                cluster[left], top[left] = self._exactly(units[left], figures.greatest[:, left])
            shift = -top if self.as_they_are else figures.greatest.sub_(top)
            confidence = figures.total.mul_(shift.exp_()).sum(0).reciprocal_().clamp_(max=1)
            parts.append((cluster, confidence, top / self.scale))
        return Assignment(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _room(self, rows: int, height: int) -> _Rooms:
        """Return room for so many rows, in tiles of so many; that of the last call where it is large enough."""
        if self.rooms is None or len(self.rooms.units) < rows:
            empty = self.units[0].new_empty
            pair = (empty(rows, self.units[0].shape[1]) for _ in range(2))
            self.rooms = _Rooms(empty(3, self.count, rows), empty(height * self.width), *pair)
        return self.rooms

    def _together(self, weight: Tensor) -> Tensor:
        """Return the clusters in an order in which those nearest to the same one of some pivots follow each other."""
        count = min(PIVOTS, self.count)
        if count == 1:
            return torch.arange(len(weight), device=weight.device)
        place = torch.arange(count, device=weight.device) * len(weight) // count
        pivots = F.normalize(weight[place], eps=SHORTEST).T
        nearest = [(rows @ pivots).argmax(1) for rows in weight.split(max(1, self.tile // count))]
        return torch.cat(nearest).argsort(stable=True)

    def _powers(self, logits: Tensor, greatest: Tensor) -> Tensor:
        """Return powers of the logits, in their place, less the greatest of a row unless they stay in range."""
        return (logits if self.as_they_are else logits.sub_(greatest[:, None]).clamp_(min=LOWEST)).exp_()

    def _all(self, scaled: Tensor, figures: _Figures, room: Tensor, multiply: Multiply) -> None:
        """Compute all logits, a tile at a time in the room given, and write the figures, a piece at a time."""
        height, rows = len(room) // self.width, max(1, self.piece // self.width)
        blocks = scaled.split(height)
        for number in range(self.count):
            across = self.units[number].T
            for block, *places in zip(blocks, *(each[number].split(height) for each in figures[:2]), strict=True):
                tile = multiply(block, across, room[: len(block) * across.shape[1]].view(len(block), -1))
                for logits, greatest, total in zip(*(each.split(rows) for each in (tile, *places)), strict=True):
                    torch.amax(logits, 1, out=greatest)
                    torch.sum(self._powers(logits, greatest), 1, out=total)

    def _lost(self, units: Tensor) -> Tensor:
        """Return how far vectors are from what the fast pass makes of them. Shape: `[n, d]` → `[n]`."""
        return torch.linalg.vector_norm(units - units.to(self.dtype), dim=1)

    def _candidates(self, near: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of a chunk and rows near to it, as many as are computed at a time. Shape: `[chunks, n]`."""
        for number in near.any(1).nonzero()[:, 0].tolist():
            for rows in near[number].nonzero()[:, 0].split(PAIRS // self.width):
                yield number, rows

    def _nearly(self, scaled: Tensor, figures: _Figures) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the candidates in float32; return cluster and logit of each row, and whether others come as near.

        First those where the greatest seems to be: what is found there rules out most of the others.
        """
        greatest, _, highest = figures
        top = scaled.new_full((len(scaled),), -torch.inf)
        found = torch.zeros_like(top, dtype=torch.int64), top, torch.zeros_like(top, dtype=torch.bool)
        lost = torch.cat([self._lost(rows) for rows in scaled.split(self.width)])
        torch.outer(self.lost, self.scale + lost, out=highest)
        highest += lost + 2 * self.summing  # how wrong a logit may be, by Cauchy and Schwarz
        place = greatest.argmax(0, keepdim=True)
        highest += greatest
        self._settle(torch.zeros_like(greatest, dtype=torch.bool).scatter_(0, place, True), scaled, figures, *found)
        self._settle((highest >= top).scatter_(0, place, False), scaled, figures, *found)
        cluster, top, several = found
        near = (greatest >= top - 2 * self.summing).sum(0, dtype=torch.int32)
        return cluster, top, several | (near > 1)

    def _settle(
        self, near: Tensor, scaled: Tensor, figures: _Figures, cluster: Tensor, top: Tensor, several: Tensor
    ) -> None:
        """Compute logits of chunks and rows in float32; write better clusters, and the figures as they are."""
        greatest, total, highest = figures
        for number, rows in self._candidates(near):
            rows = rows[highest[number, rows] >= top[rows]]
            logits = scaled[rows] @ self.units[number].T
            own = logits.amax(1)
            better = (own > top[rows]).nonzero()[:, 0]
            chosen, above, those = rows[better], own[better], logits[better]
            first = those.argmax(1, keepdim=True)
            top[chosen], cluster[chosen] = above, self.clusters[number][first[:, 0]]
            second = those.scatter_(1, first, -torch.inf).amax(1)
            several[chosen] = second >= above - 2 * self.summing
            greatest[number, rows] = own
            total[number, rows] = self._powers(logits, own).sum(1)

    def _exactly(self, units: Tensor, greatest: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the candidates in float64; return cluster and logit of each row."""
        best = units.new_full((len(units),), -torch.inf, dtype=torch.float64)
        cluster = torch.zeros_like(best, dtype=torch.int64)
        highest = (greatest + 2 * self.summing).double() / self.scale
        for number, rows in self._candidates(greatest >= greatest.amax(0) - 2 * self.summing):
            rows = rows[highest[number, rows] >= best[rows]]
            cosine = units[rows].double() @ self.units[number].double().T
            own = cosine.amax(1)
            hopeful = (own >= best[rows] - EQUAL).nonzero()[:, 0]
            rows, own = rows[hopeful], own[hopeful]
            equal = cosine[hopeful] >= own[:, None] - EQUAL
            first = torch.where(equal, self.clusters[number], torch.iinfo(torch.int64).max).amin(1)
            better = (own > best[rows] + EQUAL) | (first < cluster[rows])
            chosen = rows[better]
            best[chosen], cluster[chosen] = own[better], first[better]
        return cluster, (self.scale * best).float()


def _rows(count: int, tile: int, held: int) -> int:
    """Return how many rows a block takes: `held` at most but a tile at least, in whole tiles, all blocks alike."""
    blocks = -(-count // max(tile, held // tile * tile))
    return -(-count // (blocks * tile)) * tile

"""Clustering objective: each window surely in one cluster, all together in many (Jansen et al. 2020, section 3.2).

The loss is the mean entropy of each window's distribution over clusters less gamma times the entropy of their mean. The
batch is that of all processes, each of which takes a share of the clusters. The paper's setting is a scale of 60 from
the first step, from random centres; a scale that rises, and centres that start on data points, are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundssl import device
from soundssl.objectives import Head, Inputs, option
from soundssl.ops import entropy

NEEDS: tuple[str, ...] = ()
SEPARATES = False
UNIT_LENGTH = True  # embeddings are compared with centres by their angle
BATCH = 256  # windows embedded at a time to start centres from
SPREAD = 0.1  # length of the noise that sets clusters apart which start from the same data point


@dataclass(frozen=True)
class Options:
    """Options of the clustering objective."""

    clusters: int = option(1000, "number of clusters")
    gamma: float = option(1.1, "weight of the entropy of the mean; 1: mutual information (inferred)")
    gamma_start: float = option(-1.0, "gamma at the first step; negative: gamma from the first to the last (inferred)")
    gamma_over: float = option(0.67, "share of the steps over which it goes from gamma_start to gamma along a line")
    scale: float = option(60.0, "factor of the cosine in the logits")
    rise: float = option(0.67, "share of the steps over which the scale rises from a tenth; the paper has 0")
    momentum: float = option(
        0.0, "of a running average of the mean, for batches far below the clusters; 0: none (inferred)"
    )
    start: Literal["data", "random"] = option("data", "first centres: data points, or random as in the paper")


class Clusters(nn.Module):
    """Hold a centre for each of `clusters` clusters, at first directions drawn at random.

    A fully connected layer without bias, its weights and inputs of length one: only directions matter. The centres
    start with length one, against which the step of the optimiser is to be seen. `average`, the running average of how
    probable each cluster is, starts at zeros.
    """

    average: Tensor

    def __init__(self, clusters: int, size: int) -> None:
        super().__init__()
        if clusters < 2:
            raise ValueError(f"{clusters} clusters tell nothing apart; at least 2 are needed")
        weight = torch.randn(clusters, size)
        self.weight = nn.Parameter(weight.div_(torch.linalg.vector_norm(weight, dim=1, keepdim=True)))
        self.register_buffer("average", torch.zeros(clusters))

    @torch.no_grad()
    def start_from(self, embedding: Tensor, first: int = 0) -> None:
        """Put centres, from the number `first` on, on data points, with a little noise. Shape: `[points, size]`."""
        own = self.weight[first : first + len(embedding)]
        own.copy_(F.normalize(F.normalize(embedding.float(), dim=1)[: len(own)] + SPREAD * own, dim=1))


class Identity(nn.Module):
    """Take vectors for embeddings of themselves: the encoder of a clustering of fixed embeddings."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the vectors. Shape: `[batch, size]` to the same."""
        return vectors


def _facts(inputs: Inputs, options: Options) -> dict[str, Any]:
    return {"scale": options.scale}  # to assign windows to its clusters again


HEAD = Head("head of clusters", _facts)


def check(options: Options) -> None:
    """Raise ValueError for values out of range."""
    for name, legal in (
        ("clusters", options.clusters >= 2),
        ("gamma", options.gamma >= 0),
        ("gamma_over", 0 <= options.gamma_over <= 1),
        ("scale", options.scale > 0),
        ("rise", 0 <= options.rise <= 1),
        ("momentum", 0 <= options.momentum < 1),
    ):
        if not legal:
            raise ValueError(f"{name} of the clustering objective is {getattr(options, name)}, which is out of range")


class Examples(torch.utils.data.Dataset):
    """Give rows of a matrix of embeddings, or windows that start anywhere in the chosen clips of features.

    Windows are drawn in equal shares of all places where one may start, each share once an epoch.
    """

    def __init__(self, inputs: Inputs, options: Options, seed: int) -> None:
        self.seed, self.matrix = seed, inputs.embeddings
        if self.matrix is None:
            features = inputs.features
            self.window = features.window
            starts = np.where(inputs.clips, np.maximum(np.diff(features.offset) - self.window + 1, 0), 0)
            self.frames, self.offset, self.end = features.frames, features.offset[:-1], np.cumsum(starts)
            self.before = self.end - starts
            self.count = -(-int(self.end[-1]) // self.window) if len(self.end) else 0
        else:
            self.count = len(self.matrix)
        if not self.count:
            raise ValueError("there is nothing to cluster: no window of the chosen clips, or no row")

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the batch of (epoch, row) keys. Shape: `window` `[batch, frames, bands]`, or `[batch, d]` of a matrix.

        Raises ValueError for a row that is not finite.
        """
        if self.matrix is None:
            return {"window": torch.from_numpy(self.frames.gather(self._first(keys), self.window))}
        rows = np.array([row for _, row in keys])
        rising, place = np.unique(rows, return_inverse=True)  # in which order a disk is read best
        vectors = np.asarray(self.matrix[rising], np.float32)[place]
        finite = np.isfinite(vectors).all(1)
        if not finite.all():
            raise ValueError(f"row {rows[~finite][0]} of the embeddings is not finite; leave such rows out")
        return {"window": torch.from_numpy(vectors)}

    def _first(self, keys: list[tuple[int, int]]) -> np.ndarray:
        share = [row + np.random.default_rng([self.seed, epoch, row]).random() for epoch, row in keys]
        place = np.minimum((np.array(share) / self.count * self.end[-1]).astype(np.int64), self.end[-1] - 1)
        clip = np.searchsorted(self.end, place, side="right")
        return self.offset[clip] + place - self.before[clip]


class Objective(nn.Module):
    """Embed windows, gather those of all processes, and take the entropies of their distributions over clusters."""

    def __init__(self, encoder: Any, inputs: Inputs, options: Options) -> None:
        super().__init__()
        check(options)
        self.encoder, self.options = encoder, options
        self.head = Clusters(options.clusters, encoder.size)
        if options.start == "data":
            for first, points in _points(encoder, inputs, options):
                self.head.start_from(points, first)

    def scale(self, progress: float) -> float:
        """Return the factor of the cosine: it rises from a tenth along a line, then stays."""
        risen = min(1.0, progress / self.options.rise) if self.options.rise else 1.0
        return self.options.scale * (0.1 + 0.9 * risen)

    def gamma(self, progress: float) -> float:
        """Return the weight of the entropy of the mean: it goes from its first value to its last along a line."""
        options = self.options
        if options.gamma_start < 0 or progress >= options.gamma_over:
            return options.gamma
        return options.gamma_start + (options.gamma - options.gamma_start) * progress / options.gamma_over

    def forward(self, batch: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, both entropies in nats, and the clusters that are the most probable of any example."""
        embedding = self.encoder(batch["window"].float())
        dtype = torch.bfloat16 if _half(embedding.device.type) else torch.float32
        with torch.autocast(embedding.device.type, enabled=False):
            found = entropy.entropies(
                device.gather(embedding.float()), self.head.weight, self.scale(progress), self.gamma(progress), dtype,
                average=self.head.average if self.options.momentum else None, momentum=self.options.momentum,
                ranks=device.ranks(),
            )  # fmt: skip
        figures = {
            "conditional_entropy": found.conditional,
            "marginal_entropy": found.marginal,
            "active": found.active.float(),
        }
        return found.loss, figures


def _half(kind: str) -> bool:
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


@torch.no_grad()
def _points(encoder: nn.Module, inputs: Inputs, options: Options) -> Iterator[tuple[int, Tensor]]:
    """Yield embeddings of examples drawn at random, one a cluster if there are as many: a number, those from it on."""
    seed = int(torch.randint(2**31, ()))
    examples = Examples(inputs, options, seed)
    rows = np.random.default_rng(seed).permutation(len(examples))[: options.clusters]
    where = next((each.device for each in encoder.parameters()), torch.device("cpu"))
    training = encoder.training
    encoder.eval()
    for first in range(0, len(rows), BATCH):
        windows = examples.__getitems__([(0, int(row)) for row in rows[first : first + BATCH]])["window"]
        yield first, encoder(windows.to(where).float()).float().cpu()
    encoder.train(training)

"""Heads on embeddings: a centre a cluster, the projection of two views; and the encoder of bare vectors.

Clusters are those of Jansen et al. 2020, section 3.2: a fully connected layer without bias, its weights and inputs of
length one. The projection is that of Fonseca et al. 2021: views are compared behind it, embeddings are taken before it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPREAD = 0.1  # length of the noise that sets clusters apart which start from the same data point


class Clusters(nn.Module):
    """Hold a centre for each of `clusters` clusters, at first directions drawn at random.

    Only directions matter; the centres start with length one, against which the step of the optimiser is to be seen.
    `average`, the running average of how probable each cluster is, starts at zeros.
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


class Projection(nn.Module):
    """Map embeddings to vectors of length one: a layer with norm and ReLU, then a linear one.

    `norm` is `batch`, as published, or `layer`, which does not depend on how a batch is split over devices. Shape:
    [batch, size] to [batch, output].
    """

    def __init__(self, size: int, hidden: int, output: int, norm: str) -> None:
        super().__init__()
        if norm not in ("batch", "layer"):
            raise ValueError(f"norm is {norm!r}; it is batch or layer")
        between = nn.BatchNorm1d(hidden) if norm == "batch" else nn.LayerNorm(hidden)
        self.layers = nn.Sequential(nn.Linear(size, hidden), between, nn.ReLU(), nn.Linear(hidden, output))

    def forward(self, embedding: Tensor) -> Tensor:
        """Return unit vectors, in float32 whatever the encoder computes in."""
        with torch.autocast(embedding.device.type, enabled=False):
            return F.normalize(self.layers(embedding.float()), dim=1)


class Identity(nn.Module):
    """Take vectors for embeddings of themselves: the encoder of a clustering of fixed embeddings."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the vectors. Shape: `[batch, size]` to the same."""
        return vectors

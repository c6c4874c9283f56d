"""The scorer of coincidence prediction: one hidden layer on two concatenated embeddings (Jansen et al. 2020, 3.1)."""

import math

import torch
from torch import Tensor, nn

from soundssl.ops import pairs


class Scorer(nn.Module):
    """Score how far two embeddings seem to belong together, as a logit: 512 ReLU units, then one linear output.

    The first layer is stored as the two halves that read the one and the other embedding. Scores are not symmetric.
    """

    def __init__(self, size: int, hidden: int):
        super().__init__()
        self.weight_a, self.weight_b = nn.Parameter(torch.empty(hidden, size)), nn.Parameter(torch.empty(hidden, size))
        self.bias, self.output = nn.Parameter(torch.empty(hidden)), nn.Parameter(torch.empty(hidden))
        self.output_bias = nn.Parameter(torch.zeros(()))
        for parameter in (self.weight_a, self.weight_b, self.bias):
            nn.init.uniform_(parameter, -1 / math.sqrt(2 * size), 1 / math.sqrt(2 * size))  # as a linear layer of both
        nn.init.uniform_(self.output, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Score all pairs. Shape: [rows, size] and [columns, size] to [rows, columns]."""
        return pairs.scores(a, b, *self._weights())

    def paired(self, a: Tensor, b: Tensor) -> Tensor:
        """Score row i of the one with row i of the other. Shape: [rows, size] twice to [rows]."""
        return pairs.paired_scores(a, b, *self._weights())

    def _weights(self) -> tuple[Tensor, ...]:
        return self.weight_a, self.weight_b, self.bias, self.output, self.output_bias

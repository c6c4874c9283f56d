"""The classifier on top of an encoder: a linear layer, or one hidden layer of rectified units before it."""

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Map embeddings to one logit a class. Shape: [batch, size] to [batch, classes]."""

    def __init__(self, size: int, classes: int, hidden: int = 0) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError("a classifier needs a class; the labels name none")
        layers = (
            [nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, classes)] if hidden else [nn.Linear(size, classes)]
        )
        self.layers = nn.Sequential(*layers)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits, in float32 whatever the encoder computes in: bfloat16 tells 0.998 from 1 hardly."""
        with torch.autocast(embedding.device.type, enabled=False):
            return self.layers(embedding.float())

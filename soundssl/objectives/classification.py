"""Classification objective: windows and their labels, the last step of consolidation (Jansen et al. 2020).

Labels may be explicit, spread from clusters, or partly unknown: -1 touches neither loss nor gradient. A window takes
the labels of the segment it is drawn from, and the segment's weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from soundssl.labels import rows_of
from soundssl.models.tensors import below
from soundssl.objectives import Head, Inputs, Layer, option
from soundssl.ops import losses

NEEDS = ("features", "labels")
SEPARATES = False
UNIT_LENGTH = False
LEAST_DEVIATION = 1e-6  # relative to the mean; below it a dimension is constant
MEASURED = 4096  # training windows by which embeddings are standardised
BATCH = 64  # of them embedded at a time


@dataclass(frozen=True)
class Options:
    """Options of the classification objective."""

    loss: Literal["ce", "bce"] = option("ce", "ce: softmax over exclusive classes; bce: a sigmoid a class (inferred)")
    freeze: bool = option(False, "train the classifier alone, on a fixed encoder (shallow)")
    standardise: bool = option(
        True, "with freeze, scale embeddings by mean and deviation of the training windows before the classifier"
    )
    hidden: int = option(0, "units of a hidden layer before the classes; 0: none")
    weighted: bool = option(True, "weigh an example by the confidence of its labels, where the labels file has any")


class Classifier(nn.Module):
    """Map embeddings to one logit a class: a linear layer, or one hidden layer of rectified units before it.

    The buffers `mean` and `deviation` [size], by which embeddings are scaled first, start at 0 and 1; the state of a
    classifier of before, which has none, is taken with these. Shape: [batch, size] to [batch, classes].
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int, classes: int, hidden: int = 0) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError("a classifier needs a class; the labels name none")
        layers = (
            [nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, classes)] if hidden else [nn.Linear(size, classes)]
        )
        self.layers = nn.Sequential(*layers)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.register_load_state_dict_pre_hook(_complete)

    def standardise(self, embeddings: Tensor) -> None:
        """Scale by mean and deviation of embeddings from now on; a dimension that is constant is not scaled.

        Shape: [n, size].
        """
        vectors = embeddings.double()
        mean, deviation = vectors.mean(0), vectors.std(0, correction=0)
        constant = deviation <= LEAST_DEVIATION * (1.0 + mean.abs())
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(constant, 1.0, deviation))

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits, in float32 whatever the encoder computes in: bfloat16 tells 0.998 from 1 hardly."""
        with torch.autocast(embedding.device.type, enabled=False):
            return self.layers((embedding.float() - self.mean) / self.deviation)


def _complete(classifier: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Say of the state of a classifier of before, which scaled nothing, that it scales by 0 and 1."""
    if f"{prefix}layers.0.weight" in state:
        state.setdefault(f"{prefix}mean", torch.zeros_like(classifier.get_buffer("mean")))
        state.setdefault(f"{prefix}deviation", torch.ones_like(classifier.get_buffer("deviation")))


OUTPUT = {"ce": "softmax", "bce": "sigmoid"}  # what turns logits of a loss into probabilities


def _facts(inputs: Inputs, options: Options) -> dict[str, Any]:
    return {"classes": inputs.labels.classes, "hidden": options.hidden, "output": OUTPUT[options.loss]}


def _logits(facts: dict[str, Any], size: int, tensors: dict[str, np.ndarray]) -> Layer:
    classes = facts["classes"]
    classifier = Classifier(size, len(classes), facts["hidden"])
    classifier.load_state_dict(below(tensors, "head.classification.classifier."))
    return Layer(classifier, len(classes), classes)


def _probabilities(facts: dict[str, Any], size: int, tensors: dict[str, np.ndarray]) -> Layer:
    logits = _logits(facts, size, tensors)
    output = nn.Softmax(dim=1) if facts["output"] == "softmax" else nn.Sigmoid()
    return logits._replace(head=nn.Sequential(logits.head, output))


HEAD = Head("classifier", _facts, ("classes", "hidden"), {"logits": _logits, "probabilities": _probabilities})


class Examples(torch.utils.data.Dataset):
    """Draw a window from each labelled segment, another every epoch; segments without a known label are left out."""

    def __init__(self, inputs: Inputs, options: Options, seed: int) -> None:
        features, labels = inputs.features, inputs.labels
        self.frames, self.window, self.seed = features.frames, features.window, seed
        clip = rows_of(labels.key, features.clips.key)
        useful = (labels.label == 1).any(1) if options.loss == "ce" else (labels.label >= 0).any(1)
        kept = (clip >= 0) & useful & np.where(clip >= 0, inputs.clips[clip], False)
        begin, end = features.offset[clip], features.offset[clip + 1]
        rate = float(features.attributes["frame_rate"])
        low = begin + np.round(np.minimum(labels.start, 1e9) * rate).astype(np.int64)
        high = np.minimum(end, begin + np.round(np.minimum(labels.end, 1e9) * rate).astype(np.int64)) - self.window
        middle = (low + high) // 2  # a segment shorter than a window is met by the window about its middle
        low, high = np.where(high < low, middle, low), np.where(high < low, middle, high)
        last = end - self.window
        kept &= last >= begin
        if not kept.any():
            raise ValueError("no window of the chosen clips has a label; are the keys of labels and features the same?")
        self.low = np.clip(low, begin, last)[kept]
        self.high = np.clip(high, begin, last)[kept]
        self.label = labels.label[kept]
        self.weight = (labels.weight if options.weighted else np.ones(len(labels.key), np.float32))[kept]

    def __len__(self) -> int:
        return len(self.label)

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the batch of (epoch, row) keys.

        Shape: `window` `[batch, frames, bands]`, `label` `[batch, classes]`, `weight` `[batch]`.
        """
        rows = np.array([row for _, row in keys])
        first = [
            np.random.default_rng([self.seed, epoch, row]).integers(self.low[row], self.high[row] + 1)
            for epoch, row in keys
        ]
        return {
            "window": torch.from_numpy(self.frames.gather(np.array(first), self.window)),
            "label": torch.from_numpy(self.label[rows].astype(np.int64)),
            "weight": torch.from_numpy(self.weight[rows].astype(np.float32)),
        }


@torch.no_grad()
def _embeddings(encoder: nn.Module, examples: Examples) -> Tensor:
    """Return the embeddings of a window of each segment, or of MEASURED evenly spaced ones. Shape: [n, size]."""
    rows = np.unique(np.linspace(0, len(examples) - 1, min(len(examples), MEASURED)).round().astype(int))
    device, training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    found = [
        encoder(examples.__getitems__([(0, int(row)) for row in part])["window"].to(device).float()).cpu()
        for part in np.split(rows, range(BATCH, len(rows), BATCH))
    ]
    encoder.train(training)
    return torch.cat(found)


class Objective(nn.Module):
    """Classify windows; a frozen encoder keeps its weights and its running statistics."""

    def __init__(self, encoder: nn.Module, inputs: Inputs, options: Options) -> None:
        super().__init__()
        self.encoder, self.options = encoder, options
        size: Any = encoder.size
        self.classifier = Classifier(size, len(inputs.labels.classes), options.hidden)
        if options.freeze:
            encoder.requires_grad_(False)
        if options.freeze and options.standardise:
            self.classifier.standardise(_embeddings(encoder, Examples(inputs, options, 0)))

    def train(self, mode: bool = True) -> Objective:
        """Keep a frozen encoder in evaluation mode."""
        super().train(mode)
        if self.options.freeze:
            self.encoder.eval()
        return self

    def forward(self, batch: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the share of examples whose highest class is one of theirs."""
        logits = self.classifier(self.encoder(batch["window"].float())).float()
        masked = losses.masked_cross_entropy if self.options.loss == "ce" else losses.masked_binary_cross_entropy
        loss, known = masked(logits, batch["label"])
        with torch.no_grad():
            best = batch["label"].gather(1, logits.argmax(1, keepdim=True))[:, 0]
            correct = (best == 1).float().mean()
        return losses.weighted_mean(loss, known * batch["weight"]), {"correct": correct}

"""A small classifier on frozen embeddings: what do they tell a learner with all labels, or with a few per class?

Conventions
-----------
Windows inherit the labels of their clip; every class is one logistic output behind one hidden layer of 512 rectified
units (Jansen et al. 2018, sound classification; no hidden layer: a linear classifier). With `per_class` clips drawn at
random for each class it is the lightly supervised test of the same paper (20 clips a class, three draws, the mean
reported). Inputs are standardised by mean and deviation of the training windows. The loss is binary cross-entropy over
the known labels. The score of a clip is the mean probability of its windows. The papers leave the optimiser open: the
defaults of learning rate, batch, epochs and patience are inferred. With validation clips the weights of the epoch of
best validation mAP are kept. All draws score the same test clips; values are means over draws. With `pool` a clip is
one example, the mean of its windows or all of them side by side.

The preset `esc50` is the transfer of MM-Videos (2019): windows side by side (5 x 128 = 640 inputs), dropout 0.3, Adam
2e-4, batches of 128, every fold in turn, top1 and mAP. Inferred are the hidden layer, the place of the dropout (before
the last layer) and the weight decay.

Metrics
-------
- `mAP`, `AUC`: means over classes with a positive and a negative, the others counted in `skipped_classes`
- `dprime`: mean over classes of each d-prime; `dprime_of_mean_auc`: d-prime of the mean AUC
- `lwlrap`, `top1`, `top5` (with five classes or more)
- `AP` of each class; `training_clips`: clips trained on
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from soundssl.evaluations import row, tagging
from soundssl.evaluations.table import Table
from soundssl.ops import losses, metrics
from soundssl.ops.groups import group_means

PRESETS: dict[str, dict[str, Any]] = {  # values that a protocol has
    "none": {},
    "esc50": {"pool": "concat", "dropout": 0.3, "weight_decay": 1e-5, "learning_rate": 2e-4, "batch_size": 128},
    "tut18": {"learning_rate": 2e-4, "batch_size": 128},
    "audioset": {"learning_rate": 2e-4, "batch_size": 128},
}
HOPS = {
    "none": None,
    "esc50": 1.0,
    "tut18": None,
    "audioset": None,
}  # seconds between windows; None: those of the front end
WINDOW_BLOCK = 8192  # windows scored at once


@dataclass(frozen=True)
class Options:
    """Choose the classifier, how many labels it sees, and how it is trained."""

    hidden: tuple[int, ...] = (512,)  # units of each hidden layer; none: a linear classifier
    per_class: int = 0  # training clips drawn for each class; 0: all that have labels
    draws: int = 3  # random draws of training clips to average over, with per_class
    learning_rate: float = 1e-3  # of Adam (inferred)
    batch_size: int = 512  # windows a step (inferred)
    epochs: int = 40  # passes over the training windows at most (inferred)
    steps: int = 50_000  # optimiser steps at most (inferred)
    patience: int = 5  # epochs without a better validation mAP to stop at (inferred)
    bootstrap: int = 0  # replicates over clips for 95 % intervals; 0: none
    device: str = "cpu"
    pool: Literal["none", "mean", "concat"] = "none"  # what of a clip is one example: each window, their mean, or all
    dropout: float = 0.0  # share of the numbers before the last layer that are dropped in training
    weight_decay: float = 0.0  # L2 penalty of Adam

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1 or not self.weight_decay >= 0:
            raise ValueError(f"needs dropout from 0 to below 1, weight_decay >= 0: {self}")


# Protocols of Cross-modal supervised learning (2019), section 19.5: rate and batch of the classifier, and the splits.
SPLITS: dict[str, dict[str, str]] = {
    "none": {},
    "tut18": {"train": "train", "test": "test"},
    "audioset": {"train": "balanced_train", "test": "eval"},
}


@dataclass(frozen=True)
class Windows:
    """Hold the embeddings `[windows, size]` with the clip of each window and the labels `[clips, classes]`."""

    embedding: Tensor
    clip: np.ndarray
    label: np.ndarray

    def of(self, clips: np.ndarray) -> np.ndarray:
        """The numbers of the windows of the clips where the bool array `[clips]` holds."""
        return np.flatnonzero(clips[self.clip])


def check(table: Table) -> None:
    """Raise ValueError unless each side has clips of its own, and all that are scored a window."""
    table.require_vectors()
    for name, part in table.parts():
        if not part.any():
            raise ValueError(f"{name} must pick some of {len(part)} clips: 0 of {list(part.shape)}")
        empty = part & (table.windows == 0)
        if name != "train" and empty.any():
            raise ValueError(f"{int(empty.sum())} {name} clips have no window")


def draw_clips(label: np.ndarray, train: np.ndarray, per_class: int, generator: np.random.Generator) -> np.ndarray:
    """Draw up to `per_class` training clips having each class; a clip drawn keeps all its labels (inferred).

    Shape: label [clips, classes], train bool [clips]; returns bool [clips].
    """
    drawn = np.zeros(len(label), bool)
    for column in range(label.shape[1]):
        having = np.flatnonzero(train & (label[:, column] == 1))
        drawn[generator.choice(having, min(per_class, len(having)), replace=False)] = True
    return drawn


def mean_and_deviation(windows: Windows, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each dimension over some windows; a constant dimension gets deviation 1."""
    total, square = torch.zeros((2, windows.embedding.shape[1]), dtype=torch.float64)
    for start in range(0, len(rows), WINDOW_BLOCK):
        block = windows.embedding[torch.from_numpy(rows[start : start + WINDOW_BLOCK])].double()
        total += block.sum(0)
        square += block.square().sum(0)
    mean = total / len(rows)
    variance = (square / len(rows) - mean.square()).clamp_min(0.0)
    constant = variance <= 1e-12 * (1.0 + mean.square())
    return mean.float(), torch.where(constant, 1.0, variance.sqrt()).float()


class Classifier(nn.Module):
    """Map embeddings to one logit a class through rectified hidden layers, standardising the inputs first.

    Shape: [batch, size] -> [batch, classes].
    """

    def __init__(
        self, mean: Tensor, deviation: Tensor, hidden: tuple[int, ...], classes: int, seed: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        generator = torch.Generator().manual_seed(seed)
        widths = (len(mean), *hidden, classes)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
        if dropout:
            layers.insert(-2, Dropout(dropout, generator))
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits `[batch, classes]` of embeddings `[batch, size]`."""
        return self.layers((embedding - self.mean) / self.deviation)


class Dropout(nn.Module):
    """Set a share of the numbers to zero in training, drawn from a generator of its own, and scale up the rest."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share, self.generator = share, generator

    def forward(self, vectors: Tensor) -> Tensor:
        """Return vectors of the same shape."""
        if not self.training:
            return vectors
        kept = torch.rand(vectors.shape, generator=self.generator) >= self.share
        return vectors * kept.to(vectors.device) / (1.0 - self.share)


@torch.no_grad()
def clip_scores(network: Classifier, windows: Windows, clips: np.ndarray) -> np.ndarray:
    """Return the mean window probability of each class for the chosen clips, in float64.

    Shape: clips bool [clips]; returns [chosen clips, classes].
    """
    rows, device = windows.of(clips), network.mean.device
    network.eval()
    probability = np.empty((len(rows), windows.label.shape[1]))
    for start in range(0, len(rows), WINDOW_BLOCK):
        block = windows.embedding[torch.from_numpy(rows[start : start + WINDOW_BLOCK])]
        logits = network(block.to(device, torch.float32))
        probability[start : start + len(block)] = logits.double().sigmoid().cpu().numpy()
    place = np.cumsum(clips) - 1
    return group_means(probability, place[windows.clip[rows]], int(clips.sum()))


def fit(windows: Windows, train: np.ndarray, validation: np.ndarray | None, options: Options, seed: int) -> Classifier:
    """Train a classifier on the windows of some clips; keep the epoch of best validation mAP when clips are given.

    Shape: train and validation bool [clips].
    """
    rows = windows.of(train & (windows.label >= 0).any(axis=1))
    if not len(rows):
        raise ValueError(f"none of {int(train.sum())} training clips has both a window and a known label")
    device, statistics = options.device, mean_and_deviation(windows, rows)
    network = Classifier(*statistics, options.hidden, windows.label.shape[1], seed, options.dropout).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    generator = torch.Generator().manual_seed(seed + 1)
    label = torch.from_numpy(windows.label)
    batches = math.ceil(len(rows) / options.batch_size)
    best, since, kept = -1.0, 0, None
    for epoch in range(options.epochs):
        network.train()
        order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)]
        for batch in order.split(options.batch_size)[: options.steps - epoch * batches]:
            inputs = windows.embedding[batch].to(device, torch.float32)
            targets = label[torch.from_numpy(windows.clip[batch.numpy()])].to(device)
            optimizer.zero_grad(set_to_none=True)
            losses.weighted_mean(*losses.masked_binary_cross_entropy(network(inputs), targets)).backward()
            optimizer.step()
        if validation is not None:
            reached = metrics.per_class(clip_scores(network, windows, validation), windows.label[validation]).mean
            since += 1
            if reached > best:
                best, since = reached, 0
                kept = {name: value.clone() for name, value in network.state_dict().items()}
        if since >= options.patience or (epoch + 1) * batches >= options.steps:
            break
    if kept is not None:
        network.load_state_dict(kept)
    return network


def evaluate(table: Table, options: Options = Options(), seed: int = 0) -> list[dict[str, Any]]:
    """Train on the windows of the training clips, score the test clips: overall metrics, then AP of every class.

    Raises ValueError where train, test and validation have no clips of their own, or the test labels allow no class to
    be scored.
    """
    check(table)
    if options.pool != "none":
        table = table.pooled(options.pool)
    label, train, test = np.asarray(table.label, np.int8), table.train, table.test
    windows = Windows(torch.as_tensor(table.value), table.clip, label)
    scores, used = [], []
    for draw in range(options.draws if options.per_class else 1):
        generator = np.random.default_rng([seed, draw])
        chosen = draw_clips(label, train, options.per_class, generator) if options.per_class else train
        network = fit(windows, chosen, table.validation, options, int(generator.integers(2**62)))
        scores.append(clip_scores(network, windows, test))
        used.append(int((chosen & (label >= 0).any(axis=1)).sum()))
    weight = np.zeros((0, int(test.sum())), np.int64)
    if options.bootstrap:
        weight = metrics.multiplicities(weight.shape[1], options.bootstrap, np.random.default_rng([seed]))
    drawn = row("training_clips", float(np.mean(used)), len(used))
    overall, single = (
        tagging.overall_rows(scores, label[test], weight),
        tagging.class_rows(scores, label[test], table.classes),
    )
    return [*overall, drawn, *single]

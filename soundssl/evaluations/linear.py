"""One linear layer on frozen embeddings: how well do they tell classes apart that exclude one another?

Conventions
-----------
The protocol of Fonseca et al. 2021 ("Unsupervised contrastive learning of sound event representations", the published
code): softmax cross-entropy; SGD with momentum 0.9 and weight decay 1e-4, batches of 128 clips, rate 0.1, a tenth of it
from epoch 80 and a hundredth from epoch 160 of 200; of every training clip one window at random an epoch, nothing else
changed; the score of a clip is the mean softmax of its windows. Embeddings are scaled by mean and deviation of the
training windows first (`standardise`, ours). The preset `sound-events` is the published protocol: embeddings go in as
the net gives them, of lengths of about 2 to 16 there, from windows half a second apart; those of length one, as embed
writes them without --raw, learn too slowly at that rate. Clips of several classes are refused; clips without a known
class train nothing. With validation clips the weights of the epoch of best balanced accuracy are
kept (inferred), else those of the last.

Metrics
-------
- `balanced_accuracy`: mean of the accuracy over classes, the paper's; chance is 1 / classes; and `accuracy`
- `mAP` and, per class, `AP` of the scores; `training_clips`: clips trained on
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from soundssl.evaluations import row, tagging
from soundssl.evaluations.table import Table
from soundssl.ops import metrics
from soundssl.ops.groups import group_means

PRESETS: dict[str, dict[str, Any]] = {  # values that a protocol has
    "none": {},
    "sound-events": {"learning_rate": 0.1, "epochs": 200, "standardise": False},
}
HOPS = {"none": None, "sound-events": 0.5}  # seconds between windows; None: those of the front end
LEAST_DEVIATION = 1e-6  # relative to the mean; below it a dimension is constant and is not scaled


@dataclass(frozen=True)
class Options:
    """Choose how the layer is trained; the defaults are the published values, but for `standardise`."""

    learning_rate: float = 0.1  # of SGD in the first epochs
    momentum: float = 0.9
    weight_decay: float = 1e-4  # of weights and biases
    batch_size: int = 128  # clips a step
    epochs: int = 200  # passes over the training clips
    drops: tuple[int, ...] = (80, 160)  # epochs from which the rate is a tenth
    standardise: bool = True  # scale by mean and deviation of the training windows
    bootstrap: int = 0  # replicates over clips for 95 % intervals; 0: none


def check(table: Table) -> None:
    """Raise ValueError where a clip has two classes, or a side no clip of its own with a window and a class."""
    table.require_vectors()
    several = (table.label == 1).sum(axis=1) > 1
    if several.any():
        raise ValueError(f"{int(several.sum())} clips have several classes; use the evaluation shallow for them")
    useful = (table.label == 1).any(axis=1) & (table.windows > 0)
    for name, part in table.parts():
        if not (part & useful).any():
            raise ValueError(f"none of {int(part.sum())} {name} clips has a window and a class")


class Windows:
    """Hold the windows of clips, those of a clip side by side, so that one of each can be drawn at a stroke."""

    def __init__(self, embedding: np.ndarray, clip: np.ndarray, clips: int) -> None:
        self.order = np.argsort(clip, kind="stable")
        self.count = np.bincount(clip, minlength=clips)
        self.first = np.cumsum(self.count) - self.count
        self.embedding, self.clip = torch.as_tensor(embedding), clip

    def one_of_each(self, clips: np.ndarray, generator: np.random.Generator) -> Tensor:
        """Draw a window of each clip. Shape: clips [n] numbers of clips with windows; returns [n, size]."""
        place = self.first[clips] + (generator.random(len(clips)) * self.count[clips]).astype(np.int64)
        return self.embedding[torch.from_numpy(self.order[place])].float()


@torch.no_grad()
def clip_scores(layer: nn.Module, windows: Windows, clips: np.ndarray) -> np.ndarray:
    """Return the mean softmax over windows, in float64. Shape: clips bool [clips]; returns [chosen, classes]."""
    rows = np.flatnonzero(clips[windows.clip])
    probability = layer(windows.embedding[torch.from_numpy(rows)].float()).double().softmax(1).numpy()
    return group_means(probability, (np.cumsum(clips) - 1)[windows.clip[rows]], int(clips.sum()))


class Layer(nn.Module):
    """Map embeddings to logits, after a shift and a scale that are not learnt.

    Shape: [batch, size] to [batch, classes].
    """

    def __init__(self, mean: Tensor, deviation: Tensor, classes: int, seed: int) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation
        self.linear = nn.utils.skip_init(nn.Linear, len(mean), classes)
        generator = torch.Generator().manual_seed(seed)
        bound = len(mean) ** -0.5
        for parameter in self.linear.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits."""
        return self.linear((embedding - self.mean) / self.deviation)


def fit(
    windows: Windows, label: np.ndarray, train: np.ndarray, validation: np.ndarray | None, options: Options, seed: int
) -> Layer:
    """Train the layer on clips with a class; raise ValueError where the loss is not finite.

    Shape: label [clips, classes], train and validation bool [clips].
    """
    chosen = np.flatnonzero(train & (label == 1).any(axis=1) & (windows.count > 0))
    generator = np.random.default_rng([seed])
    size = windows.embedding.shape[1]
    mean, deviation = torch.zeros(size), torch.ones(size)
    if options.standardise:
        vectors = windows.embedding[torch.from_numpy(np.flatnonzero(np.isin(windows.clip, chosen)))].double()
        middle, spread = vectors.mean(0), vectors.std(0, correction=0)
        constant = spread <= LEAST_DEVIATION * (1.0 + middle.abs())
        mean, deviation = middle.float(), torch.where(constant, 1.0, spread).float()
    layer = Layer(mean, deviation, label.shape[1], int(generator.integers(2**62)))
    optimizer = torch.optim.SGD(
        layer.parameters(), options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(options.drops), 0.1)
    target = torch.from_numpy(label.argmax(axis=1))
    best, kept = -1.0, None
    for _ in range(options.epochs):
        order = generator.permutation(chosen)
        for clips in np.split(order, range(options.batch_size, len(order), options.batch_size)):
            loss = nn.functional.cross_entropy(layer(windows.one_of_each(clips, generator)), target[clips])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss of the linear layer is {float(loss.detach())}; "
                f"{'' if options.standardise else 'standardise, or '}lower the learning rate"
            )
        schedule.step()
        if validation is not None:
            reached = _balanced(clip_scores(layer, windows, validation), label[validation])
            if reached > best:
                best, kept = reached, {name: value.clone() for name, value in layer.state_dict().items()}
    if kept is not None:
        layer.load_state_dict(kept)
    return layer


def _balanced(score: np.ndarray, label: np.ndarray) -> float:
    return metrics.balanced_accuracy(score.argmax(axis=1), label)


def evaluate(table: Table, options: Options = Options(), seed: int = 0) -> list[dict[str, Any]]:
    """Train on the training clips and decide the test clips: accuracies and mAP, then AP of every class.

    Raises ValueError where train, test and validation have no clips of their own with a window and a class, a clip has
    several classes, or the loss is not finite.
    """
    check(table)
    label, train = table.label, table.train
    windows = Windows(table.value, table.clip, len(label))
    test = table.test & (windows.count > 0)
    layer = fit(windows, label, train, table.validation, options, seed)
    score, known = clip_scores(layer, windows, test), label[test]
    weight = np.zeros((0, len(known)), np.int64)
    if options.bootstrap:
        weight = metrics.multiplicities(len(known), options.bootstrap, np.random.default_rng([seed]))
    used = int((train & (label == 1).any(axis=1) & (windows.count > 0)).sum())
    decided, ranked = (
        tagging.decision_rows(score.argmax(axis=1), known, weight),
        tagging.ranking_rows(score, known, table.classes, weight),
    )
    single = [one for one in ranked if one["class"] is not None]
    overall = [one for one in ranked if one["class"] is None]
    return [*decided, *overall, row("training_clips", float(used), used), *single]

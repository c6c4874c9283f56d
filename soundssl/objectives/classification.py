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

from soundssl.labels import Moments, balance, rows_of
from soundssl.models.tensors import below
from soundssl.objectives import Head, Inputs, Layer, option
from soundssl.ops import losses, robust

NEEDS = ("features", "labels")
SEPARATES = False
UNIT_LENGTH = False
LEAST_DEVIATION = 1e-6  # relative to the mean; below it a dimension is constant
DISCARD_AT = {"percentile": 96.0, "maximum": 0.93, "outlier": 1.9}  # of Fonseca et al. 2019
MEASURED = 4096  # training windows by which embeddings are standardised
BATCH = 64  # of them embedded at a time
PRIOR_BLOCK = 1 << 12  # rows of labels counted at a time


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
    robust: Literal["none", "lq", "soft", "hard"] = option(
        "none",
        "with ce, for labels that may be wrong. lq: L_q (Zhang and Sabuncu 2018); soft, hard: bootstrapping (Reed et "
        "al. 2015)",
    )
    q: float = option(
        0.7, "exponent of L_q: towards 0 cross-entropy, at 1 the mean absolute error (Fonseca et al. 2019)"
    )
    beta: float = option(0.3, "share of the labels in the target of bootstrapping (Fonseca et al. 2019)")
    through: bool = option(True, "let the gradient pass through the target of soft bootstrapping, as published")
    selective: bool = option(False, "robust only where the labels file marks segments as noisy, ce for others")
    discard: Literal["none", "percentile", "maximum", "outlier"] = option(
        "none",
        "leave out the highest losses of a batch: above a percentile, a share of the maximum, or the median and so "
        "many deviations",
    )
    discard_at: float = option(
        0.0, "that percentile, share or number; 0: 96, 0.93, 1.9 (Fonseca et al. 2019; with cross-entropy 0.6 for 0.93)"
    )
    discard_from: int = option(0, "first epoch that discards; Fonseca et al. 2019 take 20")
    discard_q: float = option(0.0, "q from that epoch on; 0: as before; Fonseca et al. 2019 take 0.5")
    mixup: float = option(
        0.0, "mix examples by shares of Beta(a, a) with this a, 0: none; Fonseca et al. 2019 take 0.1"
    )
    mixup_with: Literal["inside", "between"] = option(
        "inside", "partners in mixup: the next of the batch, or any other example"
    )
    mixup_from: int = option(0, "first epoch that mixes; Fonseca et al. 2019 take 10")
    smoothing: float = option(0.0, "share of a label that all classes of ce share; Fonseca et al. 2019 take 0.15")
    smoothing_step: float = option(0.0, "added to it for labels of noisy_classes, and taken from it for others")
    noisy_classes: str = option("", "classes whose labels are often wrong, separated by ;")
    events: bool = option(
        True, "where the labels have events, a window takes those that it overlaps; off: a segment's labels throughout"
    )
    strong: float = option(
        0.5,
        "share of each batch from segments with events, where others are weakly labelled (inferred); 0: as they come",
    )
    overlap: float = option(
        0.0, "least overlap of an event, as a share of the window or the event, whichever is shorter; 0: any (inferred)"
    )
    balance: float = option(
        0.0, "exponent b of (largest / own class)^b, by which clips are drawn: 0 as they come, 1 alike"
    )
    balance_by: Literal["weights", "queue"] = option(
        "weights", "queue: classes take turns, whatever balance is (Kong et al. 2020)"
    )
    visual: Literal["all", "half"] = option(
        "all", "half: each step keeps a random half of the visual labels of a clip, and all others (MM-Videos)"
    )
    dropped: Literal["zero", "ignore"] = option(
        "zero", "with visual=half, what a dropped label is in that step: absent, or unknown (inferred: zero)"
    )
    prior: bool = option(
        False, "start the bias of each output at the logarithm of its odds, or of its share, in the labels"
    )


# MM-Videos (section 19): each step keeps half of the visual labels of a clip at random, and all others.
VISUAL = "visual"


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

    @torch.no_grad()
    def set_prior(self, bias: Tensor) -> None:
        """Start the outputs at these logits. Shape: [classes]."""
        last: Any = self.layers[-1]
        last.bias.copy_(bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits, in float32 whatever the encoder computes in: bfloat16 tells 0.998 from 1 hardly."""
        with torch.autocast(embedding.device.type, enabled=False):
            return self.layers((embedding.float() - self.mean) / self.deviation)


def _complete(classifier: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Say of the state of a classifier of before, which scaled nothing, that it scales by 0 and 1."""
    if f"{prefix}layers.0.weight" in state:
        state.setdefault(f"{prefix}mean", torch.zeros_like(classifier.get_buffer("mean")))
        state.setdefault(f"{prefix}deviation", torch.ones_like(classifier.get_buffer("deviation")))


def prior(label: np.ndarray, loss: str) -> Tensor:
    """Return the logit of each class's share of the labels that are known; of exclusive classes the log of the share.

    A class counts as half a label more of either kind, so that one that never occurs has a finite one. Shape: labels
    [segments, classes] in {1, 0, -1} to [classes].

    >>> [round(each, 2) for each in prior(np.array([[1, 0], [1, 0], [0, -1]]), "bce").tolist()]
    [0.51, -1.61]
    """
    present = np.zeros(label.shape[1])
    known = np.zeros(label.shape[1])
    for first in range(0, len(label), PRIOR_BLOCK):
        block = label[first : first + PRIOR_BLOCK]
        present += (block == 1).sum(0)
        known += (block >= 0).sum(0)
    share = (present + 0.5) / (known + 1)
    if loss == "ce":
        return torch.from_numpy(np.log(share / share.sum())).float()
    return torch.from_numpy(np.log(share) - np.log1p(-share)).float()


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
        check(options, labels)
        self.options, self.classes = options, labels.classes
        self.frames, self.window, self.seed = features.frames, features.window, seed
        clip = rows_of(labels.key, features.clips.key)
        self.seconds = float(features.seconds(1)), float(features.seconds(features.window))
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
        self.label, self.begin = labels.label[kept], begin[kept]
        self.moments = Moments(labels.label, labels.events if options.events else None, np.flatnonzero(kept))
        timed = self.moments.timed
        weak = ~timed & (self.label == 1).any(1)  # where nothing is heard, weak and strong labels are the same
        self.strong = timed if options.strong > 0 and timed.any() and weak.any() else None
        self.weight = (labels.weight if options.weighted else np.ones(len(labels.key), np.float32))[kept]
        self.noisy = (np.zeros(len(labels.key), bool) if labels.noisy is None else labels.noisy == 1)[kept]
        kinds = getattr(labels, "modality", None) or ["audio"] * len(labels.classes)
        self.visual = np.flatnonzero([kind == VISUAL for kind in kinds])
        self.chance = balance.weights(self.label, options.balance)
        self.notes = [balance.realised(self.label, self.arrange(0), self.classes)] if self.balanced else []

    def __len__(self) -> int:
        return len(self.label)

    @property
    def balanced(self) -> bool:
        """Whether examples are drawn otherwise than each once an epoch, as their classes are balanced."""
        return self.options.balance > 0 or self.options.balance_by == "queue"

    def arrange(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch, as many as there are: each once, or as classes are balanced."""
        generator = np.random.default_rng([self.seed, epoch])
        if self.strong is not None:
            return balance.interleaved(self.strong, self.options.strong, self.chance, generator)
        if self.options.balance_by == "queue":
            return balance.queue(self.label, len(self), generator)
        if not self.balanced:
            return generator.permutation(len(self))
        return generator.choice(len(self), len(self), p=self.chance)

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the batch of (epoch, row) keys.

        With mixup there are `share` [batch], and of partners from anywhere `partner` and `partner_label` too.

        Shape: `window` `[batch, frames, bands]`, `label` `[batch, classes]`, `weight`, `noisy`, `epoch` `[batch]`.
        """
        rows = np.array([row for _, row in keys])
        draws = [np.random.default_rng([self.seed, epoch, row]) for epoch, row in keys]
        window, label = self._windows(rows, draws)
        batch = {
            "window": window,
            "label": self._thinned(label, keys),
            "weight": torch.from_numpy(self.weight[rows].astype(np.float32)),
            "noisy": torch.from_numpy(self.noisy[rows]),
            "epoch": torch.tensor([epoch for epoch, _ in keys]),
        }
        if self.options.mixup > 0:
            a = self.options.mixup
            batch["share"] = torch.tensor([draw.beta(a, a) for draw in draws], dtype=torch.float32)
            if self.options.mixup_with == "between":
                partners = np.array([int(draw.integers(len(self))) for draw in draws])
                batch["partner"], batch["partner_label"] = self._windows(partners, draws)
        return batch

    def _thinned(self, label: Tensor, keys: list[tuple[int, int]]) -> Tensor:
        """Return labels without half of what was seen, drawn anew each step, where the options say so.

        Shape: `[rows, classes]` twice.
        """
        if self.options.visual == "half":
            for own, (epoch, row) in zip(label.numpy(), keys, strict=True):  # in place
                seen = self.visual[own[self.visual] == 1]
                generator = np.random.default_rng([self.seed, epoch, row, 1])
                gone = generator.choice(seen, len(seen) // 2, replace=False)
                own[gone] = 0 if self.options.dropped == "zero" else -1
        return label

    def _windows(self, rows: np.ndarray, draws: list[np.random.Generator]) -> tuple[Tensor, Tensor]:
        """Return a window of each example, its place drawn, and its labels.

        Shape: `[rows, frames, bands]`, `[rows, classes]`.
        """
        places = zip(self.low[rows], self.high[rows], draws, strict=True)
        first = np.array([draw.integers(low, high + 1) for low, high, draw in places])
        frame, window = self.seconds
        start = (first - self.begin[rows]) * frame
        label = self.moments.of_windows(rows, start, start + window, self.options.overlap)
        return torch.from_numpy(self.frames.gather(first, self.window)), torch.from_numpy(label.astype(np.int64))


def check(options: Options, labels: Any) -> None:
    """Raise ValueError for options that cannot be meant, or need what the labels do not say."""
    for name, low, high in (("q", 0, 1), ("beta", 0, 1), ("discard_q", 0, 1), ("smoothing", 0, 1), ("balance", 0, 1)):
        if not low <= getattr(options, name) <= high or (name == "q" and options.q == 0):
            raise ValueError(f"{name} is {getattr(options, name):g}; it lies from {low} to {high}, q above 0")
    if not (0 <= options.strong <= 1 and 0 <= options.overlap <= 1):
        raise ValueError("strong and overlap are shares from 0 to 1")
    if options.loss == "ce" and options.events and labels.events is not None:
        raise ValueError("events overlap, and classes of ce exclude one another; give loss=bce, or events=false")
    if options.discard_at < 0 or (options.discard == "percentile" and options.discard_at > 100) or options.mixup < 0:
        raise ValueError("discard_at and mixup are not negative, and a percentile is at most 100")
    if options.loss == "bce" and (options.robust != "none" or options.smoothing):
        raise ValueError("robust and smoothing are of exclusive classes; give loss=ce, or leave them out with loss=bce")
    if options.visual == "half" and VISUAL not in (getattr(labels, "modality", None) or ()):
        raise ValueError(
            "visual=half needs labels that mark classes as visual; make them with soundssl labels top --modality visual"
        )
    if options.selective and labels.noisy is None:
        raise ValueError(
            "selective needs labels with the column segment/noisy; leave it out, or mark segments as noisy"
        )
    noisy = [name.strip() for name in options.noisy_classes.split(";") if name.strip()]
    if unknown := [name for name in noisy if name not in labels.classes]:
        raise ValueError(
            f"noisy_classes names {unknown[0]!r}, which is no class; there are {', '.join(labels.classes)}"
        )
    if options.smoothing_step and not noisy:
        raise ValueError("smoothing_step needs noisy_classes, the classes whose labels are often wrong")
    if not 0 <= options.smoothing - abs(options.smoothing_step) <= options.smoothing + abs(options.smoothing_step) <= 1:
        raise ValueError("smoothing less and more smoothing_step lie from 0 to 1")


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

    often_wrong: Tensor

    def __init__(self, encoder: nn.Module, inputs: Inputs, options: Options) -> None:
        super().__init__()
        self.encoder, self.options = encoder, options
        size: Any = encoder.size
        wrong = [name.strip() for name in options.noisy_classes.split(";")]
        often_wrong = torch.tensor([name in wrong for name in inputs.labels.classes], dtype=torch.bool)
        self.register_buffer("often_wrong", often_wrong, persistent=False)
        self.classifier = Classifier(size, len(inputs.labels.classes), options.hidden)
        if options.prior:
            self.classifier.set_prior(prior(inputs.labels.label, options.loss))
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
        """Return the loss, the share of examples whose highest class is one of theirs, and of those that were kept."""
        window, target, known = self._targets(batch)
        logits = self.classifier(self.encoder(window)).float()
        loss, count = self._losses(logits, target, known, batch)
        weight = count * batch["weight"]
        figures = {}
        with torch.no_grad():
            best = batch["label"].gather(1, logits.argmax(1, keepdim=True))[:, 0]
            figures["correct"] = (best == 1).float().mean()
        if self.options.discard != "none":
            at = self.options.discard_at or DISCARD_AT[self.options.discard]
            kept = robust.kept(loss.detach(), weight > 0, self.options.discard, at)
            kept |= batch["epoch"].min() < self.options.discard_from
            weight = weight * kept
            figures["kept"] = kept.float().mean()
        return losses.weighted_mean(loss, weight), figures

    def _targets(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return windows, targets and which classes are known, mixed. Shape: that of window, of label twice."""
        window, label = batch["window"].float(), batch["label"]  # mixed precision on a CPU rolls no half precision
        target, known = self._target(label), label >= 0
        if "share" not in batch:
            return window, target, known
        inside = "partner" not in batch
        partner = window.roll(1, 0) if inside else batch["partner"]
        partner_label = label.roll(1, 0) if inside else batch["partner_label"]
        share = torch.where(batch["epoch"] < self.options.mixup_from, 1.0, batch["share"])
        known = known & ((partner_label >= 0) | (share == 1)[:, None])
        target = robust.mixed(target, self._target(partner_label), share)
        return robust.mixed(window, partner.float(), share), target, known

    def _target(self, label: Tensor) -> Tensor:
        """Return the targets of labels: 1 and 0, or of exclusive classes distributions, perhaps smoothed."""
        if self.options.loss == "bce":
            return (label == 1).float()
        target, known = robust.distribution(label), label >= 0
        if not self.options.smoothing and not self.options.smoothing_step:
            return target
        often = ((label == 1) & self.often_wrong).any(1)
        step = torch.where(often, self.options.smoothing_step, -self.options.smoothing_step)
        return robust.smoothed(target, known, self.options.smoothing + step * bool(self.options.noisy_classes))

    def _losses(self, logits: Tensor, target: Tensor, known: Tensor, batch: dict[str, Tensor]) -> losses.Masked:
        """Return the loss of each example, and by how much it counts."""
        if self.options.loss == "bce":
            return losses.soft_binary_cross_entropy(logits, target, known)
        target = target * known
        log_p = robust.log_probability(logits, known)
        loss = self._robust(log_p, target, batch)
        if self.options.selective:
            loss = torch.where(batch["noisy"], loss, robust.cross_entropy(log_p, target))
        return losses.Masked(loss, (target.sum(1) > 0).float())

    def _robust(self, log_p: Tensor, target: Tensor, batch: dict[str, Tensor]) -> Tensor:
        options = self.options
        if options.robust == "none":
            return robust.cross_entropy(log_p, target)
        if options.robust != "lq":
            return robust.bootstrapping(log_p, target, options.beta, options.robust == "hard", options.through)
        loss = robust.lq(log_p, target, options.q)
        if options.discard == "none" or not options.discard_q or options.discard_q == options.q:
            return loss
        later = batch["epoch"].min() >= options.discard_from
        return torch.where(later, robust.lq(log_p, target, options.discard_q), loss)

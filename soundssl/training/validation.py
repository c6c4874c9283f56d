"""What a stage is measured by on clips that it does not train on, and what follows: the best state, patience, rates."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from soundssl import device, evaluations, objectives
from soundssl.curriculum import LOWER, Stage
from soundssl.device import Accelerator
from soundssl.evaluations.table import Table
from soundssl.labels import Index
from soundssl.objectives import Inputs

BATCH = 64  # windows measured at a time
BATCHES = 64  # of examples by which a loss is measured, at most

State = dict[str, Tensor]


class Validation:
    """Measure a stage on clips that it does not train on. `inputs` hold these clips (boolean, `[clips]`)."""

    def __init__(self, inputs: Inputs, stage: Stage, accelerator: Accelerator, seed: int) -> None:
        self.inputs, self.stage, self.accelerator = inputs, stage, accelerator
        self.examples: dict[str, Any] = {}
        if stage.validate in ("loss", "entropy"):
            for name, options in stage.objective.items():
                module = objectives.load(name)
                chosen = module.Options(**{key: value for key, value in options.items() if key != "weight"})
                self.examples[name] = module.Examples(inputs, chosen, seed)
        elif inputs.labels is not None:
            self.labels = Index(inputs.labels, inputs.features.clips.key).of_clips()
            self.clips = inputs.clips & (self.labels >= 0).any(1)
            if not self.clips.any():
                raise ValueError("no clip of the splits to validate on has a label")

    @torch.no_grad()
    def measure(self, encoder: nn.Module, objective: Any) -> float:
        """Return the measure of a stage's module as it stands; its mode and all generators stay as they were."""
        kind, training, random = self.stage.validate, objective.training, device.random_state()
        objective.eval()
        try:
            if kind in ("loss", "entropy"):
                value = self._loss(objective)
            elif kind == "mAP":
                classifier = objective.parts["classification"]
                output = torch.sigmoid if classifier.options.loss == "bce" else _softmax
                table = self._table(lambda each: output(classifier.classifier(encoder(each))))
                value = _of(evaluations.load("tagging").evaluate(table), "mAP")
            else:
                table = self._table(lambda each: nn.functional.normalize(encoder(each).float(), dim=1))
                value = _of(evaluations.load(kind).evaluate(table), "accuracy" if kind == "knn" else "mAP")
        finally:
            objective.train(training)
            device.set_random_state(random)
        return float(device.mean(torch.tensor(value, device=self.accelerator.device)))

    def _loss(self, objective: nn.Module) -> float:
        """Return the mean loss, or conditional minus marginal entropy, over the first examples of every objective."""
        count = min(len(each) for each in self.examples.values())
        values = []
        for first in range(0, min(count, BATCHES * self.stage.batch_size), self.stage.batch_size):
            keys = [(0, row) for row in range(first, min(first + self.stage.batch_size, count))]
            batches = {name: self.accelerator.send(each.__getitems__(keys)) for name, each in self.examples.items()}
            with self.accelerator.autocast():
                loss, figures = objective(batches, 1.0)
            if self.stage.validate == "entropy":
                loss = figures["clustering.conditional_entropy"] - figures["clustering.marginal_entropy"]
            values.append(float(loss) * len(keys))
        return sum(values) / min(count, BATCHES * self.stage.batch_size)

    def _table(self, output: Callable[[Tensor], Tensor]) -> Table:
        """Return what a net makes of the windows of the clips, with their labels."""
        features = self.inputs.features
        found, clips = [], []
        for windows in features.windows(features.window, features.window_hop, BATCH, self.clips):
            with self.accelerator.autocast():
                sent = self.accelerator.send({"window": torch.from_numpy(windows.frames)})["window"]
                found.append(output(sent.float()).float().cpu().numpy())
            clips.append(windows.clip)
        if not found:
            raise ValueError("no clip of the splits to validate on is as long as a window")
        rows, clip = np.unique(np.concatenate(clips), return_inverse=True)
        recording = features.clips.recording[rows].astype(str)
        table = np.concatenate(found), self.labels[rows], self.inputs.labels.classes
        return Table(*table, clip=clip.reshape(-1), recording=recording)


class Watch:
    """Keep what is best by a measure; say when a stage no longer improves, and by what a plateau lowers its rate."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.sign = stage, -1.0 if stage.validate in LOWER else 1.0
        self.best, self.since, self.level, self.factor = -math.inf, 0, 0, 1.0
        self.kept: State = {}

    def due(self, step: int) -> bool:
        """Return whether a measure is due after so many steps of the stage."""
        return self.stage.validate != "none" and (step % self.stage.every == 0 or step == self.stage.steps)

    def look(self, value: float, module: nn.Module) -> None:
        """Take a measure of a module, and its state where it is the best so far."""
        if self.sign * value > self.best:
            self.best, self.since, self.level = self.sign * value, 0, 0
            self.kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in _tensors(module)}
            return
        self.since, self.level = self.since + 1, self.level + 1
        if self.stage.schedule == "plateau" and self.level >= self.stage.plateau:
            self.factor, self.level = self.factor * self.stage.decay, 0

    @property
    def over(self) -> bool:
        """Whether so many measures in a row were no better than the best."""
        return 0 < self.stage.patience <= self.since

    def restore(self, module: nn.Module) -> None:
        """Give a module its best state, where there is one."""
        if self.kept:
            _give(module, self.kept)

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {name: getattr(self, name) for name in ("best", "since", "level", "factor", "kept")}

    def take(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, value in state.items():
            setattr(self, name, value)


class Average:
    """Keep an exponential moving average of a module's parameters; what else its state holds is that of the last."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.kept: State = {name: tensor.detach().clone() for name, tensor in _tensors(module)}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module as it stands after a step."""
        learnt = {name for name, _ in self.module.named_parameters()}
        for name, tensor in _tensors(self.module):
            if name in learnt:
                self.kept[name].lerp_(tensor, 1.0 - self.decay)
            else:
                self.kept[name].copy_(tensor)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the module the average while the block runs."""
        own = {name: tensor.detach().clone() for name, tensor in _tensors(self.module)}
        _give(self.module, self.kept)
        try:
            yield
        finally:
            _give(self.module, own)

    def give(self) -> None:
        """Give the module the average for good."""
        _give(self.module, self.kept)

    def take(self, state: State) -> None:
        """Go on from a state."""
        for name, tensor in state.items():
            self.kept[name].copy_(tensor)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers by name, each once: every objective holds the encoder, too."""
    yield from module.named_parameters()
    yield from module.named_buffers()


@torch.no_grad()
def _give(module: nn.Module, state: State) -> None:
    for name, tensor in _tensors(module):
        tensor.copy_(state[name])


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


def _of(rows: list[dict[str, Any]], metric: str) -> float:
    """Return an overall figure of an evaluation."""
    return next(float(row["value"]) for row in rows if row["metric"] == metric and row["class"] is None)

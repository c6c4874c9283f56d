"""The one loop: it trains every objective, stage after stage, and goes on exactly where it was stopped.

What an example is and what its loss is, an objective says; the loop draws batches, steps the optimiser, logs and saves.
The batch of a step depends on the seed, the stage and the step alone, so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from soundssl import SoundsslError, device, files, models, objectives
from soundssl.curriculum import Curriculum, Stage
from soundssl.device import Accelerator
from soundssl.objectives import Inputs
from soundssl.ops import optimisers
from soundssl.progress import Advance
from soundssl.training.checkpoint import Checkpoint
from soundssl.training.estimate import Estimate
from soundssl.training.validation import Average, Validation, Watch

Heads = dict[str, dict[str, Tensor]]


class MultiTaskLoss(nn.Module):
    """Hold the encoder and the objectives of one stage; the loss is the weighted sum of theirs."""

    def __init__(self, encoder: nn.Module, parts: dict[str, nn.Module], weights: dict[str, float]) -> None:
        super().__init__()
        self.encoder, self.parts, self.weights = encoder, nn.ModuleDict(parts), weights

    def forward(self, batches: dict[str, dict[str, Tensor]], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one batch an objective, and every figure to log under `objective.figure`."""
        total = torch.zeros((), device=next(self.parameters()).device)
        figures: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            loss, found = part(batches[name], progress)
            total = total + self.weights[name] * loss
            figures |= {f"{name}.loss": loss.detach(), **{f"{name}.{figure}": value for figure, value in found.items()}}
        return total, figures

    def heads(self) -> Heads:
        """Return the tensors that belong to each objective alone."""
        return {
            name: {key: value for key, value in part.state_dict().items() if not key.startswith("encoder.")}
            for name, part in self.parts.items()
        }

    def take_heads(self, heads: Heads) -> None:
        """Take over the heads of the same name from an earlier stage; raise SoundsslError where their shapes differ."""
        for name, part in self.parts.items():
            own = {f"encoder.{key}": value for key, value in self.encoder.state_dict().items()}
            try:
                part.load_state_dict({**own, **heads.get(name, {})}, strict=bool(heads.get(name)))
            except RuntimeError as error:
                raise SoundsslError(f"the head of {name} does not fit that of the stage before: {error}") from error


class Order(torch.utils.data.Sampler):
    """Yield the (epoch, row) keys of one process's batch for each step from `first` on.

    Epochs are permutations, or what the examples `arrange(epoch)` themselves: as many rows.
    """

    def __init__(
        self,
        count: int,
        number: int,
        stage: Stage,
        first: int,
        seed: int,
        accelerator: Accelerator,
        arrange: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.arrange, self.count, self.key, self.first, self.steps = arrange, count, [seed, number], first, stage.steps
        self.batch, self.rank, self.world = stage.batch_size, accelerator.rank, accelerator.world_size
        self.epoch, self.permutation = -1, np.empty(0, np.int64)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first, self.steps):
            begin = (step * self.world + self.rank) * self.batch
            yield [self._at(position) for position in range(begin, begin + self.batch)]

    def _at(self, position: int) -> tuple[int, int]:
        epoch, row = divmod(position, self.count)
        if epoch != self.epoch:
            natural = np.random.default_rng([*self.key, epoch]).permutation(self.count)
            self.epoch, self.permutation = epoch, natural if self.arrange is None else self.arrange(epoch)
        return epoch, int(self.permutation[row])


class Outcome(NamedTuple):
    """Hold what a training has, the heads by objective, whether it was finished, and where it was stopped."""

    heads: Heads
    finished: bool
    steps: int = 0  # of all stages, that were done when it was stopped


LESS = "fewer steps or smaller batches take less"  # said on a CPU
UNSAVED = 20.0  # seconds of training that are saved when it ends, in case that what comes after is interrupted


def learning_rate(stage: Stage, step: int) -> float:
    """Return the rate of a step: a linear rise over `warmup`, then constant, stepwise, or half a cosine to zero."""
    rising = max(1, round(stage.warmup * stage.steps))
    if step < rising:
        return stage.learning_rate * (step + 1) / rising
    if stage.schedule in ("constant", "plateau"):  # what a plateau lowers it by, its measures say
        return stage.learning_rate
    if stage.schedule == "multistep":
        return stage.learning_rate * stage.decay ** sum(step >= each for each in stage.milestones)
    return stage.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, stage.steps - rising)))


def build_stage(
    stage: Stage, encoder: nn.Module, inputs: Inputs, heads: Heads, seed: int
) -> tuple[MultiTaskLoss, dict[str, Any]]:
    """Return the module and the examples of a stage; raise ValueError where an input that it needs is lacking.

    Objectives whose examples are equal hold the same ones.
    """
    parts, weights = {}, {}
    examples: dict[str, Any] = {}
    encoder.requires_grad_(True)  # the stage before may have frozen it
    for name, options in stage.objective.items():
        module = objectives.load(name)
        missing = [need for need in module.NEEDS if getattr(inputs, need) is None]
        if missing:
            raise ValueError(f"the objective {name} needs {', '.join(missing)}; give --{missing[0]}")
        chosen = module.Options(**{key: value for key, value in options.items() if key != "weight"})
        weights[name] = options["weight"]
        own = module.Examples(inputs, chosen, seed)
        examples[name] = next((each for each in examples.values() if each == own), own)
        parts[name] = module.Objective(encoder, inputs, chosen)
    if len(parts) > 1 and not any(each.requires_grad for each in encoder.parameters()):
        raise ValueError("a frozen encoder teaches other objectives nothing; give the frozen one a stage of its own")
    loss = MultiTaskLoss(encoder, parts, weights)
    loss.take_heads(heads)
    return loss, examples


def load(
    examples: dict[str, Any],
    number: int,
    stage: Stage,
    first: int,
    seed: int,
    accelerator: Accelerator,
    workers: int,
) -> dict[tuple[str, ...], Iterator]:
    """Return the batches of stage `number` from step `first` on, by the objectives that share them."""
    sharing = {id(each): tuple(name for name in examples if examples[name] is each) for each in examples.values()}
    return {
        names: iter(
            torch.utils.data.DataLoader(
                examples[names[0]],
                batch_sampler=Order(
                    len(examples[names[0]]),
                    number,
                    stage,
                    first,
                    seed,
                    accelerator,
                    getattr(examples[names[0]], "arrange", None),
                ),
                collate_fn=_as_is,
                num_workers=workers,
                pin_memory=accelerator.device.type == "cuda",
            )
        )
        for names in sharing.values()
    }


def take_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loaders: dict[tuple[str, ...], Iterator],
    accelerator: Accelerator,
    progress: float,
    clip: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw a batch for each objective, or those that share it, and take a step down the loss; return it and figures.

    A gradient whose norm is greater than `clip` is scaled to it first; 0 leaves all as they are.
    """
    drawn = {names: accelerator.send(next(loader)) for names, loader in loaders.items()}
    batches = {name: batch for names, batch in drawn.items() for name in names}
    optimizer.zero_grad(set_to_none=True)
    with accelerator.autocast():
        loss, figures = module(batches, progress)
    loss.backward()
    if clip:
        figures["gradient"] = nn.utils.clip_grad_norm_(module.parameters(), clip)
    optimizer.step()
    return loss, figures


def train(
    curriculum: Curriculum,
    encoder: nn.Module,
    inputs: Inputs,
    accelerator: Accelerator,
    *,
    seed: int,
    workers: int,
    checkpoint: Checkpoint,
    log: files.Log,
    heads: Heads | None = None,
    advance: Advance = lambda steps=1, note="": None,
    say: Callable[[str], None] = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
    log_every: int = 10,
    keep_at: Collection[int] = (),
    keep: Callable[[int, Heads], None] = lambda steps, heads: None,
    unseen: Inputs | None = None,
) -> Outcome:
    """Train an encoder through all stages, or until `stop` says yes in any process: then the state is saved.

    After each number of steps in `keep_at`, counted over all stages, the main process calls `keep` with it and the
    heads. `say` takes the notes of the examples, and after ten steps how long all take. `unseen` holds the clips to
    validate on, where a stage does. Raises SoundsslError where the loss is not finite.
    """
    state = checkpoint.load() or {
        "stage": 0,
        "step": 0,
        "encoder": encoder.state_dict(),
        "heads": {},
        "optimizer": None,
    }
    encoder.load_state_dict(state.pop("encoder"))  # popped: at a million clusters a state is gigabytes
    known: Heads = {**(heads or {}), **state.pop("heads")}
    log.cut_back(lambda line: (line["stage"], line["step"]) <= (state["stage"], state["step"]))
    advance(sum(stage.steps for stage in curriculum.stage[: state["stage"]]) + state["step"], "")
    estimate = Estimate(_work(curriculum, state["stage"], state["step"]), _remedy(curriculum, accelerator))

    def save(
        stage: int, step: int, module: MultiTaskLoss, optimizer: torch.optim.Optimizer | None, **more: Any
    ) -> None:
        if accelerator.main:
            own = {"encoder": encoder.state_dict(), "heads": _grown(known, module.heads())}
            checkpoint.save(stage=stage, step=step, **own, **more, optimizer=optimizer and optimizer.state_dict())

    for number, stage in enumerate(curriculum.stage):
        if number < state["stage"]:
            continue
        first = state["step"] if number == state["stage"] else 0

        # ---- the stage: objectives, optimiser, batches
        device.seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))  # also where a run goes on
        objective, examples = build_stage(stage, encoder, inputs, known, seed)
        for note in dict.fromkeys(note for each in examples.values() for note in getattr(each, "notes", ())):
            say(note)
        accelerator.place(objective).train()
        module = accelerator.wrap(objective)
        learnt = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        optimizer = _optimiser(stage, learnt, {id(each) for each in encoder.parameters()})
        before = state.pop("optimizer", None)
        if first and before:
            optimizer.load_state_dict(before)
        del before
        watch, average = Watch(stage), Average(objective, stage.average) if stage.average else None
        validation = _validation(stage, unseen, accelerator, seed)
        loaders = load(examples, number, stage, first, seed, accelerator, workers)
        if first:
            _go_on(state, watch, average)

        # ---- the steps
        before_it, line = sum(each.steps for each in curriculum.stage[:number]), {}
        for step in range(first, stage.steps):
            if watch.over:
                say(f"{stage.validate} has not improved {watch.since} times: the stage ends after {step} steps")
                advance(stage.steps - step, "")
                break
            rate = learning_rate(stage, step) * watch.factor
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            loss, figures = take_step(module, optimizer, loaders, accelerator, step / stage.steps, stage.clip)
            if average:
                average.update()

            # ---- figures, now and then
            if (step + 1) % log_every == 0 or step + 1 == stage.steps:
                line = {name: float(device.mean(value)) for name, value in {"loss": loss, **figures}.items()}
                if not math.isfinite(line["loss"]):
                    raise SoundsslError(
                        f"the loss is {line['loss']} at step {step + 1}; lower --learning-rate, or see with "
                        "soundssl info --verify whether the features are finite"
                    )
                log.write({"stage": number, "step": step + 1, **line, "learning_rate": rate})
                advance(0, f"loss {line['loss']:.4f}")
            advance(1, "")
            if validation and watch.due(step + 1):
                with average.applied() if average else contextlib.nullcontext():
                    measured = validation.measure(encoder, objective)
                    watch.look(measured, objective)
                log.write({"stage": number, "step": step + 1, f"validation.{stage.validate}": measured})
            if told := estimate.step():
                say(told)
            if accelerator.main and before_it + step + 1 in keep_at:
                keep(before_it + step + 1, {**known, **objective.heads()})

            # ---- the state, now and then and when asked to stop
            ask = accelerator.world_size == 1 or (step + 1) % log_every == 0  # asking all processes costs a wait
            if ask and device.any_process(stop()):
                save(number, step + 1, objective, optimizer, **_going_on(watch, average))
                return Outcome(_grown(known, objective.heads()), finished=False, steps=before_it + step + 1)
            if checkpoint.due():
                save(number, step + 1, objective, optimizer, **_going_on(watch, average))

        if average:
            average.give()
        watch.restore(objective)
        for remark in _remarks(objective, line) if line else ():
            say(remark)
        known = _grown(known, {name: _copied(tensors) for name, tensors in objective.heads().items()})
        if number + 1 < len(curriculum.stage):
            save(number + 1, 0, objective, None)
        elif time.monotonic() - checkpoint.saved > UNSAVED:
            save(number, stage.steps, objective, None)  # what comes after may take long, too
    return Outcome(known, finished=True)


def _remarks(objective: MultiTaskLoss, line: dict[str, float]) -> Iterator[str]:
    """Yield what the parts of a stage say of their last figures."""
    for name, part in objective.parts.items():
        remark: Any = getattr(part, "remark", None)
        own = {key.removeprefix(f"{name}."): value for key, value in line.items() if key.startswith(f"{name}.")}
        if remark is not None and (said := remark(own)):
            yield f"{name}: {said}"


def _work(curriculum: Curriculum, number: int, step: int) -> list[tuple[int, int]]:
    """Return the steps and the examples a step that are left from a step of stage `number` on."""
    return [
        (stage.steps - (step if place == 0 else 0), stage.batch_size)
        for place, stage in enumerate(curriculum.stage[number:])
    ]


def _remedy(curriculum: Curriculum, accelerator: Accelerator) -> str:
    """Return what takes less time than this on a CPU."""
    if accelerator.device.type != "cpu":
        return ""
    return LESS + (
        ", and for a draft there is --encoder draft" if curriculum.encoder == models.SMALL["encoder"] else ""
    )


def _as_is(batch: Any) -> Any:
    return batch


def _grown(known: Heads, heads: Heads) -> Heads:
    """Return the heads known before with those of a stage in their place; what the stage did not use is kept."""
    return {name: {**known.get(name, {}), **heads.get(name, {})} for name in {**known, **heads}}


def _optimiser(stage: Stage, learnt: list[torch.nn.Parameter], encoder: set[int]) -> torch.optim.Optimizer:
    """Return the optimiser of a stage; where the encoder has a rate of its own, `share` of its group says which."""
    groups: list[Any] = learnt
    if stage.encoder_rate != 1.0:
        own = [each for each in learnt if id(each) in encoder]
        rest = [each for each in learnt if id(each) not in encoder]
        groups = [{"params": own, "share": stage.encoder_rate}, {"params": rest, "share": 1.0}]
        groups = [group for group in groups if group["params"]]
    rate, decay = stage.learning_rate, stage.weight_decay
    if stage.optimiser == "rowwise":
        return optimisers.RowwiseAdam(groups, lr=rate, weight_decay=decay)
    if stage.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=stage.momentum, weight_decay=decay)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)


def _validation(stage: Stage, unseen: Inputs | None, accelerator: Accelerator, seed: int) -> Validation | None:
    """Return what measures a stage, None where nothing does; raise ValueError where there is nothing to measure on."""
    if stage.validate == "none":
        return None
    if unseen is None:
        raise ValueError(f"{stage.validate} is measured on clips that are not trained on; give --validation")
    return Validation(unseen, stage, accelerator, seed)


def _going_on(watch: Watch, average: Average | None) -> dict[str, Any]:
    """Return what a state holds beside nets and optimiser: measures, averages, and the generators of dropout."""
    return {"watch": watch.state(), "average": average and average.kept, "random": device.random_state()}


def _go_on(state: dict[str, Any], watch: Watch, average: Average | None) -> None:
    if "watch" in state:
        watch.take(state.pop("watch"))
        device.set_random_state(state.pop("random"))
    kept = state.pop("average", None)
    if average and kept is not None:
        average.take(kept)


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def tensors_of(encoder: nn.Module, heads: Heads) -> dict[str, np.ndarray]:
    """Return a model's tensors under the names they have in a model file."""
    found = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    found |= {f"head.{objective}.{name}": value for objective, head in heads.items() for name, value in head.items()}
    return {name: value.detach().cpu().contiguous().numpy() for name, value in found.items()}


def heads_of(tensors: dict[str, np.ndarray]) -> Heads:
    """Return the heads in a model file's tensors, by objective."""
    heads: Heads = {}
    for name, value in tensors.items():
        if name.startswith("head."):
            _, objective, key = name.split(".", 2)
            heads.setdefault(objective, {})[key] = torch.from_numpy(value.copy())
    return heads


def loader_workers(accelerator: Accelerator) -> int:
    """Return how many processes read examples: none on a CPU, whose cores the encoder needs, else a few a device."""
    if accelerator.device.type == "cpu":
        return 0
    return max(1, min(4, device.cores() // accelerator.world_size))

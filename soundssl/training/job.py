"""From files to a model file: what a training reads, the net it begins with, and what the model file says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from soundssl import device, files, models, objectives, weights
from soundssl.curriculum import LABELLED, Curriculum, Refused, Stage, settle
from soundssl.device import Accelerator
from soundssl.labels import clips_in_splits, joined
from soundssl.models import released
from soundssl.objectives import Inputs
from soundssl.ops.spectrogram import PRESETS
from soundssl.progress import SILENT, Progress
from soundssl.training.checkpoint import Checkpoint
from soundssl.training.curves import CurvesLog
from soundssl.training.loop import Heads, heads_of, loader_workers, tensors_of, train

LEAST_DEVIATION = 1e-3  # of a band, so that one that never changes divides nothing by zero
EVERY = 60.0  # seconds between saved states


class Job:
    """Say what is trained on what: `made_from` stands for all of it.

    `plan` is a curriculum, see `curriculum.from_data` and `from_toml`; `features`, `triplets`, `labels` and the model
    `init` to start from are files, so are `released_weights`, which fill the backbone, and `coincidence`, a model whose
    nets of sound and picture the on-screen classifier begins with. `splits` chooses clips by their split, `clips` by
    the keys that a file lists, all by default; `validation` those that are measured, and not trained on. Raises Missing
    or FormatError for files that are none, ValueError for a plan that cannot be meant or leaves an input unread.
    """

    def __init__(
        self,
        plan: Curriculum,
        features: str | os.PathLike,
        accelerator: Accelerator,
        *,
        triplets: str | os.PathLike | None = None,
        labels: str | os.PathLike | None = None,
        init: str | os.PathLike | None = None,
        coincidence: str | os.PathLike | None = None,
        released_weights: str | os.PathLike | None = None,
        splits: Sequence[str] | None = None,
        clips: str | os.PathLike | None = None,
        validation: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        _refuse_unused(plan, {"triplets": triplets, "labels": labels, "coincidence": coincidence})
        _check_validation(plan, validation, labels)
        self.accelerator, self.seed, self.splits, self.validation = accelerator, seed, splits, validation
        self.source = files.Features(features)
        self.triplets = files.Triplets(triplets) if triplets else None
        self.labels = joined(files.Labels(labels), self.source) if labels else None
        _refuse_labels(plan, self.triplets, self.labels)
        self.start = files.read_model(init) if init else None
        self.coincidence = files.read_model(coincidence) if coincidence else None
        self.listed = files.read_keys(clips) if clips else None
        self.weights = weights.read(released_weights) if released_weights else None
        read = {"features": self.source, "triplets": self.triplets, "labels": self.labels, "init": self.start}
        read["coincidence"] = self.coincidence
        self.inputs = [files.identity(role, each.path, each.attributes) for role, each in read.items() if each]
        self.inputs += [self.weights.identity] if self.weights else []
        if self.start is not None and self.weights is not None:
            raise Refused("a model to start from has weights of its own; leave out --weights, or --init")
        self.plan = settle(plan, accelerator.device.type == "cuda", self.start.config if self.start else None)
        chosen = ",".join(splits) if splits else None
        settings: list[Any] = [self.plan.as_dict(), chosen, seed, str(accelerator.dtype), accelerator.world_size]
        settings += [list(validation)] if validation else []
        settings += [] if self.listed is None else [sorted(self.listed)]
        self.made_from = files.digest("model", self.inputs, *settings)

    @property
    def steps(self) -> int:
        """Number of steps of all stages."""
        return sum(stage.steps for stage in self.plan.stage)

    def stands(self, output: Path, kept: Mapping[int, Path]) -> bool:
        """Return whether a model file, and those of the kept steps, are what this job would write."""
        made = files.model_made_from(output) == self.made_from
        return made and all(files.model_made_from(path) == self._made_from(step) for step, path in kept.items())

    def checkpoint(self, output: Path, every: float = EVERY) -> Checkpoint:
        """Return what keeps the state of this job beside an output, saved every so many seconds."""
        return Checkpoint(output, self.made_from, every)

    def run(
        self,
        output: str | os.PathLike,
        *,
        kept: Mapping[int, Path] | None = None,
        tensorboard: Path | None = None,
        afresh: bool = False,
        every: float = EVERY,
        stop: Callable[[], bool] = lambda: False,
        progress: Progress = SILENT,
        command: str | None = None,
    ) -> bool:
        """Train, write the model file and return True; False where `stop` said yes and the state was saved.

        Beside OUTPUT is written OUTPUT.metrics.jsonl. `kept` are files for models after so many steps, `tensorboard` a
        folder that gets the curves too. The state of an interrupted run is taken over, unless `afresh`; it is saved
        every so many seconds. `command` is the command line that the files carry. Raises SoundsslError while another
        run writes the same output, and where the loss is not finite.
        """
        output, kept = Path(output), kept or {}
        accelerator, main = self.accelerator, self.accelerator.main
        with files.alone(output, main):
            device.seed(self.seed)
            network = self._network(progress)
            clips = self._clips()
            unseen = self._unseen()
            if unseen is not None:
                clips = clips & ~unseen.clips
            inputs = Inputs(self.source, clips, self.triplets, self.labels, coincidence=self.coincidence)
            facts = self._facts(inputs)
            config = self._config(facts)
            checkpoint = self.checkpoint(output, every)
            if afresh and main:
                checkpoint.remove()
            accelerator.barrier()

            def write(path: Path, heads: Heads, made_from: str, **more: int) -> None:
                tensors, said = tensors_of(network, heads), {**config, **more}
                files.write_model(path, tensors, said, inputs=self.inputs, made_from=made_from, command=command)

            heads = self._heads(facts, progress)
            with progress.track("train", self.steps, "steps") as advance:
                trained = train(
                    self.plan,
                    accelerator.place(network),
                    inputs,
                    accelerator,
                    seed=self.seed,
                    workers=loader_workers(accelerator),
                    checkpoint=checkpoint,
                    log=self._log(output.with_name(output.name + ".metrics.jsonl"), tensorboard),
                    heads=heads,
                    advance=advance,
                    say=progress.say,
                    stop=stop,
                    keep_at=kept,
                    unseen=unseen,
                    keep=lambda step, heads: write(kept[step], heads, self._made_from(step), step=step),
                )
            if trained.finished and main:
                write(output, trained.heads, self.made_from)
                checkpoint.remove()
            if not trained.finished:
                progress.warn(
                    f"stopped after step {trained.steps} of {self.steps}; the state is saved in "
                    f"{files.text(checkpoint.path)}, and the same command goes on from there"
                )
        return trained.finished

    def _log(self, path: Path, tensorboard: Path | None) -> files.Log:
        """Return what takes the figures; of several processes the main one's is written."""
        if not self.accelerator.main:
            return files.Log(None)
        return (
            CurvesLog(path, tensorboard, [stage.steps for stage in self.plan.stage]) if tensorboard else files.Log(path)
        )

    def _clips(self) -> np.ndarray:
        """Return which clips may be trained on; raise FormatError for a list that names none of them."""
        chosen = clips_in_splits(self.labels, self.source.clips, self.splits, self.source.path)
        return chosen if self.listed is None else chosen & files.among(self.source.clips, self.listed, self.source.path)

    def _unseen(self) -> Inputs | None:
        """Return the clips to validate on, None where there are none."""
        if not self.validation:
            return None
        clips = self.source.clips.in_splits(list(self.validation), self.source.path)
        return Inputs(self.source, clips, self.triplets, self.labels, coincidence=self.coincidence)

    def _made_from(self, step: int) -> str:
        return files.digest(self.made_from, step)

    def _network(self, progress: Progress) -> nn.Module:
        """Build the net: an encoder with the statistics of the features, or a separator; or take over another model's.

        Released weights say which of them were left out, and take frames as they are where they have their front end.

        Raises FormatError for features of another front end, ValueError for another net than the model's.
        """
        plan, source, start = self.plan, self.source, self.start
        separating = plan.encoder in models.SEPARATORS
        if separating and self.weights is not None:
            raise Refused(
                f"--weights fills an encoder, and {plan.encoder} is a separator; start from a model with --init"
            )
        source.require(*("waveform", "a separator takes") if separating else ("logmel", "an encoder takes"))
        if start is not None:
            self._check_start(start, ("tracks", "consistency") if separating else ("size", "norm"))
            return (models.restore_separator if separating else models.restore)(start.config, start.tensors)
        if separating:
            return models.build_separator(plan.encoder, plan.tracks, plan.consistency, **plan.net)
        try:
            network = models.build(plan.encoder, plan.size, source.bands, source.window, norm=plan.norm, **plan.net)
        except ValueError as error:  # a name, an option or a window that the net has not
            raise Refused(str(error)) from error
        if self.weights is not None:
            self._fill(network, self.weights, progress)
        if self.weights is None or plan.encoder not in released.FRONT_ENDS:
            deviation = torch.from_numpy(source.deviation).clamp(LEAST_DEVIATION)
            network.set_statistics(torch.from_numpy(source.mean), deviation)
        return network

    def _fill(self, network: nn.Module, given: weights.Weights, progress: Progress) -> None:
        """Fill a new encoder with released weights; raise FormatError where they, or the front end, do not fit."""
        name = self.plan.encoder
        if name in released.FRONT_ENDS:
            preset = released.FRONT_ENDS[name]
            self.source.check_front_end(dict(PRESETS[preset].attributes()), f"{given.path} (--preset {preset})")
        try:
            lines = released.fill(network, name, given.tensors)
        except ValueError as error:
            raise files.FormatError(f"{files.text(given.path)} does not fit {name}: {error}") from error
        fresh = [line for line in lines if "begins afresh" in line]
        if fresh and not self.plan.stage:
            raise files.FormatError(
                f"{files.text(given.path)}: {fresh[0]}, and 0 steps do not train it; give its --size"
            )
        for line in lines:
            progress.say(f"{files.text(given.path.name)}: {line}")

    def _check_start(self, start: files.Model, own: tuple[str, ...]) -> None:
        plan, source, config = self.plan, self.source, start.config
        source.check_front_end(config["front_end"], start.path)
        for name in ("encoder", *own):
            if getattr(plan, name) != config[name]:
                raise ValueError(
                    f"{start.path} has {name} {config[name]}, not {getattr(plan, name)}; give --{name} {config[name]}"
                )
        if plan.net != config.get("net", {}):
            raise ValueError(f"{start.path} has the options {config.get('net', {})} of its net, not {plan.net}")
        if "size" in own and config["frames"] != source.window:
            raise ValueError(
                f"{start.path} was trained on windows of {config['frames']} frames, "
                f"{files.text(source.path)} has {source.window}; start from another model"
            )

    def _config(self, facts: dict[str, dict[str, Any]]) -> dict[str, Any]:
        source, last = self.source, self.plan.stage[-1:]
        unit_length = any(objectives.load(name).UNIT_LENGTH for stage in last for name in stage.objective)
        if not last and self.start is not None:
            unit_length = self.start.config["unit_length"]  # nothing is learnt: embeddings are what they were
        return {
            **self.plan.as_dict(),
            "bands": source.bands,
            "frames": source.window,
            "front_end": source.front_end(),
            "seed": self.seed,
            "unit_length": unit_length,
            "heads": facts,
        }

    def _facts(self, inputs: Inputs) -> dict[str, dict[str, Any]]:
        """Return what the model file says of its heads, those of the model that it starts from among them."""
        found = dict(self.start.config.get("heads", {})) if self.start else {}
        for name, options in _objectives_of(self.plan.stage):
            head = objectives.load(name).HEAD
            if head is not None:
                found[name] = head.facts(inputs, options)
        return found

    def _heads(self, facts: dict[str, dict[str, Any]], progress: Progress) -> Heads:
        """Return the heads to go on from: one of other classes, or of another shape, begins afresh."""
        if self.start is None:
            return {}
        heads, before = heads_of(self.start.tensors), self.start.config.get("heads", {})
        for name in [name for name in heads if name in before]:
            different = objectives.differences(name, before[name], facts[name])
            if different:
                where = files.text(self.start.path)
                progress.say(f"the head of {name} in {where} has other {' and '.join(different)}; it begins afresh")
                del heads[name]
        return heads


def _refuse_labels(plan: Curriculum, triplets: files.Triplets | None, labels: files.Labels | None) -> None:
    """Refuse labels that only triplets would read, where none of them is supervised."""
    readers = {name for stage in plan.stage for name in stage.objective if objectives.uses(name, "labels")}
    measured = any(stage.validate in LABELLED for stage in plan.stage)
    if labels and triplets and readers == {"triplet"} and not triplets.supervised and not measured:
        raise Refused(
            f"no triplet of {files.text(triplets.path)} is supervised, so none would read labels; leave out --labels, "
            "or draw triplets with --sampler supervised"
        )


def _refuse_unused(plan: Curriculum, given: Mapping[str, Any]) -> None:
    """Refuse an input that no objective of a plan would read."""
    names = list(dict.fromkeys(name for stage in plan.stage for name in stage.objective))
    measured = any(stage.validate in LABELLED for stage in plan.stage)
    for role, path in given.items():
        if role == "labels" and measured:
            continue
        if path and not names:
            raise Refused(f"nothing is learnt in 0 steps; leave out --{role}")
        if path and not any(objectives.uses(name, role) for name in names):
            raise Refused(f"{' and '.join(names)} would not read {role}; leave out --{role}, or name another objective")


def _check_validation(plan: Curriculum, validation: Sequence[str] | None, labels: Any) -> None:
    """Refuse splits that nothing is measured on, a measure without splits, and one of labels without any."""
    measures = [stage.validate for stage in plan.stage if stage.validate != "none"]
    if validation and not measures:
        raise Refused("nothing is measured on --validation; name a measure, as --stage validate=loss, or leave it out")
    if measures and not validation:
        raise Refused(
            f"{measures[0]} is measured on clips that are not trained on; name their splits with --validation"
        )
    asking = [measure for measure in measures if measure in LABELLED]
    if asking and not labels:
        raise Refused(f"{asking[0]} is measured by labels; give --labels")


def _objectives_of(stages: Sequence[Stage]) -> list[tuple[str, Any]]:
    """Return the name and the options of every objective of every stage."""
    return [
        (name, objectives.load(name).Options(**{key: value for key, value in given.items() if key != "weight"}))
        for stage in stages
        for name, given in stage.objective.items()
    ]

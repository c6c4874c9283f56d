"""soundssl train: features to a model, by any objective or curriculum."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from soundssl.commands import target, terminal
from soundssl.commands.options import (
    Device,
    Force,
    NoClobber,
    NoProvenance,
    Precision,
    Quiet,
    Seed,
    Split,
    Threads,
    beside,
    words,
)
from soundssl.models import ENCODERS, SEPARATOR, SEPARATORS
from soundssl.objectives import OBJECTIVES

WEIGHT = [  # of every objective
    "weight",
    "1.0",
    "factor of this loss in its stage; Jansen et al. 2020 interpolate: 0.9 coincidence and 0.1 clustering (inferred)",
]


def _describe(name: str | None) -> None:
    if name:
        from soundssl import objectives

        if name not in OBJECTIVES:
            raise typer.BadParameter(f"choose from {', '.join(OBJECTIVES)}", param_hint="--describe")
        rows = [[each.name, str(each.default), each.metadata["help"]] for each in objectives.describe(name)]
        terminal.print_table(["option", "default", "meaning"], [*rows, WEIGHT])
        raise typer.Exit


def train(
    features: Annotated[Path, typer.Argument(help="Features file written by featurize.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Model to write. Default: STEM.safetensors beside the features."),
    ] = None,
    curriculum: Annotated[
        Path | None, typer.Option(help="TOML file of stages; it takes the place of the options of one stage.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="; ".join(f"{name}: {line}" for name, line in OBJECTIVES.items()) + ". Default: triplet."),
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="NAME=VALUE", help="Option of the objective, see --describe."),
    ] = [],  # noqa: B006 (typer needs the value)
    triplets: Annotated[Path | None, typer.Option(help="Triplets file written by sample-triplets.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Labels file, for supervised triplets and classification.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="; ".join(f"{name}: {line}" for name, line in ENCODERS.items()) + ". Default: plain."),
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Numbers in an embedding. Default: 128 (inferred).")] = None,
    norm: Annotated[
        str | None, typer.Option(help="Normalisation: batch, or group where the encoder has it. Default: batch.")
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            help="; ".join(f"{name}: {line}" for name, line in SEPARATORS.items()) + f". Default: {SEPARATOR}."
        ),
    ] = None,
    tracks: Annotated[int | None, typer.Option(min=2, help="Tracks of a separator. Default: 4 (inferred).")] = None,
    consistency: Annotated[
        str | None,
        typer.Option(
            help="How the tracks of a separator are made to sum to their mixture: what they lack is shared out as the "
            "net predicts, by their energy, or uniform. Default: predicted."
        ),
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Model to start from: its encoder and its heads.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the stage. Default: 300.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples a step and process. Default: 64 (inferred).")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Largest rate of Adam. Default: 0.001 (inferred).")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Numbers of steps, separated by commas, after which OUTPUT's STEM.step-N is kept beside it."),
    ] = None,
    split: Split = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    checkpoint_every: Annotated[float, typer.Option(min=0, help="Seconds between saved states.")] = 60.0,
    describe: Annotated[
        str | None,
        typer.Option(
            metavar="OBJECTIVE", callback=_describe, is_eager=True, help="Print the options of an objective and exit."
        ),
    ] = None,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Train an encoder without labels, or with them; or a separator, on waveforms.

    Writes the model, and beside it OUTPUT.metrics.jsonl, a line every ten steps. A run that was stopped or killed goes
    on from its last saved state when the same command is given again. Started by torchrun, it trains on all processes:
    torchrun --nproc-per-node 4 -m soundssl train …; each takes a share of the batch and, with --objective clustering,
    of the clusters.

    Examples:

    soundssl train features.h5 --triplets triplets.h5 -o model.safetensors

    soundssl train features.h5 --triplets triplets.h5 --encoder resnet50

    soundssl train features.h5 --triplets triplets.h5 --curriculum plan.toml

    soundssl train waves.h5 --objective mixit --steps 3000 --keep 300,1000 -o separator.safetensors
    """
    from soundssl import curriculum as curricula

    implied, output = output is None, output or beside(features, "", ".safetensors")
    single = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    if encoder and separator:
        raise typer.BadParameter("a model has one net; leave out --encoder", param_hint="--separator")
    net = {"encoder": encoder or separator, "size": size, "norm": norm, "tracks": tracks, "consistency": consistency}
    plan = _plan(curricula, curriculum, objective, set_, single, net)
    kept = _kept(keep, output, plan)
    from soundssl import device as hardware
    from soundssl import files, models, objectives, training

    files.guard(output, no_clobber)
    files.guard_inputs(output, [path for path in (features, triplets, labels, init, curriculum) if path])
    source = files.Features(features)
    readers = {"triplets": triplets and files.Triplets(triplets), "labels": labels and files.Labels(labels)}
    inputs = [files.identity("features", features, source.attributes)]
    inputs += [files.identity(role, reader.path, reader.attributes) for role, reader in readers.items() if reader]
    start = files.read_model(init) if init else None
    inputs += [files.identity("init", start.path, start.attributes)] if start else []
    with hardware.start(device, precision, threads) as accelerator, files.alone(output, accelerator.main):
        quiet = quiet or not accelerator.main
        plan = curricula.settle(plan, accelerator.device.type == "cuda", start and start.config)
        made_from = files.digest(
            "model", inputs, plan.as_dict(), split, seed, str(accelerator.dtype), accelerator.world_size
        )
        checkpoint = training.Checkpoint(output, made_from, checkpoint_every)
        if (
            not force
            and files.model_made_from(output) == made_from
            and all(files.model_made_from(path) == files.digest(made_from, step) for step, path in kept.items())
        ):
            if accelerator.main:
                checkpoint.clear_finished()
                terminal.up_to_date("train", output, quiet, implied)
            return
        terminal.say("train", accelerator.reason, quiet)
        hardware.seed(seed)
        network = _network(models, plan, source, start)
        given = objectives.Inputs(source, source.clips.in_splits(words(split), features), **readers)
        facts = _facts(plan, given, start)
        if force and accelerator.main:
            checkpoint.remove()
        accelerator.barrier()
        log = files.Log(output.with_name(output.name + ".metrics.jsonl") if accelerator.main else None)
        config = {
            **plan.as_dict(),
            **{"bands": source.bands, "frames": source.window, "front_end": source.front_end(), "seed": seed},
            **{"unit_length": _unit_length(plan), "heads": facts},
        }

        def write(path: Path, heads: dict, origin: str, **more: int) -> None:
            files.write_model(
                path, training.tensors_of(network, heads), {**config, **more},
                inputs=inputs, made_from=origin, command=target.provenance_of(no_provenance),
            )  # fmt: skip

        with terminal.progress("train", sum(stage.steps for stage in plan.stage), "steps", quiet) as advance:
            heads = training.train(
                plan, accelerator.place(network), given, accelerator,
                seed=seed, workers=training.loader_workers(accelerator), checkpoint=checkpoint, log=log,
                heads=_heads(training.heads_of(start.tensors), start, facts, quiet) if start else None, advance=advance,
                keep_at=kept, keep=lambda n, heads: write(kept[n], heads, files.digest(made_from, n), step=n),
            )  # fmt: skip
        if accelerator.main:
            write(output, heads, made_from)
            checkpoint.remove()
            terminal.print_path(output, implied)


def _plan(curricula, path: Path | None, objective: str | None, settings: list[str], single: dict, net: dict):
    """Return the curriculum of a file, or that of one stage made from options."""
    given = {name: value for name, value in net.items() if value is not None}
    stage = {name: value for name, value in single.items() if value is not None}
    if path:
        from soundssl import files

        given_too = ["--set"] * bool(settings) + ["--objective"] * bool(objective)
        given_too += [f"--{name.replace('_', '-')}" for name in stage]
        if given_too:
            raise typer.BadParameter(f"--curriculum says what stages do; leave out {', '.join(given_too)}")
        plan = curricula.from_toml(files.require(path))
        return curricula.replace(plan, given)
    options = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"{setting!r} is not NAME=VALUE", param_hint="--set")
        options[name.strip()] = curricula.parse_value(value.strip())
    return curricula.from_data(
        {**given, "stage": [{**stage, "objective": {objective or "triplet": options}}]}, "the command line"
    )


def _kept(keep: str | None, output: Path, plan) -> dict[int, Path]:
    """Return the files to keep by their number of steps; refuse numbers that are none or lie beyond the last step."""
    last = sum(stage.steps for stage in plan.stage)
    try:
        steps = sorted({int(word) for word in words(keep) or []})
    except ValueError:
        raise typer.BadParameter(f"{keep!r} is not a list of numbers", param_hint="--keep") from None
    for step in steps:
        if not 1 <= step <= last:
            raise typer.BadParameter(f"step {step} is none of 1 to {last}", param_hint="--keep")
    return {step: output.with_name(f"{output.stem}.step-{step}{output.suffix}") for step in steps}


def _unit_length(plan) -> bool:
    """Return whether embeddings are to be written with length one, as an objective of the last stage says."""
    from soundssl import objectives

    return any(getattr(objectives.load(name), "UNIT_LENGTH", False) for name in plan.stage[-1].objective)


def _facts(plan, inputs, start) -> dict[str, dict]:
    """Return what the model file must say about its heads, those of the model it started from among them."""
    from soundssl import objectives

    facts = dict(start.config.get("heads", {})) if start else {}
    for stage in plan.stage:
        for name, given in stage.objective.items():
            module = objectives.load(name)
            if hasattr(module, "facts"):
                options = module.Options(**{key: value for key, value in given.items() if key != "weight"})
                facts[name] = module.facts(inputs, options)
    return facts


def _heads(heads: dict, start, facts: dict[str, dict], quiet: bool) -> dict:
    """Return the heads to go on from: a classifier of other classes or of another shape begins afresh."""
    before = start.config.get("heads", {}).get("classification", {})
    after = facts.get("classification", {})
    if before and (before["classes"], before["hidden"]) != (after["classes"], after["hidden"]):
        terminal.say("train", "the classifier of --init speaks of other classes and is left out", quiet)
        return {name: head for name, head in heads.items() if name != "classification"}
    return heads


def _network(models, plan, source, start):
    """Build the net: an encoder with the statistics of the features, or a separator; or take over another model's."""
    import torch

    from soundssl import files

    separating = plan.encoder in models.SEPARATORS
    source.require(*("waveform", "a separator takes") if separating else ("logmel", "an encoder takes"))
    if start is not None:
        source.check_front_end(start.config["front_end"], start.path)
        for name in ("encoder", *(("tracks", "consistency") if separating else ("size", "norm"))):
            if getattr(plan, name) != start.config[name]:
                raise ValueError(
                    f"{start.path} has {name} {start.config[name]}, not {getattr(plan, name)}; "
                    f"give --{name} {start.config[name]}"
                )
        if not separating and start.config["frames"] != source.window:
            raise ValueError(
                f"{start.path} was trained on windows of {start.config['frames']} frames, "
                f"{files.text(source.path)} has {source.window}; start from another model"
            )
        return (models.restore_separator if separating else models.restore)(start.config, start.tensors)
    if separating:
        return models.build_separator(plan.encoder, plan.tracks, plan.consistency)
    network = models.build(plan.encoder, plan.size, source.bands, source.window, plan.norm)
    network.set_statistics(torch.from_numpy(source.mean), torch.from_numpy(source.deviation).clamp(min=1e-3))
    return network

"""soundssl train: features to a model, by any objective or curriculum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundssl.commands import terminal
from soundssl.commands.interrupts import Signals
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
from soundssl.commands.target import aim
from soundssl.models import ENCODERS, SEPARATOR, SEPARATORS, is_encoder, net
from soundssl.objectives import OBJECTIVES

if TYPE_CHECKING:
    from soundssl.curriculum import Curriculum

WEIGHT = [  # of every objective
    "weight",
    "1.0",
    "factor of this loss in its stage; Jansen et al. 2020 interpolate: 0.9 coincidence and 0.1 clustering (inferred)",
]


LISTS = {"objectives": OBJECTIVES, "encoders": ENCODERS, "separators": SEPARATORS}


def _list(what: str | None) -> None:
    if what:
        if what not in LISTS:
            raise typer.BadParameter(f"choose from {', '.join(LISTS)}", param_hint="--list")
        if what == "encoders":
            terminal.print_table(COLUMNS, [_about(name) for name in ENCODERS])
        else:
            terminal.print_table(["name", "meaning"], [[name, line] for name, line in LISTS[what].items()])
        raise typer.Exit


COLUMNS = ["name", "input", "weights", "multiply-adds", "paper", "meaning"]  # of encoders


def _about(name: str) -> list[str]:
    row = net(name)
    counts = [f"{row.weights:,}", f"{row.products:,}"] if row.weights else ["", ""]
    return [name, f"{row.frames} x {row.bands}", *counts, row.paper, row.line]


def _measure(names: str | None) -> None:
    if names:
        from soundssl import device as hardware
        from soundssl.training import measure

        chosen = list(ENCODERS) if names == "all" else words(names) or []
        unknown = [name for name in chosen if not is_encoder(name)]
        if unknown:
            raise typer.BadParameter(f"no encoder {unknown[0]!r}; see --list encoders", param_hint="--measure")
        with hardware.start() as accelerator:
            rates = {name: measure(name, accelerator) for name in chosen}
        rows = [[*_about(name)[:4], f"{rate.forward:.1f}", f"{rate.training:.1f}"] for name, rate in rates.items()]
        terminal.print_table([*COLUMNS[:4], "windows/s", "windows/s training"], rows)
        raise typer.Exit


def _describe(name: str | None) -> None:
    if name:
        from soundssl import objectives

        kind = next((kind for kind, table in LISTS.items() if name in table), None)
        if kind is None:
            names = ", ".join(name for table in LISTS.values() for name in table)
            raise typer.BadParameter(f"choose from {names}", param_hint="--describe")
        print(f"{name}, one of the {kind}: {LISTS[kind][name]}")
        if kind == "objectives":
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
        typer.Option(help="What is learnt, see --list objectives. Default: triplet."),
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
        typer.Option(help="Net that maps a window to a vector, see --list encoders; or timm:NAME. Default: plain."),
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Numbers in an embedding. Default: 128 (inferred).")] = None,
    norm: Annotated[
        str | None, typer.Option(help="Normalisation: batch, or group where the encoder has it. Default: batch.")
    ] = None,
    net_: Annotated[
        list[str],
        typer.Option("--net", metavar="NAME=VALUE", help="Further option of the encoder or separator, as norm=group."),
    ] = [],  # noqa: B006 (typer needs the value)
    separator: Annotated[
        str | None,
        typer.Option(help=f"Net that takes mixtures apart, see --list separators. Default: {SEPARATOR}."),
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
    coincidence: Annotated[
        Path | None,
        typer.Option(
            help="Model of sound and picture, with whose nets the on-screen classifier begins where --init has none."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights that others released, for the encoder: .safetensors, .npz, or .pth; what is left out is said."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=0, help="Steps of the stage; 0 writes the net of --weights or --init as it is. Default: 300."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Examples a step and process. Default: 64 (inferred); 8 for mixit on a CPU."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Largest rate of Adam. Default: 0.001 (inferred).")
    ] = None,
    stage_: Annotated[
        list[str],
        typer.Option(
            "--stage",
            metavar="NAME=VALUE",
            help="Further key of the stage, see CURRICULUM: as optimiser=sgd, schedule=multistep, milestones=[80,160], "
            "validate=mAP, every=50, patience=5, clip=1, average=0.999.",
        ),
    ] = [],  # noqa: B006 (typer needs the value)
    validation: Annotated[
        str | None,
        typer.Option(help="Splits to measure on and not to train on, separated by commas; see --stage validate."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Numbers of steps, separated by commas, after which OUTPUT's STEM.step-N is kept beside it."),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", file_okay=False, help="Also write the figures for TensorBoard, into this folder."
        ),
    ] = None,
    split: Split = None,
    clips: Annotated[
        Path | None,
        typer.Option(
            metavar="LIST", help="Only clips whose keys this file lists, one a line; see evaluate coincidence."
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    checkpoint_every: Annotated[float, typer.Option(min=0, help="Seconds between saved states.")] = 60.0,
    describe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            callback=_describe,
            is_eager=True,
            help="Say what an objective, with its options, an encoder or a separator is, and exit.",
        ),
    ] = None,
    list_: Annotated[
        str | None,
        typer.Option(
            "--list",
            metavar="WHAT",
            callback=_list,
            is_eager=True,
            help="Print the objectives, encoders or separators there are, and exit.",
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            callback=_measure,
            is_eager=True,
            help="Print how many windows a second encoders take here, and exit; names separated by commas, or all.",
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

    soundssl train waves.h5 --objective onscreen --coincidence coincidence.safetensors --init separator.safetensors

    soundssl train features.h5 --encoder cnn14 --size 2048 --weights Cnn14.pth --steps 0 -o cnn14.safetensors

    soundssl train waves.h5 --objective mixit --steps 3000 --keep 300,1000 -o separator.safetensors
    """
    from soundssl import device as hardware
    from soundssl.training import Job

    nets = {"encoder": encoder or separator, "size": size, "norm": norm, "tracks": tracks, "consistency": consistency}
    if encoder and separator:
        raise typer.BadParameter("a model has one net; leave out --encoder", param_hint="--separator")
    named = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    single = {**_settings(stage_, "--stage"), **{name: value for name, value in named.items() if value is not None}}
    plan = _plan(curriculum, objective, set_, single, {**nets, "net": _settings(net_, "--net") or None})
    given: dict[str, Any] = {"triplets": triplets, "labels": labels, "init": init, "released_weights": weights}
    given |= {"coincidence": coincidence, "clips": clips}
    if not plan.stage and not (init or weights):
        raise typer.BadParameter("0 writes a net as it is; give its --weights, or --init", param_hint="--steps")
    read = [path for path in (features, *given.values(), curriculum) if path]
    flags = {"force": force, "no_clobber": no_clobber, "no_provenance": no_provenance, "quiet": quiet}
    target = aim("train", output, beside(features, "", ".safetensors"), read, "safetensors", **flags)
    kept = _kept(keep, target.path, plan)
    options: dict[str, Any] = {"kept": kept, "tensorboard": tensorboard, "afresh": force, "every": checkpoint_every}
    with hardware.start(device, precision, threads) as accelerator:
        target = target.of_process(accelerator.main)
        given |= {"splits": words(split), "validation": words(validation)}
        job = Job(plan, features, accelerator, **given, seed=seed)
        if not force and job.stands(target.path, kept):
            if accelerator.main:
                job.checkpoint(target.path).clear_finished()
            target.up_to_date()
            return
        target.terminal.say(accelerator.reason)
        with Signals() as signals:
            finished = job.run(
                target.path,
                **options,
                stop=signals.asked,
                progress=target.terminal,
                command=target.provenance,
            )
        if not finished:
            raise SystemExit(signals.status)
        target.finish()


def _plan(path: Path | None, objective: str | None, settings: list[str], single: dict, net: dict) -> Curriculum:
    """Return the curriculum of a file, or that of one stage made from options."""
    from soundssl import curriculum, files

    given = {name: value for name, value in net.items() if value is not None}
    if path:
        given_too = ["--set"] * bool(settings) + ["--objective"] * bool(objective)
        given_too += [f"--{name.replace('_', '-')}" for name in single]
        if given_too:
            raise typer.BadParameter(f"--curriculum says what stages do; leave out {', '.join(given_too)}")
        return curriculum.replace(curriculum.from_toml(files.require(path)), given)
    options = _settings(settings, "--set")
    if single.get("steps") == 0:
        if objective or settings:
            raise typer.BadParameter(
                "nothing is learnt in 0 steps; leave out --objective and --set", param_hint="--steps"
            )
        return curriculum.untrained(given, "the command line")
    return curriculum.from_data(
        {**given, "stage": [{**single, "objective": {objective or "triplet": options}}]}, "the command line"
    )


def _settings(settings: list[str], name: str) -> dict[str, Any]:
    """Return what is given as NAME=VALUE; raise BadParameter for what is not."""
    from soundssl import curriculum

    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"{setting!r} is not NAME=VALUE", param_hint=name)
        options[key.strip()] = curriculum.parse_value(value.strip())
    return options


def _kept(keep: str | None, output: Path, plan: Curriculum) -> dict[int, Path]:
    """Return the files to keep by their number of steps; refuse numbers that are none or lie beyond the last step."""
    last = sum(stage.steps for stage in plan.stage)
    try:
        steps = sorted({int(word) for word in words(keep) or []})
    except ValueError:
        raise typer.BadParameter(f"{keep!r} is not a list of numbers", param_hint="--keep") from None
    if steps and any(stage.patience for stage in plan.stage):
        raise typer.BadParameter("with patience a stage may end before such a step; leave it out", param_hint="--keep")
    for step in steps:
        if not 1 <= step <= last:
            raise typer.BadParameter(f"step {step} is none of 1 to {last}", param_hint="--keep")
    return {step: output.with_name(f"{output.stem}.step-{step}{output.suffix}") for step in steps}

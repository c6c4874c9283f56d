"""soundssl infer: a factor graph that is stated in TOML, run on scores of windows or on labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from soundssl.commands.options import Force, NoClobber, NoProvenance, Output, Quiet, beside
from soundssl.commands.target import Target, aim


def infer(
    model: Annotated[Path, typer.Argument(help="Factor graph in TOML.")],
    observations: Annotated[
        Path, typer.Argument(help="Scores, as embed --layer probabilities writes them, or a labels file.")
    ],
    output: Output = None,
    sure: Annotated[
        float,
        typer.Option(
            help="Of labels: probability from which a class is present, and below 1 minus which it is absent."
        ),
    ] = 0.99,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Infer what is so from what was observed, by a factor graph of one's own.

    The model names variables and the classes that observe them, and factors: tables of log potentials over variables,
    in which "next X" is X in the next window of the clip. A variable is observed by a class (its states are absent and
    present), by a list of classes that exclude each other, or, with a number of states, by none. Of scores the output
    has the probabilities of all variables, in each window given all windows of its clip; of labels, what is sure.

    Results are exact, but for graphs with loops that are not over time, whose messages are repeated until they settle.

    Example of a model, in which barks imply a dog, and dogs stay for a while:

    [variables]

    Dog = "Dog"

    Bark = "Bark"

    [[factors]]

    variables = ["Bark", "Dog"]

    table = [[0, 0], [-inf, 0]]

    [[factors]]

    variables = ["Dog", "next Dog"]

    table = [[2, 0], [0, 2]]

    Example:

    soundssl infer barks.toml probabilities.h5 -o inferred.h5
    """
    from soundssl import files
    from soundssl.detection import inference

    if not 0.5 < sure <= 1:
        raise typer.BadParameter(f"{sure:g} does not lie above 0.5 to 1", param_hint="--sure")
    template = inference.read(model)
    kind = files.kind_of(observations)
    if kind not in ("labels", "embeddings"):
        raise files.FormatError(f"{files.text(observations)} holds neither scores nor labels; give one of these")
    target = aim(
        "infer", output, beside(observations, "inferred.labels" if kind == "labels" else "inferred"),
        [model, observations], force=force, no_clobber=no_clobber, no_provenance=no_provenance, quiet=quiet,
    )  # fmt: skip
    inputs = [files.identity(kind, observations, files.attributes_of(observations))]
    made_from = files.digest("infer", inputs, model.read_text("utf-8"), sure if kind == "labels" else None)
    if target.stands(made_from):
        return
    count = (_labels if kind == "labels" else _scores)(target, template, observations, inputs, made_from, sure)
    what = "segments" if kind == "labels" else "windows"
    target.finish(f"{len(template.variables)} variables, {len(template.factors)} factors, {count} {what}")


def _labels(target: Target, template, observations: Path, inputs: list[dict], made_from: str, sure: float) -> int:
    from soundssl.detection import inference
    from soundssl.labels import labelset

    made = inference.of_labels(template, labelset.of_file(observations), sure)
    about = {"verb": "infer", "options": json.dumps({"sure": sure})}
    with target.create("labels", inputs, made_from, about) as sink:
        labelset.write(sink, made)
    return len(made)


def _scores(target: Target, template, observations: Path, inputs: list[dict], made_from: str, _: float) -> int:
    from soundssl import files
    from soundssl.detection import inference
    from soundssl.files.features import Windows

    source = files.Embeddings(observations)
    found = inference.of_scores(template, source)
    about = {name: source.attributes[name] for name in ("hop", "window", "features", "model", "part")
             if name in source.attributes}  # fmt: skip
    about |= {"layer": "probabilities", "class": json.dumps(template.outputs)}
    windows = Windows(found, source.clip[:], source.start[:])
    with target.create("embeddings", inputs, made_from, about) as sink:
        files.write_embeddings(sink, iter([(found, windows)]), len(found), found.shape[1], "f4", source.clips)
    return len(found)

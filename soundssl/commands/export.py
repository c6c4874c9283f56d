"""soundssl export: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from soundssl.commands.options import Force, NoClobber, Quiet, beside
from soundssl.commands.target import aim
from soundssl.objectives import LAYERS


def export(
    model: Annotated[Path, typer.Argument(help="Model file written by train.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write: .onnx (extra export), or .pt2 for torch.export.load. Default: STEM.onnx.",
        ),
    ] = None,
    layer: Annotated[str, typer.Option(help="What it gives: embedding, or logits or probabilities.")] = "embedding",
    given: Annotated[
        Literal["windows", "waveform"],
        typer.Option(
            "--input", help="What it takes: log-mel windows, or the waveform of a window at the model's rate."
        ),
    ] = "windows",
    force: Force = False,
    no_clobber: NoClobber = False,
    quiet: Quiet = False,
) -> None:
    """Write a model for other programs: ONNX, or a program of torch.export. The size of the batch is free.

    Example:

    soundssl export model.safetensors --layer probabilities --input waveform -o recogniser.onnx
    """
    from soundssl import export as library
    from soundssl.model import load_model

    if layer not in ("embedding", *LAYERS):
        raise typer.BadParameter(f"choose from embedding, {', '.join(LAYERS)}", param_hint="--layer")
    flags = {"force": force, "no_clobber": no_clobber, "quiet": quiet}
    target = aim("export", output, beside(model, "", ".onnx"), [model], **flags)
    if target.path.suffix not in library.FORMATS:
        raise typer.BadParameter(f"{target.path} ends in none of {', '.join(library.FORMATS)}", param_hint="--output")
    made = library.export(load_model(model, device="cpu", precision="float32"), target.path, layer=layer, given=given)
    shape = " x ".join(map(str, made.shape))
    unit = "samples" if given == "waveform" else "(frames x bands)"
    target.finish(f"takes batches of {shape} {unit}, gives {made.width} numbers each")

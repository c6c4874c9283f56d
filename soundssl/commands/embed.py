"""soundssl embed: features and a model to one vector a window."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from soundssl.commands.interrupts import resumable
from soundssl.commands.joining import join
from soundssl.commands.options import (
    BatchSize,
    Copy,
    Device,
    Force,
    Hop,
    NoClobber,
    NoProvenance,
    Part,
    Precision,
    Quiet,
    Split,
    Threads,
    beside,
    part_of,
    words,
)
from soundssl.commands.target import aim
from soundssl.datasets import belongs
from soundssl.objectives import LAYERS

FORMATS = ("HDF5", "NPY", "CSV", "Parquet")  # of the output, by its ending

if TYPE_CHECKING:
    Layer = str
else:
    Layer = Literal[("embedding", *LAYERS)]


def embed(
    features: Annotated[
        list[Path], typer.Argument(help="Features file written by featurize; or embeddings files, to join them.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "-m",
            "--model",
            help="Model file written by train; must be given but to join. Or hear:MODULE: an installed module of the "
            "common API of HEAR, for features of waveforms. Or, with --modality image, timm:NAME, an image classifier.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write: .h5 with times and clips, .csv or .parquet (extra parquet) the same as a table for "
            "other programs, .npy the bare matrix, - the matrix on standard output. Default: STEM.embeddings.h5.",
        ),
    ] = None,
    layer: Annotated[
        Layer,
        typer.Option(
            help="What to write; logits and probabilities of classes where the model has a classifier; the projection "
            "where it was trained by contrast."
        ),
    ] = "embedding",
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Write embeddings as the net gives them, as evaluate linear --preset sound-events wants them. Without "
            "it those of every objective but classification are scaled to length one.",
        ),
    ] = False,
    whiten: Annotated[
        Path | None,
        typer.Option(
            help="PCA parameters released with VGGish (.npz, .safetensors or .pth): whiten embeddings by them, between "
            "-2 and 2."
        ),
    ] = None,
    quantise: Annotated[
        bool, typer.Option("--quantise", help="With --whiten, the 8-bit form: whole numbers from 0 to 255.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="With hear:MODULE, the file of weights that its load_model takes; with timm:NAME, its weights."
        ),
    ] = None,
    modality: Annotated[
        Literal["sound", "image"],
        typer.Option(help="What is looked at: the sound, or the stored pictures, by an image classifier timm:NAME."),
    ] = "sound",
    classes: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="With --modality image, the names of its outputs, one a line."),
    ] = None,
    activation: Annotated[
        Literal["softmax", "sigmoid"],
        typer.Option(help="With --modality image: softmax for exclusive classes, sigmoid for several at once."),
    ] = "softmax",
    hop: Hop = None,
    store: Annotated[
        Literal["float32", "float16"], typer.Option(help="Number type of the stored vectors.")
    ] = "float32",
    split: Split = None,
    part: Part = None,
    copy: Copy = False,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Map every window to a vector, with the time at which it starts.

    A window takes as many frames as the model was trained on (0.96 s of vggish); an incomplete last one is dropped.
    A run that was killed goes on where it was when the same command is given again.

    With --modality image every stored picture is classified, and a clip has the mean of the scores of its pictures: the
    visual labels of MM-Videos, on features made with --image-rate 3. Only --layer probabilities is of pictures.

    Examples:

    soundssl embed features.h5 -m model.safetensors -o embeddings.h5

    soundssl embed features.h5 -m timm:resnet50 --weights resnet50.pth --classes imagenet.txt --modality image \
      --layer probabilities -o seen.h5

    soundssl embed features.h5 -m model.safetensors --hop 0.48 -o - > embeddings.npy

    soundssl embed part-*.embeddings.h5 -o embeddings.h5
    """
    from soundssl import device as hardware
    from soundssl import files
    from soundssl.embedding import Job
    from soundssl.model import Model
    from soundssl.weights import read

    if model is None:
        if not all(path.is_file() and files.kind_of(path) == "embeddings" for path in features):
            raise typer.BadParameter("Missing option '-m' / '--model': only embeddings files are joined without one")
        join("embeddings", features, output, copy, force, no_clobber, no_provenance, quiet)
        return
    seen = modality == "image"
    _check(features, model, layer, raw, whiten, quantise, None if seen else weights)
    path, shard = features[0], part_of(part)
    flags = {"force": force, "no_clobber": no_clobber, "no_provenance": no_provenance, "quiet": quiet}
    _check_pictures(seen, str(model), layer, weights, classes, hop is not None or store != "float32")
    if seen and weights and classes:
        _pictures(
            path, str(model), output, weights, classes, activation, split, shard, (device, precision, threads), flags
        )
        return
    if str(model).startswith("hear:"):
        _refuse(layer != "embedding" or raw or bool(whiten) or bool(part) or hop is not None)
        _hear(path, str(model), output, weights, split, flags)
        return
    read_too = [path, model, *([whiten] if whiten else [])]
    target = aim("embed", output, beside(path, "embeddings", part=shard), read_too, *FORMATS, **flags)
    source, trained = files.Features(path), files.read_model(model)
    clips = _clips(source, split, shard)
    with hardware.start(device, precision, threads) as accelerator:
        options: dict[str, Any] = {"layer": layer, "hop": hop, "store": store, "batch_size": batch_size, "raw": raw}
        options |= {"whitening": read(whiten, "whitening") if whiten else None, "quantise": quantise}
        job = Job(source, Model(trained, accelerator), clips=clips, shard=shard, **options)
        if target.stands(job.made_from):
            return
        target.terminal.say(accelerator.reason)
        with contextlib.nullcontext() if target.piped else resumable(target.terminal):
            place = sys.stdout.buffer if target.piped else target.path
            count = job.run(place, afresh=force, progress=target.terminal, command=target.provenance)
    target.finish(f"{count} windows of {int(clips.sum())} clips")


def _hear(
    path: Path, module: str, output: Path | None, weights: Path | None, split: str | None, flags: dict[str, bool]
) -> None:
    """Embed waveforms by an installed module of HEAR's common API."""
    from soundssl import files, hear

    target = aim("embed", output, beside(path, "embeddings"), [path, *([weights] if weights else [])], "HDF5", **flags)
    source = files.Features(path)
    clips = _clips(source, split, None)
    done = hear.embed(
        module, source, target.path, weights=weights, clips=clips, progress=target.terminal, command=target.provenance
    )
    target.finish(f"{done.vectors} vectors of {done.clips} clips")


def _pictures(
    path: Path,
    net: str,
    output: Path | None,
    weights: Path,
    classes: Path,
    activation: Literal["softmax", "sigmoid"],
    split: str | None,
    shard: tuple[int, int] | None,
    machine: tuple[str, str, int],
    flags: dict[str, bool],
) -> None:
    """Classify the pictures of each clip by an image classifier of timm."""
    from soundssl import device as hardware
    from soundssl import files
    from soundssl.picture_scores import Job
    from soundssl.weights import read

    read_too, default = [path, weights, classes], beside(path, "embeddings", part=shard)
    target = aim("embed", output, default, read_too, "HDF5", **flags)
    source, tensors, names = files.Features(path), read(weights), files.read_classes(classes)
    chosen = _clips(source, split, shard)
    with hardware.start(*machine) as accelerator:
        job = Job(source, net, tensors, names, accelerator, activation=activation, clips=chosen, shard=shard)
        if target.stands(job.made_from):
            return
        if job.lacking:
            target.terminal.warn(f"{job.lacking} of {int(chosen.sum())} clips have no pictures; left out")
        with resumable(target.terminal):
            count = job.run(target.path, afresh=flags["force"], progress=target.terminal, command=target.provenance)
    target.finish(f"{count} clips, {len(names)} classes")


def _check_pictures(
    seen: bool, model: str, layer: str, weights: Path | None, classes: Path | None, other: bool
) -> None:
    """Raise BadParameter where options are not those of an image classifier, or lack one that it needs."""
    if not seen and (classes or model.startswith("timm:")):
        raise typer.BadParameter(
            "an image classifier, and its classes, are of --modality image", param_hint="--modality"
        )
    if not seen:
        return
    if not model.startswith("timm:"):
        raise typer.BadParameter(
            f"{model} is no image classifier; give timm:NAME and its --weights", param_hint="--model"
        )
    if not weights or not classes:
        lacking = "--weights" if not weights else "--classes"
        raise typer.BadParameter(f"Missing option '{lacking}': weights and names of the outputs are never fetched")
    if layer != "probabilities" or other:
        raise typer.BadParameter(
            "of pictures there is a row a clip, --layer probabilities; leave out --hop and --store"
        )


def _refuse(given: bool) -> None:
    """Raise BadParameter where options are given that no module of HEAR knows."""
    if given:
        raise typer.BadParameter(
            "a module of HEAR embeds as it does; leave out --layer, --raw, --whiten, --part, --hop"
        )


def _check(
    features: list[Path],
    model: Path,
    layer: str,
    raw: bool,
    whiten: Path | None,
    quantise: bool,
    weights: Path | None,
) -> None:
    """Raise BadParameter for options that do not go together."""
    if weights and not str(model).startswith("hear:"):
        raise typer.BadParameter("a model file has its own; make one with train --weights", param_hint="--weights")
    if len(features) > 1:
        raise typer.BadParameter("a model embeds one features file; join them first", param_hint="FEATURES")
    if raw and layer != "embedding":
        raise typer.BadParameter(f"{layer} is never scaled, --raw is of embeddings alone; leave out --raw")
    if quantise and not whiten:
        raise typer.BadParameter("the 8-bit form is of whitened embeddings; give --whiten", param_hint="--quantise")
    if whiten and layer != "embedding":
        raise typer.BadParameter(f"embeddings are whitened, {layer} is none; leave out --whiten", param_hint="--whiten")


def _clips(source, split: str | None, shard: tuple[int, int] | None):
    """Return which clips are of the chosen splits and of this shard. Shape: `[clips]`, boolean."""
    import numpy as np

    return source.clips.in_splits(words(split), source.path) & np.array(
        [belongs(key, shard) for key in source.clips.key], bool
    )

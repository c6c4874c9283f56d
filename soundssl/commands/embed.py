"""soundssl embed: features and a model to one vector a window."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from soundssl.commands import target, terminal
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
from soundssl.datasets import belongs


def embed(
    features: Annotated[
        list[Path], typer.Argument(help="Features file written by featurize; or embeddings files, to join them.")
    ],
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="Model file written by train; must be given but to join.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write: .h5 with times and clips, .npy the bare matrix, - the matrix on standard output. "
            "Default: STEM.embeddings.h5.",
        ),
    ] = None,
    layer: Annotated[
        Literal["embedding", "logits", "probabilities", "projection"],
        typer.Option(
            help="What to write; logits and probabilities of classes where the model has a classifier; the projection "
            "where it was trained by contrast."
        ),
    ] = "embedding",
    hop: Hop = 0.96,
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

    A window takes as many frames as the model was trained on (0.96 s); an incomplete last one is dropped.
    A run that was killed goes on where it was when the same command is given again.

    Examples:

    soundssl embed features.h5 -m model.safetensors -o embeddings.h5

    soundssl embed features.h5 -m model.safetensors --hop 0.48 -o - > embeddings.npy

    soundssl embed part-*.embeddings.h5 -o embeddings.h5
    """
    import numpy as np

    from soundssl import device as hardware
    from soundssl import files, models

    if model is None:
        if not all(path.is_file() and files.kind_of(path) == "embeddings" for path in features):
            raise typer.BadParameter("Missing option '-m' / '--model': only embeddings files are joined without one")
        join("embeddings", features, output, copy, force, no_clobber, no_provenance, quiet)
        return
    if len(features) > 1:
        raise typer.BadParameter("a model embeds one features file; join them first", param_hint="FEATURES")
    path, piece = features[0], part_of(part)
    implied, output = output is None, output or beside(path, "embeddings", part=piece)
    if str(output) == "-" and sys.stdout.isatty():
        raise typer.BadParameter("a matrix is not for a terminal; send it to a file or a pipe", param_hint="--output")
    if str(output) != "-":
        files.guard(output, no_clobber)
        files.guard_inputs(output, [path, model])
    source, trained = files.Features(path), files.read_model(model)
    source.check_front_end(trained.config["front_end"], model)
    inputs = [
        files.identity("features", path, source.attributes),
        files.identity("model", model, trained.attributes),
    ]
    made_from = files.digest("embeddings", inputs, layer, hop, store, split, precision, piece)
    if str(output) != "-" and terminal.done_before("embed", output, made_from, force, quiet, implied):
        return
    length, step = trained.config["frames"], source.frames_of(hop)
    clips = source.clips.in_splits(words(split), path)
    clips &= np.array([belongs(key, piece) for key in source.clips.key], bool)
    count = len(source.grid(length, step, clips)[0])
    if not count and not piece:
        raise files.FormatError(f"{files.text(path)} has no window of {length} frames to embed")
    with (
        contextlib.ExitStack() as stack,
        hardware.start(device, precision, threads) as accelerator,
        terminal.progress("embed", count, "windows", quiet) as advance,
    ):
        terminal.say("embed", accelerator.reason, quiet)
        network, width, classes = _network(models, trained, layer)
        network = accelerator.place(network).eval()
        kept = stack.enter_context(_kept(output, made_from, batch_size, width, store, force))
        if kept and kept.left:
            terminal.say("embed", f"going on: {min(kept.left, count)} of {count} windows were done before", quiet)

        def batches():
            for windows in source.windows(length, step, batch_size, clips):
                vectors = kept.take(len(windows.clip)) if kept else None
                if vectors is None:
                    vectors = accelerator.run(network, windows.frames)
                    if layer == "embedding" and trained.config["unit_length"]:
                        vectors /= (vectors**2).sum(1, keepdims=True) ** 0.5 + 1e-12
                    vectors = vectors.astype(store)
                    if kept:
                        kept.add(vectors)
                yield vectors, windows
                advance(len(vectors))

        if output.suffix == ".npy" or str(output) == "-":
            place = sys.stdout.buffer if str(output) == "-" else output
            files.write_matrix(place, (count, width), store, (vectors for vectors, _ in batches()))
        else:
            attributes = {
                **{
                    "layer": layer,
                    "hop": float(source.seconds(step)),
                    "window": float(source.seconds(length)),
                    "class": json.dumps(classes),
                },
                **({"part": f"{piece[0]}/{piece[1]}"} if piece else {}),
                **{"features": source.attributes["uuid"], "model": trained.attributes["uuid"]},
            }
            with files.create(
                output,
                "embeddings",
                inputs=inputs,
                made_from=made_from,
                attributes=attributes,
                command=target.provenance_of(no_provenance),
            ) as sink:
                files.write_embeddings(
                    sink,
                    batches(),
                    count,
                    width,
                    {"float32": "f4", "float16": "f2"}[store],
                    source.clips,
                    clips if piece else None,
                )
        if kept:
            kept.discard()
    terminal.say("embed", f"{count} windows of {int(clips.sum())} clips", quiet)
    terminal.print_path(output, implied)


@contextlib.contextmanager
def _kept(output: Path, made_from: str, batch_size: int, width: int, store: str, force: bool):
    """Yield what keeps finished batches beside an output, None where that is a pipe; say that a run can go on."""
    from soundssl import files

    if str(output) == "-":
        yield None
        return
    # A vector depends in its last bits on the batch that it is computed in.
    with contextlib.closing(files.Vectors(output, files.digest(made_from, batch_size), width, store, force)) as kept:
        try:
            yield kept
        except (KeyboardInterrupt, SystemExit):  # SIGINT and SIGTERM
            terminal.say("embed", "interrupted; the same command goes on from here")
            raise


def _network(models, trained, layer: str):
    """Return the network that ends in a layer, its width, and the classes it speaks of."""
    from torch import nn

    encoder = models.restore(trained.config, trained.tensors)
    if layer == "embedding":
        return encoder, trained.config["size"], []
    if layer == "projection":
        projection = models.restore_projection(trained.config, trained.tensors)
        return nn.Sequential(encoder, projection), trained.config["heads"]["contrastive"]["output"], []
    network = nn.Sequential(encoder, models.restore_classifier(trained.config, trained.tensors))
    facts = trained.config["heads"]["classification"]
    if layer == "probabilities":
        network.append(nn.Softmax(dim=1) if facts["output"] == "softmax" else nn.Sigmoid())
    return network, len(facts["classes"]), facts["classes"]

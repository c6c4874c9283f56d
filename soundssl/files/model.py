"""Model files: safetensors, so that loading runs no code and every tool of the field opens them."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from soundssl.files.outputs import replace, text
from soundssl.files.reading import FormatError, require
from soundssl.files.writing import digest, provenance

SCHEMA = 1


class Model(NamedTuple):
    """Hold a model: `tensors` by name, `config` as trained, and its provenance."""

    path: Path
    tensors: dict[str, np.ndarray]
    config: dict
    attributes: dict[str, str]


def write_model(
    path: str | os.PathLike,
    tensors: dict[str, np.ndarray],
    config: dict,
    *,
    inputs: list[dict],
    made_from: str,
    command: str | None = None,
) -> None:
    """Write a model whole or not at all. Tensors are named `encoder.*` and `head.<objective>.*`.

    Without the `command` line that makes it, equal runs give equal bytes.
    """
    shared = provenance("model", inputs, made_from, command)
    tensors = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    content = digest(config, {name: digest(tensor.tobytes().hex()) for name, tensor in tensors.items()})
    shared.setdefault("uuid", str(uuid.UUID(content)))
    metadata = {name: str(value) for name, value in shared.items()}
    with replace(path) as partial:
        safetensors.numpy.save_file(tensors, partial, {**metadata, "config": json.dumps(config, sort_keys=True)})


def model_attributes(path: str | os.PathLike) -> dict[str, str]:
    """Return the metadata of a model file of ours; raise Missing or FormatError."""
    path = require(path)
    remedy = "make a model with soundssl train"
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise FormatError(f"{text(path)} is not a safetensors file; {remedy}") from error
    if metadata.get("kind") != "model" or "config" not in metadata:
        raise FormatError(f"{text(path)} is a safetensors file of another program; {remedy}")
    if int(metadata["schema"]) > SCHEMA:
        raise FormatError(f"{text(path)} has schema {metadata['schema']} of model; install a newer soundssl")
    return metadata


def read_model(path: str | os.PathLike) -> Model:
    """Read a model file; raise Missing or FormatError."""
    metadata = model_attributes(path)
    return Model(Path(path), safetensors.numpy.load_file(path), json.loads(metadata["config"]), metadata)


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the tensors of any safetensors file by name; raise Missing, and FormatError for a file that is none."""
    path = require(path)
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        raise FormatError(f"{text(path)} is not a safetensors file that numpy can hold ({error})") from error


def model_made_from(path: str | os.PathLike) -> str | None:
    """Return the digest that a finished model was made from, None where there is no model."""
    try:
        return model_attributes(path).get("made_from") if Path(path).is_file() else None
    except FormatError:  # whatever stands there is not ours; it is about to be replaced
        return None

"""Model files: safetensors, so that loading runs no code and every tool of the field opens them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from soundssl import SoundsslError
from soundssl.files.checking import check_attributes
from soundssl.files.features import FRONT_END
from soundssl.files.outputs import replace, text
from soundssl.files.reading import TORN, FormatError, require
from soundssl.files.schema import KINDS, MANY, SHARED_ATTRIBUTES, Attribute
from soundssl.files.writing import provenance

SCHEMA = 1

# What is known of every configuration; heads and options of nets are checked where they are restored.
CONFIG = {"encoder": Attribute("name of the net", needed=True), "norm": Attribute("how the net normalises")}
ENCODER = {
    "size": Attribute("numbers in an embedding", "integer", 1, MANY, needed=True),
    "bands": Attribute("bands of a window", "integer", 1, MANY, needed=True),
    "frames": Attribute("frames of a window", "integer", 1, MANY, needed=True),
}
SEPARATOR = {
    "tracks": Attribute("tracks of a separator", "integer", 1, MANY, needed=True),
    "consistency": Attribute("how tracks are made to sum to their mixture", needed=True),
}
OBJECTS = ("front_end", "heads", "net")  # of a configuration: by name, what the front end, heads and options are


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

    Without the `command` line that makes it, equal runs give equal bytes. Raises SoundsslError for weights that are
    not finite.
    """
    shared = provenance("model", inputs, made_from, command)
    if wrong := not_finite(tensors):
        raise SoundsslError(f"the weights {wrong[0]} are not finite and are not written; lower --learning-rate")
    tensors = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    if command is None:
        shared["uuid"] = str(uuid.UUID(_content(tensors, config)))
    metadata = {name: str(value) for name, value in shared.items()}
    with replace(path) as partial:
        try:
            safetensors.numpy.save_file(tensors, partial, {**metadata, "config": json.dumps(config, sort_keys=True)})
        except safetensors.SafetensorError as error:  # says in words what is wrong with the disk
            if number := re.search(r"(?:os error |code: )(\d+)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(partial)) from error
            raise
        _sort_header(partial)


def _sort_header(path: Path) -> None:
    """Put the names in the header of a safetensors file in order: that of the library changes from file to file."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.dumps(json.loads(file.read(length)), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        ordered = header.encode()
        if len(ordered) <= length:  # else the library escapes names in another way than Python does
            file.seek(8)
            file.write(ordered.ljust(length))  # it pads with spaces too


def _content(tensors: dict[str, np.ndarray], config: dict) -> str:
    """Return 32 hexadecimal digits that stand for a model; its tensors are read where they lie, not copied."""
    found = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in tensors.items():
        found.update(f"\0{name}\0{tensor.dtype.str}{tensor.shape}\0".encode())
        found.update(tensor.reshape(-1).view(np.uint8).data)
    return found.hexdigest()[:32]


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
    if metadata.get("schema", "").isdecimal() and int(metadata["schema"]) > SCHEMA:
        raise FormatError(f"{text(path)} has schema {metadata['schema']} of model; install a newer soundssl")
    try:
        schema = int(metadata["schema"]) if metadata.get("schema", "").isdecimal() else metadata.get("schema")
        check_attributes(SHARED_ATTRIBUTES, {**metadata, "schema": schema})
    except ValueError as error:
        raise FormatError(f"{text(path)} is damaged: {error}; train it again") from error
    return metadata


def read_model(path: str | os.PathLike) -> Model:
    """Read a model file; raise Missing or FormatError."""
    model = read_unchecked(path)
    if wrong := not_finite(model.tensors):
        raise FormatError(f"{text(path)} is damaged: the weights {wrong[0]} are not finite; train it again")
    return model


def read_unchecked(path: str | os.PathLike) -> Model:
    """Read a model file whatever its weights are; raise Missing or FormatError."""
    metadata = model_attributes(path)
    try:
        config = json.loads(metadata["config"])
        check_config(config)
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, *TORN, RecursionError) as error:
        raise FormatError(f"{text(path)} is damaged: {error}; train it again") from error
    return Model(Path(path), tensors, config, metadata)


def check_config(config: object) -> None:
    """Raise ValueError for a configuration whose values are not of the types and in the ranges they have."""
    if not isinstance(config, dict):
        raise ValueError("config is no JSON object")
    for name in OBJECTS:
        if not isinstance(config.get(name, {}), dict):
            raise ValueError(f"{name} in config is no JSON object")
    check_attributes(CONFIG | (SEPARATOR if "tracks" in config else ENCODER), config)
    if not isinstance(config.get("unit_length", False), bool):
        raise ValueError(f"unit_length in config is {config['unit_length']!r}, not true or false")
    if "front_end" in config:
        check_attributes({name: KINDS["features"].attributes[name] for name in FRONT_END}, config["front_end"])
    for name, facts in config.get("heads", {}).items():
        if not isinstance(facts, dict):
            raise ValueError(f"the head {name} in config is no JSON object")


def not_finite(tensors: dict[str, np.ndarray]) -> list[str]:
    """Return the names of tensors that hold numbers that are not finite."""
    return [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]


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

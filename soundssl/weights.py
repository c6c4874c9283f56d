"""Files of weights that others released: safetensors, or what PyTorch saved; nothing in them is run."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from soundssl import files
from soundssl.models import released

BLOCK = 1 << 20  # bytes digested at a time
DIGITS = 32  # of the digest that stands for a file


class Weights(NamedTuple):
    """Hold the tensors of a file by name, and the line by which other files say what they were made from."""

    path: Path
    tensors: dict[str, Tensor]
    identity: dict[str, str]


def read(path: str | os.PathLike, role: str = "weights") -> Weights:
    """Read a file of weights: .safetensors, .npz, or of `torch.save`, of which tensors alone are taken.

    Raises Missing where there is none, and FormatError for a file that is none of these or holds anything else.
    """
    path = files.require(path)
    try:
        if path.suffix == ".safetensors":
            tensors = {name: torch.from_numpy(value.copy()) for name, value in files.read_tensors(path).items()}
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                tensors = {name: torch.from_numpy(held[name]) for name in held.files}
        else:
            tensors = released.tensors_in(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        fact = str(error).partition("\n")[0]
        raise files.FormatError(
            f"{files.text(path)} holds no weights that can be read ({fact}); give a .safetensors or .pth file"
        ) from error
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    said = {"role": role, "file": files.text(path.name), "uuid": digest.hexdigest()[:DIGITS]}
    return Weights(path, tensors, said)

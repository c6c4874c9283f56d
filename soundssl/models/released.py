"""Weights that others released, under the names of our nets: VGGish, CNN14 of PANNs, and backbones of timm.

VGGish is known in two layouts: the variables of the TensorFlow checkpoint (`vggish/conv1/weights`, height x width x
in x out), and those of its PyTorch port (`features.0.weight`, `embeddings.0.weight`). CNN14 has the names of the public
code; what computes its spectrogram, and its layer to 527 classes, are no part of the net here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# The front end, by the name of its preset, whose frames released weights take as they are: without statistics.
FRONT_ENDS = {"vggish": "vggish", "cnn14": "panns"}

_VGGISH = {  # variables of the checkpoint, and our modules
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3/conv3_1": "features.6",
    "conv3/conv3_2": "features.8",
    "conv4/conv4_1": "features.11",
    "conv4/conv4_2": "features.13",
    "fc1/fc1_1": "embedding.0",
    "fc1/fc1_2": "embedding.2",
    "fc2": "embedding.4",
}
_APART = ("spectrogram_extractor.", "logmel_extractor.", "fc_audioset.", "pproc.")  # known, and no part of the net
_WRAPPED = ("module.", "backbone.")  # what others put before every name


def fill(encoder: nn.Module, name: str, tensors: dict[str, Tensor]) -> list[str]:
    """Fill the backbone of an encoder, by its name in the table of nets; return a line for each tensor left out.

    Colour filters are averaged to one channel. A last layer of another size begins afresh, and is among the lines.
    Raises ValueError naming every tensor that is lacking or does not fit.
    """
    backbone: Any = encoder.get_submodule("backbone")
    own, given = backbone.state_dict(), _named(name, tensors)
    last = _last_layer(backbone)
    taken, faults, lines = {}, [], []
    for key, value in own.items():
        found = given.pop(key, None)
        fresh = last is not None and key.startswith(f"{last}.")
        if found is None:
            if fresh:
                lines.append(f"{key} begins afresh: the file has none")
            elif not key.endswith("num_batches_tracked"):
                faults.append(f"{key} {list(value.shape)} is lacking")
            continue
        if found.ndim == 4 and value.ndim == 4 and value.shape[1] == 1 and found.shape[1] == 3:
            found = found.float().mean(1, keepdim=True)
        if found.shape == value.shape:
            taken[key] = found.to(value.dtype)
        elif fresh:
            lines.append(f"{key} begins afresh: the file has {list(found.shape)}, the net {list(value.shape)}")
        else:
            faults.append(f"{key} is {list(found.shape)} instead of {list(value.shape)}")
    lines += [f"{key} {list(value.shape)} is left out: the net has none" for key, value in given.items()]
    if faults:
        raise ValueError(f"{'; '.join(faults)}; are these weights of {name}, and windows and size as it takes them?")
    backbone.load_state_dict({**own, **taken})
    return lines


def whiten(vectors: Tensor, tensors: dict[str, Tensor], quantise: bool = False) -> Tensor:
    """Whiten embeddings of VGGish as released, clipped to [-2, 2]; `quantise` gives the 8-bit form, 0 to 255.

    `tensors` are `pca_eigen_vectors` [size, size] and `pca_means` [size] or [size, 1]. Shape: [n, size]. Raises
    ValueError for others.
    """
    named = {key.removeprefix("pproc."): value for key, value in tensors.items()}
    size = vectors.shape[1]
    try:
        matrix, mean = named["pca_eigen_vectors"].float(), named["pca_means"].float().flatten()
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}, but {', '.join(sorted(tensors)) or 'nothing'}") from None
    if matrix.shape != (size, size) or mean.shape != (size,):
        raise ValueError(f"pca_eigen_vectors are {list(matrix.shape)}, pca_means {list(mean.shape)}, not of {size}")
    whitened = ((vectors.float() - mean) @ matrix.T).clamp(-2.0, 2.0)
    return ((whitened + 2.0) * (255.0 / 4.0)).trunc() if quantise else whitened


def _named(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names of our nets."""
    given = dict(tensors)
    for wrapped in _WRAPPED:
        if given and all(key.startswith(wrapped) for key in given):
            given = {key.removeprefix(wrapped): value for key, value in given.items()}
    given = {key: value for key, value in given.items() if not key.startswith(_APART)}
    if not name.startswith("vggish"):
        return given
    found = {}
    for key, value in given.items():
        path, _, kind = key.removesuffix(":0").removeprefix("vggish/").rpartition("/")
        if path in _VGGISH and kind in ("weights", "biases"):
            turned = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim) if kind == "weights" else None
            key = f"{_VGGISH[path]}.{'weight' if kind == 'weights' else 'bias'}"
            value = value.permute(turned).contiguous() if turned else value
        elif key.startswith("embeddings."):
            key = f"embedding.{key.removeprefix('embeddings.')}"
        found[key] = value
    return found


def _last_layer(backbone: nn.Module) -> str | None:
    """Return the name of the linear layer that gives the embedding, None where the last is another."""
    named = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    return named[-1] if named else None


def tensors_in(loaded: Any) -> dict[str, Tensor]:
    """Return the tensors of what `torch.load` gave: a state, or one within `model`, `state_dict` and the like.

    Raises ValueError where there are none.
    """
    if isinstance(loaded, dict):
        for key in ("model", "state_dict", "model_state_dict", "model_state"):
            if isinstance(loaded.get(key), dict):
                return tensors_in(loaded[key])
        found = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        if found:
            return found
    raise ValueError("it holds no tensors by name")

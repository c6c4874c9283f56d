"""The tensors of a model file as torch takes them."""

import numpy as np
import torch
from torch import Tensor


def below(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    """Return those of a model's tensors whose names begin with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): torch.from_numpy(value.copy())
        for name, value in tensors.items()
        if name.startswith(prefix)
    }

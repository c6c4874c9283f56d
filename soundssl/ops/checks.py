"""When values may be looked at: to read a tensor on a GPU, the processor waits until the GPU has done all before it."""

import os

from torch import Tensor


def may_read(tensor: Tensor) -> bool:
    """Return whether a check may read the values of a tensor: on a CPU always, elsewhere where SOUNDSSL_DEBUG is set.

    Shapes and types are known without a wait: they are checked everywhere.
    """
    return tensor.device.type == "cpu" or bool(os.environ.get("SOUNDSSL_DEBUG"))

"""How much a net computes: the multiply-adds of one pass forward, counted while it runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count(net: nn.Module, *inputs: Tensor) -> int:
    """Return the multiply-adds of a forward pass: of convolutions and matrix products.

    Norms, activations, poolings and Fourier transforms are left out, as papers do; a layer that is used twice counts
    twice. `inputs` are a batch as the net takes it: give one example for the cost of one. Training costs about three
    times as much. The net's modes and statistics stay as they are.

    >>> count(nn.Conv2d(3, 8, 5, padding=2), torch.zeros(1, 3, 10, 10))
    60000
    """
    modes = [(module, module.training) for module in net.modules()]
    try:
        net.eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(*inputs)
    finally:
        for module, mode in modes:
            module.training = mode
    return counter.get_total_flops() // 2  # torch counts a multiplication and an addition as two

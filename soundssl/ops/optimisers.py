"""An optimiser that keeps little beside the weights: at a million clusters, what Adam keeps is twice their size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**18  # numbers updated at a time: the copies in float32 stay in a core's cache


class RowwiseAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) with one second moment a row and its first moment in bfloat16.

    The second moment is that of the mean square of a row's gradient: of the two factors of Adafactor (Shazeer and Stern
    2018, section 3) the rows' alone, since a row of weights, a centre, has gradients of one size. Beside the weights it
    keeps a quarter of what Adam does. Weight decay is decoupled (Loshchilov and Hutter 2019).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        if closure is not None:
            raise ValueError("a closure is given; the gradients have to be there before the step")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        rows, gradients = _rows(weight), _rows(gradient)
        state = self.state[weight]
        if not state:
            state["count"] = 0
            state["mean"] = torch.zeros_like(rows, dtype=torch.bfloat16)
            state["square"] = rows.new_zeros(len(rows))
        state["count"] += 1
        (first, second), rate = group["betas"], group["lr"]
        step = rate / (1 - first ** state["count"])
        correction = math.sqrt(1 - second ** state["count"])
        size = max(1, CHUNK // max(1, rows.shape[1]))
        tensors = (rows, gradients, state["mean"], state["square"])
        for part, slope, kept, square in zip(*(each.split(size) for each in tensors), strict=True):
            square.lerp_(slope.square().mean(1), 1 - second)
            mean = kept.to(part.dtype).lerp_(slope, 1 - first)
            kept.copy_(mean)
            part.mul_(1 - rate * group["weight_decay"])
            part.addcdiv_(mean, (square.sqrt() / correction + group["eps"])[:, None], value=-step)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; first moments stay bfloat16, not the weights' type as in the base class."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["mean"] = state["mean"].bfloat16()


def _rows(tensor: Tensor) -> Tensor:
    """Return a view with the rows of a tensor flat; each number of a vector is a row."""
    return tensor.view(len(tensor), -1) if tensor.ndim else tensor.view(1, 1)

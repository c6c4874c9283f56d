"""Chains of hidden states: marginals, log-partition and best path, by blocks of time at once.

A chain is a tree, and `factors` takes it too; here a million steps take seconds. A long chain is cut into blocks that
are walked side by side: first what each block does to any state before it, then the states between blocks, then all
steps (Särkkä and García-Fernández 2021, in two levels).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

WIDE = 64  # chains beyond which one step of all of them is work enough, and no chain is cut
SPREAD = 600.0  # range of log potentials up to which their exponentials lose nothing: float64 ends near exp(-708)


class Smoothed(NamedTuple):
    """What sum-product found on chains."""

    marginals: Tensor  # [chains, steps, states]
    log_partition: Tensor  # [chains]


def marginals(observed: Tensor, change: Tensor) -> Smoothed:
    """Return the probabilities of states at every step, and the log-partition.

    Shape: observed `[chains, steps, states]` and change `[states, states]` or `[chains, states, states]`, from row to
    column, log potentials. Raises ValueError for other shapes, NaN, and chains without any possible path.
    """
    observed, change = _checked(observed, change)
    ahead, total = _walk(observed, change, largest=False)
    behind, _ = _walk(observed.flip(1), change.transpose(1, 2), largest=False)
    beliefs = torch.softmax(ahead + _without(behind.flip(1), observed), 2)
    if not bool(total.isfinite().all()):
        raise ValueError("a chain has no possible path; some potentials contradict each other")
    return Smoothed(beliefs, total)


def best_path(observed: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best states and the sum of their log potentials, `[chains, steps]` and `[chains]` (Viterbi).

    Shapes and errors as in `marginals`.
    """
    observed, change = _checked(observed, change)
    ahead, total = _walk(observed, change, largest=True)
    if not bool(total.isfinite().all()):
        raise ValueError("a chain has no possible path; some potentials contradict each other")
    chains, steps, _ = observed.shape
    path = torch.zeros((chains, steps), dtype=torch.int64)
    path[:, -1] = ahead[:, -1].argmax(1)
    before = torch.empty(observed.shape, dtype=torch.int64)  # the best state before each
    for state in range(observed.shape[2]):
        before[:, 1:, state] = (ahead[:, :-1] + change[:, None, :, state]).argmax(2)
    if chains == 1:
        pointers, state, found = before[0].tolist(), int(path[0, -1]), [int(path[0, -1])]
        for step in range(steps - 1, 0, -1):
            state = pointers[step][state]
            found.append(state)
        path[0] = torch.tensor(found[::-1])
    else:
        for step in range(steps - 1, 0, -1):
            path[:, step - 1] = before[:, step].gather(1, path[:, step, None])[:, 0]
    return path, total


def _checked(observed: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    observed, change = torch.as_tensor(observed, dtype=torch.float64), torch.as_tensor(change, dtype=torch.float64)
    if observed.dim() != 3 or min(observed.shape) < 1:
        raise ValueError(f"observed potentials are {tuple(observed.shape)}; give [chains, steps, states]")
    chains, _, states = observed.shape
    change = change[None] if change.dim() == 2 else change
    if change.shape[1:] != (states, states) or len(change) not in (1, chains):
        raise ValueError(f"potentials of change are {tuple(change.shape)}, which do not fit {tuple(observed.shape)}")
    if bool(observed.isnan().any() | change.isnan().any()):
        raise ValueError("log potentials have NaN")
    return observed, change.expand(chains, states, states)


class _Logarithms:
    """Messages as logarithms: for largest values, and for sums whose exponentials would be lost."""

    zero = 0.0  # what says nothing

    def __init__(self, observed: Tensor, change: Tensor, largest: bool) -> None:
        self.rows, self.change, self.largest = observed, change, largest

    def over(self, message: Tensor) -> Tensor:
        """Take messages `[chains, ..., states]` over one change."""
        change = self.change.reshape(len(self.change), *[1] * (message.dim() - 2), *self.change.shape[1:])
        if not self.largest:
            return torch.logsumexp(message[..., None] + change, -2)
        best = message[..., :1] + change[..., 0, :]
        for state in range(1, message.shape[-1]):
            best = torch.maximum(best, message[..., state, None] + change[..., state, :])
        return best

    def meet(self, message: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Add what was observed; return messages with their largest value at 0, and the logarithm taken off."""
        message = message + row
        top = message.amax(-1)
        top = torch.where(top == -math.inf, torch.zeros_like(top), top)
        return message - top[..., None], top

    def logarithm(self, message: Tensor) -> Tensor:
        """Return messages as logarithms."""
        return message

    def message(self, logarithm: Tensor) -> Tensor:
        """Return logarithms as messages."""
        return logarithm


class _Exponentials(_Logarithms):
    """Messages as they are, for sums: products of matrices, about ten times faster."""

    zero = 1.0

    def __init__(self, observed: Tensor, change: Tensor) -> None:
        self.lift = change.amax((1, 2), keepdim=True)
        self.weights = (change - self.lift).exp()
        self.raised = observed.amax(-1)  # [chains, steps]
        self.rows = (observed - self.raised[..., None]).exp()

    def over(self, message: Tensor) -> Tensor:
        """Take messages over one change, whose largest value counts as 1."""
        return (message.flatten(1, -2) @ self.weights).reshape(message.shape)

    def meet(self, message: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply by what was observed; return messages with their largest value at 1, and the logarithm taken off."""
        message = message * row
        top = message.amax(-1)
        return message / top[..., None], top.log()

    def logarithm(self, message: Tensor) -> Tensor:
        """Return messages as logarithms."""
        return message.log()

    def message(self, logarithm: Tensor) -> Tensor:
        """Return logarithms as messages."""
        return logarithm.exp()


def _walk(observed: Tensor, change: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
    """Return log messages from the start, each step's largest at 0, and the sum or largest over all paths."""
    chains, steps, states = observed.shape
    spread = sum(float(each.max() - each.min()) for each in (observed, change))
    fast = not largest and spread <= SPREAD
    algebra = _Exponentials(observed, change) if fast else _Logarithms(observed, change, largest)
    blocks = 1 if chains >= WIDE else max(1, min(math.isqrt(steps), steps // 8))
    length = -(-steps // blocks)
    blocks = -(-steps // length)
    padded = torch.nn.functional.pad(algebra.rows, (0, 0, 0, blocks * length - steps))
    rows = padded.reshape(chains, blocks, length, states)
    message = algebra.message(_between(rows, algebra, largest))
    found = torch.empty((chains, blocks, length, states), dtype=torch.float64)
    height = torch.empty((chains, blocks, length), dtype=torch.float64)  # what is taken off at each step
    for step in range(length):
        message = algebra.over(message)
        if step == 0:
            message[:, 0] = algebra.zero  # nothing is before the first
        message, height[:, :, step] = algebra.meet(message, rows[:, :, step])
        found[:, :, step] = message
    flat = algebra.logarithm(found.reshape(chains, -1, states)[:, :steps])
    total = height.reshape(chains, -1)[:, :steps].sum(1) + (
        flat[:, -1].amax(1) if largest else flat[:, -1].logsumexp(1)
    )
    if isinstance(algebra, _Exponentials):
        total = total + algebra.raised.sum(1) + (steps - 1) * algebra.lift[:, 0, 0]
    return flat, total


def _between(rows: Tensor, algebra: _Logarithms, largest: bool) -> Tensor:
    """Return the log message that enters each block, its largest at 0, `[chains, blocks, states]`.

    What a block makes of any state before it is a matrix; that of the first block is the same whatever was before.
    """
    chains, blocks, length, states = rows.shape
    enter = torch.zeros((chains, blocks, states), dtype=torch.float64)
    if blocks == 1:
        return enter
    one = algebra.message(torch.eye(states, dtype=torch.float64).log())
    product = algebra.over(one.expand(chains, blocks - 1, states, states))
    product[:, 0] = algebra.zero
    heights = torch.zeros((chains, blocks - 1, states), dtype=torch.float64)  # by row, since rows differ widely
    for step in range(length):
        product = algebra.over(product) if step else product
        product, top = algebra.meet(product, rows[:, :-1, step, None])
        heights += top
    across = algebra.logarithm(product) + (heights - heights.amax(2, keepdim=True))[..., None]
    message = torch.zeros((chains, states), dtype=torch.float64)
    for block in range(blocks - 1):
        terms = message[:, :, None] + across[:, block]
        message = terms.amax(1) if largest else terms.logsumexp(1)
        message = message - message.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).min)
        enter[:, block + 1] = message
    return enter


def _without(message: Tensor, observed: Tensor) -> Tensor:
    """Return messages without the potentials of their own step; what is forbidden there stays so."""
    return torch.where(observed == -math.inf, torch.full_like(message, -math.inf), message - observed)

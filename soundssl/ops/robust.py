"""Robust losses: exclusive classes whose labels may be wrong, one value per example, and which examples to leave out.

Targets are distributions over the classes, rows that sum to 1, or to 0 where nothing is known. Sources: L_q (Zhang and
Sabuncu 2018), bootstrapping (Reed et al. 2015), thresholds of a batch (Fonseca et al. 2019, ICASSP), discarding at
mini-batch (Fonseca et al. 2019, WASPAA), mixup (Zhang et al. 2018), label smoothing by noise (Fonseca et al. 2019).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Rule = Literal["percentile", "maximum", "outlier"]
HIDDEN = -1e4  # the log-probability of a class that takes no part; its exponential is 0 in every precision
LEAST = 1e-8  # added to probabilities before their power, as the code of Fonseca et al. 2019 does


def distribution(label: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return targets in which the classes present share 1; zeros where there is none. Shape: [batch, classes].

    >>> distribution(torch.tensor([[1, 1, 0], [0, -1, 0]])).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    present = (label == 1).to(dtype)
    return present / present.sum(1, keepdim=True).clamp(min=1)


def log_probability(logits: Tensor, known: Tensor) -> Tensor:
    """Compute the logarithm of the softmax over the classes that are known, HIDDEN for the others.

    Shape: [batch, classes] twice, `known` boolean.
    """
    return logits.masked_fill(~known, torch.finfo(logits.dtype).min).log_softmax(1).masked_fill(~known, HIDDEN)


def cross_entropy(log_p: Tensor, target: Tensor) -> Tensor:
    """Compute -sum of t log p. Shape: [batch, classes] twice to [batch]."""
    return -(target * log_p).sum(1)


def lq(log_p: Tensor, target: Tensor, q: float) -> Tensor:
    """Compute the sum of t (1 - p^q) / q: cross-entropy as q goes to 0, half the mean absolute error at 1.

    Of one class that is (1 - p_y^q) / q as published; several weigh by their shares (inferred). Raises ValueError for
    q outside 0 to 1. Shape: [batch, classes] twice to [batch].
    """
    if not 0 < q <= 1:
        raise ValueError(f"q is {q:g}; it lies above 0 to 1")
    return -(target * torch.expm1(q * (log_p.exp() + LEAST).log())).sum(1) / q


def bootstrapping(log_p: Tensor, target: Tensor, beta: float, hard: bool = False, through: bool = True) -> Tensor:
    """Compute the cross-entropy to beta times the labels and 1 - beta times what the net itself says.

    That is its probabilities, or if `hard` the class of the highest. The gradient passes `through` it, as in the code
    of Fonseca et al. 2019, or does not. Rows without a label give 0. Raises ValueError for beta outside 0 to 1.
    Shape: [batch, classes] twice to [batch].
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta is {beta:g}; it lies from 0 to 1")
    said = log_p.exp()
    if hard:
        said = torch.nn.functional.one_hot(log_p.argmax(1), log_p.shape[1]).to(log_p.dtype)
    said = said if through else said.detach()
    labelled = target.sum(1, keepdim=True) > 0
    return cross_entropy(log_p, torch.where(labelled, beta * target + (1 - beta) * said, 0.0))


def smoothed(target: Tensor, known: Tensor, amount: Tensor | float) -> Tensor:
    """Return targets of which `amount` is shared out evenly among the known classes.

    Rows without a label stay zeros. Shape: `target` and boolean `known` [batch, classes], amount [batch] or a number.
    """
    even = known.to(target.dtype) / known.sum(1, keepdim=True).clamp(min=1)
    share = amount.to(target.dtype)[:, None] if isinstance(amount, Tensor) else amount
    return torch.where(target.sum(1, keepdim=True) > 0, target * (1 - share) + share * even, target)


@torch.no_grad()
def kept(loss: Tensor, counted: Tensor, rule: Rule, at: float) -> Tensor:
    """Return which losses of a batch are not too high, of those that are `counted`.

    percentile: not above the `at`-th percentile, the lower loss where it lies between two; maximum: not above `at`
    times the highest; outlier: not above the median plus `at` standard deviations. Shape: [batch], boolean [batch] to
    boolean [batch].

    >>> kept(torch.arange(64.0), torch.ones(64, dtype=torch.bool), "percentile", 96).sum().item()
    61
    """
    count = counted.sum()
    rising = loss.masked_fill(~counted, torch.inf).sort().values
    if rule == "percentile":
        bound = _at(rising, ((count - 1).clamp(min=0) * (at / 100) + 1e-6).long())
    elif rule == "maximum":
        bound = at * loss.masked_fill(~counted, -torch.inf).max()
    else:
        known = loss.masked_fill(~counted, 0)
        mean = known.sum() / count.clamp(min=1)
        variance = ((known - mean).square() * counted).sum() / count.clamp(min=1)
        middle = (count - 1).clamp(min=0)
        bound = (_at(rising, middle // 2) + _at(rising, (middle + 1) // 2)) / 2 + at * variance.sqrt()
    return counted & (loss <= bound)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Return the value at an index that lies on a device, without a wait for it."""
    return values.index_select(0, index[None])[0]


def mixed(values: Tensor, partners: Tensor, share: Tensor) -> Tensor:
    """Return share times values and 1 - share times their partners. Shape: [batch, ...] twice, [batch]."""
    share = share.to(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * partners

"""Losses and scores of on-screen sounds: which of the sources of a mixture belong to what is seen.

Tzinis et al. 2021 ("Into the wild with AudioScope"), section 3.3. A mixture of two mixtures is separated; the frames
are those of the first. Sources that mixture invariant training assigns to the first are *candidates*: they may be on
screen, or belong to it unseen. All others are off screen. Logits z stand for probabilities: log p is -softplus(-z),
log(1 - p) is -softplus(z), so that nothing overflows.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from soundssl.ops.separation import EPSILON

LOSSES = ("exact", "multi-instance", "active-combinations")

Loss = Literal["exact", "multi-instance", "active-combinations"]


def exact(logits: Tensor, candidate: Tensor) -> Tensor:
    """Compute the cross-entropy of each source with being a candidate, summed over the sources.

    Shape: logits and candidate (boolean) [batch, sources] to [batch].
    """
    _check(logits, candidate)
    return torch.where(candidate, F.softplus(-logits), F.softplus(logits)).sum(1)


def multi_instance(logits: Tensor, candidate: Tensor) -> Tensor:
    """Compute the loss of one candidate at least being on screen, and of no other source.

    The least of -log p over the candidates, and -log(1 - p) of every other source; what the remaining candidates are
    costs nothing. Without a candidate only the others count. Shape: as `exact`.
    """
    _check(logits, candidate)
    others = F.softplus(logits).masked_fill(candidate, 0).sum(1)
    least = F.softplus(-logits).masked_fill(~candidate, torch.inf).amin(1)
    return others + torch.where(candidate.any(1), least, 0)


def active_combinations(logits: Tensor, candidate: Tensor) -> Tensor:
    """Compute the loss of the best non-empty set of candidates being on screen, and of no other source.

    The least over such sets S of the sum of -log p in S and -log(1 - p) outside. As log p - log(1 - p) is the logit
    itself, a set gains the sum of its logits: the best one is that of all positive ones, or the largest alone. So no
    set is enumerated. Without a candidate all sources are off screen. Shape: as `exact`.
    """
    _check(logits, candidate)
    none = F.softplus(logits).sum(1)
    kept = logits.masked_fill(~candidate, -torch.inf)
    largest = kept.amax(1)
    gain = torch.where(largest > 0, kept.clamp(min=0).sum(1), largest)
    return none - torch.where(candidate.any(1), gain, 0)


def classification(logits: Tensor, candidate: Tensor, loss: Loss) -> Tensor:
    """Compute a loss by its name in LOSSES. Shape: as `exact`."""
    return {"exact": exact, "multi-instance": multi_instance, "active-combinations": active_combinations}[loss](
        logits, candidate
    )


def _check(logits: Tensor, candidate: Tensor) -> None:
    if logits.ndim != 2 or logits.shape != candidate.shape or candidate.dtype != torch.bool:
        raise ValueError(
            f"logits {list(logits.shape)} and candidates {candidate.dtype} {list(candidate.shape)}: [batch, sources] "
            "and bool of that shape are needed"
        )


def estimate(tracks: Tensor, probability: Tensor) -> Tensor:
    """Sum tracks by the probability of each to be on screen. Shape: [batch, tracks, samples], [batch, tracks].

    >>> estimate(torch.tensor([[[1.0, 2.0], [4.0, 4.0]]]), torch.tensor([[1.0, 0.5]])).tolist()
    [[3.0, 4.0]]
    """
    return (tracks * probability[:, :, None]).sum(1)


def suppression(mixture: Tensor, on_screen: Tensor) -> Tensor:
    """Compute the off-screen suppression ratio in dB: the power of a mixture over that of what is kept of it.

    Of mixtures with nothing on screen. Half the mixture gives 6.02 dB. Shape: twice [..., samples] to [...], float64.

    >>> round(float(suppression(torch.ones(8), torch.ones(8) / 2)), 2)
    6.02
    """
    power = [each.double().square().sum(-1) + EPSILON for each in (mixture, on_screen)]
    return 10 * torch.log10(power[0] / power[1])

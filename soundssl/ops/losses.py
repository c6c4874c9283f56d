"""Losses over embeddings and labels, one value per example: triplets, NT-Xent of two views, labels known in part.

`ops.robust` has those for labels that may be wrong.

The caller reduces them: by `mean()`, or by `weighted_mean` where examples weigh differently or are not known.
Triplets (Jansen et al. 2018, equation 1; Schroff et al. 2015, section 3.2): an anchor shall lie nearer its positive
than its negative by a margin of squared distance on the unit sphere. NT-Xent (Chen et al. 2020, SimCLR, equation 1): of
all vectors of a batch the one most like a view shall be the other view.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from soundssl.ops.robust import cross_entropy, distribution, log_probability

MARGIN = 0.1  # squared distance; inferred: Jansen et al. 2018 do not state it, FaceNet takes 0.2


def weighted_mean(loss: Tensor, weight: Tensor) -> Tensor:
    """Average losses per example by the weight of each; 0 where all weigh nothing. Shape: [batch] twice to [].

    >>> float(weighted_mean(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([3.0, 1.0, 0.0])))
    1.25
    """
    return (loss * weight).sum() / weight.sum().clamp(min=torch.finfo(loss.dtype).tiny)


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = MARGIN) -> Tensor:
    """Compute the hinge loss of each triplet of unit-length embeddings.

    Their mean takes the place of the paper's sum (inferred). The share of values above zero is the share of active
    triplets; a collapsed encoder shows as values that all equal the margin.

    Shape: three times [triplets, size] to [triplets].

    >>> triplet(torch.eye(2), torch.eye(2), torch.eye(2).flip(0)).tolist()
    [0.0, 0.0]
    """
    if not anchor.shape == positive.shape == negative.shape or anchor.ndim != 2:
        shapes = [list(part.shape) for part in (anchor, positive, negative)]
        raise ValueError(f"anchor, positive and negative have shapes {shapes}; three equal [triplets, size] are needed")
    _check_margin(margin)
    to_positive = (anchor - positive).square().sum(1)
    to_negative = (anchor - negative).square().sum(1)
    return (to_positive - to_negative + margin).clamp(min=0)


@torch.no_grad()
def semi_hard_negatives(
    anchor: Tensor,
    positive: Tensor,
    candidates: Tensor,
    legal: Tensor,
    margin: float = MARGIN,
    original: Tensor | None = None,
    fallback: Literal["original", "farthest", "hardest"] = "original",
) -> Tensor:
    """Choose for every anchor the nearest legal candidate that is farther than its positive but within the margin.

    Candidate n is semi-hard for the pair (a, p) when |a - p|² < |a - n|² < |a - p|² + margin (Schroff et al. 2015,
    section 3.2). Where there is none, `fallback` decides (inferred): `original` keeps the negative the triplet came
    with, whose index is `original` (by default the anchor's own row), legal or not; `farthest` takes the
    farthest legal candidate, `hardest` the nearest legal one. An anchor without legal candidates keeps its original.
    The choice carries no gradient.

    Shape: [anchors, size] twice, [candidates, size], `legal` boolean [anchors, candidates] to integers [anchors].
    """
    if legal.shape != (len(anchor), len(candidates)) or legal.dtype != torch.bool:
        raise ValueError(
            f"legal is {legal.dtype} {list(legal.shape)}; bool [{len(anchor)}, {len(candidates)}] is needed"
        )
    if fallback not in ("original", "farthest", "hardest"):
        raise ValueError(f"fallback is {fallback!r}; it is original, farthest or hardest")
    _check_margin(margin)
    if original is None:
        if len(candidates) < len(anchor):
            raise ValueError(f"{len(anchor)} anchors have {len(candidates)} candidates; say which are the originals")
        original = torch.arange(len(anchor), device=anchor.device)
    distance = squared_distances(anchor, candidates)
    to_positive = (anchor.float() - positive.float()).square().sum(1, keepdim=True)
    semi_hard = legal & (distance > to_positive) & (distance < to_positive + margin)
    chosen = distance.masked_fill(~semi_hard, torch.inf).argmin(1)
    if fallback == "farthest":
        otherwise = distance.masked_fill(~legal, -torch.inf).argmax(1)
    else:
        otherwise = distance.masked_fill(~legal, torch.inf).argmin(1)
    keep = ~legal.any(1) if fallback != "original" else torch.ones_like(legal[:, 0])
    return torch.where(semi_hard.any(1), chosen, torch.where(keep, original, otherwise))


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Compute all squared Euclidean distances in single precision or better.

    Shape: [rows, size] and [columns, size] to [rows, columns].
    """
    left, right = (part if part.dtype == torch.float64 else part.float() for part in (left, right))
    products = left @ right.T
    return (left.square().sum(1, keepdim=True) + right.square().sum(1) - 2 * products).clamp(min=0)


def _check_margin(margin: float) -> None:
    if not margin > 0:
        raise ValueError(f"the margin is {margin}; it must be positive")


# ---------------------------------------------------------------- two views


def nt_xent(rows: Tensor, columns: Tensor, positive: Tensor, legal: Tensor, temperature: float) -> Tensor:
    """Compute of each row -log(exp(s_ip) / (exp(s_ip) + sum over legal j of exp(s_ij))), s = cosine / t.

    Vectors of length one are given; the loss is computed in single precision or better. In a batch of N pairs of views
    the rows and the columns are all 2N vectors, the legal columns of a row all but itself and its positive. A row
    without legal columns has loss 0.

    Shape: [rows, size], [columns, size]; `positive` integers [rows], the column of each row's other view; `legal`
    boolean [rows, columns], what it is told apart from, to [rows].

    >>> views = torch.eye(2)[[0, 1, 0, 1]]
    >>> apart = views @ views.T == 0
    >>> round(float(nt_xent(views, views, torch.tensor([2, 3, 0, 1]), apart, 1.0)[0]), 4)  # log(1 + 2 / e)
    0.5514
    """
    if legal.shape != (len(rows), len(columns)) or legal.dtype != torch.bool:
        raise ValueError(f"legal is {legal.dtype} {list(legal.shape)}; bool [{len(rows)}, {len(columns)}] is needed")
    if positive.shape != rows.shape[:1]:
        raise ValueError(f"positive has shape {list(positive.shape)}; one column a row is needed, [{len(rows)}]")
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}; it must be positive")
    rows, columns = (part if part.dtype == torch.float64 else part.float() for part in (rows, columns))
    with torch.autocast(rows.device.type, enabled=False):
        similarity = (rows @ columns.T) / temperature
        counted = legal.scatter(1, positive[:, None], True)
        return torch.nn.functional.cross_entropy(
            similarity.masked_fill(~counted, -torch.inf), positive, reduction="none"
        )


# ---------------------------------------------------------------- labels, known in part


class Masked(NamedTuple):
    """Hold the loss of each example over its known labels, 0 where it has none, and how many labels that averages.

    `weighted_mean(loss, known)` weighs all known labels alike, `weighted_mean(loss, known * weight)` by example.
    Shape: both [batch], of the type of the logits.
    """

    loss: Tensor
    known: Tensor


def masked_binary_cross_entropy(logits: Tensor, label: Tensor) -> Masked:
    """Compute of each example the mean binary cross-entropy over its known labels.

    Entries of -1 (unknown) touch neither the loss nor its gradient. Shape: `logits` [batch, classes], `label` integers
    in {1, 0, -1} of the same shape.

    >>> loss, known = masked_binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[1, -1]]))
    >>> round(float(loss), 4), float(known)
    (0.6931, 1.0)
    """
    _check_labels(logits, label)
    return soft_binary_cross_entropy(logits, (label == 1).to(logits.dtype), label >= 0)


def soft_binary_cross_entropy(logits: Tensor, target: Tensor, known: Tensor) -> Masked:
    """Compute of each example the mean binary cross-entropy to targets from 0 to 1, over the classes that are known.

    Shape: [batch, classes] three times, `known` boolean.
    """
    values = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.masked_fill(~known, 0), target.to(logits.dtype), reduction="none"
    )
    count = known.sum(1).to(logits.dtype)
    return Masked(values.masked_fill(~known, 0).sum(1) / count.clamp(min=1), count)


def masked_cross_entropy(logits: Tensor, label: Tensor) -> Masked:
    """Compute of each example the softmax cross-entropy of exclusive classes; known where a class is present.

    Several present classes share the probability. Classes that are unknown (-1) take no part in the example's softmax.
    Shape: as `masked_binary_cross_entropy`; `known` is 1 or 0.

    >>> loss, known = masked_cross_entropy(torch.zeros(2, 3), torch.tensor([[1, 0, -1], [0, 0, -1]]))
    >>> round(float(loss[0]), 4), known.tolist()
    (0.6931, [1.0, 0.0])
    """
    _check_labels(logits, label)
    target = distribution(label, logits.dtype)
    return Masked(cross_entropy(log_probability(logits, label >= 0), target), target.sum(1).round())


def _check_labels(logits: Tensor, label: Tensor) -> None:
    if logits.ndim != 2 or logits.shape != label.shape:
        raise ValueError(f"logits {list(logits.shape)}, labels {list(label.shape)}: [batch, classes] twice are needed")

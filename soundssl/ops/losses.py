"""Losses over embeddings and labels: triplets with semi-hard negatives, NT-Xent of two views, known labels.

Triplets (Jansen et al. 2018, equation 1; Schroff et al. 2015, section 3.2): an anchor shall lie nearer its positive
than its negative by a margin of squared distance on the unit sphere. NT-Xent (Chen et al. 2020, SimCLR, equation 1): of
all vectors of a batch the one most like a view shall be the other view.
"""

from typing import Literal

import torch
from torch import Tensor

MARGIN = 0.1  # squared distance; inferred: Jansen et al. 2018 do not state it, FaceNet takes 0.2


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = MARGIN) -> tuple[Tensor, Tensor]:
    """Compute the mean hinge loss of triplets of unit-length embeddings, and each triplet's value.

    The mean takes the place of the paper's sum (inferred). The share of values above zero is the share of active
    triplets; a collapsed encoder shows as values that all equal the margin.

    Shape: three times [triplets, size] to [] and [triplets].

    >>> loss, values = triplet(torch.eye(2), torch.eye(2), torch.eye(2).flip(0))
    >>> float(loss), values.tolist()
    (0.0, [0.0, 0.0])
    """
    if not anchor.shape == positive.shape == negative.shape or anchor.ndim != 2:
        shapes = [list(part.shape) for part in (anchor, positive, negative)]
        raise ValueError(f"anchor, positive and negative have shapes {shapes}; three equal [triplets, size] are needed")
    _check_margin(margin)
    to_positive = (anchor - positive).square().sum(1)
    to_negative = (anchor - negative).square().sum(1)
    values = (to_positive - to_negative + margin).clamp(min=0)
    return values.mean(), values


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
    """Compute the mean over rows of -log(exp(s_ip) / (exp(s_ip) + sum over legal j of exp(s_ij))), s = cosine / t.

    Vectors of length one are given; the loss is computed in single precision or better. In a batch of N pairs of views
    the rows and the columns are all 2N vectors, the legal columns of a row all but itself and its positive. A row
    without legal columns has loss 0.

    Shape: [rows, size], [columns, size]; `positive` integers [rows], the column of each row's other view; `legal`
    boolean [rows, columns], what it is told apart from, to [].

    >>> views = torch.eye(2)[[0, 1, 0, 1]]
    >>> apart = views @ views.T == 0
    >>> round(float(nt_xent(views, views, torch.tensor([2, 3, 0, 1]), apart, 1.0)), 4)  # log(1 + 2 / e)
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
        return torch.nn.functional.cross_entropy(similarity.masked_fill(~counted, -torch.inf), positive)


# ---------------------------------------------------------------- labels, known in part


def known_binary_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Compute the binary cross-entropy over known labels, the mean weighted by example.

    Entries of -1 (unknown) touch neither the loss nor its gradient. Shape: `logits` [batch, classes], `label` integers
    in {1, 0, -1} of the same shape, `weight` [batch] to []. Without any known label the loss is 0.

    >>> float(known_binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[1, -1]]), torch.ones(1)))
    0.6931471824645996
    """
    _check_labels(logits, label, weight)
    known = (label >= 0) * weight[:, None]
    values = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, (label == 1).to(logits.dtype), reduction="none"
    )
    return (values * known).sum() / known.sum().clamp(min=torch.finfo(logits.dtype).tiny)


def known_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Compute the softmax cross-entropy of exclusive classes, the mean weighted by example.

    An example counts where a class is present; several present classes share the probability. Classes that are unknown
    (-1) take no part in its softmax. Shape: as `known_binary_cross_entropy`.
    """
    _check_labels(logits, label, weight)
    present = (label == 1).to(logits.dtype)
    counted = weight * present.any(1)
    log_probability = logits.masked_fill(label < 0, torch.finfo(logits.dtype).min).log_softmax(1)
    share = present / present.sum(1, keepdim=True).clamp(min=1)
    values = -(share * log_probability.masked_fill(label < 0, 0)).sum(1)
    return (values * counted).sum() / counted.sum().clamp(min=torch.finfo(logits.dtype).tiny)


def _check_labels(logits: Tensor, label: Tensor, weight: Tensor) -> None:
    if logits.shape != label.shape or weight.shape != logits.shape[:1]:
        shapes = f"logits {list(logits.shape)}, labels {list(label.shape)}, weights {list(weight.shape)}"
        raise ValueError(f"{shapes}: [batch, classes] twice and [batch] are needed")

"""Scores of all pairs of two batches by one hidden layer, and losses over them (Jansen et al. 2020, section 3.1).

The score of a pair is s_ij = w . relu(W [a_i; b_j] + c) + e. The first layer is linear in the concatenation, so it is
computed as u_i + v_j with u = W_a a + c and v = W_b b; only the sum and the ReLU are quadratic, and these are made tile
by tile in a core's cache, forward and backward, and never kept. With G = dL/ds and the mask m_ij = [u_i + v_j > 0],

    dU_i = sum_j G_ij m_ij,   dV_j = sum_i G_ij m_ij,   du = w * dU,   dv = w * dV,
    dw = sum_i u_i * dU_i + sum_j v_j * dV_j            because relu(h) = m * h.

In single precision a hidden unit within rounding of zero may fall to either side, here as in the concatenated form: one
such unit moves a gradient by more than all other rounding does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from soundssl.ops.checks import may_read

TILE = 1 << 19  # bytes of the tile that one row of u meets: together with its sources it stays in a 2 MB L2 cache
CHUNK = 1 << 28  # bytes of hidden units at a time on other devices
LOSS_CHUNK = 1 << 20  # scores whose softplus is in memory at a time
LINEAR = 40.0  # from here on softplus(x) is x in double precision too


def scores(
    a: Tensor, b: Tensor, weight_a: Tensor, weight_b: Tensor, bias: Tensor, output: Tensor, output_bias: Tensor
) -> Tensor:
    """Score all pairs of rows in single precision or better; memory is linear in the batch but for the scores.

    Shape: `a` [rows, size], `b` [columns, size], `weight_a` and `weight_b` [hidden, size], `bias` and `output`
    [hidden], `output_bias` a scalar, to [rows, columns]. Raises ValueError for shapes that do not fit.

    >>> one = torch.ones(1)
    >>> scores(torch.tensor([[1.0], [-3.0]]), one[None], one[None], one[None], one, one, one[0]).T
    tensor([[4., 1.]])
    """
    with torch.autocast(a.device.type, enabled=False):
        first, second = _first_layer(a, b, weight_a, weight_b, bias, output)
        return _Scores.apply(first, second, output.to(first.dtype)) + output_bias


def paired_scores(
    a: Tensor, b: Tensor, weight_a: Tensor, weight_b: Tensor, bias: Tensor, output: Tensor, output_bias: Tensor
) -> Tensor:
    """Score row i of `a` with row i of `b` alone. Shape: as `scores`, to [rows]."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} rows cannot be paired with {len(b)}")
    with torch.autocast(a.device.type, enabled=False):
        first, second = _first_layer(a, b, weight_a, weight_b, bias, output)
        return torch.relu(first + second) @ output.to(first.dtype) + output_bias


def _first_layer(
    a: Tensor, b: Tensor, weight_a: Tensor, weight_b: Tensor, bias: Tensor, output: Tensor
) -> tuple[Tensor, Tensor]:
    """Return u and v, contiguous, after a check of all shapes."""
    hidden, size = weight_a.shape
    expected = {"a": (len(a), size), "b": (len(b), size), "weight_b": (hidden, size), "bias": (hidden,)}
    given = {"a": a, "b": b, "weight_b": weight_b, "bias": bias, "output": output}
    for name, shape in {**expected, "output": (hidden,)}.items():
        if tuple(given[name].shape) != shape:
            raise ValueError(f"{name} has shape {list(given[name].shape)}; {list(shape)} is needed")
    dtype = torch.promote_types(torch.promote_types(a.dtype, weight_a.dtype), torch.float32)
    first = F.linear(a.to(dtype), weight_a.to(dtype), bias.to(dtype))
    return first.contiguous(), F.linear(b.to(dtype), weight_b.to(dtype)).contiguous()


class _Scores(torch.autograd.Function):
    """Compute relu(u_i + v_j) . w for all i, j; save u, v and w only."""

    @staticmethod
    def forward(ctx, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(u, v, w)
        return _tiled_scores(u, v, w) if u.device.type == "cpu" else _chunked_scores(u, v, w)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, v, w = ctx.saved_tensors
        masked = _tiled_sums if u.device.type == "cpu" else _chunked_sums
        rows, columns = masked(gradient, u, v)
        output = (u * rows).sum(0) + (v * columns).sum(0)
        return rows.mul_(w), columns.mul_(w), output


# ---------------------------------------------------------------- CPU: one row against a tile that stays in the cache


def _tile(u: Tensor, v: Tensor) -> Tensor:
    """Return a buffer for one tile. Shape: [columns of a tile, hidden]."""
    columns = max(1, TILE // (u.shape[1] * u.element_size()))
    return u.new_empty(min(columns, max(1, len(v))), u.shape[1])


def _tiled_scores(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """Use relu(u + v) = max(v, -u) + u, whose last term leaves the loops: one pass and one product a tile.

    1.4 to 2.4 times as fast on one core as `_chunked_scores` with its best buffer, at 256 to 2048 rows.
    """
    buffer, negative, found = _tile(u, v), -u, u.new_empty(len(u), len(v))
    for begin in range(0, len(v), len(buffer)):
        part = v[begin : begin + len(buffer)]
        hidden = buffer[: len(part)]
        for i, limit in enumerate(negative):
            torch.maximum(part, limit, out=hidden)
            torch.mv(hidden, w, out=found[i, begin : begin + len(part)])
    return found.add_((u @ w)[:, None])


def _tiled_sums(gradient: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return dU and dV: a mask, a product and a rank-one update a tile."""
    buffer, negative = _tile(u, v), -u
    rows, columns = torch.zeros_like(u), torch.zeros_like(v)
    for begin in range(0, len(v), len(buffer)):
        part, total = v[begin : begin + len(buffer)], columns[begin : begin + len(buffer)]
        mask = buffer[: len(part)]
        weights = gradient[:, begin : begin + len(part)].contiguous()
        for limit, row, weight in zip(negative, rows, weights, strict=True):
            torch.gt(part, limit, out=mask)
            row.addmv_(mask.T, weight)
            total.addcmul_(mask, weight[:, None])
    return rows, columns


# ---------------------------------------------------------------- other devices: chunks of rows


def _row_chunks(u: Tensor, v: Tensor) -> list[slice]:
    count = max(1, CHUNK // max(1, v.numel() * v.element_size()))
    return [slice(begin, begin + count) for begin in range(0, len(u), count)]


def _chunked_scores(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    found = u.new_empty(len(u), len(v))
    for part in _row_chunks(u, v):
        found[part] = (u[part, None] + v).relu_() @ w
    return found


def _chunked_sums(gradient: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = torch.empty_like(u), torch.zeros_like(v)
    for part in _row_chunks(u, v):
        mask = (v > -u[part, None]).to(u.dtype)
        weights = gradient[part].contiguous()
        rows[part] = torch.bmm(weights[:, None], mask)[:, 0]
        columns += torch.einsum("rc,rch->ch", weights, mask)
    return rows, columns


# ---------------------------------------------------------------- losses


def balanced_cross_entropy(scores: Tensor, positive: Tensor, legal: Tensor, negatives: Tensor | None = None) -> Tensor:
    """Give the positives and the negatives of a batch equal total weight (Jansen et al. 2020, equation 1).

    L = - mean_i log sigmoid(s_ip(i)) - (1/N) sum over legal (i, j) of log(1 - sigmoid(s_ij)), N the number of legal
    pairs; for B pairs of B recordings N = B (B - 1). The print form of the two normalisers is inferred. Another
    number takes the place of N with `negatives`: where a batch is spread over processes, the mean of their numbers
    gives the loss of the whole. Without legal pairs the second term is zero.

    Shape: `scores` [rows, columns]; `positive` integers [rows], the column of each row's own positive; `legal` boolean
    [rows, columns], which pairs are negatives. Raises ValueError where a positive is also a legal negative.
    """
    _check_pairs(scores, positive, legal)
    count = (legal.sum() if negatives is None else negatives).to(scores.dtype).clamp(min=1)
    return _Balanced.apply(scores, positive, legal, count)


class _Balanced(torch.autograd.Function):
    """Compute the loss with one matrix of the scores' size in the backward pass and none in the forward pass."""

    @staticmethod
    def forward(ctx, scores: Tensor, positive: Tensor, legal: Tensor, count: Tensor) -> Tensor:
        ctx.save_for_backward(scores, positive, legal, count)
        step = max(1, LOSS_CHUNK // max(1, scores.shape[1]))
        misses = sum(
            (_softplus(scores[begin : begin + step]).mul_(legal[begin : begin + step])).sum(dtype=torch.float64)
            for begin in range(0, len(scores), step)
        )
        hits = _softplus(-scores.gather(1, positive[:, None])).mean(dtype=torch.float64)
        return (hits + misses / count).to(scores.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        scores, positive, legal, count = ctx.saved_tensors
        found = torch.sigmoid(scores).mul_(legal).mul_(gradient / count)
        own = positive[:, None]
        return (
            found.scatter_add_(1, own, -torch.sigmoid(-scores.gather(1, own)) * (gradient / len(scores))),
            None,
            None,
            None,
        )


def paired_cross_entropy(positive: Tensor, negative: Tensor, legal: Tensor) -> Tensor:
    """Take one negative a positive: L = - mean log sigmoid(s_ii) - mean over legal i of log(1 - sigmoid(s_ij(i))).

    The form is inferred. Shape: scores of the positives and of the negatives [rows] each, `legal` boolean [rows].
    """
    misses = (_softplus(negative) * legal).sum() / legal.sum().clamp(min=1)
    return _softplus(-positive).mean() + misses


@torch.no_grad()
def outranking(scores: Tensor, positive: Tensor, legal: Tensor) -> Tensor:
    """Return the share of rows whose positive scores above all legal negatives, as a scalar; a tie is no win."""
    best = scores.masked_fill(~legal, -torch.inf).amax(1)
    return (scores.gather(1, positive[:, None])[:, 0] > best).float().mean()


def derangement(group: Tensor, seed: Tensor) -> Tensor:
    """Give every row a partner of another group: a permutation made by the rows' seeds, whatever order they come in.

    Groups are put in the order of their smallest seed, rows within a group in that of their own, and all are turned by
    the size of the largest group. No row then meets its own group, unless that holds more than half of all rows.

    Shape: integers [rows] twice, the seeds drawn at random, to [rows].

    >>> derangement(torch.tensor([4, 4, 7, 8]), torch.tensor([1, 3, 2, 9]))
    tensor([2, 3, 0, 1])
    """
    member = _numbered(group)  # below the number of rows: to count the groups would be a wait for the device
    smallest = torch.full_like(seed, torch.iinfo(seed.dtype).max).scatter_reduce(0, member, seed, "amin")
    size = torch.zeros_like(member).scatter_add(0, member, torch.ones_like(member))
    place = smallest.argsort(stable=True).argsort()
    order = seed.argsort(stable=True)
    order = order[place[member[order]].argsort(stable=True)]
    turned = (torch.arange(len(order), device=order.device) + size.amax()) % len(order)
    return torch.empty_like(order).scatter(0, order, order[turned])


def _numbered(group: Tensor) -> Tensor:
    """Number groups from 0 in the order of their values. Shape: [rows] to [rows]."""
    values, order = group.sort()
    number = (values != values.roll(1)).long()
    number[:1].zero_()
    return torch.empty_like(order).scatter(0, order, number.cumsum(0))


def _softplus(values: Tensor) -> Tensor:
    return F.softplus(values, threshold=LINEAR)


def _check_pairs(scores: Tensor, positive: Tensor, legal: Tensor) -> None:
    if legal.shape != scores.shape or legal.dtype != torch.bool:
        raise ValueError(f"legal is {legal.dtype} {list(legal.shape)}; bool {list(scores.shape)} is needed")
    if positive.shape != scores.shape[:1]:
        raise ValueError(f"positive has shape {list(positive.shape)}; one column a row is needed, [{len(scores)}]")
    if may_read(legal) and legal.gather(1, positive[:, None]).any():
        raise ValueError("a positive is marked as a legal negative too; clear its place in legal")

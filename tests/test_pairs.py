"""All pairs: equal to the naive concatenation whatever the tile; masked pairs count nowhere; partners are strangers."""

import pytest
import torch
import torch.nn.functional as F

from soundssl.ops import pairs


def problem(rows=7, columns=9, size=5, hidden=11, dtype=torch.float64, seed=0):
    """Draw the seven arguments of `scores`, on a grid: hidden units are exact in every precision and never zero.

    A hidden unit within rounding of zero would fall to either side, and a gradient jump with it.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, size), (columns, size), (hidden, size), (hidden, size), (hidden,), (hidden,), ()]
    drawn = [torch.randn(shape, generator=generator).mul(8).round().div(8) for shape in shapes]
    drawn[4] += 1 / 128
    return [each.to(dtype).requires_grad_() for each in drawn]


def naive(a, b, weight_a, weight_b, bias, output, output_bias):
    """Score every pair by itself: concatenate, two layers."""
    joined = torch.cat([a[:, None].expand(-1, len(b), -1), b[None].expand(len(a), -1, -1)], 2)
    hidden = torch.relu(joined @ torch.cat([weight_a, weight_b], 1).T + bias)
    return hidden @ output + output_bias


def naive_loss(scores, positive, legal):
    """Sum the cross-entropies pair by pair."""
    target = F.one_hot(positive, scores.shape[1]).to(scores.dtype)
    weight = target / len(scores) + legal.to(scores.dtype) / legal.sum().clamp(min=1)
    return F.binary_cross_entropy_with_logits(scores, target, weight, reduction="sum")


def strangers(groups, columns=None):
    """Return which pairs are of different groups."""
    return groups[:, None] != (groups if columns is None else columns)[None]


def loss_and_gradients(score, cross_entropy, arguments, legal):
    copies = [each.detach().clone().requires_grad_() for each in arguments]
    loss = cross_entropy(score(*copies), torch.arange(len(copies[0])), legal)
    loss.backward()
    return [loss.detach(), *(each.grad for each in copies)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("rows", [2, 9, 64])
def test_loss_and_all_gradients_are_those_of_the_concatenation(dtype, tolerance, rows):
    arguments = problem(rows, rows + 3, 16, 48, dtype)
    legal = strangers(torch.arange(rows), torch.arange(rows + 3))
    ours = loss_and_gradients(pairs.scores, pairs.balanced_cross_entropy, arguments, legal)
    theirs = loss_and_gradients(naive, naive_loss, arguments, legal)
    for found, expected in zip(ours, theirs, strict=True):
        assert found.shape == expected.shape and found.dtype == dtype
        assert (found - expected).norm() <= tolerance * expected.norm()


def test_single_precision_is_near_double_at_the_size_of_the_paper():
    arguments = [each.detach() / 4 for each in problem(160, 160, 128, 512, torch.float32)]
    legal = ~torch.eye(160, dtype=torch.bool)
    ours = loss_and_gradients(pairs.scores, pairs.balanced_cross_entropy, arguments, legal)
    exact = loss_and_gradients(naive, naive_loss, [each.double() for each in arguments], legal)
    for found, expected in zip(ours, exact, strict=True):
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_gradients_pass_the_check_by_differences():
    assert torch.autograd.gradcheck(pairs.scores, problem(3, 4, 2, 5))
    assert torch.autograd.gradcheck(pairs.paired_scores, problem(4, 4, 2, 5))
    scores = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    legal = strangers(torch.tensor([0, 1, 1, 2]))
    assert torch.autograd.gradcheck(lambda s: pairs.balanced_cross_entropy(s, torch.arange(4), legal), scores)


@pytest.mark.parametrize("bytes_at_a_time", [1, 400, 1000, 1 << 19])
def test_tiles_and_chunks_change_nothing(monkeypatch, bytes_at_a_time):
    u, v, w = (torch.randn(shape, dtype=torch.float64) for shape in ((13, 6), (10, 6), (6,)))
    gradient = torch.randn(13, 10, dtype=torch.float64)
    whole = torch.relu(u[:, None] + v) @ w
    mask = (u[:, None] + v > 0).double()
    for name in ("TILE", "CHUNK"):
        monkeypatch.setattr(pairs, name, bytes_at_a_time)
    for score, sums in ((pairs._tiled_scores, pairs._tiled_sums), (pairs._chunked_scores, pairs._chunked_sums)):
        torch.testing.assert_close(score(u, v, w), whole)
        rows, columns = sums(gradient, u, v)
        torch.testing.assert_close(rows, torch.einsum("rc,rch->rh", gradient, mask))
        torch.testing.assert_close(columns, torch.einsum("rc,rch->ch", gradient, mask))


def test_chunks_of_the_loss_change_nothing(monkeypatch):
    scores, legal = torch.randn(6, 8), strangers(torch.arange(6), torch.arange(8))
    whole = pairs.balanced_cross_entropy(scores, torch.arange(6), legal)
    monkeypatch.setattr(pairs, "LOSS_CHUNK", 10)
    torch.testing.assert_close(pairs.balanced_cross_entropy(scores, torch.arange(6), legal), whole)


def test_paired_scores_are_the_diagonal():
    arguments = problem(6, 6)
    torch.testing.assert_close(pairs.paired_scores(*arguments), pairs.scores(*arguments).diagonal())


def test_masked_pairs_touch_neither_loss_nor_gradient():
    groups = torch.tensor([0, 1, 0, 2])
    scores = torch.randn(4, 4, requires_grad=True)
    legal = strangers(groups)
    loss = pairs.balanced_cross_entropy(scores, torch.arange(4), legal)
    loss.backward()
    assert scores.grad[0, 2] == scores.grad[2, 0] == 0 and (scores.grad[legal] > 0).all()
    changed = scores.detach().masked_fill(~legal & ~torch.eye(4, dtype=torch.bool), 50.0)
    assert torch.equal(pairs.balanced_cross_entropy(changed, torch.arange(4), legal), loss)


def test_positives_and_negatives_weigh_the_same_in_total():
    scores = torch.zeros(5, 5, requires_grad=True)
    legal = strangers(torch.tensor([0, 0, 0, 3, 4]))
    loss = pairs.balanced_cross_entropy(scores, torch.arange(5), legal)
    loss.backward()
    assert loss.item() == pytest.approx(2 * torch.log(torch.tensor(2.0)).item())
    assert scores.grad.diagonal().sum().item() == pytest.approx(-0.5)
    assert scores.grad[legal].sum().item() == pytest.approx(0.5)


def test_the_loss_of_the_whole_is_the_mean_over_its_halves():
    scores, groups = torch.randn(6, 6), torch.tensor([0, 0, 0, 1, 2, 3])
    legal, own = strangers(groups), torch.arange(6)
    whole = pairs.balanced_cross_entropy(scores, own, legal)
    mean = legal.sum() / 2
    halves = [pairs.balanced_cross_entropy(scores[h], own[h], legal[h], mean) for h in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_limits_are_zero_loss_for_certain_truth_and_finite_for_certain_error():
    truth = torch.full((4, 4), -60.0).fill_diagonal_(60.0)
    legal, own = ~torch.eye(4, dtype=torch.bool), torch.arange(4)
    assert pairs.balanced_cross_entropy(truth, own, legal) < 1e-20
    assert pairs.balanced_cross_entropy(-truth, own, legal).item() == pytest.approx(120)
    assert pairs.outranking(truth, own, legal) == 1 and pairs.outranking(-truth, own, legal) == 0
    assert pairs.outranking(torch.zeros(4, 4), own, legal) == 0, "a tie is no win"


def test_turning_the_pairs_round_turns_the_scores():
    a, b, weight_a, weight_b, bias, output, output_bias = problem(5, 8)
    turned = pairs.scores(b, a, weight_b, weight_a, bias, output, output_bias)
    torch.testing.assert_close(turned.T, pairs.scores(a, b, weight_a, weight_b, bias, output, output_bias))


def test_one_pair_without_negatives_is_finite():
    arguments = problem(1, 1)
    loss = pairs.balanced_cross_entropy(
        pairs.scores(*arguments), torch.tensor([0]), torch.zeros(1, 1, dtype=torch.bool)
    )
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(each.grad).all() for each in arguments)
    alone = pairs.paired_cross_entropy(torch.zeros(1), torch.zeros(1), torch.zeros(1, dtype=torch.bool))
    assert alone.item() == pytest.approx(torch.log(torch.tensor(2.0)).item())
    assert pairs.derangement(torch.tensor([3]), torch.tensor([5])).tolist() == [0]


def test_half_precision_is_summed_in_single():
    arguments = [each.detach().bfloat16() for each in problem(4, 4)]
    with torch.autocast("cpu", torch.bfloat16):
        found = pairs.scores(*arguments)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, naive(*(each.float() for each in arguments)))


@pytest.mark.parametrize(
    "groups", [range(12), [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]]
)
def test_a_derangement_is_a_permutation_to_other_groups(groups):
    group = torch.tensor(list(groups))
    generator = torch.Generator().manual_seed(1)
    seen = set()
    for _ in range(20):
        seed = torch.randint(2**62, (12,), generator=generator)
        partner = pairs.derangement(group, seed)
        assert sorted(partner.tolist()) == list(range(12))
        assert (group[partner] != group).all()
        seen.add(tuple(partner.tolist()))
        order = torch.randperm(12, generator=generator)
        again = pairs.derangement(group[order], seed[order])
        assert torch.equal(order[again], partner[order]), "whatever the order of the rows"
    assert len(seen) > 15


def derangement_by_loops(group, seed):
    """Follow the words of the definition, group by group."""
    members = {}
    for row in sorted(range(len(group)), key=lambda row: int(seed[row])):
        members.setdefault(int(group[row]), []).append(row)  # groups come in the order of their smallest seed
    order = [row for rows in members.values() for row in rows]
    step = max(map(len, members.values()))
    return {row: order[(place + step) % len(order)] for place, row in enumerate(order)}


@pytest.mark.parametrize("rows", [1, 2, 5, 31, 200])
@pytest.mark.parametrize("groups", [1, 3, 50])
def test_a_derangement_is_that_of_the_definition(rows, groups):
    generator = torch.Generator().manual_seed(rows * groups)
    group = torch.randint(-groups, groups, (rows,), generator=generator)
    seed = torch.randint(2**62, (rows,), generator=generator)
    assert dict(enumerate(pairs.derangement(group, seed).tolist())) == derangement_by_loops(group, seed)


def test_misfits_are_refused():
    arguments = problem(3, 3)
    with pytest.raises(ValueError, match=r"bias has shape \[2\]; \[11\] is needed"):
        pairs.scores(*arguments[:4], torch.zeros(2), *arguments[5:])
    with pytest.raises(ValueError, match="3 rows cannot be paired with 4"):
        pairs.paired_scores(*problem(3, 4))
    scores = torch.zeros(3, 3)
    with pytest.raises(ValueError, match="a positive is marked as a legal negative"):
        pairs.balanced_cross_entropy(scores, torch.arange(3), torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"legal is torch.bool \[3, 2\]"):
        pairs.balanced_cross_entropy(scores, torch.arange(3), torch.ones(3, 2, dtype=torch.bool))

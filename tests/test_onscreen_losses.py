"""Losses of on-screen sounds against the sums over all subsets, written out, in float64."""

import itertools

import pytest
import torch

from soundssl.ops import onscreen

torch.manual_seed(0)


def brute_force(logits, candidate, loss):
    """Return the loss of one example as methods define it, by probabilities and subsets."""
    probability = 1 / (1 + torch.exp(-logits))
    on, off = -torch.log(probability), -torch.log(1 - probability)
    sources, of_first = range(len(logits)), [m for m in range(len(logits)) if candidate[m]]
    outside = sum((off[m] for m in sources if m not in of_first), torch.zeros((), dtype=torch.float64))
    if loss == "exact":
        return outside + sum(on[m] for m in of_first)
    if not of_first:
        return outside
    if loss == "multi-instance":
        return outside + min(on[m] for m in of_first)
    subsets = [set(chosen) for size in range(1, len(of_first) + 1) for chosen in itertools.combinations(of_first, size)]
    return min(sum(on[m] if m in subset else off[m] for m in sources) for subset in subsets)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("loss", onscreen.LOSSES)
def test_losses_are_those_of_all_subsets_and_so_are_their_slopes(loss, count):
    for candidate in itertools.product([False, True], repeat=count):
        of_first = torch.tensor([candidate] * 8)
        logits = (3 * torch.randn(8, count, dtype=torch.float64)).requires_grad_()
        found = onscreen.classification(logits, of_first, loss)
        expected = torch.stack([brute_force(*pair, loss) for pair in zip(logits, of_first, strict=True)])
        torch.testing.assert_close(found, expected)
        slopes = [torch.autograd.grad(each.sum(), logits, retain_graph=True)[0] for each in (found, expected)]
        torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("loss", onscreen.LOSSES)
def test_sure_and_wrong_logits_neither_overflow_nor_lose_their_slope(loss):
    logits = torch.tensor([[-500.0, 400.0], [0.0, 0.0]], requires_grad=True)
    found = onscreen.classification(logits, torch.tensor([[True, False], [False, False]]), loss)
    torch.testing.assert_close(found.detach(), torch.tensor([900.0, 2 * 0.6931472]))
    found.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0], [0.5, 0.5]]))


def test_candidates_are_boolean_and_fit():
    with pytest.raises(ValueError, match=r"bool of that shape"):
        onscreen.exact(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"\[batch, sources\]"):
        onscreen.multi_instance(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.bool))


def test_the_trivial_estimate_suppresses_six_decibel():
    mixture = torch.randn(3, 1000)
    half = onscreen.estimate(mixture[:, None] * torch.tensor([0.3, 0.7])[:, None], torch.full((3, 2), 0.5))
    torch.testing.assert_close(onscreen.suppression(mixture, half), torch.full((3,), 6.0206, dtype=torch.float64))

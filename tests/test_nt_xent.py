"""NT-Xent: it and its gradient are those of the definition, whatever the order; limits and refusals."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from soundssl.ops import losses


def unit(rows: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 6, generator=generator, dtype=torch.float64), dim=1).to(dtype)


def brute_force(vectors: torch.Tensor, partner: torch.Tensor, temperature: float) -> torch.Tensor:
    """Write out the loss of every row, one term after the other."""
    terms = []
    for i in range(len(vectors)):
        weight = {j: torch.exp(vectors[i] @ vectors[j] / temperature) for j in range(len(vectors)) if j != i}
        terms.append(-torch.log(weight[int(partner[i])] / sum(weight.values())))
    return torch.stack(terms)


def everyone_else(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    own = torch.arange(count)
    partner = (own + count // 2) % count
    return partner, (own[:, None] != own) & (own != partner[:, None])


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_nt_xent_and_its_gradient_are_those_of_the_definition(temperature):
    partner, legal = everyone_else(10)
    exact = unit(10).requires_grad_()
    expected = brute_force(exact, partner, temperature)
    expected.mean().backward()
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        vectors = unit(10, dtype=dtype).requires_grad_()
        loss = losses.nt_xent(vectors, vectors, partner, legal, temperature)
        loss.mean().backward()
        assert loss.dtype == dtype and loss.shape == (10,)
        assert loss.tolist() == pytest.approx(expected.tolist(), rel=tolerance, abs=tolerance)
        difference = (vectors.grad.double() - exact.grad).norm() / exact.grad.norm()
        assert difference < 10 * tolerance


def test_nt_xent_does_not_see_the_order_of_the_batch():
    vectors, (partner, legal) = unit(12), everyone_else(12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    place = order.argsort()
    loss = losses.nt_xent(vectors, vectors, partner, legal, 0.2)
    moved = vectors[order]
    again = losses.nt_xent(moved, moved, place[partner[order]], legal[order][:, order], 0.2)
    torch.testing.assert_close(again, loss[order], rtol=1e-12, atol=0)


def test_limits_of_nt_xent():
    partner, legal = everyone_else(8)
    same = unit(1).expand(8, 6)
    collapsed = losses.nt_xent(same, same, partner, legal, 0.2)
    assert collapsed.tolist() == pytest.approx([np.log(7)] * 8)
    apart = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    expected = np.log(1 + 6 * np.exp(-1 / 0.1))
    assert losses.nt_xent(apart, apart, partner, legal, 0.1).tolist() == pytest.approx([expected] * 8, rel=1e-9)
    assert not losses.nt_xent(same, same, partner, torch.zeros_like(legal), 0.2).any(), "nothing to be told from"
    hot = losses.nt_xent(apart.float(), apart.float(), partner, legal, 1e-3)
    assert torch.isfinite(hot).all()


def test_nt_xent_refuses_what_does_not_fit():
    vectors, (partner, legal) = unit(6), everyone_else(6)
    with pytest.raises(ValueError, match=r"legal is torch.float32 \[6, 6\]"):
        losses.nt_xent(vectors, vectors, partner, legal.float(), 0.1)
    with pytest.raises(ValueError, match=r"positive has shape \[3\]"):
        losses.nt_xent(vectors, vectors, partner[:3], legal, 0.1)
    with pytest.raises(ValueError, match="temperature is 0"):
        losses.nt_xent(vectors, vectors, partner, legal, 0.0)

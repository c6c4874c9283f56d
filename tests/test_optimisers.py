"""The optimiser with little memory: what it keeps, that it is Adam where rows are numbers, and that it goes on."""

import copy

import pytest
import torch

from soundssl.ops import optimisers


def steps(optimizer, weight, target, count):
    for _ in range(count):
        weight.grad = 2 * (weight.detach() - target)
        optimizer.step()


def test_where_a_row_is_a_number_it_is_adam_but_for_the_rounding_of_its_mean():
    target, given = torch.linspace(-1, 1, 9), {"lr": 0.05, "weight_decay": 0.1}
    own, other = (torch.zeros(9, requires_grad=True) for _ in range(2))
    steps(optimisers.RowwiseAdam([own], **given), own, target, 40)
    steps(torch.optim.AdamW([other], **given), other, target, 40)
    assert torch.allclose(own, other, atol=0.01) and not torch.equal(own, other)


def test_it_finds_a_minimum_and_keeps_a_quarter_of_what_adam_does(monkeypatch):
    monkeypatch.setattr(optimisers, "CHUNK", 100)  # several parts, the last one short
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(70, 33, generator=generator)
    weight = torch.zeros(70, 33, requires_grad=True)
    optimizer = optimisers.RowwiseAdam([weight], lr=0.05)
    steps(optimizer, weight, target, 200)
    assert (weight - target).abs().max() < 0.05
    kept = sum(t.numel() * t.element_size() for t in optimizer.state[weight].values() if torch.is_tensor(t))
    assert kept == 70 * 33 * 2 + 70 * 4


def test_a_row_moves_along_its_gradient():
    weight = torch.zeros(2, 3, requires_grad=True)
    weight.grad = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    optimisers.RowwiseAdam([weight], lr=0.1).step()
    expected = -0.1 * 3**0.5 * torch.tensor([0.6, 0.0, 0.8])  # a row's step has the length of Adam's, lr * sqrt(size)
    assert torch.allclose(weight[0], expected, rtol=1e-2) and not weight[1].any()


def test_a_saved_state_goes_on_to_the_same_bits():
    target = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    whole = torch.zeros(20, 5, requires_grad=True)
    steps(optimisers.RowwiseAdam([whole], lr=0.03), whole, target, 20)
    first = torch.zeros(20, 5, requires_grad=True)
    optimizer = optimisers.RowwiseAdam([first], lr=0.03)
    steps(optimizer, first, target, 9)
    second = first.detach().clone().requires_grad_()
    resumed = optimisers.RowwiseAdam([second], lr=0.03)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(resumed, second, target, 11)
    assert torch.equal(whole, second)
    with pytest.raises(ValueError, match="closure"):
        resumed.step(lambda: 0.0)

"""Laws of pooling: what sums to one, what a shift does not change, what equals plain max pooling."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from soundssl.models import pooling

KINDS = ("max", "blur3", "blur4", "blur5", "tlpf", "aps", "tlpf-aps")


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(2, 2), (3, 3), (4, 2)])
def test_max_with_a_stride_is_a_dense_maximum_subsampled(size):
    given = maps(2, 3, 13, 12)
    dense = pooling.DenseMax(size, same=False)(given)
    torch.testing.assert_close(pooling.Stride((2, 2))(dense), functional.max_pool2d(given, size, 2))


@pytest.mark.parametrize("kind", [f"blur{size}" for size in pooling.BINOMIAL])
def test_filters_of_blurpool_sum_to_one_and_keep_a_constant_inside(kind):
    layer = pooling.subsample(pooling.Options(kind, borders="reflect"), 3)
    torch.testing.assert_close(layer.kernel.sum(), torch.tensor(1.0))
    torch.testing.assert_close(layer(torch.full((1, 3, 9, 8), 0.7)), torch.full((1, 3, 5, 4), 0.7))


def test_binomial_of_three_is_the_published_one():
    kernel = pooling.subsample(pooling.Options("blur3"), 1).kernel * 16
    torch.testing.assert_close(kernel, torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]))


def test_a_trainable_filter_starts_as_nearly_a_box_and_learns():
    torch.manual_seed(0)
    layer = pooling.subsample(pooling.Options("tlpf", filter="5x3"), 4)[0]
    assert layer.kernel.shape == (4, 1, 5, 3)
    torch.testing.assert_close(layer.kernel.sum((1, 2, 3)), torch.ones(4))
    torch.testing.assert_close(layer.kernel, torch.full((4, 1, 5, 3), 1 / 15), atol=0.003, rtol=0.0)
    layer(maps(2, 4, 9, 9)).square().sum().backward()
    assert torch.isfinite(layer.weight.grad).all() and layer.weight.grad.abs().sum() > 0
    assert sum(weight.numel() for weight in layer.parameters()) == 4 * 15


@pytest.mark.parametrize("kind", ["aps", "tlpf-aps"])
@pytest.mark.parametrize("norm", ["l1", "l2", "l1_matrix"])
def test_polyphase_sampling_of_a_circle_never_sees_a_shift(kind, norm):
    torch.manual_seed(0)
    options = pooling.Options(kind, filter="3x3", aps_norm=norm, borders="circular")
    layers = []
    for before, after in ((1, 6), (6, 8)):
        layers += [nn.Conv2d(before, after, 3, padding=1, padding_mode="circular"), nn.ReLU()]
        layers.append(pooling.pool(options, after))
    net = nn.Sequential(*layers).double()
    given = maps(3, 1, 16, 12).double()
    pooled = net(given).mean((2, 3))
    for shift in ((1, 0), (0, 1), (3, 5), (-1, 2)):
        torch.testing.assert_close(net(given.roll(shift, (2, 3))).mean((2, 3)), pooled)
    other = nn.Sequential(*layers[:2], nn.MaxPool2d(2), *layers[3:5], nn.MaxPool2d(2)).double()
    moved = other(given.roll((1, 1), (2, 3))).mean((2, 3)) - other(given).mean((2, 3))
    assert moved.abs().max() > 1e-3  # plain pooling does


def test_each_example_has_one_grid_and_gradients_reach_it_alone():
    given = torch.zeros(2, 2, 4, 4)
    given[0, :, 1::2, 0::2] = 2.0
    given[1, :, 0::2, 1::2] = -3.0
    given += 0.1
    given.requires_grad_(True)
    kept = pooling.Polyphase((2, 2))(given)
    torch.testing.assert_close(kept, torch.stack([torch.full((2, 2, 2), 2.1), torch.full((2, 2, 2), -2.9)]))
    kept.sum().backward()
    expected = torch.zeros(2, 2, 4, 4)
    expected[0, :, 1::2, 0::2] = expected[1, :, 0::2, 1::2] = 1.0
    torch.testing.assert_close(given.grad, expected)


def test_norms_differ_where_the_papers_code_does():
    grids = torch.zeros(1, 2, 2, 1, 2)
    grids[0, 0, :, 0] = torch.tensor([[2.0, 2.0], [2.0, 2.0]])  # 8 in all, 4 a channel
    grids[0, 1, 0, 0] = torch.tensor([2.5, 2.5])  # 5 in all, 5 in one channel
    chosen = {norm: int(pooling._norms(grids, norm).argmax()) for norm in ("l1", "l2", "l1_matrix")}
    assert chosen == {"l1": 0, "l2": 0, "l1_matrix": 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "stride", "same"), [(2, 2, False), (2, 2, True), (3, 2, False), ((2, 5), (2, 5), False)]
)
def test_every_kind_makes_maps_of_one_size(kind, size, stride, same):
    torch.manual_seed(0)
    for frames, bands in ((13, 12), (12, 13), (101, 96)):
        given = maps(2, 3, frames, bands).requires_grad_(True)
        made = pooling.pool(pooling.Options(kind), 3, size, stride, same)(given)
        usual = pooling.pool(pooling.Options(), 3, size, stride, same)(given)
        assert made.shape == usual.shape and torch.isfinite(made).all()
        made.sum().backward()
        assert torch.isfinite(given.grad).all()


def test_branches_that_meet_share_a_grid():
    options, grid = pooling.Options("aps"), pooling.Grid()
    lead, follow = pooling.subsample(options, 2, 2, grid), pooling.subsample(options, 2, 2, grid, lead=False)
    given = maps(4, 2, 6, 6)
    other = torch.arange(36.0).reshape(1, 1, 6, 6).expand(4, 2, 6, 6)
    chosen = lead(given)
    places = follow(other)
    rows, columns = (places[:, 0] // 6).long(), (places[:, 0] % 6).long()
    torch.testing.assert_close(chosen[:, 0], given[torch.arange(4)[:, None, None], 0, rows, columns])


@pytest.mark.parametrize("text", ["5", "0x5", "5x", "16x5", "axb"])
def test_a_filter_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="frames x bands"):
        pooling.subsample(pooling.Options("tlpf", filter=text), 3)

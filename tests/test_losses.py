"""Laws of the losses per example and of the semi-hard choice, against loops over their definitions."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from soundssl.ops import losses
from soundssl.ops.losses import semi_hard_negatives, squared_distances, triplet


def units(generator, rows, size=8):
    return normalize(torch.randn(rows, size, generator=generator), dim=1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def brute_force(anchor, positive, candidates, legal, margin, original, fallback):
    """Follow the words of the definition, one candidate at a time."""
    chosen = []
    for i in range(len(anchor)):
        distance = {j: float((anchor[i] - candidates[j]).square().sum()) for j in range(len(candidates)) if legal[i, j]}
        near = float((anchor[i] - positive[i]).square().sum())
        semi_hard = {j: value for j, value in distance.items() if near < value < near + margin}
        if semi_hard:
            chosen.append(min(semi_hard, key=semi_hard.get))
        elif fallback == "original" or not distance:
            chosen.append(int(original[i]))
        else:
            chosen.append((max if fallback == "farthest" else min)(distance, key=distance.get))
    return torch.tensor(chosen)


@pytest.mark.parametrize("fallback", ["original", "farthest", "hardest"])
@pytest.mark.parametrize("margin", [0.02, 0.5, 3.0])
def test_choice_agrees_with_brute_force(generator, fallback, margin):
    anchor, positive, candidates = units(generator, 40), units(generator, 40), units(generator, 60)
    legal = torch.rand(40, 60, generator=generator) < 0.4
    legal[3] = False
    original = torch.randint(0, 60, (40,), generator=generator)
    chosen = semi_hard_negatives(anchor, positive, candidates, legal, margin, original, fallback)
    assert torch.equal(chosen, brute_force(anchor, positive, candidates, legal, margin, original, fallback))


def test_choice_is_legal_and_between_positive_and_margin(generator):
    anchor, candidates = units(generator, 64), units(generator, 64)
    positive = normalize(anchor + 0.3 * units(generator, 64), dim=1)
    legal = torch.rand(64, 64, generator=generator) < 0.5
    chosen = semi_hard_negatives(anchor, positive, candidates, legal, margin=1.0, original=torch.full((64,), -1))
    found = chosen >= 0
    assert found.any()
    assert legal[found, chosen[found]].all()
    values = triplet(anchor[found], positive[found], candidates[chosen[found]], margin=1.0)
    assert ((values > 0) & (values < 1.0)).all()


def test_without_semi_hard_candidates_the_original_stays(generator):
    anchor = units(generator, 5)
    # The positive is the anchor's opposite: nothing is farther.
    assert torch.equal(semi_hard_negatives(anchor, -anchor, units(generator, 5), ~torch.eye(5).bool()), torch.arange(5))


def test_choice_has_no_gradient_and_the_loss_has(generator):
    anchor, positive, candidates = (units(generator, 6).requires_grad_() for _ in range(3))
    chosen = semi_hard_negatives(anchor, positive, candidates, torch.ones(6, 6, dtype=torch.bool), margin=2.0)
    assert not chosen.dtype.is_floating_point and not chosen.requires_grad
    triplet(anchor, positive, candidates[chosen], margin=2.0).mean().backward()
    assert all(part.grad.abs().sum() > 0 for part in (anchor, positive, candidates))


def test_collapsed_embeddings_cost_the_margin_each(generator):
    same = units(generator, 1).expand(7, -1)
    torch.testing.assert_close(triplet(same, same, same, margin=0.1), torch.full((7,), 0.1))


def test_limits_of_a_triplet():
    east, west, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert float(triplet(east, east, west, 0.1)) == 0  # satisfied by 4
    assert float(triplet(east, west, east, 0.1)) == pytest.approx(4.1)  # violated by as much as is possible
    assert float(triplet(east, north, north, 0.1)) == pytest.approx(0.1)
    assert float(triplet(east, east, north, 2.5)) == pytest.approx(0.5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_each_triplet_has_the_loss_of_the_definition(generator, dtype, tolerance):
    exact = [normalize(units(generator, 50).double(), dim=1) for _ in range(3)]
    expected = [
        max(0.0, float((a - p).square().sum()) - float((a - n).square().sum()) + 0.2)
        for a, p, n in zip(*exact, strict=True)
    ]
    values = triplet(*(part.to(dtype) for part in exact), margin=0.2)
    assert values.dtype == dtype and values.shape == (50,)
    assert values.tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator).double())[0]
    torch.testing.assert_close(triplet(*(part @ rotation for part in exact), 0.2), triplet(*exact, 0.2))


def test_squared_distances_agree_with_cdist(generator):
    left, right = units(generator, 5).double(), units(generator, 9).double()
    torch.testing.assert_close(squared_distances(left, right), torch.cdist(left, right).square())
    assert squared_distances(left.bfloat16(), right.bfloat16()).dtype == torch.float32


def test_refusals_name_the_value(generator):
    three = units(generator, 3)
    with pytest.raises(ValueError, match=r"\[3, 8\].*\[2, 8\]"):
        triplet(three, three, three[:2])
    with pytest.raises(ValueError, match="margin is 0"):
        triplet(three, three, three, margin=0)
    with pytest.raises(ValueError, match=r"bool \[3, 3\]"):
        semi_hard_negatives(three, three, three, torch.ones(3, 3))
    with pytest.raises(ValueError, match="fallback is 'random'"):
        semi_hard_negatives(three, three, three, torch.ones(3, 3, dtype=torch.bool), fallback="random")
    with pytest.raises(ValueError, match="3 anchors have 2 candidates"):
        semi_hard_negatives(three, three, three[:2], torch.ones(3, 2, dtype=torch.bool))


# ---------------------------------------------------------------- labels, known in part

MASKED = pytest.mark.parametrize("loss", [losses.masked_binary_cross_entropy, losses.masked_cross_entropy])
LABEL = torch.tensor(
    [
        [1, 0, -1, 0],
        [0, 1, 0, -1],
        [-1, -1, 1, 0],
        [1, -1, -1, -1],
        [0, 0, 0, 1],
        [-1, -1, -1, -1],
        [1, 1, 0, -1],
        [0, 0, 0, 0],
    ]
)


def definition(loss, logits, label):
    """Write out loss and known of each example, one class at a time, in float64."""
    found = []
    for own, marks in zip(logits.double().tolist(), label.tolist(), strict=True):
        seen = [(x, mark) for x, mark in zip(own, marks, strict=True) if mark >= 0]
        if loss is losses.masked_binary_cross_entropy:
            terms = [math.log1p(math.exp(-x)) if mark else math.log1p(math.exp(x)) for x, mark in seen]
            found.append((sum(terms) / max(1, len(terms)), len(terms)))
        else:
            total = sum(math.exp(x) for x, _ in seen)
            terms = [math.log(total) - x for x, mark in seen if mark]
            found.append((sum(terms) / max(1, len(terms)), min(1, len(terms))))
    return list(zip(*found, strict=True))


@MASKED
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_each_example_has_the_loss_of_the_definition(generator, loss, dtype, tolerance):
    logits = 3 * torch.randn(LABEL.shape, generator=generator, dtype=torch.float64)
    expected, counted = definition(loss, logits, LABEL)
    for label in (LABEL, LABEL.to(torch.int8)):
        values, known = loss(logits.to(dtype), label)
        assert values.dtype == known.dtype == dtype
        assert values.tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)
        assert known.tolist() == list(counted)


@MASKED
def test_unknown_labels_touch_neither_loss_nor_gradient(generator, loss):
    logits = torch.randn(LABEL.shape, generator=generator, dtype=torch.float64, requires_grad=True)
    values, known = loss(logits, LABEL)
    (gradient,) = torch.autograd.grad(losses.weighted_mean(values, known), logits)
    assert (gradient[LABEL < 0] == 0).all() and gradient[:3].abs().sum() > 0
    for other in (100 * torch.randn(LABEL.shape, generator=generator, dtype=torch.float64), torch.nan, torch.inf):
        changed = torch.where(LABEL < 0, other, logits.detach()).requires_grad_()
        again, counted = loss(changed, LABEL)
        torch.testing.assert_close(again, values)
        assert torch.equal(counted, known)
        (moved,) = torch.autograd.grad(losses.weighted_mean(again, counted), changed)
        torch.testing.assert_close(moved, gradient)
    nothing = loss(logits, torch.full_like(LABEL, -1))
    assert not nothing.loss.any() and not nothing.known.any()
    (gradient,) = torch.autograd.grad(losses.weighted_mean(*nothing), logits)
    assert losses.weighted_mean(*nothing) == 0 and not gradient.any()


@MASKED
def test_gradients_are_those_by_differences(generator, loss):
    logits = torch.randn(LABEL.shape, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: loss(given, LABEL).loss, logits)


@MASKED
def test_an_example_does_not_see_the_others(generator, loss):
    logits = torch.randn(LABEL.shape, generator=generator, dtype=torch.float64)
    values, known = loss(logits, LABEL)
    for row in range(len(LABEL)):
        alone = loss(logits[row : row + 1], LABEL[row : row + 1])
        torch.testing.assert_close(torch.cat(alone), torch.stack([values[row], known[row]]))


def test_masked_losses_equal_torchs_where_all_is_known(generator):
    logits = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    target = torch.arange(8) % 5
    label = torch.eye(5, dtype=torch.long)[target]
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(losses.masked_cross_entropy(logits, label).loss, each)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, label.double(), reduction="none").mean(1)
    torch.testing.assert_close(losses.masked_binary_cross_entropy(logits, label).loss, each)


def test_a_weighted_mean_is_that_of_all_known_labels(generator):
    logits = torch.randn(LABEL.shape, generator=generator, dtype=torch.float64)
    loss, known = losses.masked_binary_cross_entropy(logits, LABEL)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[LABEL >= 0], LABEL[LABEL >= 0].double())
    torch.testing.assert_close(losses.weighted_mean(loss, known), expected)
    weight = torch.rand(len(LABEL), generator=generator, dtype=torch.float64)
    weight[2] = 0
    rest = torch.arange(len(LABEL)) != 2
    whole = losses.weighted_mean(loss, known * weight)
    torch.testing.assert_close(losses.weighted_mean(loss[rest], (known * weight)[rest]), whole)
    torch.testing.assert_close(losses.weighted_mean(loss, 7 * known * weight), whole)


@MASKED
def test_labels_that_do_not_fit_are_refused(loss):
    with pytest.raises(ValueError, match=r"logits \[3, 2\], labels \[3, 3\]"):
        loss(torch.zeros(3, 2), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"labels \[3\]: \[batch, classes\] twice are needed"):
        loss(torch.zeros(3), torch.zeros(3))

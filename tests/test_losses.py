"""Laws of the triplet loss and of the semi-hard choice, the latter against a loop over the definition."""

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
    _, values = triplet(anchor[found], positive[found], candidates[chosen[found]], margin=1.0)
    assert ((values > 0) & (values < 1.0)).all()


def test_without_semi_hard_candidates_the_original_stays(generator):
    anchor = units(generator, 5)
    # The positive is the anchor's opposite: nothing is farther.
    assert torch.equal(semi_hard_negatives(anchor, -anchor, units(generator, 5), ~torch.eye(5).bool()), torch.arange(5))


def test_choice_has_no_gradient_and_the_loss_has(generator):
    anchor, positive, candidates = (units(generator, 6).requires_grad_() for _ in range(3))
    chosen = semi_hard_negatives(anchor, positive, candidates, torch.ones(6, 6, dtype=torch.bool), margin=2.0)
    assert not chosen.dtype.is_floating_point and not chosen.requires_grad
    triplet(anchor, positive, candidates[chosen], margin=2.0)[0].backward()
    assert all(part.grad.abs().sum() > 0 for part in (anchor, positive, candidates))


def test_collapsed_embeddings_cost_the_margin_each(generator):
    same = units(generator, 1).expand(7, -1)
    loss, values = triplet(same, same, same, margin=0.1)
    torch.testing.assert_close(values, torch.full((7,), 0.1))
    assert float(loss) == pytest.approx(0.1)


def test_limits_of_a_triplet():
    east, west, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert float(triplet(east, east, west, 0.1)[0]) == 0  # satisfied by 4
    assert float(triplet(east, west, east, 0.1)[0]) == pytest.approx(4.1)  # violated by as much as is possible
    assert float(triplet(east, north, north, 0.1)[0]) == pytest.approx(0.1)
    assert float(triplet(east, east, north, 2.5)[0]) == pytest.approx(0.5)


def test_loss_is_the_mean_and_moves_with_all_three(generator):
    anchor, positive, negative = (normalize(units(generator, 50).double(), dim=1) for _ in range(3))
    loss, values = triplet(anchor, positive, negative, margin=0.2)
    cosine = 2 * ((anchor * negative).sum(1) - (anchor * positive).sum(1)) + 0.2
    torch.testing.assert_close(values, cosine.clamp(min=0))
    torch.testing.assert_close(loss, values.sum() / 50)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator).double())[0]
    torch.testing.assert_close(triplet(anchor @ rotation, positive @ rotation, negative @ rotation, 0.2)[0], loss)


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


@pytest.mark.parametrize("loss", [losses.known_binary_cross_entropy, losses.known_cross_entropy])
def test_unknown_labels_touch_neither_loss_nor_gradient(loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.tensor(
        [[1, 0, -1, 0], [0, 1, 0, -1], [-1, -1, 1, 0], [1, -1, -1, -1], [0, 0, 0, 1], [-1, -1, -1, -1]]
    )
    weight = torch.ones(6, dtype=torch.float64)
    value = loss(logits, label, weight)
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient[label < 0] == 0).all() and gradient[:3].abs().sum() > 0
    changed = torch.where(label < 0, logits.detach() + 100 * torch.randn(6, 4, generator=generator), logits.detach())
    assert torch.allclose(loss(changed, label, weight), value)
    assert loss(logits, torch.full_like(label, -1), weight).item() == 0.0


def test_known_losses_equal_torchs_where_all_is_known():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    target = torch.arange(8) % 5
    label, weight = torch.eye(5, dtype=torch.long)[target], torch.rand(8, generator=generator, dtype=torch.float64)
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    expected = (each * weight).sum() / weight.sum()
    assert torch.allclose(losses.known_cross_entropy(logits, label, weight), expected)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, label.double(), reduction="none").mean(1)
    expected = (each * weight).sum() / weight.sum()
    assert torch.allclose(losses.known_binary_cross_entropy(logits, label, weight), expected)


def test_an_example_of_weight_nothing_is_as_if_absent():
    logits, label = torch.randn(3, 2), torch.tensor([[1, 0], [0, 1], [1, 0]])
    weight = torch.tensor([1.0, 1.0, 0.0])
    for loss in (losses.known_binary_cross_entropy, losses.known_cross_entropy):
        assert torch.allclose(loss(logits, label, weight), loss(logits[:2], label[:2], weight[:2]))
    with pytest.raises(ValueError, match=r"labels \[3, 3\]"):
        losses.known_cross_entropy(logits, torch.zeros(3, 3), weight)

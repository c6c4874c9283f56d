"""Robust losses in float64 against brute force, their limits, what is left out of a batch, and balanced draws."""

import math

import numpy as np
import pytest
import torch

from soundssl.labels import balance
from soundssl.ops import losses, robust

ROWS, CLASSES = 40, 5


@pytest.fixture(scope="module")
def drawn():
    """Logits and labels of one class a row, or several, or none, some unknown."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64)
    label = torch.nn.functional.one_hot(torch.randint(0, CLASSES, (ROWS,), generator=generator), CLASSES)
    label[30:35, 0] = 1
    label[35] = 0
    label[36:, 2] = torch.where(label[36:, 2] == 1, 1, -1)
    return logits, label


def softmax(logits: list[float], known: list[bool]) -> list[float]:
    powers = [math.exp(x) if k else 0.0 for x, k in zip(logits, known, strict=True)]
    return [power / sum(powers) for power in powers]


def brute_force(logits: torch.Tensor, label: torch.Tensor, loss) -> list[float]:
    """Apply a loss of (probabilities, targets) to every row, over the classes that are known."""
    found = []
    for x, y in zip(logits.tolist(), label.tolist(), strict=True):
        p, n = softmax(x, [one >= 0 for one in y]), sum(one == 1 for one in y)
        t = [float(one == 1) / max(n, 1) for one in y]
        pairs = [(a, b) for a, b, one in zip(p, t, y, strict=True) if one >= 0]
        found.append(loss([a for a, _ in pairs], [b for _, b in pairs]) if n else 0.0)
    return found


def soft(p, t, beta):
    return -sum((beta * b + (1 - beta) * a) * math.log(a) for a, b in zip(p, t, strict=True))


def hard(p, t, beta):
    best = max(range(len(p)), key=lambda i: p[i])
    return -sum((beta * b + (1 - beta) * (i == best)) * math.log(a) for i, (a, b) in enumerate(zip(p, t, strict=True)))


CASES = {
    "ce": (robust.cross_entropy, lambda p, t: -sum(b * math.log(a) for a, b in zip(p, t, strict=True))),
    "lq": (lambda log_p, t: robust.lq(log_p, t, 0.7),
           lambda p, t: sum(b * (1 - a**0.7) / 0.7 for a, b in zip(p, t, strict=True))),
    "soft": (lambda log_p, t: robust.bootstrapping(log_p, t, 0.3), lambda p, t: soft(p, t, 0.3)),
    "hard": (lambda log_p, t: robust.bootstrapping(log_p, t, 0.3, hard=True), lambda p, t: hard(p, t, 0.3)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_brute_force_and_what_is_unknown_touches_nothing(name, drawn):
    ours, theirs = CASES[name]
    logits, label = drawn[0].clone().requires_grad_(), drawn[1]
    target, known = robust.distribution(label, torch.float64), label >= 0
    loss = ours(robust.log_probability(logits, known), target)
    assert loss.tolist() == pytest.approx(brute_force(drawn[0], label, theirs), rel=1e-6, abs=1e-7)
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all() and not logits.grad[~known].any() and not logits.grad[35].any()


def test_the_losses_have_their_limits(drawn):
    logits, label = drawn
    log_p, target = robust.log_probability(logits, label >= 0), robust.distribution(label, torch.float64)
    ce = robust.cross_entropy(log_p, target)
    assert torch.allclose(robust.lq(log_p, target, 1e-6), ce, rtol=1e-4, atol=1e-5)
    one_hot, p = label[:30], log_p[:30].exp()
    assert torch.allclose(robust.lq(log_p[:30], target[:30], 1.0), (p - one_hot).abs().sum(1) / 2, atol=1e-6)
    for is_hard in (False, True):
        assert torch.allclose(robust.bootstrapping(log_p, target, 1.0, is_hard), ce)
    assert torch.allclose(losses.masked_cross_entropy(logits, label).loss, ce)
    with pytest.raises(ValueError, match="q is 0"):
        robust.lq(log_p, target, 0)
    with pytest.raises(ValueError, match="beta is 2"):
        robust.bootstrapping(log_p, target, 2)


def test_the_gradient_passes_through_the_target_or_not(drawn):
    target = robust.distribution(drawn[1], torch.float64)[:30]
    gradient = {}
    for through in (True, False):
        logits = drawn[0][:30].clone().requires_grad_()
        robust.bootstrapping(logits.log_softmax(1), target, 0.3, through=through).sum().backward()
        gradient[through] = logits.grad
    p = drawn[0][:30].softmax(1)
    assert torch.allclose(gradient[False], p - (0.3 * target + 0.7 * p), atol=1e-9), "a fixed target"
    assert not torch.allclose(gradient[True], gradient[False])


@pytest.mark.parametrize(("percentile", "dropped"), [(99, 1), (96, 3), (93, 5), (100, 0)])
def test_a_percentile_of_sixty_four_drops_the_published_counts(percentile, dropped):
    loss = torch.rand(64, generator=torch.Generator().manual_seed(1))
    kept = robust.kept(loss, torch.ones(64, dtype=torch.bool), "percentile", percentile)
    assert (~kept).sum() == dropped and (not dropped or loss[~kept].min() > loss[kept].max())


@pytest.mark.parametrize(("rule", "at"), [("percentile", 80.0), ("maximum", 0.6), ("outlier", 1.0)])
def test_what_is_kept_is_that_of_numpy(rule, at):
    generator = np.random.default_rng(0)
    for _ in range(20):
        loss, counted = generator.exponential(1.0, 33), generator.random(33) < 0.8
        own = loss[counted]
        bound = {
            "percentile": np.percentile(own, 80, method="lower"),
            "maximum": 0.6 * own.max(),
            "outlier": np.median(own) + own.std(),
        }[rule]
        found = robust.kept(torch.from_numpy(loss), torch.from_numpy(counted), rule, at).numpy()
        assert np.array_equal(found, counted & (loss <= bound))
    none = robust.kept(torch.ones(4), torch.zeros(4, dtype=torch.bool), rule, at)
    assert not none.any()


def test_smoothing_shares_a_label_among_the_known_classes(drawn):
    label = drawn[1]
    known, target = label >= 0, robust.distribution(label, torch.float64)
    amount = torch.linspace(0, 0.5, ROWS)
    smooth = robust.smoothed(target, known, amount)
    for row in range(ROWS):
        wanted = target[row]
        if target[row].sum():
            wanted = (1 - amount[row]) * target[row] + amount[row] * known[row] / known[row].sum()
        assert torch.allclose(smooth[row], wanted.double(), atol=1e-7)


def test_binary_losses_of_soft_targets_are_those_of_brute_force(drawn):
    logits, label = drawn
    share = torch.rand(ROWS, CLASSES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found, count = losses.soft_binary_cross_entropy(logits, share, label >= 0)
    for row in range(ROWS):
        known = label[row] >= 0
        p, t = logits[row][known].sigmoid(), share[row][known]
        assert found[row] == pytest.approx(float(-(t * p.log() + (1 - t) * (1 - p).log()).mean()))
        assert count[row] == known.sum()
    hard_found = losses.masked_binary_cross_entropy(logits, label).loss
    assert torch.allclose(losses.soft_binary_cross_entropy(logits, (label == 1).double(), label >= 0).loss, hard_found)


def test_mixing_is_linear():
    a, b = torch.randn(2, 3, 4, 5)
    share = torch.tensor([0.0, 0.25, 1.0])
    found = robust.mixed(a, b, share)
    assert (
        torch.equal(found[0], b[0])
        and torch.equal(found[2], a[2])
        and torch.allclose(found[1], a[1] / 4 + 3 * b[1] / 4)
    )


def test_weights_go_from_natural_to_alike():
    label = np.zeros((110, 3), np.int8)
    label[:100, 0], label[100:109, 1], label[109, 2] = 1, 1, 1
    assert np.allclose(balance.weights(label, 0.0), 1 / 110)
    alike = balance.weights(label, 1.0)
    assert np.allclose([alike[label[:, i] == 1].sum() for i in range(3)], 1 / 3)
    half = balance.weights(label, 0.5)
    assert half[109] / half[0] == pytest.approx(10.0) and half[100] / half[0] == pytest.approx(np.sqrt(100 / 9))
    label[0, 2] = 1  # a clip of the largest class and of the rarest: the rarest rules
    assert balance.weights(label, 1.0)[0] == balance.weights(label, 1.0)[109]
    with pytest.raises(ValueError, match="balance is 2"):
        balance.weights(label, 2.0)


def test_classes_take_turns_in_the_queue():
    label = np.eye(3, dtype=np.int8)[[0] * 50 + [1] * 5 + [2] * 2]
    rows = balance.queue(label, 60, np.random.default_rng(0))
    of = label[rows].argmax(1)
    assert all(set(of[i : i + 3]) == {0, 1, 2} for i in range(0, 60, 3))
    assert len(set(rows[of == 0])) == 20 and (np.bincount(rows[of == 1] - 50) == 4).all()
    for i in range(0, 20, 2):
        assert set(rows[of == 2][i : i + 2]) == {55, 56}, "a list is used up before it is shuffled again"
    with pytest.raises(ValueError, match="nothing to balance"):
        balance.queue(np.zeros((3, 2), np.int8), 3, np.random.default_rng(0))
    assert "c2 20 (2)" in balance.realised(label, rows, ["c0", "c1", "c2"])

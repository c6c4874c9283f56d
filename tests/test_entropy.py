"""The streamed entropies against the direct formula and its float64 gradients."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from soundssl.ops import entropy

BATCH, CLUSTERS, SIZE, GAMMA = 48, 300, 32, 1.7
NOISE = {"soft": (10.0, 3.0), "confident": (60.0, 0.6), "saturated": (60.0, 0.02)}  # scale, distance from a centre


def data(kind: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return embeddings, centres (float64) and a scale at which rows are soft, confident or saturated."""
    generator = torch.Generator().manual_seed(seed)
    scale, noise = NOISE[kind]
    weight = torch.randn(CLUSTERS, SIZE, generator=generator, dtype=torch.float64)
    near = weight[torch.randint(CLUSTERS, (BATCH,), generator=generator)]
    return near + noise * torch.randn(near.shape, generator=generator, dtype=torch.float64), weight, scale


def direct(embedding, weight, scale, gamma):
    """Return loss, conditional and marginal entropy as the formula says."""
    logarithm = torch.log_softmax(scale * F.normalize(embedding) @ F.normalize(weight).T, 1)
    conditional = -(logarithm.exp() * logarithm).sum(1).mean()
    mean = logarithm.exp().mean(0).clamp(min=torch.finfo(logarithm.dtype).tiny)
    marginal = -(mean * mean.log()).sum()
    return conditional - gamma * marginal, conditional, marginal


def gradients(loss, embedding, weight, dtype):
    given = [each.to(dtype).clone().requires_grad_() for each in (embedding, weight)]
    loss(*given).backward()
    return [each.grad.double() for each in given]


def streamed(scale, dtype=torch.float32, **options):
    return lambda z, w: entropy.entropies(z, w, scale, GAMMA, dtype, **options).loss


def relative(found, expected):
    return [float((one - two).norm() / two.norm()) for one, two in zip(found, expected, strict=True)]


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("chunk", [None, 7, CLUSTERS])
def test_loss_and_entropies_equal_the_formula_whatever_the_chunk(kind, chunk):
    embedding, weight, scale = data(kind)
    found = entropy.entropies(embedding, weight, scale, GAMMA, chunk=chunk)
    for one, two in zip(found[:3], direct(embedding, weight, scale, GAMMA), strict=True):
        assert float(one) == pytest.approx(float(two), abs=1e-10)
    logits = F.normalize(embedding) @ F.normalize(weight).T
    assert int(found.active) == len(logits.argmax(1).unique())
    assert 0 <= float(found.conditional) <= math.log(CLUSTERS) and 0 <= float(found.marginal) <= math.log(CLUSTERS)


@pytest.mark.parametrize(
    ("kind", "dtype", "limit"),
    [("soft", torch.float64, 1e-9), ("confident", torch.float64, 1e-9), ("soft", torch.float32, 1e-5)],
)
def test_gradients_equal_autograd_in_float64(kind, dtype, limit):
    embedding, weight, scale = data(kind)
    exact = gradients(lambda z, w: direct(z, w, scale, GAMMA)[0], embedding, weight, torch.float64)
    for chunk in (None, 7):
        assert max(relative(gradients(streamed(scale, chunk=chunk), embedding, weight, dtype), exact)) <= limit


@pytest.mark.parametrize(("kind", "times"), [("soft", 2), ("confident", 2), ("saturated", 3)])
def test_gradients_in_float32_are_about_as_exact_as_those_of_the_formula(kind, times):
    embedding, weight, scale = data(kind)
    exact = gradients(lambda z, w: direct(z, w, scale, GAMMA)[0], embedding, weight, torch.float64)
    naive = gradients(lambda z, w: direct(z, w, scale, GAMMA)[0], embedding, weight, torch.float32)
    own = relative(gradients(streamed(scale), embedding, weight, torch.float32), exact)
    assert all(one <= times * two + 1e-6 for one, two in zip(own, relative(naive, exact), strict=True))


@pytest.mark.parametrize("kind", ["soft", "confident"])
def test_gradients_in_bfloat16_point_the_same_way(kind):
    embedding, weight, scale = data(kind)
    exact = gradients(lambda z, w: direct(z, w, scale, GAMMA)[0], embedding, weight, torch.float64)
    for one, two in zip(
        gradients(streamed(scale, torch.bfloat16), embedding, weight, torch.float32), exact, strict=True
    ):
        assert float(F.cosine_similarity(one.flatten(), two.flatten(), dim=0)) >= 0.999
    assert torch.get_float32_matmul_precision() == "highest"  # as it was before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scale_whose_powers_leave_the_range_takes_the_maximum_off_first(dtype, monkeypatch):
    embedding, weight, _ = data("soft")
    once = gradients(streamed(60.0), embedding, weight, dtype)
    monkeypatch.setattr(entropy, "MARGIN", 1e4)  # now every scale is out of range
    again = gradients(streamed(60.0, chunk=7), embedding, weight, dtype)
    limit = 1e-4 if dtype == torch.float32 else 1e-9
    assert max(relative(again, once)) <= limit


def test_gradient_is_free_of_length_and_stops_where_none_is_asked():
    embedding, weight, scale = data("soft")
    once = gradients(streamed(scale), embedding, weight, torch.float64)
    twice = gradients(streamed(scale), 2 * embedding, 4 * weight, torch.float64)
    assert torch.allclose(once[0], 2 * twice[0], rtol=1e-9) and torch.allclose(once[1], 4 * twice[1], rtol=1e-9)
    assert (once[0] * embedding).sum(1).abs().max() < 1e-12  # a change of length changes nothing
    fixed = weight.clone()
    given = embedding.clone().requires_grad_()
    streamed(scale)(given, fixed).backward()
    assert torch.allclose(given.grad, once[0]) and fixed.grad is None


def test_saturated_rows_are_finite():
    embedding = torch.eye(8).repeat(4, 1).requires_grad_()
    weight = torch.cat([torch.eye(8), -torch.eye(8)]).requires_grad_()
    found = entropy.entropies(embedding, weight, 1e4, 1.1)
    found.loss.backward()
    assert torch.isfinite(found.loss) and torch.isfinite(embedding.grad).all() and torch.isfinite(weight.grad).all()
    assert float(found.conditional) == 0 and float(found.marginal) == pytest.approx(math.log(8), rel=1e-6)


def test_powers_that_leave_the_normal_numbers_change_nothing():
    generator = torch.Generator().manual_seed(0)
    embedding, weight = torch.randn(64, 4, generator=generator), torch.randn(500, 4, generator=generator)
    spread = 60 * (F.normalize(embedding) @ F.normalize(weight).T)
    assert float((spread - spread.amax(1, keepdim=True)).amin()) < -110  # exp of it is no normal float32
    exact = gradients(streamed(60.0), embedding.double(), weight.double(), torch.float64)
    found = gradients(streamed(60.0), embedding, weight, torch.float32)
    for ours, wanted in zip(found, exact, strict=True):
        assert torch.linalg.vector_norm(ours - wanted) < 1e-4 * torch.linalg.vector_norm(wanted)


def test_with_gamma_1_the_loss_is_minus_the_mutual_information():
    corners = torch.eye(8, dtype=torch.float64)
    sure = entropy.entropies(corners.repeat(3, 1), corners, 1e3, 1.0)
    assert float(sure.loss) == pytest.approx(-math.log(8), abs=1e-9)
    constant = entropy.entropies(corners[:1].repeat(24, 1), corners, 1e3, 1.0)
    assert float(constant.loss) == pytest.approx(0, abs=1e-9) and int(constant.active) == 1
    blind = entropy.entropies(torch.ones(5, 8, dtype=torch.float64), corners, 60.0, 1.0)
    assert float(blind.loss) == pytest.approx(0, abs=1e-9)
    assert float(blind.conditional) == pytest.approx(math.log(8), rel=1e-9)
    embedding, weight, scale = data("soft")
    joint = F.softmax(scale * F.normalize(embedding) @ F.normalize(weight).T, 1) / BATCH
    information = (joint * (joint / (joint.sum(0) / BATCH)).log()).sum()  # the sum over clusters of a row is 1 / batch
    assert float(entropy.entropies(embedding, weight, scale, 1.0).loss) == pytest.approx(-float(information), rel=1e-9)


@pytest.mark.parametrize("least", [0.2, 0.5, 0.8])
def test_a_modest_scale_leaves_just_the_asked_entropy(least):
    rows = torch.randn(400, 16, generator=torch.Generator().manual_seed(3))
    scale = entropy.modest_scale(rows, 20, 100.0, least)
    share = entropy.entropies(rows, rows[::20], scale, 1.0).conditional / math.log(20)
    assert 0 < scale < 100 and float(share) == pytest.approx(least, abs=0.01)
    assert entropy.modest_scale(rows, 20, scale / 2, least) == scale / 2  # unsure enough as it is
    assert entropy.modest_scale(3 * rows, 20, 100.0, least) == pytest.approx(scale, rel=1e-4)  # of angles alone
    broken = torch.cat([rows, torch.full((3, 16), torch.nan)])
    assert entropy.modest_scale(broken, 20, 100.0, least) == scale
    assert entropy.modest_scale(rows[:79], 20, 100.0, least) == 100.0


def test_a_running_average_of_the_mean_stands_in_its_place():
    embedding, weight, scale = data("soft")
    average = torch.zeros(CLUSTERS, dtype=torch.float64)
    plain = entropy.entropies(embedding, weight, scale, GAMMA)
    found = entropy.entropies(embedding, weight, scale, GAMMA, chunk=11, average=average, momentum=0.75)
    assert float(found.loss) == pytest.approx(float(plain.loss), rel=1e-12)  # the first batch is all there is
    q = F.softmax(scale * F.normalize(embedding) @ F.normalize(weight).T, 1).mean(0)
    assert torch.allclose(average, 0.25 * q)
    other = data("soft", seed=1)[0]
    r = F.softmax(scale * F.normalize(other) @ F.normalize(weight).T, 1).mean(0)
    mixed = (0.75 * 0.25 * q + 0.25 * r) / (0.75 * 0.25 + 0.25)
    given = other.clone().requires_grad_()
    found = entropy.entropies(given, weight, scale, GAMMA, average=average, momentum=0.75)
    assert float(found.marginal) == pytest.approx(float(-(mixed * mixed.log()).sum()), rel=1e-12)
    found.loss.backward()
    free = other.clone().requires_grad_()
    logarithm = F.log_softmax(scale * F.normalize(free) @ F.normalize(weight).T, 1)
    (-(logarithm.exp() * logarithm).sum(1).mean() + GAMMA * (logarithm.exp().mean(0) * mixed.log()).sum()).backward()
    assert torch.allclose(given.grad, free.grad, rtol=1e-9, atol=1e-15)


class Ranks:
    """One of several threads that stand for processes: what they reduce lies on a table that all see."""

    def __init__(self, rank: int, table: list, barrier: threading.Barrier) -> None:
        self.rank, self.count, self.table, self.barrier = rank, len(table), table, barrier

    def _together(self, tensor: torch.Tensor, reduce) -> None:
        self.table[self.rank] = tensor.clone()
        self.barrier.wait()
        tensor.copy_(reduce(torch.stack(self.table)))
        self.barrier.wait()

    def add(self, tensor):
        self._together(tensor, lambda parts: parts.sum(0))

    def maximum(self, tensor):
        self._together(tensor, lambda parts: parts.amax(0))


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize(("count", "clusters"), [(1, 300), (2, 300), (3, 299), (3, 2)])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_processes_that_share_the_clusters_find_what_one_finds(kind, count, clusters, momentum):
    embedding, weight, scale = data(kind)
    weight = weight[:clusters]

    def one(ranks):
        given = [each.clone().requires_grad_() for each in (embedding, weight)]
        average = None if momentum is None else weight.norm(dim=1).softmax(0)
        with_average = {} if momentum is None else {"average": average, "momentum": momentum}
        found = entropy.entropies(*given, scale, GAMMA, chunk=64, ranks=ranks, **with_average)
        found.loss.backward()
        return [*found[:3], found.active.double(), *([] if average is None else [average])], [x.grad for x in given]

    figures, slopes = one(None)
    table, barrier = [None] * count, threading.Barrier(count, timeout=60)
    with ThreadPoolExecutor(count) as pool:
        each = list(pool.map(lambda rank: one(Ranks(rank, table, barrier)), range(count)))
    for found, _ in each:
        for ours, whole in zip(found, figures, strict=True):
            assert torch.allclose(ours.detach(), whole.detach(), rtol=1e-12, atol=1e-12)
    for number, slope in enumerate(slopes):
        mean = torch.stack([gradients[number] for _, gradients in each]).mean(0)
        assert float((mean - slope).norm()) <= 1e-9 * max(float(slope.norm()), 1e-6)
    for rank, (_, gradients) in enumerate(each):  # and none has done another's work
        own = slice(clusters * rank // count, clusters * (rank + 1) // count)
        assert not gradients[1][: own.start].any() and not gradients[1][own.stop :].any()


@pytest.mark.parametrize("scale", [60.0, 300.0])
def test_sharing_holds_where_powers_leave_the_range(scale):
    embedding, weight, _ = data("soft")
    embedding, weight = embedding.float(), weight.float()
    whole = entropy.entropies(embedding, weight, scale, GAMMA)
    table, barrier = [None] * 2, threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as pool:
        shared = pool.map(
            lambda rank: entropy.entropies(embedding, weight, scale, GAMMA, ranks=Ranks(rank, table, barrier)), range(2)
        )
        for found in shared:
            assert float(found.loss) == pytest.approx(float(whole.loss), rel=1e-5)
            assert float(found.conditional) == pytest.approx(float(whole.conditional), rel=1e-4)


def test_misfits_are_named():
    with pytest.raises(ValueError, match=r"embeddings \[2, 3\] and clusters \[4, 5\] do not fit"):
        entropy.entropies(torch.ones(2, 3), torch.ones(4, 5), 60.0, 1.0)
    with pytest.raises(ValueError, match="0 embeddings and 4 clusters"):
        entropy.entropies(torch.ones(0, 3), torch.ones(4, 3), 60.0, 1.0)
    with pytest.raises(ValueError, match="scale is 0; it must be positive"):
        entropy.entropies(torch.ones(2, 3), torch.ones(4, 3), 0, 1.0)
    with pytest.raises(ValueError, match=r"the average has shape \[3\]; \[4\] is needed"):
        entropy.entropies(torch.ones(2, 3), torch.ones(4, 3), 60.0, 1.0, average=torch.zeros(3))

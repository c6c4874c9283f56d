"""On a GPU that is not there every kernel of ops runs: no two devices meet, and none waits that is not known to."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import fake_device
import pytest
import torch
from fake_device import DEVICES, META

from soundssl import ops
from soundssl.ops import (
    assignment,
    augment,
    entropy,
    generators,
    losses,
    onscreen,
    optimisers,
    pairs,
    robust,
    separation,
)

ON = pytest.mark.parametrize("where", DEVICES, ids=str)
BATCH, SIZE, CLASSES = 6, 8, 5


@pytest.fixture
def fake(monkeypatch):
    with fake_device.faked(monkeypatch) as found:
        yield found


def windows(where):
    return torch.randn(BATCH, 24, 16, device=where)


def numbers(where, high=100, rows=BATCH):
    return torch.randint(high, (rows,), device=where)


def share(where):
    return torch.rand(BATCH, device=where)


def generator(where):
    return generators.PerExampleGenerator(numbers(where))


def scorer(where):
    shapes = [(BATCH, SIZE), (BATCH, SIZE), (16, SIZE), (16, SIZE), (16,), (16,), ()]
    return [torch.randn(shape, device=where, requires_grad=where == META) for shape in shapes]


def square(where, of=torch.randn):
    return of(BATCH, BATCH, device=where)


def legal(where):
    return square(where) > 0


def vectors(where, rows=BATCH):
    return torch.randn(rows, SIZE, device=where, requires_grad=where == META)


def labels(where):
    logits = torch.randn(BATCH, CLASSES, device=where, requires_grad=where == META)
    return logits, torch.randint(-1, 2, logits.shape, device=where)


def odds(where):
    logits, label = labels(where)
    return robust.log_probability(logits, label >= 0), robust.distribution(label)


def waves(where, count=2):
    return torch.randn(BATCH, count, 5000, device=where)


def entropies(where, **options):
    return [
        entropy.entropies(vectors(where), vectors(where, 100), scale, 1.1, dtype, **options).loss
        for scale, dtype in ((10.0, torch.bfloat16), (300.0, torch.float32))  # 300: exponentials leave the range
    ]


def multiplied(where):
    """Take a matrix product in either precision."""
    left, right = torch.randn(4, 8, device=where), torch.randn(8, 16, device=where)
    out = torch.empty(4, 16, device=where)
    for dtype in (torch.float32, torch.bfloat16):
        with entropy.products(dtype, left.device) as multiply:
            out = multiply(left, right, out)
    return out


def transform(where):
    spectrum = separation.Spectrum(512, 128)
    return spectrum.synthesise(spectrum.analyse(torch.randn(2, 5000, device=where)), 5000)


def optimised(where):
    weight = torch.zeros(9, SIZE, device=where)
    weight.grad = torch.randn(9, SIZE, device=where)
    optimiser = optimisers.RowwiseAdam([weight], 1e-3)
    for _ in range(2):
        optimiser.step()
    return weight


KERNELS = {
    "augment.LogScale": lambda where: [
        scale.of_energies(scale.energies(windows(where)))
        for scale in (augment.VGGISH, augment.LogScale(logarithm="10", spectrum="power"))
    ],
    "augment.add_noise": lambda where: augment.add_noise(windows(where), share(where), numbers(where)),
    "augment.translate": lambda where: augment.translate(windows(where), numbers(where), numbers(where)),
    "augment.mix": lambda where: augment.mix(windows(where), windows(where), share(where)),
    "augment.amplify": lambda where: augment.amplify(windows(where), share(where)),
    "augment.mix_back": lambda where: [
        augment.mix_back(windows(where), windows(where), share(where), adjust) for adjust in (True, False)
    ],
    "augment.resized_crop": lambda where: augment.resized_crop(windows(where), generator(where)),
    "augment.compress": lambda where: augment.compress(windows(where), generator(where)),
    "augment.add_gaussian": lambda where: augment.add_gaussian(windows(where), generator(where)),
    "augment.mask": lambda where: augment.mask(windows(where), generator(where), 5, 5),
    "augment.roll_frames": lambda where: augment.roll_frames(windows(where), generator(where)),
    "augment.roll_bands": lambda where: augment.roll_bands(windows(where), generator(where)),
    "augment.reverse": lambda where: augment.reverse(windows(where), generator(where)),
    "augment.blur": lambda where: augment.blur(windows(where), generator(where)),
    "generators.PerExampleGenerator": lambda where: [
        *(generator(where).fork(2).uniform(0, 1), generator(where).uniform(0, 1, 9)),
        *(generator(where).integers(3, 5), generator(where).normal(9)),
    ],
    "generators.uniform": lambda where: generators.uniform(numbers(where, rows=100), 9),
    "generators.half_normal": lambda where: generators.half_normal(numbers(where), 9),
    "losses.weighted_mean": lambda where: losses.weighted_mean(share(where), share(where)),
    "losses.triplet": lambda where: losses.triplet(vectors(where), vectors(where), vectors(where)),
    "losses.semi_hard_negatives": lambda where: [
        losses.semi_hard_negatives(vectors(where), vectors(where), vectors(where), legal(where), fallback=word)
        for word in ("original", "farthest", "hardest")
    ],
    "losses.squared_distances": lambda where: losses.squared_distances(vectors(where), vectors(where)),
    "losses.nt_xent": lambda where: losses.nt_xent(
        vectors(where), vectors(where), numbers(where, BATCH), legal(where), 0.2
    ),
    "losses.masked_binary_cross_entropy": lambda where: list(losses.masked_binary_cross_entropy(*labels(where))),
    "losses.masked_cross_entropy": lambda where: list(losses.masked_cross_entropy(*labels(where))),
    "losses.soft_binary_cross_entropy": lambda where: list(
        losses.soft_binary_cross_entropy(labels(where)[0], odds(where)[1], labels(where)[1] >= 0)
    ),
    **{
        f"onscreen.{name}": lambda where, name=name: getattr(onscreen, name)(square(where), legal(where))
        for name in ("exact", "multi_instance", "active_combinations")
    },
    "onscreen.classification": lambda where: [
        onscreen.classification(square(where), legal(where), loss) for loss in onscreen.LOSSES
    ],
    "onscreen.estimate": lambda where: onscreen.estimate(waves(where), torch.rand(BATCH, 2, device=where)),
    "onscreen.suppression": lambda where: onscreen.suppression(waves(where), waves(where)),
    "robust.distribution": lambda where: robust.distribution(labels(where)[1]),
    "robust.log_probability": lambda where: odds(where)[0],
    "robust.cross_entropy": lambda where: robust.cross_entropy(*odds(where)),
    "robust.lq": lambda where: robust.lq(*odds(where), 0.5),
    "robust.bootstrapping": lambda where: [robust.bootstrapping(*odds(where), 0.5, hard) for hard in (False, True)],
    "robust.smoothed": lambda where: [
        robust.smoothed(odds(where)[1], labels(where)[1] >= 0, amount) for amount in (0.1, share(where))
    ],
    "robust.kept": lambda where: [
        robust.kept(share(where), share(where) > 0.5, rule, at)
        for rule, at in (("percentile", 75), ("maximum", 0.5), ("outlier", 1.0))
    ],
    "robust.mixed": lambda where: robust.mixed(windows(where), windows(where), share(where)),
    "pairs.scores": lambda where: pairs.scores(*scorer(where)),
    "pairs.paired_scores": lambda where: pairs.paired_scores(*scorer(where)),
    "pairs.balanced_cross_entropy": lambda where: pairs.balanced_cross_entropy(
        square(where).requires_grad_(where == META), numbers(where, BATCH), legal(where)
    ),
    "pairs.paired_cross_entropy": lambda where: pairs.paired_cross_entropy(
        share(where), share(where), share(where) > 0.5
    ),
    "pairs.outranking": lambda where: pairs.outranking(square(where), numbers(where, BATCH), legal(where)),
    "pairs.derangement": lambda where: pairs.derangement(numbers(where), numbers(where)),
    "entropy.entropies": lambda where: [
        *entropies(where),
        *entropies(where, chunk=64),
        *entropies(where, average=torch.zeros(100, device=where)),
    ],
    "entropy.check": lambda where: entropy.check(vectors(where), vectors(where), 1.0),
    "entropy.products": multiplied,
    "entropy.modest_scale": lambda where: entropy.modest_scale(vectors(where, 64), 8, 60.0, 0.5),
    "assignment.Assigner": lambda where: [
        found
        for dtype in (torch.float32, torch.bfloat16)
        for found in assignment.Assigner(vectors(where, 700).detach(), 60.0, dtype)(vectors(where).detach())
    ],
    "optimisers.RowwiseAdam": optimised,
    "separation.negative_snr": lambda where: separation.negative_snr(waves(where), waves(where)),
    "separation.mixit": lambda where: [
        separation.mixit(waves(where), waves(where, count).requires_grad_(where == META))[0] for count in (4, 13)
    ],
    "separation.assign": lambda where: [separation.assign(waves(where), waves(where, count)) for count in (4, 13)],
    "separation.assignments": lambda where: separation.assignments(4, where),
    "separation.energy_shares": lambda where: separation.energy_shares(waves(where)),
    "separation.make_consistent": lambda where: separation.make_consistent(
        waves(where)[:, 0], waves(where), torch.rand(BATCH, 2, device=where)
    ),
    "separation.Spectrum": transform,
    "separation.si_snr": lambda where: separation.si_snr(waves(where), waves(where)),
    "separation.assigned_si_snr": lambda where: [
        separation.assigned_si_snr(waves(where), waves(where, count)) for count in (4, 13)
    ],
}
# Modules of decisions about what a net has said: they run on the processor, after it.
DECISIONS = ("chains", "factors")
# Kernels for which the processor waits, none of them in a training step.
WAITING = {
    "entropy.modest_scale": "searches by halves, each of which depends on the one before; once, before the first step",
    "assignment.Assigner": "which few rows are in doubt decides what is computed again",
}


@ON
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel(fake, where, name):
    """A kernel stays on its device, its gradients too, and waits only where it is known to."""
    _, waits = fake
    found = KERNELS[name](where)
    results = [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, torch.Tensor)]
    assert {each.device for each in results} <= {where}
    for each in results:
        if each.requires_grad:
            each.sum().backward()
    assert bool(waits.found) == (name in WAITING), waits.found


def takes_tensors(member) -> bool:
    """Return whether a function, or a method of a class that is no mere tuple, names a Tensor in its signature."""
    if inspect.isclass(member):
        public = [each for key, each in vars(member).items() if key == "__call__" or not key.startswith("_")]
        methods = [getattr(each, "__func__", each) for each in public]
        kernel = not issubclass(member, tuple) and not getattr(member, "_is_protocol", False)
        return kernel and (
            issubclass(member, torch.optim.Optimizer)
            or any(takes_tensors(each) for each in methods if inspect.isfunction(each))
        )
    return any("Tensor" in str(kind) for kind in inspect.get_annotations(member).values())


def test_every_kernel_has_its_line():
    kernels = set()
    for found in (each for each in pkgutil.iter_modules(ops.__path__) if each.name not in DECISIONS):
        module = importlib.import_module(f"soundssl.ops.{found.name}")
        for name, member in vars(module).items():
            own = getattr(member, "__module__", None) == module.__name__ and not name.startswith("_")
            if own and (inspect.isfunction(member) or inspect.isclass(member)) and takes_tensors(member):
                kernels.add(f"{found.name}.{name}")
    assert kernels - {"checks.may_read"} <= set(KERNELS), kernels - set(KERNELS)
    assert set(WAITING) <= set(KERNELS)


def test_in_debug_mode_values_on_a_gpu_are_checked(fake, monkeypatch):
    _, waits = fake
    where = DEVICES[0]
    augment.amplify(windows(where), share(where))
    assert not waits.found
    monkeypatch.setenv("SOUNDSSL_DEBUG", "1")
    with pytest.raises(ValueError, match="the gain is"):  # every value that is read is 1 here: there is a bad one
        augment.amplify(windows(where), share(where))
    assert waits.found

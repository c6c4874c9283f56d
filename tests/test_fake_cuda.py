"""On a GPU that is not there every net, objective and kernel runs: no two devices meet, and no step waits unawares."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from itertools import product
from typing import Literal, get_args, get_origin, get_type_hints

import fake_device
import numpy as np
import pytest
import torch
from fake_device import CUDA, DEVICES, META
from separation_world import write_waves
from test_classification import write_labels
from test_coincidence import write_videos
from test_contrastive import write_separated
from test_training import CLASSES, CLIPS, write_features, write_triplets
from torch.func import functional_call

from soundssl import files, models, objectives, ops, triplets
from soundssl.objectives import triplet
from soundssl.ops import assignment, augment, entropy, generators, losses, optimisers, pairs, separation

ON = pytest.mark.parametrize("where", DEVICES, ids=str)
BATCH, SIZE, CLASSES_OF_LABELS, TRACKS = 6, 8, 5, 3


@pytest.fixture
def fake(monkeypatch):
    with fake_device.faked(monkeypatch) as found:
        yield found


def check_net(patch, net, where, inputs, shape) -> None:
    """Run a net as `embed` does in the precision of a GPU; on `meta` as `train` does, with gradients."""
    training = where == META
    with fake_device.faked(patch) as (mode, waits):
        own = fake_device.state(net, mode, where, learnt=training)
        given = mode.from_tensor(inputs).to(where, non_blocking=True)
        with torch.autocast(where.type, torch.bfloat16, enabled=not training):
            found = functional_call(net.train(training), own, (given,))
        assert (tuple(found.shape), found.device) == (shape, where)
        if training:
            found.sum().backward()
            assert all(own[name].grad.device == where for name, _ in net.named_parameters())
    assert not waits.found


# ---------------------------------------------------------------- the fake device itself


@ON
def test_two_devices_that_meet_are_found(fake, where):
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device=where) + torch.ones(3)


@ON
def test_what_waits_for_the_device_is_found(fake, where):
    _, waits = fake
    values = torch.randn(4, 3, device=where)
    hidden = values > 0
    for number, look in enumerate(
        (
            lambda: float(values.sum()),
            lambda: bool(hidden.any()),
            lambda: values[hidden],
            lambda: hidden.nonzero(),
            lambda: values.cpu(),
            lambda: torch.ones(3).to(where),
            lambda: torch.linalg.solve(values[:3], values[:3]),
        ),
        start=1,
    ):
        look()
        assert len(waits.found) == number, waits.found
    with pytest.raises(RuntimeError, match="unique"):
        values.unique()
    assert len(waits.found) == number + 1
    del waits.found[:]
    values.masked_fill(hidden, 0), values.any(1), values.argmax(1), torch.ones(3).to(where, non_blocking=True)
    assert not waits.found


# ---------------------------------------------------------------- nets


def words(kind: type) -> list[dict]:
    """List no options, and every word but the default that one of the options of a dataclass may be."""
    chosen = [{}]
    for option, hint in get_type_hints(kind).items():
        chosen += [{option: word} for word in get_args(hint) if get_origin(hint) is Literal]
    return [each for each in chosen if all(word != getattr(kind, option) for option, word in each.items())]


def named(part) -> str:
    """Return how a test case is called."""
    return part if isinstance(part, str) else "-".join(map(str, part.values())) or "default"


@ON
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, each) for name in models.ENCODERS for each in words(models.options_type(name))],
    ids=named,
)
def test_every_encoder(monkeypatch, where, name, options):
    """Each with its defaults and with every word that one of its options may be."""
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda weight, **_: weight)  # seconds, for values of no matter
    try:
        net = models.build(name, SIZE, **options)
    except ValueError as error:
        assert options and "has no" in str(error)  # a family shares its options; not every net of it has them all
        return
    check_net(monkeypatch, net, where, torch.randn(BATCH, 96, 64), (BATCH, SIZE))


@ON
@pytest.mark.parametrize("name", models.IMAGE_TOWERS)
def test_every_image_tower(monkeypatch, where, name):
    pictures = torch.zeros(BATCH, 64, 64, 3, dtype=torch.uint8)
    check_net(monkeypatch, models.build_image(name, SIZE), where, pictures, (BATCH, SIZE))


@ON
@pytest.mark.parametrize(
    ("name", "consistency"),
    [*product(models.SEPARATORS, ["predicted"]), *product([models.SEPARATOR], ["energy", "uniform"])],
)
def test_every_separator(monkeypatch, where, name, consistency):
    separator = models.build_separator(name, TRACKS, consistency)
    check_net(monkeypatch, separator, where, torch.randn(2, 3001), (2, TRACKS, 3001))


# ---------------------------------------------------------------- objectives and their heads


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, objectives.Inputs]:
    """Files by what is in them: what every objective needs, waveforms, pictures, tracks."""
    folder = tmp_path_factory.mktemp("fake")
    features = write_features(folder / "toy.features.h5")
    drawn = files.Triplets(write_triplets(folder / "toy.triplets.h5", features))
    segments = [(clip, 0.0, np.inf) for clip in range(CLIPS)]
    labels = files.Labels(write_labels(folder / "l.h5", segments, np.eye(CLASSES)[np.arange(CLIPS) % CLASSES]))

    def of(path, **others) -> objectives.Inputs:
        source = files.Features(path)
        return objectives.Inputs(source, np.ones(len(source.clips), bool), **others)

    return {
        "plain": of(features, triplets=drawn, labels=labels),
        "waves": of(write_waves(folder / "waves.h5", seconds=3.5)),
        "pictures": of(write_videos(folder / "videos.h5")),
        "tracks": of(write_separated(folder / "separated.h5")),
    }


# What an option needs beside it to be of any effect.
BESIDE = {"tower_norm": {"modality": "both"}, "views": {"augment": "masks"}}
ELSEWHERE = ("tower",)  # image towers have a test of their own
# Options that are not one of a few words, and change what is computed.
MORE = {
    "triplet": [{"mining": "semihard", "fallback": "hardest"}],
    "coincidence": [
        {"modality": "both", "negatives": "random"},
        {"mixing": 0.5, "shift": 3},
        {"views": "mixback", "augment": "crop,noise"},
    ],
    "contrastive": [{"augment": "time,band,crop,reversal,compression,masks,noise,blur"}, {"adjust": False}],
    "clustering": [{"momentum": 0.9}, {"gamma_start": 1.0}],
    "mixit": [{"equal": True}],
    "classification": [{"hidden": 4}, {"loss": "bce", "hidden": 4}, {"freeze": True}, {"weighted": False}],
}


def cases() -> list[tuple[str, dict]]:
    """List each objective with its defaults, with every other word that an option may be, and with those of MORE."""
    found = []
    for name in objectives.OBJECTIVES:
        for options in [*words(objectives.load(name).Options), *MORE.get(name, [])]:
            beside = [BESIDE.get(option, {}) for option in options]
            if not set(ELSEWHERE) & set(options):
                found.append((name, {option: word for each in (*beside, options) for option, word in each.items()}))
    return found


class Bands(torch.nn.Linear):
    """A small encoder: a linear layer on the mean of each band. Nets have tests of their own."""

    def __init__(self) -> None:
        super().__init__(64, SIZE)
        self.size = SIZE

    def forward(self, windows):
        """Embed windows."""
        return super().forward(windows.mean(1))


class Tracks(torch.nn.Linear):
    """A small separator: every track is the mixture, by a factor that is learnt."""

    def __init__(self) -> None:
        super().__init__(1, TRACKS, bias=False)
        self.tracks = TRACKS

    def forward(self, mixture):
        """Separate mixtures."""
        return super().forward(mixture[:, :, None]).mT.float()


def kind_of_inputs(name: str, options: dict) -> str:
    if objectives.separates(name):
        return "waves"
    if options.get("views") == "separated" or options.get("preset") == "sound-scenes":
        return "tracks"
    pictures = options.get("modality") in ("image", "both") or "correspondence" in options.get("preset", "")
    return "pictures" if pictures else "plain"


@ON
@pytest.mark.parametrize(("name", "options"), cases(), ids=named)
def test_every_objective(inputs, monkeypatch, where, name, options):
    """The loss in the precision of a GPU, and on `meta` its gradients, meet no other device and wait for nothing."""
    module, given = objectives.load(name), inputs[kind_of_inputs(name, options)]
    chosen = module.Options(**options)
    if name == "clustering":
        chosen = module.Options(**{"clusters": 7, **options})
    objective = module.Objective(Tracks() if objectives.separates(name) else Bands(), given, chosen).train()
    examples = module.Examples(given, chosen, 0)
    batch = examples.__getitems__([(0, row % len(examples)) for row in range(BATCH)])
    with fake_device.faked(monkeypatch) as (mode, waits):
        own = fake_device.state(objective, mode, where, learnt=where == META)
        sent = {key: mode.from_tensor(value).to(where, non_blocking=True) for key, value in batch.items()}
        with torch.autocast(where.type, torch.bfloat16, enabled=where != META):
            loss, figures = functional_call(objective, own, (sent, 0.5))
        assert loss.shape == () and {loss.device, *(each.device for each in figures.values())} == {where}
        if where == META:
            loss.backward()
    assert not waits.found


# ---------------------------------------------------------------- kernels


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
    logits = torch.randn(BATCH, CLASSES_OF_LABELS, device=where, requires_grad=where == META)
    return logits, torch.randint(-1, 2, logits.shape, device=where)


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
    for found in pkgutil.iter_modules(ops.__path__):
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


@pytest.mark.parametrize("sampler", triplets.JOINT)
def test_recipes_come_to_the_same_where_all_rows_are_computed(tmp_path, monkeypatch, sampler):
    """As on a GPU, which nobody asks which rows a recipe changes."""
    features = write_features(tmp_path / "f.h5")
    drawn = files.Triplets(write_triplets(tmp_path / "t.h5", features, sampler, 16))
    given = objectives.Inputs(files.Features(features), np.ones(CLIPS, bool), triplets=drawn)
    batch = triplet.Examples(given, triplet.Options(), 0).__getitems__([(0, row) for row in range(16)])
    few = triplet.apply_recipe(batch)
    monkeypatch.setattr(triplet, "_among_few", triplet._among_all)
    for one, other in zip(few, triplet.apply_recipe(batch), strict=True):
        torch.testing.assert_close(one, other)


def test_the_device_is_cuda_where_torch_is_built_for_it():
    assert (CUDA in DEVICES) == torch.backends.cuda.is_built()

"""On a GPU that is not there every net and objective runs: no two devices meet, and no step waits unawares."""

from __future__ import annotations

import dataclasses
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

from soundssl import files, models, objectives, triplets
from soundssl.models import pooling
from soundssl.objectives import triplet

ON = pytest.mark.parametrize("where", DEVICES, ids=str)
BATCH, SIZE, TRACKS = 6, 8, 3


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


POOLING = {each.name for each in dataclasses.fields(pooling.Options)}  # options that every net that pools has
QUICK = ("plain", "draft", "resnet18-half", "resnet50", "vgg-l3", "vgg-like", "vgg41", "baseline-cnn", "mobilenetv1")
UNFAKED = ("crnn",)  # fake tensors have no recurrent layers of cuDNN


def encoders() -> list:
    """List every encoder with its defaults and with every word of its own options; plain with those of pooling, too."""
    cases = [(name, each) for name in models.ENCODERS for each in words(models.options_type(name))]
    cases = [(name, each) for name, each in cases if name not in UNFAKED]
    cases = [(name, each) for name, each in cases if name == "plain" or not POOLING & set(each)]
    slow = [name not in QUICK or "stem_stride" in each for name, each in cases]
    return [pytest.param(*case, marks=[pytest.mark.slow] * mark) for case, mark in zip(cases, slow, strict=True)]


@ON
@pytest.mark.parametrize(("name", "options"), encoders(), ids=named)
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
    seen = ["visual"] + ["audio"] * (CLASSES - 1)
    label = np.eye(CLASSES)[np.arange(CLIPS) % CLASSES]
    labels = files.Labels(write_labels(folder / "l.h5", segments, label, modality=seen))

    def of(path, **others) -> objectives.Inputs:
        source = files.Features(path)
        return objectives.Inputs(source, np.ones(len(source.clips), bool), **others)

    return {
        "plain": of(features, triplets=drawn, labels=labels),
        "waves": of(write_waves(folder / "waves.h5", seconds=3.5)),
        "seen": of(write_waves(folder / "seen.h5", pictures=True)),
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
    "classification": [
        *({"hidden": 4}, {"loss": "bce", "hidden": 4}, {"freeze": True}, {"weighted": False}, {"mixup": 0.4}),
        *({"mixup": 0.4, "mixup_with": "between", "loss": "bce"}, {"smoothing": 0.1}, {"balance": 0.5}),
    ],
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
    if name == "onscreen":
        return "seen"
    if objectives.separates(name):
        return "waves"
    if options.get("views") == "separated" or options.get("preset") == "sound-scenes":
        return "tracks"
    pictures = options.get("modality") in ("image", "both") or "correspondence" in options.get("preset", "")
    return "pictures" if pictures else "plain"


def objective_of(inputs, name: str, options: dict) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Build an objective on a small net, and a batch of its examples."""
    module, given = objectives.load(name), inputs[kind_of_inputs(name, options)]
    if name == "coincidence" and "preset" not in options:
        options = {"min_distance": 0.0, **options}  # the clips of the toy set hold no two windows apart
    chosen = module.Options(**options)
    if name == "clustering":
        chosen = module.Options(**{"clusters": 7, **options})
    objective = module.Objective(Tracks() if objectives.separates(name) else Bands(), given, chosen).train()
    examples = module.Examples(given, chosen, 0)
    return objective, examples.__getitems__([(0, row % len(examples)) for row in range(BATCH)])


@pytest.mark.parametrize(("name", "options"), cases(), ids=named)
def test_every_objective_in_the_half_precision_of_a_processor(inputs, name, options):
    """Mixed precision on a CPU refuses what that of a GPU takes, as windows of float16 among what it casts itself."""
    torch.manual_seed(0)
    objective, batch = objective_of(inputs, name, options)
    with torch.autocast("cpu", torch.bfloat16):
        loss, figures = objective(batch, 0.5)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(torch.as_tensor(each)).all() for each in figures.values())


@ON
@pytest.mark.parametrize(("name", "options"), cases(), ids=named)
def test_every_objective(inputs, monkeypatch, where, name, options):
    """The loss in the precision of a GPU, and on `meta` its gradients, meet no other device and wait for nothing."""
    objective, batch = objective_of(inputs, name, options)
    with fake_device.faked(monkeypatch) as (mode, waits):
        own = fake_device.state(objective, mode, where, learnt=where == META)
        sent = {key: mode.from_tensor(value).to(where, non_blocking=True) for key, value in batch.items()}
        with torch.autocast(where.type, torch.bfloat16, enabled=where != META):
            loss, figures = functional_call(objective, own, (sent, 0.5))
        assert loss.shape == () and {loss.device, *(each.device for each in figures.values())} == {where}
        if where == META:
            loss.backward()
    assert not waits.found


# ---------------------------------------------------------------- what a GPU computes another way


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

"""The contract of every objective in the table; this test is its definition."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from separation_world import write_waves
from test_classification import write_labels
from test_training import CLASSES, CLIPS, command, write_features, write_triplets  # the toy set of the loop

from soundssl import files, models, objectives


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objectives")
    features = write_features(folder / "toy.features.h5")
    drawn = write_triplets(folder / "toy.triplets.h5", features)
    whole = [(clip, 0.0, np.inf) for clip in range(CLIPS)]
    labels = write_labels(folder / "toy.labels.h5", whole, np.eye(CLASSES)[np.arange(CLIPS) % CLASSES])
    source = files.Features(features)
    return objectives.Inputs(source, np.ones(CLIPS, bool), files.Triplets(drawn), files.Labels(labels))


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    source = files.Features(write_waves(tmp_path_factory.mktemp("objectives") / "waves.h5", seconds=3.5, pictures=True))
    return objectives.Inputs(source, np.ones(len(source.clips), bool))


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_objective(toy, waves, name):
    module, inputs = objectives.load(name), waves if objectives.separates(name) else toy
    assert all(hasattr(inputs, need) for need in module.NEEDS)
    # the clips of the toy set are short of two windows, one behind the other
    options = module.Options(**({"min_distance": 0.0} if name == "coincidence" else {}))
    keys = [(0, 3), (0, 1), (1, 2), (0, 7)]
    batch = module.Examples(inputs, options, seed=1).__getitems__(keys)
    again = module.Examples(inputs, options, seed=1).__getitems__(keys)
    assert all(torch.equal(batch[column], again[column]) for column in batch), "same seed, same examples"
    turned = module.Examples(inputs, options, seed=1).__getitems__(keys[::-1])
    assert all(torch.equal(batch[column].flip(0), turned[column]) for column in batch), "whatever the order asked in"
    torch.manual_seed(0)
    encoder = models.build_separator(models.SEPARATOR) if inputs is waves else models.build("plain", 8, norm="group")
    objective = module.Objective(encoder, inputs, options)
    loss, figures = objective(batch, 0.5)
    assert loss.shape == () and torch.isfinite(loss) and all(torch.isfinite(value).all() for value in figures.values())
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)
    reached = [p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters()]
    assert any(reached), "gradients reach the encoder"


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_every_module_says_all_that_the_contract_asks_for(name):
    module = objectives.load(name)
    for asked in objectives.Task.__annotations__:
        assert asked in vars(module), f"{name} does not say {asked}"
    assert set(module.NEEDS) <= {"features", "triplets", "labels"}
    assert isinstance(module.SEPARATES, bool) and isinstance(module.UNIT_LENGTH, bool)
    restored = set(module.HEAD.layers) if module.HEAD else set()
    assert restored == {layer for layer, whose in objectives.LAYERS.items() if whose == name}


def test_listing_objectives_costs_no_import():
    code = "import sys, soundssl.objectives as o; sys.exit('torch' in sys.modules or not o.OBJECTIVES or not o.LAYERS)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_every_option_has_its_line(name):
    for field in objectives.describe(name):
        assert field.metadata["help"], field.name
    assert np.unique([field.name for field in objectives.describe(name)]).size == len(objectives.describe(name))


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="no objective is called 'tripel'; there are triplet"):
        objectives.load("tripel")


@pytest.mark.parametrize("what", ["objectives", "encoders", "separators"])
def test_list_prints_every_name_and_describe_each_of_them(what):
    from soundssl.commands.train import LISTS

    printed = command(["train", "--list", what]).stdout.splitlines()
    assert [line.split()[0] for line in printed[1:]] == list(LISTS[what])
    name = list(LISTS[what])[-1]
    assert command(["train", "--describe", name]).stdout.startswith(f"{name}, one of the {what}: ")


def test_the_help_of_train_fits_a_screen_or_two_and_points_to_the_lists(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    printed = command(["train", "--help"]).stdout
    assert len(printed.splitlines()) <= 120 and max(map(len, printed.splitlines())) <= 80
    assert "multiply-adds" not in printed and "<bool>" not in printed
    words = " ".join(printed.split())
    assert all(f"--list {what}" in words for what in ("objectives", "encoders", "separators"))


def test_describe_prints_the_options():
    printed = command(["train", "--describe", "triplet"]).stdout
    assert "margin" in printed and "0.1" in printed and "inferred" in printed

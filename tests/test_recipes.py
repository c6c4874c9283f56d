"""Recipes of triplets: each changes only the positive, only its way, and by the energy that it says."""

import numpy as np
import pytest
import torch
from test_training import CLIPS, write_features, write_triplets

from soundssl import files, objectives, triplets
from soundssl.objectives import triplet
from soundssl.ops.augment import LogScale


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return (write_features(tmp_path_factory.mktemp("recipes") / "toy.features.h5"),)


@pytest.mark.parametrize("sampler", triplets.JOINT)
def test_a_recipe_changes_only_the_positive_and_only_its_way(toy, tmp_path, sampler):
    drawn = write_triplets(tmp_path / "t.h5", toy[0], sampler, 16)
    inputs = objectives.Inputs(files.Features(toy[0]), np.ones(CLIPS, bool), triplets=files.Triplets(drawn))
    batch = triplet.Examples(inputs, triplet.Options(), 0).__getitems__([(0, row) for row in range(16)])
    anchor, positive, negative = triplet.apply_recipe(batch)
    again = triplet.apply_recipe(batch)[1]
    assert torch.equal(positive, again)
    assert torch.equal(negative, batch["negative"].float())
    if sampler == "proximity":
        assert torch.equal(positive, batch["positive"].float())
    elif sampler == "noise":
        assert (positive >= anchor - 1e-3).all() and not torch.equal(positive, anchor)
    elif sampler == "translation":
        assert positive.shape == anchor.shape and not torch.equal(positive, anchor)
    else:
        assert (positive >= anchor - 1e-3).all() and (batch["gain"] > 0).all()


def test_mixing_adds_its_gain_in_energy_or_in_cells_as_asked(toy, tmp_path):
    drawn = write_triplets(tmp_path / "t.h5", toy[0], "mixing", 8)
    inputs = objectives.Inputs(files.Features(toy[0]), np.ones(CLIPS, bool), triplets=files.Triplets(drawn))
    batch = triplet.Examples(inputs, triplet.Options(), 0).__getitems__([(0, row) for row in range(8)])
    magnitude, power = LogScale(), LogScale(spectrum="power")
    for mixing, scale in (("energy", magnitude), ("cells", power)):
        anchor, positive, _ = triplet.apply_recipe(batch, magnitude, mixing)
        before, after = (scale.energies(part).sum((1, 2)) for part in (anchor, positive))
        torch.testing.assert_close(after / before, torch.full((8,), 1.25), rtol=2e-3, atol=0)
    with_power = triplet.apply_recipe(batch, power)[1]
    torch.testing.assert_close(with_power, triplet.apply_recipe(batch, magnitude, "cells")[1])

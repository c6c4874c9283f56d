"""Assignment to the most probable cluster against brute force in float64."""

import pytest
import torch
import torch.nn.functional as F

from soundssl.ops import assignment

TYPES = [torch.float32, torch.bfloat16]


def brute_force(embedding, weight, scale):
    """Return cosines and probabilities in float64."""
    cosine = F.normalize(embedding).double() @ F.normalize(weight).double().T
    return cosine, F.softmax(scale * cosine, 1)


def first_greatest(cosine):
    """Return the first of the greatest of each row; a library that multiplies in blocks tells equal columns apart."""
    number = torch.arange(cosine.shape[1])
    return torch.where(cosine >= cosine.amax(1, keepdim=True) - 1e-12, number, cosine.shape[1]).amin(1)


@pytest.mark.parametrize("clusters", [1, 5, 64, 65, 700, 3000])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scale", [20.0, 200.0])
def test_assignment_equals_brute_force_also_among_equals(clusters, dtype, scale, monkeypatch):
    monkeypatch.setattr(assignment, "TILE", 100 * assignment.NARROW)
    monkeypatch.setattr(assignment, "PIECE", 30 * assignment.NARROW)
    monkeypatch.setattr(assignment, "HELD", 150 * assignment.CHUNKS)
    monkeypatch.setattr(assignment, "PAIRS", 7 * assignment.NARROW)
    generator = torch.Generator().manual_seed(clusters)
    embedding, weight = (torch.randn(n, 16, generator=generator) for n in (250, clusters))
    weight[clusters // 2 :] = weight[: clusters - clusters // 2].clone()  # every centre twice: the first is meant
    embedding[3] = 0  # as far from all of them
    found = assignment.Assigner(weight, scale, dtype)(embedding)
    cosine, probability = brute_force(embedding, weight, scale)
    assert torch.equal(found.cluster, first_greatest(cosine))
    assert torch.allclose(found.similarity.double(), cosine.amax(1), atol=1e-6)
    tolerance = 1e-2 * (dtype != torch.float32) + 5e-7 * scale
    assert torch.allclose(found.confidence.double(), probability.amax(1), atol=tolerance)


@pytest.mark.parametrize("dtype", TYPES)
def test_many_centres_within_rounding_of_each_other(dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.ones(40_000, 128) + 1e-3 * torch.randn(40_000, 128, generator=generator)
    embedding = weight[::400] + 1e-4 * torch.randn(100, 128, generator=generator)
    found = assignment.Assigner(weight, 60.0, dtype)(embedding)
    cosine, probability = brute_force(embedding, weight, 60.0)
    assert torch.equal(found.cluster, first_greatest(cosine))
    assert torch.allclose(found.confidence.double(), probability.amax(1), rtol=1e-5)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_product_at_full_size_is_exact(dtype):
    generator = torch.Generator().manual_seed(1)
    embedding, weight = (torch.randn(n, 128, generator=generator) for n in (2048, 20_000))
    found = assignment.Assigner(weight, 60.0, dtype)(embedding)
    cosine, probability = brute_force(embedding, weight, 60.0)
    assert torch.equal(found.cluster, first_greatest(cosine))
    assert torch.allclose(found.confidence.double(), probability.amax(1), atol=1e-2)


@pytest.mark.parametrize("dtype", TYPES)
def test_two_centres_that_float32_does_not_tell_apart(dtype):
    # Signs over 8 have a length of exactly one; of each pair the second is nearer, by 2.5e-10 at one coordinate.
    signs = torch.where(torch.rand(40, 64, generator=torch.Generator().manual_seed(2)) < 0.5, -1.0, 1.0)
    embedding, nearer = signs.clone(), signs / 8
    embedding[:, 5] *= 1e-8
    other = nearer.clone()
    other[:, 5] *= -1
    found = assignment.Assigner(torch.stack([other, nearer], 1).flatten(0, 1), 60.0, dtype)(embedding)
    assert torch.equal(found.cluster, 2 * torch.arange(40) + 1)


def test_misfits_are_named():
    with pytest.raises(ValueError, match=r"embeddings \[2, 3\] and clusters \[4, 5\] do not fit"):
        assignment.Assigner(torch.ones(4, 5), 60.0)(torch.ones(2, 3))
    with pytest.raises(ValueError, match="0 embeddings and 4 clusters"):
        assignment.Assigner(torch.ones(4, 3), 60.0)(torch.ones(0, 3))
    with pytest.raises(ValueError, match="scale is 0; it must be positive"):
        assignment.Assigner(torch.ones(4, 3), 0)

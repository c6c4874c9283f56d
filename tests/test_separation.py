"""Kernels of separation: the search agrees with brute force on waveforms, consistency is exact, seams are not heard."""

import itertools
import math

import numpy as np
import pytest
import torch

from soundssl.ops import separation


def brute_force(mixtures: torch.Tensor, tracks: torch.Tensor, snr_max: float = 30.0) -> torch.Tensor:
    """Return the MixIT loss by summing the tracks of all 2^M assignments, as the paper writes it, in float64."""
    mixtures, tracks, losses = mixtures.double(), tracks.double(), []
    tau = 10 ** (-snr_max / 10)
    for choice in itertools.product([0.0, 1.0], repeat=tracks.shape[1]):
        second = torch.tensor(choice, dtype=torch.float64)
        estimates = torch.stack([((1 - second)[:, None] * tracks).sum(1), (second[:, None] * tracks).sum(1)], 1)
        energy = mixtures.square().sum(2)
        noise = (mixtures - estimates).square().sum(2) + tau * energy
        losses.append((10 * torch.log10(noise + 1e-8) - 10 * torch.log10(energy + 1e-8)).mean(1))
    return torch.stack(losses).min(0).values


def signals(count: int, noise: float, seed: int = 0, samples: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two mixtures of `count` sources, and tracks that are the sources and noise, in an order of their own."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(5, count, samples, generator=generator) * torch.rand(5, count, 1, generator=generator)
    half = count // 2
    mixtures = torch.stack([sources[:, :half].sum(1), sources[:, half:].sum(1)], 1)
    order = torch.randperm(count, generator=generator)
    return mixtures, sources[:, order] + noise * torch.randn(sources.shape, generator=generator)


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("noise", [1.0, 1e-2, 1e-4, 0.0])
def test_the_search_agrees_with_brute_force(count, noise):
    mixtures, tracks = signals(count, noise)
    loss, _ = separation.mixit(mixtures, tracks)
    assert torch.allclose(loss, brute_force(mixtures, tracks), rtol=1e-5, atol=0)


@pytest.mark.parametrize("loudness", [1e-4, 1.0, 1e3])
def test_the_search_agrees_at_any_level(loudness):
    mixtures, tracks = (loudness * part for part in signals(4, 1e-3))
    loss, _ = separation.mixit(mixtures, tracks)
    assert torch.allclose(loss, brute_force(mixtures, tracks), rtol=1e-5, atol=0)


def test_a_perfect_separation_reaches_the_floor_and_its_assignment():
    mixtures, tracks = signals(6, 0.0)
    loss, assignment = separation.mixit(mixtures, tracks)
    assert torch.allclose(loss, torch.full_like(loss, -30), atol=1e-4)
    first = (assignment[:, :, None] == 0) * tracks
    assert torch.allclose(first.sum(1), mixtures[:, 0], atol=1e-4)


def test_the_order_of_tracks_does_not_matter():
    mixtures, tracks = signals(5, 0.3)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    loss, assignment = separation.mixit(mixtures, tracks)
    turned, other = separation.mixit(mixtures, tracks[:, order])
    assert torch.allclose(loss, turned, rtol=1e-6) and torch.equal(assignment[:, order], other)
    swapped, opposite = separation.mixit(mixtures.flip(1), tracks)
    assert torch.allclose(loss, swapped, rtol=1e-9) and torch.equal(opposite, 1 - assignment)


def test_the_gradient_is_that_of_the_best_assignment():
    mixtures, tracks = signals(4, 0.5)
    wanted = tracks.double().requires_grad_()
    brute_force(mixtures, wanted).sum().backward()
    given = tracks.clone().requires_grad_()
    separation.mixit(mixtures, given)[0].sum().backward()
    assert given.grad.dtype == torch.float32
    assert torch.allclose(given.grad.double(), wanted.grad, rtol=1e-4, atol=1e-6 * float(wanted.grad.abs().max()))
    exact = tracks[:2, :, :20].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: separation.mixit(mixtures[:2, :, :20].double(), s)[0], exact)


def test_silence_has_finite_loss_and_gradient():
    mixtures, tracks = signals(4, 0.5)
    mixtures[0, 1], tracks[1], tracks[2, 1:] = 0, 0, 0
    tracks.requires_grad_()
    loss, _ = separation.mixit(mixtures, tracks)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(tracks.grad).all()
    assert loss[1].item() == pytest.approx(10 * math.log10(1.001))  # tracks of nothing: all of the mixture is missing


def test_more_tracks_than_can_be_listed_are_shared_out_by_least_squares():
    mixtures, tracks = signals(separation.EXHAUSTIVE + 4, 1e-3)
    loss, assignment = separation.mixit(mixtures, tracks)
    assert assignment.shape == (5, separation.EXHAUSTIVE + 4) and (loss < -25).all()
    first = ((assignment[:, :, None] == 0) * tracks).sum(1)
    assert (separation.si_snr(mixtures[:, 0], first) > 25).all()


def test_least_squares_finds_the_exact_assignment_of_separable_tracks():
    mixtures, tracks = signals(6, 0.05)
    products = tracks.double() @ tracks.double().mT, mixtures.double() @ tracks.double().mT
    assert torch.equal(separation._least_squares(*products), separation.assign(mixtures, tracks))


def test_misfits_are_named():
    with pytest.raises(ValueError, match=r"mixtures \[2, 3, 9\] and tracks \[2, 4, 9\]: \[batch, 2, samples\]"):
        separation.mixit(torch.zeros(2, 3, 9), torch.zeros(2, 4, 9))


def test_negative_snr_has_its_floor_and_its_zero():
    target = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    assert separation.negative_snr(target, target) == pytest.approx([-30] * 3, abs=1e-4)
    assert separation.negative_snr(target, target, 20.0) == pytest.approx([-20] * 3, abs=1e-4)
    assert separation.negative_snr(target, 0 * target) == pytest.approx([10 * math.log10(1.001)] * 3)
    assert separation.negative_snr(target, 0.9 * target) == pytest.approx([10 * math.log10(0.011)] * 3, abs=1e-3)


@pytest.mark.parametrize("scheme", ["uniform", "energy", "predicted"])
def test_consistent_tracks_sum_to_their_mixture(scheme):
    generator = torch.Generator().manual_seed(0)
    mixture, tracks = torch.randn(3, 500, generator=generator), torch.randn(3, 4, 500, generator=generator)
    if scheme == "energy":
        weights = separation.energy_shares(tracks)
    else:
        weights = torch.full((3, 4), 0.25) if scheme == "uniform" else torch.randn(3, 4, generator=generator).softmax(1)
    consistent = separation.make_consistent(mixture, tracks, weights)
    assert (consistent.sum(1) - mixture).abs().max() < 1e-5
    again = separation.make_consistent(mixture, consistent, weights)
    assert torch.allclose(again, consistent, atol=1e-5), "a projection"


def test_energy_shares_are_shares():
    tracks = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]])
    assert separation.energy_shares(tracks)[0].tolist() == pytest.approx([9 / 25, 16 / 25, 0], abs=1e-6)
    assert separation.energy_shares(torch.zeros(1, 2, 5)).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("samples", [1, 300, 512, 4001])
def test_the_way_to_the_spectrum_and_back_is_exact(samples):
    waveform = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    spectrum = separation.Spectrum(512, 128)
    found = spectrum.analyse(waveform)
    assert found.shape == (2, 257, 1 + samples // 128)
    assert torch.allclose(spectrum.synthesise(found, samples), waveform, atol=1e-5)


def test_si_snr_ignores_scale_and_knows_the_noise():
    generator = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 100_000, generator=generator, dtype=torch.float64)
    estimate = target + 0.1 * noise
    assert separation.si_snr(target, estimate) == pytest.approx(20, abs=0.1)
    assert separation.si_snr(target, -7 * estimate) == pytest.approx(float(separation.si_snr(target, estimate)))
    assert separation.si_snr(target, target) > 80
    assert separation.si_snr(target, noise) < -30 and separation.si_snr(target, 0 * noise) == separation.NOTHING
    along = noise - (noise @ target) / (target @ target) * target
    assert separation.si_snr(target, target + along) == pytest.approx(
        10 * math.log10(float(target @ target / (along @ along)))
    )


# ---------------------------------------------------------------- overlap-add


def blocks_of(waveform: np.ndarray, generator: np.random.Generator):
    first = 0
    while first < len(waveform):
        size = int(generator.integers(1, 900))
        yield waveform[first : first + size]
        first += size


def shuffling(generator: np.random.Generator):
    """Return a net that splits by sign, and numbers its tracks at random in every segment."""

    def separate(segment: np.ndarray) -> np.ndarray:
        tracks = np.stack([np.maximum(segment, 0), np.minimum(segment, 0), 0 * segment])
        return tracks[generator.permutation(3)]

    return separate


@pytest.mark.parametrize("samples", [1, 999, 1000, 1001, 1700, 1800, 1801, 2599, 10_000])
def test_long_recordings_are_whole_and_their_tracks_keep_their_numbers(samples):
    generator = np.random.default_rng(samples)
    waveform = generator.normal(size=samples).astype(np.float32)
    parts = list(separation.overlap_add(blocks_of(waveform, generator), shuffling(generator), 1000, 200))
    mixture, tracks = np.concatenate([one for one, _ in parts]), np.concatenate([each for _, each in parts], 1)
    assert np.array_equal(mixture, waveform)
    assert np.abs(tracks.sum(0) - waveform).max() < 1e-5
    wanted = shuffling(np.random.default_rng(0))(waveform)
    for one in wanted:
        assert min(np.abs(one - track).max() for track in tracks) < 1e-6
    assert max(len(one) for one, _ in parts) <= 1000


def test_each_segment_is_separated_once_and_is_as_long_as_can_be():
    lengths = []

    def separate(segment):
        lengths.append(len(segment))
        return np.stack([segment, 0 * segment])

    list(separation.overlap_add([np.ones(2500, np.float32)], separate, 1000, 200))
    assert lengths == [1000, 1000, 1000]
    assert list(separation.overlap_add([], separate, 1000, 200)) == []


def test_segments_that_cannot_overlap_are_refused():
    with pytest.raises(ValueError, match="segments of 1000 samples cannot overlap by 600; 1 to 500 can"):
        list(separation.overlap_add([], lambda segment: segment, 1000, 600))

"""Laws of the changes: energy bookkeeping, identities, and noise that depends on its seed alone."""

import math

import pytest
import torch

from soundssl.ops.augment import FLOOR, VGGISH, LogScale, add_noise, amplify, mix, mix_back, translate
from soundssl.ops.generators import half_normal

BATCH, FRAMES, BANDS = 6, 24, 16
SCALES = (
    VGGISH,
    LogScale(1.1e-8, "10", "power"),
    LogScale(1e-4, "10", "magnitude"),
    LogScale(0.01, "natural", "power"),
)


@pytest.fixture
def windows():
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(BATCH, FRAMES, BANDS, generator=generator) * 3 + FLOOR).log()


def full(value, dtype=torch.float32):
    return torch.full((BATCH,), value, dtype=dtype)


def integers(*values):
    return torch.tensor((values * BATCH)[:BATCH])


@pytest.mark.parametrize("scale", SCALES)
def test_energies_invert_the_logarithm_and_clamp(scale):
    cells = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)) * 3
    written = (cells + scale.floor).log() / (1 if scale.logarithm == "natural" else math.log(10))
    squared = cells.square() if scale.spectrum == "magnitude" else cells
    torch.testing.assert_close(scale.cells(written), cells, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scale.energies(written), squared, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scale.of_energies(squared.clone()), written, rtol=1e-4, atol=1e-4)
    assert scale.energies(torch.tensor([[[-20.0]]])).item() == 0


@pytest.mark.parametrize("scale", SCALES)
def test_a_share_of_energy_is_one_of_powers_whatever_the_front_end(scale):
    """Two tones of one power in two halves: a background of share 0.05 lies 13 dB below, a mix of gain 0.25 6 dB."""
    power = torch.zeros(2, 1, 8, 4)
    power[0, ..., :2], power[1, ..., 2:] = 400.0, 9.0
    own, other = (scale.of_energies(part.clone()) for part in power)
    backed = scale.energies(mix_back(own, other, torch.tensor([0.05]), scale=scale))
    assert 10 * math.log10(backed[..., 2:].sum() / backed[..., :2].sum()) == pytest.approx(-12.8, abs=0.1)
    mixed = scale.energies(mix(own, other, torch.tensor([0.25]), scale))
    assert 10 * math.log10(mixed[..., 2:].sum() / mixed[..., :2].sum()) == pytest.approx(-6.0, abs=0.1)


@pytest.mark.parametrize("scale", SCALES)
def test_noise_and_translation_keep_to_the_scale(scale):
    cells = torch.rand(2, 8, 4, generator=torch.Generator().manual_seed(0)) + 1
    windows = scale.windows(cells.clone())
    noisy = scale.cells(add_noise(windows, torch.full((2,), 0.5), torch.arange(2), scale))
    factor = 1 + 0.5 * half_normal(torch.arange(2), 32).view_as(cells)
    torch.testing.assert_close(noisy, cells * factor, rtol=1e-3, atol=1e-3)
    shifted = translate(windows, torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long), scale)
    assert float(scale.cells(shifted)[..., 0].max()) == pytest.approx(0, abs=1e-8)
    torch.testing.assert_close(shifted[..., 1:], windows[..., :-1])


def test_noise_only_adds_energy_by_the_stated_factor(windows):
    noisy = add_noise(windows, full(0.5), torch.arange(BATCH))
    assert (noisy >= windows - 1e-6).all()
    factor = VGGISH.cells(noisy) / VGGISH.cells(windows)
    expected = 1 + 0.5 * half_normal(torch.arange(BATCH), FRAMES * BANDS).view_as(windows)
    torch.testing.assert_close(factor, expected, atol=1e-3, rtol=1e-3)


def test_noise_of_deviation_zero_and_of_silence_is_nothing(windows):
    torch.testing.assert_close(add_noise(windows, full(0.0), torch.arange(BATCH)), windows)
    silence = torch.full_like(windows, math.log(FLOOR))
    torch.testing.assert_close(add_noise(silence, full(0.5), torch.arange(BATCH)), silence)


def test_noise_depends_on_the_seed_alone(windows):
    seeds = torch.tensor([5, -5, 0, 2**40 + 5, 6, 5])
    together = add_noise(windows, full(0.5), seeds)
    for i in (0, 3, 5):
        alone = add_noise(windows[i : i + 1], torch.tensor([0.5]), seeds[i : i + 1])
        torch.testing.assert_close(alone[0], together[i])
    torch.testing.assert_close(half_normal(seeds, 99)[0], half_normal(seeds, 99)[5])
    # Many examples cross the inner blocks; longer rows begin like shorter ones.
    many = torch.arange(100)
    torch.testing.assert_close(half_normal(many, 64)[70], half_normal(many[70:71], 80)[0, :64])


def test_numbers_by_seed_are_half_normal_and_unrelated():
    draws = half_normal(torch.arange(400) - 200, 2000)
    moments = [float(draws.pow(power).mean()) for power in (1, 2, 4)]
    assert moments == pytest.approx([math.sqrt(2 / math.pi), 1, 3], rel=0.01)
    assert float((draws < 0.6744898).float().mean()) == pytest.approx(0.5, abs=0.003)
    rows = (draws - draws.mean(1, keepdim=True)) / draws.std(1, keepdim=True)
    between = (rows @ rows.T / 2000).fill_diagonal_(0)
    assert between.abs().max() < 6 / math.sqrt(2000)  # also seeds s and -s, s and -1-s
    assert abs(float((rows[:, 1:] * rows[:, :-1]).mean())) < 0.005
    assert len(half_normal(torch.tensor([1]), 6144).unique()) > 6100


def test_numbers_by_seed_are_stored():
    """A stored training run stays reproducible only as long as these do not change."""
    expected = torch.tensor(STORED)
    torch.testing.assert_close(half_normal(torch.tensor([0, 2**40 + 1]), 3), expected, atol=1e-5, rtol=1e-5)


STORED = [[1.0857248, 0.7380568, 0.4363051], [2.0673203, 0.4342664, 0.1896464]]


def test_translation_by_all_frames_is_identity_and_back_undoes(windows):
    none = integers(0)
    assert torch.equal(translate(windows, integers(FRAMES, 0, -FRAMES), none), windows)
    there = translate(windows, integers(5, 1, 23), none)
    assert torch.equal(translate(there, -integers(5, 1, 23), none), windows)


def test_translation_rolls_frames_and_lets_zero_energy_enter_at_the_bands(windows):
    shifted = translate(windows, integers(3), integers(2, -2))
    rolled = windows.roll(3, dims=1)
    floor = math.log(FLOOR)
    assert torch.equal(shifted[0, :, 2:], rolled[0, :, :-2]) and (shifted[0, :, :2] == floor).all()
    assert torch.equal(shifted[1, :, :-2], rolled[1, :, 2:]) and (shifted[1, :, -2:] == floor).all()
    assert float(VGGISH.energies(shifted)[0, :, :2].max()) == pytest.approx(0, abs=1e-8)
    assert (translate(windows, integers(0), integers(BANDS, -BANDS - 7)) == floor).all()


def test_mixing_adds_exactly_the_gain_times_the_energy(windows):
    others = windows.flip(0) * 0.5
    gain = torch.tensor([0.0, 0.25, 1.0, 2.0, 0.1, 0.25])
    mixed = mix(windows, others, gain)
    before, after = (VGGISH.energies(part).sum((1, 2)) for part in (windows, mixed))
    torch.testing.assert_close(after - before, gain * before, rtol=1e-4, atol=1e-2)
    assert torch.equal(mixed[0], windows[0])
    added = VGGISH.energies(mixed)[2] - VGGISH.energies(windows)[2]
    shape = VGGISH.energies(others)[2]
    torch.testing.assert_close(added / added.sum(), shape / shape.sum(), rtol=1e-2, atol=1e-6)


def test_mixing_with_or_into_silence(windows):
    silence = torch.full_like(windows, math.log(FLOOR))
    silence[0] -= 1  # below the floor: still no energy
    assert torch.equal(mix(windows, silence, full(0.25)), windows)
    torch.testing.assert_close(mix(silence[1:], windows[1:], full(0.25)[1:]), silence[1:])


def test_scaling_multiplies_energies_and_one_is_identity(windows):
    torch.testing.assert_close(amplify(windows, full(1.0)), windows)
    torch.testing.assert_close(
        VGGISH.energies(amplify(windows, full(0.5))), 0.5 * VGGISH.energies(windows), rtol=1e-4, atol=1e-5
    )


def test_examples_do_not_see_each_other_and_inputs_stay(windows):
    copy = windows.clone()
    others, gain, shift = windows.flip(0).contiguous(), torch.linspace(0.1, 0.6, BATCH), torch.arange(BATCH) - 2
    for change in (
        lambda part: translate(windows[part], shift[part], shift[part]),
        lambda part: mix(windows[part], others[part], gain[part]),
        lambda part: amplify(windows[part], gain[part]),
        lambda part: add_noise(windows[part], gain[part], shift[part]),
    ):
        torch.testing.assert_close(change(slice(None))[2:4], change(slice(2, 4)))
        assert torch.equal(windows, copy)


def test_refusals_name_the_value(windows):
    with pytest.raises(ValueError, match=r"\[24, 16\]"):
        amplify(windows[0], full(1.0))
    with pytest.raises(ValueError, match=r"seeds has shape \[2\]"):
        add_noise(windows, full(0.5), torch.arange(2))
    with pytest.raises(ValueError, match=r"deviation is -0\.5"):
        add_noise(windows, full(-0.5), torch.arange(BATCH))
    with pytest.raises(ValueError, match="gain is -1"):
        mix(windows, windows, full(-1.0))
    with pytest.raises(ValueError, match="gain is -1"):
        amplify(windows, full(-1.0))
    with pytest.raises(ValueError, match="the others"):
        mix(windows, windows[:2], full(1.0))

"""Laws of the augmentations that draw per example: identity at zero, ranges, energies, and who sees whom."""

import math

import pytest
import torch
import torch.nn.functional as F

from soundssl.ops import augment
from soundssl.ops.generators import PerExampleGenerator, uniform

BATCH, FRAMES, BANDS = 12, 96, 64
ZERO = {  # the change, and its setting that changes nothing
    augment.resized_crop: {"area": 1.0, "aspect": 1.0},
    augment.compress: {"least": 1.0},
    augment.add_gaussian: {"deviation": 0.0},
    augment.mask: {"count": 0},
    augment.roll_frames: {"most": 0},
    augment.roll_bands: {"most": 0},
    augment.reverse: {"share": 0.0},
    augment.blur: {"deviation": 0.0},
}
CHANGES = pytest.mark.parametrize("change", ZERO, ids=lambda change: change.__name__)
KEPT = (augment.resized_crop, augment.mask, augment.roll_frames, augment.roll_bands, augment.reverse, augment.blur)


@pytest.fixture
def windows():
    return torch.randn(BATCH, FRAMES, BANDS, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def seeds():
    return torch.arange(BATCH) * 7919 + 2**40


@CHANGES
def test_a_change_depends_on_its_seeds_alone_and_leaves_its_input(windows, seeds, change):
    copy = windows.clone()
    changed = change(windows, PerExampleGenerator(seeds))
    assert changed.shape == windows.shape and changed.dtype == torch.float32 and torch.isfinite(changed).all()
    assert torch.equal(windows, copy)
    assert torch.equal(changed, change(windows, PerExampleGenerator(seeds))), "same seeds, same outcome"
    torch.testing.assert_close(changed[3:5], change(windows[3:5], PerExampleGenerator(seeds[3:5])))
    assert not torch.equal(changed, change(windows, PerExampleGenerator(seeds + 1))), "other seeds, another outcome"
    differ = [not torch.equal(before, after) for before, after in zip(windows, changed, strict=True)]
    assert sum(differ) >= (2 if change is augment.reverse else BATCH - 2), "most windows are changed"


@CHANGES
def test_at_its_zero_a_change_is_the_identity(windows, seeds, change):
    assert torch.equal(change(windows, PerExampleGenerator(seeds), **ZERO[change]), windows)


@CHANGES
def test_ranges_are_kept(windows, seeds, change):
    changed = change(windows, PerExampleGenerator(seeds))
    low, high = windows.amin((1, 2)), windows.amax((1, 2))
    if change in KEPT:
        assert (changed.amin((1, 2)) >= low - 1e-5).all() and (changed.amax((1, 2)) <= high + 1e-5).all()
    elif change is augment.compress:
        factor = (changed / windows).flatten(1)
        assert (factor.amax(1) - factor.amin(1) < 1e-4).all(), "one factor a window"
        assert 0.75 <= factor.min() <= factor.max() <= 1
    else:
        spread = (changed - windows).flatten(1).std(1)
        assert (spread < 0.0105).all() and spread.max() > 0.005 and spread.min() < 0.005


@pytest.mark.parametrize("change", [augment.roll_frames, augment.roll_bands, augment.reverse])
def test_what_only_moves_keeps_every_cell(windows, seeds, change):
    before, after = (part.flatten(1).sort(1).values for part in (windows, change(windows, PerExampleGenerator(seeds))))
    assert torch.equal(before, after)


def test_rolls_stay_within_their_range_and_go_one_way(windows):
    seeds = torch.arange(400)
    ramp = torch.arange(FRAMES).float()[None, :, None].expand(400, FRAMES, BANDS)
    turned = augment.roll_frames(ramp, PerExampleGenerator(seeds))
    assert set((-turned[:, 0, 0].long() % FRAMES).tolist()) == set(range(1, 30))
    ramp = torch.arange(BANDS).float()[None, None].expand(400, FRAMES, BANDS)
    turned = augment.roll_bands(ramp, PerExampleGenerator(seeds))
    assert set((-turned[:, 0, 0].long() % BANDS).tolist()) == set(range(1, 10)), "what was at a band is higher up"
    assert torch.equal(turned[5], ramp[5].roll(int(-turned[5, 0, 0]) % BANDS, dims=1))


def test_crops_are_those_of_bilinear_resizing(windows):
    """Each crop, found by its linear ramps, equals torch's resizing of that part."""
    seeds = torch.arange(200) + 11
    rows = torch.arange(FRAMES).float()[None, :, None].expand(200, FRAMES, BANDS)
    columns = torch.arange(BANDS).float()[None, None].expand(200, FRAMES, BANDS)
    picture = windows[:1].expand(200, FRAMES, BANDS)
    place = [augment.resized_crop(part, PerExampleGenerator(seeds)) for part in (rows, columns)]
    cropped = augment.resized_crop(picture, PerExampleGenerator(seeds))
    areas, aspects = [], []
    for i in range(200):
        top, bottom = float(place[0][i, 0, 0]), float(place[0][i, -1, 0])
        left, right = float(place[1][i, 0, 0]), float(place[1][i, 0, -1])
        assert top == int(top) and left == int(left), "the first cell is that of the crop's edge, or within it"
        high, wide = round(bottom - top) + 1, round(right - left) + 1
        part = picture[i, int(top) : int(top) + high, int(left) : int(left) + wide]
        expected = F.interpolate(part[None, None], (FRAMES, BANDS), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(cropped[i], expected, atol=1e-4, rtol=1e-4)
        areas.append(high * wide / FRAMES / BANDS)
        aspects.append(high / FRAMES / (wide / BANDS))
    assert min(areas) > 0.78 and max(areas) <= 1 and max(areas) - min(areas) > 0.15
    assert 0.73 < min(aspects) < 0.85 and 1.18 < max(aspects) < 1.37


def test_masks_hide_whole_stripes_with_the_least_value(windows, seeds):
    marked = windows.abs() + 1
    marked[:, 0, 0] = 0.5
    masked = augment.mask(marked, PerExampleGenerator(seeds))
    hidden = masked != marked
    assert (masked[hidden] == 0.5).all()
    rows, columns = (hidden | (marked == 0.5)).all(2), (hidden | (marked == 0.5)).all(1)
    assert torch.equal(hidden | (marked == 0.5), (rows[:, :, None] | columns[:, None]) | (marked == 0.5))
    many = augment.mask(torch.rand(500, FRAMES, BANDS) + 1, PerExampleGenerator(torch.arange(500)), count=1)
    frames = (many == many.amin((1, 2), keepdim=True)).all(2).sum(1)
    assert frames.max() == 19 and frames.min() == 0, "less than 20 frames"
    assert float(frames.float().mean()) == pytest.approx(9.5, abs=1)


def test_blur_keeps_constants_and_smooths(windows, seeds):
    constant = torch.full((BATCH, FRAMES, BANDS), 3.0)
    torch.testing.assert_close(augment.blur(constant, PerExampleGenerator(seeds)), constant)
    blurred = augment.blur(windows, PerExampleGenerator(seeds))
    assert (blurred.diff(dim=1).abs().mean((1, 2)) <= windows.diff(dim=1).abs().mean((1, 2)) + 1e-6).all()


def test_reversal_turns_the_asked_share(windows):
    many = windows.repeat(100, 1, 1)
    turned = augment.reverse(many, PerExampleGenerator(torch.arange(len(many))), 0.3)
    flipped = torch.tensor([torch.equal(a, b.flip(0)) for a, b in zip(turned, many, strict=True)])
    assert float(flipped.float().mean()) == pytest.approx(0.3, abs=0.05)
    assert torch.equal(augment.reverse(windows, PerExampleGenerator(torch.arange(BATCH)), 1.0), windows.flip(1))


# ---------------------------------------------------------------- mix-back


def test_mix_back_keeps_the_energy_whatever_the_level_of_the_background(windows):
    others, share = windows.flip(0), torch.linspace(0, 0.5, BATCH)
    floor = augment.FLOOR
    mixed = augment.mix_back(windows, others, share)
    energy, other = augment.VGGISH.energies(windows), augment.VGGISH.energies(others)
    torch.testing.assert_close(augment.VGGISH.energies(mixed).sum((1, 2)), energy.sum((1, 2)), rtol=1e-4, atol=1e-2)
    louder = augment.amplify(others, torch.full((BATCH,), 50.0))
    torch.testing.assert_close(augment.mix_back(windows, louder, share), mixed, rtol=1e-3, atol=1e-3)
    assert torch.equal(mixed[0], windows[0]), "a share of nothing changes nothing"
    ratio = energy.double().sum((1, 2), keepdim=True) / other.double().sum((1, 2), keepdim=True)
    part = share[:, None, None].double()
    formula = ((1 - part) * energy + part * ratio * other).sqrt().add(floor).log()
    torch.testing.assert_close(mixed.double()[1:], formula[1:], rtol=1e-5, atol=1e-5)


def test_mix_back_without_the_adjustment_follows_the_level(windows):
    others, share = windows.flip(0), torch.full((BATCH,), 0.05)
    energy, other = augment.VGGISH.energies(windows), augment.VGGISH.energies(others)
    mixed = augment.mix_back(windows, others, share, adjust=False)
    expected = 0.95 * energy + 0.05 * other
    torch.testing.assert_close(augment.VGGISH.energies(mixed), expected, rtol=1e-4, atol=1e-4)
    louder = augment.amplify(others, torch.full((BATCH,), 50.0))
    assert (augment.mix_back(windows, louder, share, adjust=False) >= mixed - 1e-5).all()


def test_mix_back_with_silence_leaves_the_window(windows):
    silence = torch.full_like(windows, math.log(augment.FLOOR))
    share = torch.full((BATCH,), 0.3)
    assert torch.equal(augment.mix_back(windows, silence, share), windows)
    torch.testing.assert_close(augment.mix_back(silence, windows, share), silence)


# ---------------------------------------------------------------- the generator


def test_numbers_per_example_are_uniform_normal_and_unrelated():
    generator = PerExampleGenerator(torch.arange(500))
    first, second, normal = generator.uniform(0, 1, 400), generator.uniform(0, 1, 400), generator.normal(400)
    forks = [PerExampleGenerator(torch.arange(500)).fork(number).uniform(0, 1, 400) for number in (0, 1, 2)]
    for values in (first, second, *forks):
        assert float(values.min()) > 0 and float(values.max()) < 1
        assert float(values.mean()) == pytest.approx(0.5, abs=0.005)
        assert float(values.square().mean()) == pytest.approx(1 / 3, abs=0.005)
    assert float(normal.mean()) == pytest.approx(0, abs=0.01) and float(normal.std()) == pytest.approx(1, abs=0.01)
    for one, other in ((first, second), (first, forks[0]), (forks[0], forks[1]), (second, forks[1])):
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert abs(float(correlation)) < 0.01
    drawn = PerExampleGenerator(torch.arange(5000)).integers(3, 6)
    assert torch.bincount(drawn, minlength=7)[3:].min() > 1100 and drawn.min() == 3 and drawn.max() == 6
    assert torch.equal(uniform(torch.tensor([4]), 9)[:, :5], uniform(torch.tensor([4]), 5))


def test_refusals_name_the_value(windows, seeds):
    generator = PerExampleGenerator(seeds)
    for change, options, message in (
        (augment.resized_crop, {"area": 0.0}, "area is 0"),
        (augment.resized_crop, {"aspect": 0.5}, r"aspect 0\.5"),
        (augment.compress, {"least": 2.0}, r"least is 2\.0"),
        (augment.add_gaussian, {"deviation": -1.0}, r"deviation is -1\.0"),
        (augment.mask, {"bands": 99}, "below 20 frames and 99 bands do not fit windows of 96 frames x 64 bands"),
        (augment.roll_bands, {"most": -1}, "largest shift is -1"),
        (augment.reverse, {"share": 1.5}, r"turned round is 1\.5"),
        (augment.blur, {"deviation": 99.0}, r"deviation is 99\.0 cells"),
    ):
        with pytest.raises(ValueError, match=message):
            change(windows, generator, **options)
    with pytest.raises(ValueError, match="the others"):
        augment.mix_back(windows, windows[:2], torch.zeros(BATCH))
    with pytest.raises(ValueError, match="a share is"):
        augment.mix_back(windows, windows, torch.full((BATCH,), 1.5))

"""Separators: every one in the table gives tracks as long as the mixture that sum to it, at any length and level."""

import pytest
import torch

from soundssl import curriculum, models
from soundssl.models import tdcn

SMALL = [name for name in models.SEPARATORS if name.endswith("-small")]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", models.SEPARATORS)
def test_tracks_sum_to_the_mixture_and_gradients_reach_every_weight(name):
    torch.manual_seed(0)
    separator, mixture = models.build_separator(name, tracks=3), 0.1 * noise(2, 3001)
    tracks = separator(mixture)
    assert tracks.shape == (2, 3, 3001) and (tracks.sum(1) - mixture).abs().max() < 1e-5
    (tracks * noise(2, 3, 3001)).sum().backward()
    for weight, parameter in separator.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), weight
        # the norm that follows takes out a block's first scale, as the paper has it
        assert parameter.grad.abs().sum() > 0 or weight.endswith("layers.0.scale"), weight


@pytest.mark.parametrize("consistency", ["predicted", "energy", "uniform"])
def test_every_consistency_is_consistent(consistency):
    torch.manual_seed(0)
    separator, mixture = models.build_separator(SMALL[0], 4, consistency), noise(2, 2000)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        tracks = separator(mixture)
    assert tracks.dtype == torch.float32 and (tracks.sum(1) - mixture).abs().max() < 1e-5


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("samples", [1, 17, 640, 1000])
def test_any_length_will_do(name, samples):
    torch.manual_seed(0)
    with torch.no_grad():
        tracks = models.build_separator(name, 2)(noise(1, samples))
    assert tracks.shape == (1, 2, samples) and torch.isfinite(tracks).all()


@pytest.mark.parametrize("name", SMALL)
def test_the_level_goes_through_and_silence_stays_silence(name):
    torch.manual_seed(0)
    separator, mixture = models.build_separator(name, 2).eval(), noise(1, 2000)
    with torch.no_grad():
        loud, quiet = separator(mixture), separator(0.01 * mixture)
        assert torch.allclose(quiet, 0.01 * loud, rtol=1e-3, atol=1e-6)
        assert not separator(0 * mixture).any()


def test_a_window_does_not_see_another():
    torch.manual_seed(0)
    separator, mixture = models.build_separator(SMALL[0], 2).eval(), noise(3, 2000)
    with torch.no_grad():
        assert torch.allclose(separator(mixture)[1:2], separator(mixture[1:2]), atol=1e-5)


@pytest.mark.parametrize("basis", [tdcn.Learned, tdcn.Fourier])
def test_equal_masks_split_the_mixture_equally(basis):
    torch.manual_seed(0)
    net = tdcn.TDCN(basis(), 2, 8, 16, 1, tdcn.Options())
    torch.nn.init.zeros_(net.masks.weight)
    with torch.no_grad():
        tracks, activations = net(noise(2, 1500))
    assert torch.allclose(tracks[:, 0], tracks[:, 1], atol=1e-6) and activations.shape == (2, 8)
    if basis is tdcn.Fourier:
        assert torch.allclose(tracks.sum(1), noise(2, 1500), atol=1e-4)


def test_what_a_net_on_the_stft_sees_keeps_loudness_over_time():
    """The first revision saw every frame at the same level."""
    wave = noise(2, 16000) * torch.where(torch.arange(16000) < 8000, 1.0, 0.1)
    now, before = tdcn.Fourier(), tdcn.Fourier(revision=1)
    loudness = [basis.analyse(wave)[1].mean(1) for basis in (now, before)]
    loud, quiet = (slice(5, 55), slice(75, 120))
    assert (loudness[0][:, loud].mean(1) > loudness[0][:, quiet].mean(1) + 0.5).all()
    assert loudness[1].abs().max() < 1e-5
    seen = now.analyse(wave)[1]
    assert seen.mean((1, 2)).abs().max() < 1e-4 and torch.allclose(seen.std((1, 2)), torch.ones(2), atol=1e-2)
    assert [parameter.shape for parameter in now.parameters()] == [(), ()], "scalar gain and bias"


@pytest.mark.parametrize("learned", [True, False])
def test_the_net_is_that_of_the_authors_program(learned):
    separator = models.build_separator("tdcn" if learned else "tdcn-stft", 4)
    core = separator.core
    assert core.masks.bias is None and separator.shares.bias is None
    assert [len(skips) for skips in core.skips] == [0, 1, 2, 3], "a dense layer from each start to each later one"
    assert {norm.epsilon for norm in core.modules() if isinstance(norm, tdcn.Norm)} == {1e-3}
    dense = [layer.layer.weight for layer in core.modules() if isinstance(layer, tdcn.Dense)]
    fans = [(*weight.shape[:2], weight) for weight in (*dense, core.masks.weight, separator.shares.weight)]
    if learned:
        fans += [(tdcn.COEFFICIENTS, tdcn.WINDOW, layer.weight) for layer in (core.basis.encoder, core.basis.decoder)]
    for before, after, weight in fans:
        limit = (6 / (before + after)) ** 0.5  # Glorot and Bengio 2010
        assert 0.95 * limit < weight.abs().max() <= limit


def test_skips_bring_the_start_of_a_repeat_to_the_later_ones():
    torch.manual_seed(0)
    with_skips, without = (tdcn.TDCN(tdcn.Learned(), 2, 8, 16, 3, tdcn.Options(skips=skips)) for skips in (True, False))
    without.load_state_dict({key: value for key, value in with_skips.state_dict().items() if "skips" not in key})
    frames = noise(1, 8, 50)
    repeats = [with_skips.blocks[8 * k : 8 * k + 8] for k in range(3)]
    with torch.no_grad():
        first = frames
        second = repeats[0](first) + with_skips.skips[1][0](first)
        third = repeats[1](second) + with_skips.skips[2][0](first) + with_skips.skips[2][1](second)
        assert torch.allclose(with_skips._through_blocks(frames), repeats[2](third), atol=1e-5)
        assert torch.allclose(without._through_blocks(frames), without.blocks(frames), atol=1e-5)


def test_files_state_the_net_and_those_that_do_not_mean_the_first():
    stated = models.stated("tdcn-small")
    plan = curriculum.settle(
        curriculum.from_data({"stage": [{"objective": {"mixit": {}}}], "encoder": "tdcn-small"}), False
    )
    assert plan.net == stated == {"revision": 2, "skips": True}
    old = models.build_separator("tdcn-small", 2, revision=1, skips=False)
    tensors = {f"encoder.{name}": value.numpy() for name, value in old.state_dict().items()}
    config = {"encoder": "tdcn-small", "tracks": 2, "consistency": "predicted"}
    assert models.restore_separator(config, tensors).core.masks.bias is not None
    with pytest.raises(RuntimeError, match="state_dict"):
        models.restore_separator({**config, "net": stated}, tensors)
    again = curriculum.settle(plan, False, {**config, "net": {}})
    assert again.net == stated, "what is given stays"
    fresh = curriculum.from_data({"stage": [{"objective": {"mixit": {}}}], "encoder": "tdcn-small"})
    assert curriculum.settle(fresh, False, config).net == {}, "a model of before goes on as it is"


def test_deeper_blocks_start_with_a_smaller_scale():
    net = tdcn.tdcn(2, learned=False)
    scales = [block.layers[-1].scale.item() for block in net.blocks]
    assert len(scales) == 32 and scales == pytest.approx([0.9**b for b in range(32)])
    assert [block.layers[3].dilation[0] for block in net.blocks] == [2**b for b in range(8)] * 4


def test_a_stored_separator_separates_the_same():
    torch.manual_seed(0)
    separator = models.build_separator("tdcn-small", 3, "energy")
    tensors = {f"encoder.{name}": value.numpy() for name, value in separator.state_dict().items()}
    config = {"encoder": "tdcn-small", "tracks": 3, "consistency": "energy", "net": models.stated("tdcn-small")}
    again = models.restore_separator(config, tensors)
    with torch.no_grad():
        assert torch.equal(again(noise(1, 900)), separator(noise(1, 900)))
    with pytest.raises(ValueError, match="is a separator, not an encoder; its tracks are made with soundssl separate"):
        models.restore(config, tensors)
    with pytest.raises(ValueError, match="is an encoder, not a separator; train one with --objective mixit"):
        models.restore_separator({**config, "encoder": "plain"}, tensors)


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ({"name": "tdcm"}, "no separator 'tdcm'; there are tdcn-stft-small"),
        ({"tracks": 1}, "tracks is 1; a separator has 2 to 100"),
        ({"consistency": "none"}, "consistency is 'none'; it is predicted, energy or uniform"),
    ],
)
def test_what_cannot_be_built_is_named(words, fact):
    with pytest.raises(ValueError, match=fact):
        models.build_separator(**{"name": SMALL[0], **words})


def test_a_mixture_has_two_dimensions():
    with pytest.raises(ValueError, match=r"mixtures have shape \[5\]; \[batch, samples\] is needed"):
        models.build_separator(SMALL[0])(torch.zeros(5))

"""Coincidence: pairs obey their time and recording, heads live on, the loss falls, two processes equal one."""

from pathlib import Path

import numpy as np
import program
import pytest
import torch

from soundssl import curriculum, device, files, models, objectives, training
from soundssl.objectives import coincidence
from soundssl.objectives.coincidence import Scorer
from soundssl.ops.spectrogram import FrontEnd

CLASSES, RECORDINGS, SECONDS, SIDE = 4, 16, 4, 32


def write_videos(path: Path, clips_each: int = 1, images: bool = True, lengths: dict | None = None, **columns) -> Path:
    """Write recordings whose class is heard as a stripe of energy and seen as a bright quarter of a picture.

    The first pixel of picture k of clip c holds (c, k); clips of a recording follow one another on its source's clock.
    """
    generator = np.random.default_rng(0)
    count, rate = RECORDINGS * clips_each, 100
    length = np.full(count, SECONDS * rate)
    for clip, frames in (lengths or {}).items():
        length[clip] = frames
    offset = np.concatenate([[0], np.cumsum(length)])
    frames = generator.normal(-2, 1, (offset[-1], 64))
    recording = np.arange(count) // clips_each
    for clip in range(count):
        band = 8 + 14 * (recording[clip] % CLASSES)
        frames[offset[clip] : offset[clip + 1], band : band + 6] += 3
    pictures = generator.integers(0, 60, (count, SECONDS, SIDE, SIDE, 3), dtype=np.uint8)
    for clip in range(count):
        row, column = divmod(int(recording[clip]) % CLASSES, 2)
        half = SIDE // 2
        pictures[clip, :, row * half : (row + 1) * half, column * half : (column + 1) * half] += 150
        pictures[clip, :, 0, 0, 0], pictures[clip, :, 0, 0, 1] = clip, np.arange(SECONDS)
    names = [f"recording-{number:02}" for number in recording]
    table = {
        "key": [f"{name}-{i:03}" for i, name in enumerate(names)],
        "recording": names,
        "source": names,
        "split": ["train"] * count,
        "start": np.arange(count) % clips_each * float(SECONDS),
        "level": np.zeros(count, "f4"),
        **{name: np.full(count, -1, dtype) for name, dtype in (("parent", "i4"), ("track", "i1"), ("processor", "i1"))},
        **columns,
    }
    end = {**FrontEnd().attributes(), "resampler": "none", "image_rate": 1.0 if images else 0.0}
    with files.create(path, "features", inputs=[], made_from="toy", attributes=end) as sink:
        sink.write("frames", frames.astype("f2"))
        sink.write("mean", frames.mean(0).astype("f4"))
        sink.write("deviation", frames.std(0).astype("f4"))
        sink.write("clip/offset", offset)
        for name, column in table.items():
            sink.write(f"clip/{name}", column)
        if images:
            sink.write("images", pictures.reshape(-1, SIDE, SIDE, 3))
            sink.write("clip/image_offset", np.arange(count + 1) * SECONDS)
        sink.write("skipped/path", [])
        sink.write("skipped/reason", [])
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return write_videos(tmp_path_factory.mktemp("coincidence") / "videos.features.h5")


@pytest.fixture(scope="module")
def cut(tmp_path_factory) -> Path:
    """Three clips of 4 s one after the other in each recording."""
    return write_videos(tmp_path_factory.mktemp("coincidence") / "cut.features.h5", clips_each=3)


def inputs_of(path: Path, clips=None) -> objectives.Inputs:
    features = files.Features(path)
    return objectives.Inputs(features, np.ones(len(features.clips), bool) if clips is None else clips)


def examples_of(path: Path, clips=None, seed=0, **options) -> coincidence.Examples:
    return coincidence.Examples(inputs_of(path, clips), coincidence.Options(**options), seed)


def drawn(examples: coincidence.Examples, epochs: int = 40) -> list[dict]:
    return [examples._draw(epoch, row) for epoch in range(epochs) for row in range(len(examples))]


def moment(source: files.Features, frame: int) -> tuple[str, int]:
    """Return a window's source and its first frame on the source's clock."""
    clip = int(np.searchsorted(source.offset, frame, side="right")) - 1
    return source.clips.source[clip], int(source.clips.start[clip] * 100) + frame - int(source.offset[clip])


@pytest.mark.parametrize(
    ("delta", "least"), [(0.05, 0.0), (1.0, -1.0), (1.0, 0.5), (3.0, -1.0), (10.0, -1.0), (np.inf, -1.0), (np.inf, 0.0)]
)
@pytest.mark.parametrize("which", ["videos", "cut"])
def test_windows_of_a_pair_are_two_of_one_recording_apart_but_less_than_delta(which, delta, least, request):
    path = request.getfixturevalue(which)
    source, reached = files.Features(path), []
    apart = 96 if least < 0 else max(1, 100 * least)
    for pair in drawn(examples_of(path, delta=delta, min_distance=least)):
        (here, at), (there, then) = moment(source, pair["window"]), moment(source, pair["other"])
        assert here == there and apart <= abs(at - then) < 100 * delta
        reached.append(abs(at - then))
    longest = (12 if which == "cut" else 4) * 100 - 96
    assert max(reached) > 0.8 * min(100 * delta, longest) - 2, "the whole time scale is used"


def test_overlapping_clips_never_give_the_same_moment_twice(tmp_path):
    starts = np.tile([0.0, 2.0], RECORDINGS)
    source = files.Features(write_videos(tmp_path / "f.h5", clips_each=2, start=starts))
    pairs = drawn(examples_of(tmp_path / "f.h5", delta=0.03, min_distance=0.0), 60)
    assert all(moment(source, pair["window"]) != moment(source, pair["other"]) for pair in pairs)
    clips = [
        [np.searchsorted(source.offset, pair[name], side="right") for name in ("window", "other")] for pair in pairs
    ]
    assert any(first != second for first, second in clips)


def test_sources_without_a_common_clock_coincide_at_any_distance_only(tmp_path):
    names = [f"{i}.wav" for i in range(2 * RECORDINGS)]
    path = write_videos(tmp_path / "f.h5", clips_each=2, source=names, start=np.zeros(2 * RECORDINGS))
    offset = files.Features(path).offset
    across = {}
    for delta in (1000.0, np.inf):
        pairs = drawn(examples_of(path, delta=delta), 5)
        clips = [[np.searchsorted(offset, pair[name], side="right") for name in ("window", "other")] for pair in pairs]
        across[delta] = np.mean([first != second for first, second in clips])
    assert across[1000.0] == 0 and 0.3 < across[np.inf] < 0.7


@pytest.mark.parametrize(("modality", "delta"), [("image", 10.0), ("image", 0.3), ("both", 1.0)])
def test_pictures_belong_to_their_recording_and_time(cut, modality, delta):
    source, examples = files.Features(cut), examples_of(cut, modality=modality, delta=delta)
    seen = set()
    for epoch in range(20):
        keys = [(epoch, row) for row in range(len(examples))]
        batch = examples.__getitems__(keys)
        for key, image in zip(keys, batch["image"].numpy(), strict=True):
            clip, number = int(image[0, 0, 0]), int(image[0, 0, 1])
            here, at = moment(source, examples._draw(*key)["window"])
            assert source.clips.source[clip] == here
            shown = 100 * (source.clips.start[clip] + number)
            assert abs(at + 48 - shown) < 100 * delta
            seen.add((clip % 3, number))
    assert len(seen) == (9 if delta == 0.3 else 12), "a picture at a clip's start has no window's centre within 0.3 s"


def test_a_picture_of_correspondence_lies_inside_its_second_of_sound(videos):
    settled = coincidence.settle(coincidence.Options(preset="correspondence-small"))
    source, examples = files.Features(videos), coincidence.Examples(inputs_of(videos), settled, 0)
    shown = set()
    for pair in drawn(examples):
        clip = np.searchsorted(source.image_offset, pair["image"], side="right") - 1
        into = 100 * int(pair["image"] - source.image_offset[clip]) - int(pair["window"] - source.offset[clip])
        assert 0 <= into <= source.window
        shown.add(into)
    assert min(shown) < 10 and max(shown) > source.window - 10, "anywhere in it"


def test_a_row_is_a_recording_and_a_batch_names_it(videos):
    examples = examples_of(videos, modality="both")
    assert len(examples) == RECORDINGS
    batch = examples.__getitems__([(0, row) for row in range(RECORDINGS)])
    assert len(set(batch["recording"].tolist())) == RECORDINGS
    assert not torch.equal(batch["window"], batch["other"])


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(videos):
    options = {"modality": "both", "mixing": 0.5, "shift": 4}
    keys = [(0, 1), (3, 1), (0, 2), (1, 5)]
    one, two = (examples_of(videos, **options) for _ in range(2))
    batch = one.__getitems__(keys)
    apart = [two.__getitems__([key]) for key in keys[::-1]][::-1]
    for name, column in batch.items():
        assert torch.equal(column, torch.cat([each[name] for each in apart])), name
    assert not torch.equal(batch["window"][0], batch["window"][1]), "another epoch draws anew"
    other = examples_of(videos, seed=1, **options).__getitems__(keys)
    assert not torch.equal(batch["window"], other["window"])


def test_only_chosen_clips_are_drawn_and_mixed_windows_are_of_other_recordings(cut):
    chosen = np.arange(3 * RECORDINGS) % 3 != 1
    source = files.Features(cut)
    for pair in drawn(examples_of(cut, chosen, modality="both", mixing=1.0), 10):
        clips = np.searchsorted(source.offset, [pair["window"], pair["other"], *pair["mixed"]], side="right") - 1
        assert chosen[clips].all() and chosen[np.searchsorted(source.image_offset, pair["image"], side="right") - 1]
        names = source.clips.recording[clips]
        assert names[0] == names[1] != names[2] and names[3] != names[0]


def test_recordings_without_a_pair_have_no_row(tmp_path):
    path = write_videos(tmp_path / "f.h5", lengths={0: 50, 1: 96, 2: 97})
    sounds, pictures = examples_of(path, min_distance=0.0), examples_of(path, modality="image")
    assert len(sounds) == RECORDINGS - 2 and len(pictures) == RECORDINGS - 1
    drawn(sounds, 5), drawn(pictures, 5)
    with pytest.raises(ValueError, match="1 recordings hold a pair that coincides"):
        examples_of(path, np.arange(RECORDINGS) == 5)


def test_misuse_is_named(videos, tmp_path):
    silent = write_videos(tmp_path / "f.h5", images=False)
    with pytest.raises(ValueError, match=r"modality both needs pictures and f.h5 holds none"):
        examples_of(silent, modality="both")
    with pytest.raises(ValueError, match=r"delta is 0.005 seconds, less than a frame"):
        examples_of(videos, delta=0.005)
    with pytest.raises(ValueError, match=r"alpha of the coincidence objective is 2\.0"):
        examples_of(videos, alpha=2.0)
    with pytest.raises(ValueError, match="no image tower 'vgg19'; there are space-to-depth"):
        models.build_image("vgg19")
    with pytest.raises(ValueError, match="'resnet50' has no group norm"):
        models.build_image("resnet50", norm="group")
    with pytest.raises(ValueError, match=r"images are torch.float32 \[1, 3, 32, 32\]"):
        models.build_image("space-to-depth")(torch.zeros(1, 3, 32, 32))


def objective_of(path: Path, size: int = 8, **options) -> coincidence.Objective:
    torch.manual_seed(0)
    encoder = models.build("draft", size, norm="group")
    return coincidence.Objective(encoder, inputs_of(path), coincidence.Options(**options))


def test_pairs_of_the_same_recording_are_no_negatives(videos):
    objective, examples = objective_of(videos), examples_of(videos)
    twice = examples.__getitems__([(0, 0), (1, 0)])
    loss, figures = objective(twice, 0.0)
    loss.backward()
    positives = objective.audio_scorer.paired(
        *objective.encoder(torch.cat([twice["window"], twice["other"]]).float()).chunk(2)
    )
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(-positives).mean().item(), rel=1e-5)
    assert figures["accuracy_aa"] == 1


@pytest.mark.parametrize("negatives", ["all", "random"])
def test_both_losses_are_weighed_by_alpha_and_have_heads_of_their_own(videos, negatives):
    objective = objective_of(videos, modality="both", alpha=0.25, negatives=negatives)
    batch = examples_of(videos, modality="both").__getitems__([(0, row) for row in range(8)])
    loss, figures = objective(batch, 0.0)
    assert loss.item() == pytest.approx(0.75 * figures["loss_av"].item() + 0.25 * figures["loss_aa"].item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.audio_scorer.parameters())
    assert all(p.grad is not None for p in objective.parameters()), "no parameter is idle"


def test_heads_live_on_where_they_fit(videos):
    first, second = objective_of(videos, modality="image"), objective_of(videos, modality="both")
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter)
    fresh = {name: value.clone() for name, value in second.audio_scorer.state_dict().items()}
    second.load_state_dict(first.state_dict(), strict=True)
    for name in ("image", "image_scorer"):
        for key, value in getattr(first, name).state_dict().items():
            assert torch.equal(value, getattr(second, name).state_dict()[key]), key
    assert all(torch.equal(value, second.audio_scorer.state_dict()[name]) for name, value in fresh.items())
    third = objective_of(videos, modality="audio")
    third.load_state_dict(second.state_dict(), strict=True)
    assert torch.equal(third.audio_scorer.output, second.audio_scorer.output) and third.image is None


def test_a_stage_of_sound_alone_keeps_the_net_for_pictures(videos, tmp_path):
    """What a stage does not use is there again for the next one."""
    torch.manual_seed(0)
    options = [{"modality": modality, "weight": 1.0} for modality in ("image", "audio", "both")]
    stages = tuple(curriculum.Stage({"coincidence": each}, steps=1, batch_size=4) for each in options)
    accelerator = device.Accelerator(torch.device("cpu"), torch.float32, "")
    heads = []
    for count in (1, 2):
        plan = curriculum.Curriculum("draft", 8, "group", stages[:count])
        checkpoint, log = training.Checkpoint(tmp_path / str(count), "x", 1e9), files.Log(None)
        torch.manual_seed(0)
        encoder = models.build("draft", 8, norm="group")
        heads.append(
            training.train(
                plan, encoder, inputs_of(videos), accelerator, seed=0, workers=0, checkpoint=checkpoint, log=log
            ).heads["coincidence"]
        )
    kept = [name for name in heads[0] if name.startswith("image")]
    assert kept and all(torch.equal(heads[0][name], heads[1][name]) for name in kept)
    assert any(name.startswith("audio_scorer") for name in heads[1])


def test_a_preset_fills_in_what_is_not_given():
    settled = coincidence.settle(coincidence.Options(preset="correspondence", modality="both", hidden=7))
    assert (settled.modality, settled.negatives, settled.delta, settled.tower) == ("both", "random", 0.48, "vgg")
    assert settled.hidden == 7 and coincidence.settle(settled) == settled
    assert coincidence.settle(coincidence.Options(preset="correspondence-small")).tower == "vgg-small"


def test_changed_windows_keep_the_louder_sound(videos):
    objective = objective_of(videos, mixing=0.5)
    examples = examples_of(videos, mixing=0.5)
    batch = examples.__getitems__([(0, row) for row in range(4)])
    heard = []
    objective.encoder.register_forward_pre_hook(lambda module, given: heard.append(given[0]))
    objective(batch, 0.0)
    plain = torch.cat([batch["window"], batch["other"]]).float()
    assert (heard[0] >= plain - 1e-3).all() and not torch.equal(heard[0], plain)
    energy = [objective.recipe.scale.energies(part).sum((1, 2)) for part in (heard[0], plain)]
    gain = batch["gain"].T.flatten()
    torch.testing.assert_close(energy[0], (1 + gain) * energy[1], rtol=1e-3, atol=1e-2)
    assert (gain <= 0.5).all() and gain.max() > 0


class Profile(torch.nn.Module):
    """Embed a window by the mean level of each band: an encoder that learns in a second."""

    def __init__(self, size: int):
        super().__init__()
        self.size, self.linear = size, torch.nn.Linear(64, size)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embed windows. Shape: [batch, frames, bands] to [batch, size]."""
        return self.linear(windows.mean(1) + 2)


@pytest.mark.parametrize("modality", ["audio", "both"])
@pytest.mark.parametrize("negatives", ["all", "random"])
def test_the_loss_falls_and_held_out_pairs_are_told_apart(videos, modality, negatives):
    options = {"modality": modality, "alpha": 0.5, "negatives": negatives}
    torch.manual_seed(0)
    objective = coincidence.Objective(
        Profile(16), inputs_of(videos), coincidence.Options(**options, tower_norm="group")
    )
    train = examples_of(videos, np.arange(RECORDINGS) < 8, **options)
    test = examples_of(videos, np.arange(RECORDINGS) >= 12, **options)  # a recording of each class
    optimizer = torch.optim.AdamW(objective.parameters(), 5e-3)
    generator, losses = np.random.default_rng(0), []
    for step in range(60):
        rows = generator.permutation(len(train))
        loss, _ = objective(train.__getitems__([(step, int(row)) for row in rows]), 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    with torch.no_grad():
        figures = [objective(test.__getitems__([(epoch, row) for row in range(4)]), 0.0)[1] for epoch in range(10)]
    chance = 0.5 if negatives == "random" else 0.25
    for name in ("accuracy_aa", "accuracy_av")[: 1 + (modality == "both")]:
        assert np.mean([float(each[name]) for each in figures]) > chance + 0.25, name


@pytest.mark.parametrize("tower", models.IMAGE_TOWERS)
def test_towers_embed_pictures_of_any_size(tower):
    torch.manual_seed(0)
    net = models.build_image(tower, size=12)
    for shape in ((32, 48), (64, 32)):
        images = torch.randint(0, 256, (3, *shape, 3), dtype=torch.uint8)
        embedding = net(images)
        assert embedding.shape == (3, 12) and torch.isfinite(embedding).all()
        assert not torch.equal(embedding, net(255 - images)), "what is seen matters"
    embedding.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_a_fresh_scorer_is_a_fresh_linear_layer():
    torch.manual_seed(0)
    scorer, linear = Scorer(64, 256), torch.nn.Linear(128, 256)
    for half in (scorer.weight_a, scorer.weight_b):
        assert half.std().item() == pytest.approx(linear.weight.std().item(), rel=0.05)


def test_two_processes_equal_one_of_twice_the_batch(videos, tmp_path):
    def command(output: Path, batch: int) -> list[str]:
        options = ["modality=both", "tower_norm=group", "mixing=0.3"]
        words = ["train", videos, "--objective", "coincidence", "--threads", 1, "--norm", "group", "--size", 8]
        words += [word for each in options for word in ("--set", each)]
        words += ["--precision", "float32", "--steps", 3, "--batch-size", batch, "-o", output, "-q"]
        return list(map(str, words))

    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    runs = program.start_several(1, *command(one, 8)) + program.start_several(2, *command(two, 4))
    for run in runs:
        assert run.wait() == 0, run.stderr
    one, two = (files.read_model(path).tensors for path in (one, two))
    assert one.keys() == two.keys() and any(name.startswith("head.coincidence.image.") for name in one)
    torch.manual_seed(0)
    start = models.build("plain", 8, norm="group").state_dict()
    moved = difference = 0.0
    for name, tensor in start.items():
        if name not in ("mean", "deviation"):
            moved += float(np.square(one[f"encoder.{name}"] - tensor.numpy()).sum())
            difference += float(np.square(one[f"encoder.{name}"] - two[f"encoder.{name}"]).sum())
    # sums in another order: rounding of float32, which Adam's division blows up where a gradient is next to nothing
    assert moved > 0 and np.sqrt(difference / moved) < 0.02, np.sqrt(difference / moved)

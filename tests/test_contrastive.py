"""Contrast: pairs are what they are called, the loss falls, objectives share batches, processes share negatives."""

import json
import random
import signal
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import program
import pytest
import torch
import torch.nn.functional as F
from test_coincidence import Profile, write_videos

from soundssl import curriculum, device, files, models, objectives, training
from soundssl.objectives import coincidence, contrastive
from soundssl.objectives.pairs import Pairs, PairSampling, Recipe, composition

MIXTURES, PROCESSORS, TRACKS, SECONDS, CLASSES = 16, 2, 3, 4, 4
PAIRED, VIEWS = ("contrastive", "coincidence"), ("window", "other")  # objectives that share pairs; both of a pair


# ---------------------------------------------------------------- pairs


def write_separated(path: Path) -> Path:
    """Write mixtures of two stripes of energy, and tracks of two processors: the one stripe, the other, and silence.

    The first band of frame t of clip c holds t, so that a window tells where it is from.
    """
    generator, rate = np.random.default_rng(0), 100
    rows = [(m, p, t) for m in range(MIXTURES) for p, t in [(-1, -1), *np.ndindex(PROCESSORS, TRACKS)]]
    length = SECONDS * rate
    frames = generator.normal(-2, 0.5, (len(rows), length, 64))
    for row, (mixture, _, track) in enumerate(rows):
        for stripe, band in enumerate((4 + 8 * (mixture % CLASSES), 36 + 6 * (mixture // CLASSES % CLASSES))):
            if track in (-1, stripe):
                frames[row, :, band : band + 4] += 3
    frames[:, :, 0] = np.arange(length) / 100
    parent = {mixture: row for row, (mixture, processor, _) in enumerate(rows) if processor < 0}
    columns = {
        "parent": np.array([parent[m] if p >= 0 else -1 for m, p, _ in rows], "i4"),
        "track": np.array([t for _, _, t in rows], "i1"),
        "processor": np.array([p for _, p, _ in rows], "i1"),
        "level": np.array([-60.0 if t == TRACKS - 1 else 0.0 for _, _, t in rows], "f4"),
        "silent": np.array([t == TRACKS - 1 for _, _, t in rows], "u1"),
    }
    names = [f"mixture-{m:02}" for m, _, _ in rows]
    keys = [name + (f"#{p}.{t}" if p >= 0 else "") for name, (_, p, t) in zip(names, rows, strict=True)]
    from soundssl.ops.spectrogram import FrontEnd

    end = {**FrontEnd().attributes(), "resampler": "none", "image_rate": 0.0}
    with files.create(path, "features", inputs=[], made_from="toy", attributes=end) as sink:
        sink.write("frames", frames.reshape(-1, 64).astype("f2"))
        sink.write("mean", frames.mean((0, 1)).astype("f4"))
        sink.write("deviation", frames.std((0, 1)).astype("f4"))
        sink.write("clip/offset", np.arange(len(rows) + 1) * length)
        for name, column in {"key": keys, "recording": names, "source": names, "split": ["a"] * len(rows)}.items():
            sink.write(f"clip/{name}", column)
        sink.write("clip/start", np.zeros(len(rows)))
        for name, column in columns.items():
            sink.write(f"clip/{name}", column)
        sink.write("skipped/path", [])
        sink.write("skipped/reason", [])
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_videos(tmp_path_factory.mktemp("contrastive") / "clips.features.h5", images=False, lengths={3: 50})


@pytest.fixture(scope="module")
def separated(tmp_path_factory) -> Path:
    return write_separated(tmp_path_factory.mktemp("contrastive") / "separated.features.h5")


def inputs_of(path: Path, chosen=None) -> objectives.Inputs:
    features = files.Features(path)
    return objectives.Inputs(features, np.ones(len(features.clips), bool) if chosen is None else chosen)


def pairs_of(path: Path, chosen=None, seed=0, **options) -> Pairs:
    return contrastive.Examples(inputs_of(path, chosen), contrastive.Options(**options), seed)


def drawn(pairs: Pairs, epochs: int = 30) -> list[dict]:
    return [{"row": row, **pairs._draw(epoch, row)} for epoch in range(epochs) for row in range(len(pairs))]


def clip_of(source: files.Features, frame) -> int:
    return int(np.searchsorted(source.offset, frame, side="right")) - 1


@pytest.mark.parametrize("distance", [np.inf, 0.25, 0.0])
def test_crops_are_windows_of_one_clip_anywhere_within_the_distance(clips, distance):
    source, apart = files.Features(clips), []
    pairs = pairs_of(clips, views="crops", distance=distance)
    assert len(pairs) == MIXTURES - 1, "a clip without a window has no row"
    for pair in drawn(pairs):
        where = [clip_of(source, pair[name]) for name in ("window", "other")]
        assert where[0] == where[1] == pairs.rows[pair["row"]]
        assert all(pair[name] + 96 <= source.offset[where[0] + 1] for name in ("window", "other"))
        apart.append(abs(pair["window"] - pair["other"]))
    assert max(apart) <= 100 * distance and max(apart) >= min(100 * distance, 250)
    assert (distance == 0) == (max(apart) == 0)


def test_same_is_one_window_twice(clips):
    assert all(pair["window"] == pair["other"] for pair in drawn(pairs_of(clips, views="same"), 2))


def test_backgrounds_are_of_two_other_recordings_and_share_one_weight(clips):
    source, pairs = files.Features(clips), pairs_of(clips)
    shares = []
    for pair in drawn(pairs):
        names = ("window", "window_background", "other_background")
        assert len({source.clips.recording[clip_of(source, pair[name])] for name in names}) == 3
        shares.append(pair["share"])
    assert 0 < min(shares) < 0.01 and 0.04 < max(shares) <= 0.05
    batch = pairs.__getitems__([(0, 0), (0, 1)])
    assert batch["share"].shape == (2,) and batch["window_background"].shape == (2, 96, 64)


def test_separated_pairs_are_a_mixture_and_a_track_of_it_of_any_processor(separated):
    source, pairs = files.Features(separated), pairs_of(separated, views="separated")
    assert len(pairs) == MIXTURES and set(source.tracks.parent[pairs.rows]) == {-1}
    seen = set()
    for pair in drawn(pairs):
        mixture, track = clip_of(source, pair["window"]), clip_of(source, pair["other"])
        assert source.tracks.parent[track] == mixture == pairs.rows[pair["row"]]
        seen.add((source.tracks.processor[track], source.tracks.track[track]))
    assert seen == set(np.ndindex(PROCESSORS, TRACKS))
    near = drawn(pairs_of(separated, views="separated", distance=0.1, silent=False, processors="1"))
    starts = [
        [pair[name] - source.offset[clip_of(source, pair[name])] for name in ("window", "other")] for pair in near
    ]
    assert all(abs(a - b) <= 10 for a, b in starts)
    tracks = {clip_of(source, pair["other"]) for pair in near}
    assert set(source.tracks.processor[list(tracks)]) == {1} and not source.tracks.silent[list(tracks)].any()


def test_mixtures_alone_are_rows_also_of_other_views(separated):
    source = files.Features(separated)
    for pair in drawn(pairs_of(separated, views="mixback"), 4):
        where = [clip_of(source, pair[name]) for name in pair if name.startswith(("window", "other"))]
        assert (source.tracks.parent[where] == -1).all()


def test_only_chosen_clips_are_drawn(separated):
    source = files.Features(separated)
    chosen = np.array([name < "mixture-04" for name in source.clips.recording])
    for options in ({"views": "mixback"}, {"views": "separated"}):
        pairs = pairs_of(separated, chosen, **options)
        assert len(pairs) == 4
        for pair in drawn(pairs, 3):
            where = [clip_of(source, pair[name]) for name in pair if name.startswith(("window", "other"))]
            assert chosen[where].all()


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(separated):
    for name in ("mixback", "separated"):
        one, two = (pairs_of(separated, views=name) for _ in range(2))
        keys = [(0, 1), (3, 1), (0, 2)]
        batch, turned = one.__getitems__(keys), two.__getitems__(keys[::-1])
        assert all(torch.equal(column, turned[key].flip(0)) for key, column in batch.items())
        assert batch["lot"].unique().numel() == 3 and batch["recording"][0] == batch["recording"][1]
        other = pairs_of(separated, seed=1, views=name).__getitems__(keys)
        assert not torch.equal(batch["lot"], other["lot"])


def test_misuse_is_named(clips, separated):
    for path, options, message in (
        (clips, {"views": "separated"}, "clips.features.h5 holds none; make it with soundssl separate"),
        (separated, {"views": "separated", "processors": "0,7"}, "has no processor '7'; it has 0, 1, or say all"),
        (clips, {"augment": "crop,blurr"}, "no augmentation is called 'blurr'; there are time, band, crop"),
        (clips, {"temperature": 0.0}, "temperature of the contrastive objective is 0"),
        (clips, {"background": 2.0}, r"background 2\.0"),
        (clips, {"compression": 3.0}, r"least is 3\.0"),
        (clips, {"augment": "masks", "mask_frames": 0}, "below 0 frames"),
    ):
        with pytest.raises(ValueError, match=message):
            pairs_of(path, **options)
    with pytest.raises(ValueError, match="2 recordings hold a window; mixback needs 3"):
        pairs_of(clips, np.arange(MIXTURES) < 2)
    with pytest.raises(ValueError, match="views mixback are pairs of sounds; modality both has near ones only"):
        coincidence.settle(coincidence.Options(views="mixback", modality="both"))
    with pytest.raises(ValueError, match="mixing and shift are of near pairs; change views crops by augment"):
        coincidence.settle(coincidence.Options(views="crops", shift=3))


def test_masks_are_checked_against_the_windows_of_the_features(clips):
    inputs = inputs_of(clips)
    inputs.features.attributes["window_frames"] = 110
    for module in (contrastive, coincidence):
        encoder = models.build("draft", 8, norm="group")
        module.Objective(encoder, inputs, module.Options(augment="masks", mask_frames=100))
        for wide in ({"mask_bands": 80}, {"mask_frames": 112}):
            with pytest.raises(ValueError, match="do not fit windows of 110 frames x 64 bands"):
                module.Objective(encoder, inputs, module.Options(augment="masks", **wide))
        module.Objective(encoder, inputs, module.Options(augment="noise", mask_bands=80))


def test_crops_that_can_only_be_the_same_window_are_counted(tmp_path):
    path = write_videos(tmp_path / "f.h5", images=False, lengths={0: 96, 1: 96, 2: 97})
    said = ["2 of 16 clips hold one window alone: their two crops are the same"]
    assert pairs_of(path, views="crops").notes == pairs_of(path).notes == said
    assert pairs_of(path, views="same").notes == [] == pairs_of(path, np.arange(MIXTURES) > 1).notes


def test_a_preset_fills_in_what_is_not_given():
    scenes = contrastive.settle(contrastive.Options(preset="sound-scenes", views="crops", hidden=7))
    assert (scenes.views, composition(scenes), scenes.hidden) == ("crops", ["masks"], 7)
    masks = contrastive.settle(contrastive.Options(preset="sound-events-masks", temperature=3.0))
    assert composition(masks) == ["crop", "masks"] and masks.temperature == 3.0
    assert contrastive.settle(contrastive.Options(preset="sound-events")) == contrastive.Options(preset="sound-events")
    assert contrastive.settle(scenes) == scenes


# ---------------------------------------------------------------- views on the device


def test_views_are_augmented_apart_and_each_objective_has_its_own_copy(clips):
    inputs, pairs = inputs_of(clips), pairs_of(clips, views="same")
    batch = pairs.__getitems__([(0, 0), (0, 5), (1, 2)])
    options = contrastive.Options(views="same", augment="crop,masks,noise,blur,time,band,reversal,compression")
    first, second = Recipe(inputs, options, 1).apply(batch)
    assert not torch.equal(first, second)
    again = Recipe(inputs, options, 1).apply({name: column[1:] for name, column in batch.items()})
    torch.testing.assert_close(again[0], first[1:])
    assert not torch.equal(Recipe(inputs, options, 2).apply(batch)[0], first)
    plain = Recipe(inputs, contrastive.Options(views="same", augment="none"), 1).apply(batch)
    assert torch.equal(plain[0], batch["window"].float()) and torch.equal(plain[1], plain[0])


def as_double(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: column.double() if column.is_floating_point() else column for name, column in batch.items()}


def test_backgrounds_are_mixed_in_the_logarithm_and_floor_of_the_features(clips):
    inputs, batch = inputs_of(clips), pairs_of(clips).__getitems__([(0, 0), (0, 1), (0, 2)])
    options = contrastive.Options(augment="none")
    natural = Recipe(inputs, options, 1).apply(batch)
    cells = [part.exp().sub(0.01).clamp(min=0) for part in (natural[0], batch["window"].float())]
    energy = [part.square().sum((1, 2)) for part in cells]  # the cells of VGGish are magnitudes
    torch.testing.assert_close(energy[0], energy[1], rtol=1e-3, atol=1e-2)
    inputs.features.attributes["spectrum"] = "power"
    powers = Recipe(inputs, options, 1).apply(batch)[0].exp().sub(0.01).clamp(min=0).sum((1, 2))
    torch.testing.assert_close(powers, cells[1].sum((1, 2)), rtol=1e-3, atol=1e-2)
    inputs.features.attributes |= {"logarithm": "10", "spectrum": "magnitude"}
    scaled = {name: column / np.log(10) if column.ndim == 3 else column for name, column in as_double(batch).items()}
    ten = Recipe(inputs, options, 1).apply(scaled)
    torch.testing.assert_close(ten[0] * np.log(10), natural[0], rtol=1e-3, atol=1e-3)


def test_augmentations_are_applied_in_the_order_they_are_named(clips):
    inputs, batch = inputs_of(clips), pairs_of(clips).__getitems__([(0, 0), (0, 1)])
    one, two = (
        Recipe(inputs, contrastive.Options(augment=names), 1).apply(batch)[0]
        for names in ("noise,compression", "compression,noise")
    )
    assert not torch.equal(one, two)


# ---------------------------------------------------------------- training


def embed(encoder, source: files.Features, rows: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        windows = source.frames.gather(source.offset[rows], 96)
        return F.normalize(encoder(torch.from_numpy(windows).float()), dim=1)


CASES = [(contrastive, name, 1 / 7) for name in ("crops", "mixback", "separated")] + [(coincidence, "separated", 1 / 4)]


@pytest.mark.parametrize(("module", "name", "chance"), CASES)
def test_the_loss_falls_and_held_out_views_find_each_other(separated, module, name, chance):
    """Four held-out mixtures: a view has seven others to find its own among, and four tracks may coincide with it."""
    own = {"hidden": 32, "output": 16} if module is contrastive else {"hidden": 64}
    options = module.Options(views=name, silent=False, augment="compression,noise", **own)
    inputs = inputs_of(separated)
    torch.manual_seed(0)
    objective = module.Objective(Profile(16), inputs, options)
    rows = np.array([int(key[8:10]) for key in inputs.features.clips.key])
    train = module.Examples(inputs_of(separated, rows < 12), options, 0)
    test = module.Examples(inputs_of(separated, rows >= 12), options, 0)
    optimizer = torch.optim.AdamW(objective.parameters(), 3e-3)
    found = []
    for step in range(80):
        loss, _ = objective(train.__getitems__([(step, row) for row in range(len(train))]), 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])
    objective.eval()
    with torch.no_grad():
        figures = [objective(test.__getitems__([(epoch, row) for row in range(4)]), 0.0)[1] for epoch in range(10)]
    accuracy = "accuracy" if module is contrastive else "accuracy_aa"
    assert np.mean([float(each[accuracy]) for each in figures]) > chance + 0.2


def plan_of(stage: dict) -> curriculum.Stage:
    data = {"encoder": "plain", "size": 8, "norm": "group", "stage": [{"steps": 4, "batch_size": 4, **stage}]}
    return curriculum.from_data(data).stage[0]


def test_objectives_of_equal_pairs_share_their_batch_and_their_encoder(separated):
    pair = {"views": "separated", "silent": False}
    joint = {"contrastive": {**pair, "augment": "masks"}, "coincidence": {**pair, "augment": "masks", "weight": 0.5}}
    stage, inputs = plan_of({"objective": joint}), inputs_of(separated)
    torch.manual_seed(0)
    loss_of_all, examples = training.build_stage(stage, models.build("plain", 8, norm="group"), inputs, {}, 0)
    assert examples["contrastive"] is examples["coincidence"]
    with device.start("cpu", "float32", 1) as accelerator:
        loaders = training.load(examples, 0, stage, 0, 0, accelerator, 0)
        assert list(loaders) == [("contrastive", "coincidence")]
        seen: dict[str, list] = {}
        for name, part in loss_of_all.parts.items():
            assert part.encoder is loss_of_all.encoder
            part.register_forward_pre_hook(lambda module, given, name=name: seen.setdefault(name, []).append(given[0]))
        heard: list[torch.Tensor] = []
        loss_of_all.encoder.register_forward_pre_hook(lambda module, given: heard.append(given[0]))
        optimizer = torch.optim.AdamW(loss_of_all.parameters(), 1e-3)
        loss, figures = training.take_step(loss_of_all, optimizer, loaders, accelerator, 0.0)
    assert seen["contrastive"][0] is seen["coincidence"][0], "one batch"
    assert heard[0].shape == heard[1].shape and not torch.equal(*heard), "each its own copy"
    total = figures["contrastive.loss"] + 0.5 * figures["coincidence.loss"]
    assert loss.item() == pytest.approx(total.item(), rel=1e-6)


@pytest.mark.parametrize("other", [{"views": "crops"}, {"views": "separated", "processors": "1"}, {}])
def test_objectives_of_other_pairs_draw_their_own(separated, other):
    stage = plan_of({"objective": {"contrastive": {"views": "separated"}, "coincidence": other}})
    encoder = models.build("plain", 8, norm="group")
    examples = training.build_stage(stage, encoder, inputs_of(separated), {}, 0)[1]
    assert examples["contrastive"] is not examples["coincidence"]
    with device.start("cpu", "float32", 1) as accelerator:
        assert len(training.load(examples, 0, stage, 0, 0, accelerator, 0)) == 2


def train_command(path: Path, output: Path, steps: int, batch: int, *options: str) -> list[str]:
    words = ["train", path, "--threads", 1, "--norm", "group", "--size", 8, "--precision", "float32", "-q"]
    words += ["--steps", steps, "--batch-size", batch, "-o", output, "--objective", "contrastive"]
    words += [word for each in ("hidden=16", "output=8", "head_norm=layer", *options) for word in ("--set", each)]
    return list(map(str, words))


def test_two_processes_equal_one_of_twice_the_batch(separated, tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    runs = program.start_several(1, *train_command(separated, one, 3, 8))
    runs += program.start_several(2, *train_command(separated, two, 3, 4))
    for run in runs:
        assert run.wait() == 0, run.stderr
    one, two = (files.read_model(path).tensors for path in (one, two))
    assert one.keys() == two.keys() and any(name.startswith("head.contrastive.projection.") for name in one)
    torch.manual_seed(0)
    start = models.build("plain", 8, norm="group").state_dict()
    moved = difference = 0.0
    for name, tensor in start.items():
        if name not in ("mean", "deviation"):
            moved += float(np.square(one[f"encoder.{name}"] - tensor.numpy()).sum())
            difference += float(np.square(one[f"encoder.{name}"] - two[f"encoder.{name}"]).sum())
    assert moved > 0 and np.sqrt(difference / moved) < 0.02, np.sqrt(difference / moved)


def test_killed_at_a_random_step_and_repeated_gives_the_same_bits(separated, tmp_path):
    """A joint stage of augmentation, mix-back and batch norm, its state saved at every step, ended by SIGKILL."""
    plan = tmp_path / "plan.toml"
    options = '{ views = "mixback", augment = "crop,masks,noise" }'
    stage = ["[[stage]]", "steps = 12", "batch_size = 4", *(f"objective.{name} = {options}" for name in PAIRED)]
    plan.write_text("\n".join(['encoder = "draft"', "size = 8", *stage]))

    def start(output: Path) -> program.Running:
        words = ["train", separated, "--curriculum", plan, "--precision", "float32", "-q", "-o", output]
        return program.start(*words, "--checkpoint-every", 0, "--threads", 1, CUDA_VISIBLE_DEVICES="")

    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    assert start(whole).wait() == 0
    process, resume = start(cut), cut.with_name(cut.name + ".resume")
    while not resume.exists() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    assert not cut.exists() and start(cut).wait() == 0 and not resume.exists()
    one, two = (files.read_model(path).tensors for path in (whole, cut))
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)
    logs = [path.with_name(path.name + ".metrics.jsonl").read_text().splitlines() for path in (whole, cut)]
    assert len({str([json.loads(line) | {"time": ""} for line in lines]) for lines in logs}) == 1


@pytest.mark.parametrize("delta", [10.0, np.inf])
def test_tracks_are_not_heard_beside_their_mixture(separated, delta):
    """Near pairs and triplets take mixtures alone: a track and its mixture are no coincidence."""
    inputs = inputs_of(separated)
    near = coincidence.Examples(inputs, coincidence.Options(delta=delta), 0)
    parent = inputs.features.tracks.parent
    frames = [near._draw(epoch, row)[name] for epoch in range(20) for row in range(MIXTURES) for name in VIEWS]
    assert len(near) == MIXTURES and all(parent[clip_of(inputs.features, frame)] == -1 for frame in frames)


def test_triplets_are_drawn_from_mixtures_alone(separated, tmp_path):
    drawn = tmp_path / "triplets.h5"
    words = ["sample-triplets", separated, "--sampler", "proximity", "--count", 300, "-q", "-o", drawn]
    assert program.run(*words).status == 0
    source, columns = files.Features(separated), files.Triplets(drawn).columns
    frames = np.concatenate([columns[name] for name in ("anchor", "positive", "negative")])
    assert all(source.recorded[clip_of(source, frame)] for frame in frames)


def test_every_field_of_pair_sampling_is_an_option_of_both():
    for module in (contrastive, coincidence):
        assert {each.name for each in fields(PairSampling)} <= {each.name for each in fields(module.Options)}

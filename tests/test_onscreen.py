"""AudioScope: what hears and sees, the attention between them, examples of two videos, and what training brings."""

import json
from dataclasses import replace
from types import SimpleNamespace

import builder
import numpy as np
import pytest
import torch
from cluster_world import run
from separation_world import RATE, picture, tone, write_waves

from soundssl import files, models, objectives, training
from soundssl.curriculum import Stage
from soundssl.models import audioscope
from soundssl.models.audioscope import AudioScope, LogMel, Sizes
from soundssl.objectives import onscreen
from soundssl.ops import onscreen as losses
from soundssl.ops import spectrogram


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    return write_waves(tmp_path_factory.mktemp("onscreen") / "waves.h5", pictures=True)


def inputs_of(path, **more) -> objectives.Inputs:
    source = files.Features(path)
    return objectives.Inputs(source, np.ones(len(source.clips), bool), **more)


def test_frames_with_gradients_are_the_frames_of_features():
    sound = tone(1, np.random.default_rng(0))
    front_end = spectrogram.FrontEnd()
    expected = spectrogram.log_mel(sound, front_end, "float64")
    found = LogMel(front_end)(torch.from_numpy(sound)[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    silence = torch.zeros(1, 800, requires_grad=True)
    LogMel(front_end)(silence).sum().backward()
    assert torch.isfinite(silence.grad).all()


@pytest.mark.parametrize("image", ["space-to-depth", "vgg-small"])
def test_attention_sums_to_one_over_places_and_pictures(image):
    torch.manual_seed(0)
    scope = AudioScope(Sizes(image=image, size=16, attention=8, hidden=8)).eval()
    tracks, images = torch.randn(2, 4, RATE), torch.randint(0, 256, (2, 3, 128, 64, 3), dtype=torch.uint8)
    logits, attention = scope(tracks, images)
    assert logits.shape == (2, 4) and attention.shape == (2, 4, 3, 8, 4)
    torch.testing.assert_close(attention.sum((2, 3, 4)), torch.ones(2, 4))
    turned, _ = scope(tracks.flip(1), images)
    torch.testing.assert_close(turned.flip(1), logits, msg="tracks are judged one by one")
    with pytest.raises(ValueError, match="pictures, height, width, 3"):
        scope(tracks, images[:, :0])


@pytest.mark.parametrize("name", ["space-to-depth", "vgg-small", "resnet50"])
def test_a_tower_gives_places_and_the_embedding_that_it_always_gave(name):
    tower = models.build_image(name, 8).eval()
    pictures = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    places, whole = tower.local(pictures)
    assert places.shape[2:] == (4, 6)
    torch.testing.assert_close(whole, tower(pictures))


def test_pictures_are_those_of_the_excerpt_or_of_a_stranger(waves):
    inputs = inputs_of(waves)
    options = onscreen.Options(seconds=1.0, off_screen=0.5)
    examples = onscreen.Examples(inputs, options, 3)
    batch = examples.__getitems__([(epoch, row) for epoch in range(4) for row in range(len(examples))])
    assert batch["image"].shape[1:] == (1, 32, 32, 3) and batch["mixtures"].shape[1:] == (2, RATE)
    kept = batch["label"] == -1
    assert 0.3 < kept.float().mean() < 0.7 and set(batch["label"].tolist()) == {-1, 0}
    source, seen = inputs.features, []
    for image in batch["image"][:, 0].numpy():
        number = next(i for i in range(len(source.images)) if np.array_equal(source.images[i], image))
        seen.append(np.searchsorted(source.image_offset, number, side="right") - 1)
    first = np.tile(examples.clip, 4)
    assert np.array_equal(np.array(seen) == first, kept.numpy())


def test_pictures_beyond_the_ends_of_a_clip_are_its_first_and_last(waves):
    source = files.Features(waves)
    own = source.images_of(2)
    assert len(own) == 2 and all(np.array_equal(each, own[1]) for each in source.images_from(2, 1.2, 3))
    assert np.array_equal(source.images_from(2, -0.5, 1)[0], own[0])


def test_labelled_clips_are_all_on_screen_or_not_at_all(waves, tmp_path):
    keys = [f"clip-{i:02}" for i in range(4)]
    path = builder.labels(tmp_path / "l.h5", builder.whole(keys), ["on-screen"], [[1], [0], [1], [-1]])
    inputs = inputs_of(waves, labels=files.Labels(path))
    examples = onscreen.Examples(inputs, onscreen.Options(seconds=1.0, off_screen=0.0, labelled=1.0), 0)
    labels = examples.__getitems__([(0, row) for row in range(16)])["label"]
    assert set(labels.tolist()) == {0, 1}
    with pytest.raises(ValueError, match=r"l.h5 has no class 'seen'; it has on-screen"):
        onscreen.Examples(inputs, onscreen.Options(on_screen_class="seen"), 0)


def test_a_source_loses_its_probability_where_its_frames_are_those_of_another_clip():
    """Two sources, low and high, each with its own thing; the first is shown. No label names a class."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    scope = AudioScope(Sizes(size=16, attention=16, hidden=32))
    optimizer = torch.optim.Adam(scope.parameters(), 3e-3)

    def draw(count: int):
        kind = generator.permutation(count) % 2
        tracks = [[tone(k, generator, 0.3), tone(1 - k, generator, 0.3)] for k in kind]
        images = np.stack([[picture(k, generator)] for k in kind])
        return torch.from_numpy(np.array(tracks)), torch.from_numpy(images), torch.from_numpy(kind)

    first = torch.tensor([[True, False]] * 12)
    for _ in range(30):
        tracks, images, _ = draw(12)
        loss = losses.active_combinations(scope(tracks, images)[0], first).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tracks, images, kind = draw(24)
    strange = torch.empty_like(images)
    strange[kind == 0], strange[kind == 1] = images[kind == 1], images[kind == 0]
    with torch.no_grad():
        right, wrong = (scope.eval()(tracks, shown)[0][:, 0].sigmoid().mean() for shown in (images, strange))
    assert right > 0.8 and wrong < 0.4


def train(waves, output, *more):
    small = ["--tracks", 2, "--batch-size", 3, "--precision", "float32", "--threads", 1, "--steps", 3]
    sizes = [f"--set={each}" for each in ("seconds=0.5", "size=8", "attention=8", "hidden=8")]
    return run("train", waves, "--objective", "onscreen", *small, *sizes, "-o", output, *more)


def test_training_writes_a_classifier_beside_the_separator(waves, tmp_path):
    done = train(waves, tmp_path / "m.safetensors")
    assert done.status == 0, done.err
    stored = files.read_model(tmp_path / "m.safetensors")
    scope = audioscope.restore(stored.config, stored.tensors)
    assert scope is not None and stored.config["heads"]["onscreen"]["size"] == 8
    line = json.loads((tmp_path / "m.safetensors.metrics.jsonl").read_text().splitlines()[-1])
    assert {"onscreen.classifier", "onscreen.improvement", "onscreen.on", "onscreen.off"} <= set(line)
    again = train(waves, tmp_path / "n.safetensors", "--init", tmp_path / "m.safetensors")
    assert again.status == 0 and "begins afresh" not in again.err


def test_warming_up_keeps_the_separator_from_the_classifier(waves):
    inputs = inputs_of(waves)
    options = onscreen.Options(seconds=0.5, size=8, separator_alone=0.5, onscreen_weight=1e6)
    batch = onscreen.Examples(inputs, options, 0).__getitems__([(0, 0), (0, 1), (0, 2)])
    torch.manual_seed(0)
    separator = models.build_separator("tdcn-stft-small", tracks=2)
    objective = onscreen.Objective(separator, inputs, options)
    plain = onscreen.Objective(separator, inputs, replace(options, onscreen_weight=0.0))
    found = {}
    for name, one, progress in (("alone", objective, 0.4), ("none", plain, 0.9), ("both", objective, 0.6)):
        separator.zero_grad()
        one(batch, progress)[0].backward()
        found[name] = torch.cat([p.grad.flatten() for p in separator.parameters() if p.grad is not None])
    torch.testing.assert_close(found["alone"], found["none"])
    assert (found["both"] - found["none"]).abs().max() > 1


def coincidence_of(size: int = 8) -> SimpleNamespace:
    """Return what the objective reads of a model of coincidence, with fresh nets."""
    nets = {
        "encoder.": models.build("space-to-depth", size, 64, 96),
        "head.coincidence.image.": models.build_image("space-to-depth", size),
    }
    tensors = {
        f"{place}{name}": value.numpy() for place, net in nets.items() for name, value in net.state_dict().items()
    }
    learnt = {"coincidence": {"modality": "image", "tower": "space-to-depth"}}
    config = {"encoder": "space-to-depth", "size": size, "norm": "batch", "frames": 96, "front_end": {}}
    return SimpleNamespace(path="c.safetensors", config={**config, "stage": [{"objective": learnt}]}, tensors=tensors)


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_nets_of_coincidence_stay_as_they_are(waves, freeze):
    inputs = inputs_of(waves, coincidence=coincidence_of())
    options = onscreen.Options(seconds=0.5, freeze=freeze)
    objective = onscreen.Objective(models.build_separator("tdcn-stft-small", tracks=2), inputs, options).train()
    before = {name: value.clone() for name, value in objective.scope.state_dict().items()}
    learnt = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    batch = onscreen.Examples(inputs, options, 0).__getitems__([(0, 0), (0, 1), (0, 2)])
    objective(batch, 1.0)[0].backward()
    torch.optim.SGD(learnt, 0.1).step()
    changed = {
        name.split(".")[0] for name, value in objective.scope.state_dict().items() if not value.equal(before[name])
    }
    assert {"query", "classifier"} <= changed
    assert ({"audio", "image"} <= changed) is not freeze and not (freeze and changed & {"audio", "image"})


def test_frozen_nets_leave_the_separator_to_other_objectives(waves):
    inputs = inputs_of(waves, coincidence=coincidence_of())
    parts = {"onscreen": {"weight": 1.0, "seconds": 0.5, "freeze": True}, "mixit": {"weight": 1.0, "seconds": 0.5}}
    separator = models.build_separator("tdcn-stft-small", tracks=2)
    loss, _ = training.build_stage(Stage(parts, steps=1, batch_size=2), separator, inputs, {}, 0)
    assert set(loss.parts) == set(parts)


def test_an_on_screen_model_goes_on_with_its_own_nets(waves):
    inputs, stage = inputs_of(waves, coincidence=coincidence_of()), {"weight": 1.0, "seconds": 0.5, "freeze": True}
    separator = models.build_separator("tdcn-stft-small", tracks=2)

    def build(heads):
        return training.build_stage(Stage({"onscreen": stage}, steps=1, batch_size=2), separator, inputs, heads, 0)[0]

    earlier = {name: value + 1 for name, value in build({}).heads()["onscreen"].items()}
    now = build({"onscreen": earlier}).heads()["onscreen"]
    assert all(now[name].equal(value) for name, value in earlier.items())


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--set", "freeze=true"], 1, "freeze keeps the nets of a model of coincidence, and none is given"),
        (["--set", "off_screen=2"], 1, "off_screen of the onscreen objective is 2.0; it is a share, 0 to 1"),
        (["--set", "loss=none"], 2, "loss of objective onscreen"),
        (["--clips", "absent.txt"], 2, "absent.txt does not exist"),
        (["--coincidence", "absent.safetensors"], 2, "absent.safetensors does not exist"),
    ],
)
def test_bad_input_has_its_line(waves, tmp_path, more, status, said):
    done = train(waves, tmp_path / "m.safetensors", *more)
    assert (done.status, said in done.err) == (status, True), done.err


def test_features_without_pictures_are_refused(tmp_path):
    done = train(write_waves(tmp_path / "w.h5"), tmp_path / "m.safetensors")
    assert done.status == 1 and "w.h5 holds no pictures; make it from videos with soundssl featurize" in done.err


def test_a_list_names_the_clips_that_are_trained_on(waves, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("clip-00\nclip-01\nclip-02\n")
    assert train(waves, tmp_path / "a.safetensors", "--clips", listed).status == 0
    assert train(waves, tmp_path / "a.safetensors", "--clips", listed).err.count("up to date") == 1
    listed.write_text("clip-00\nclip-99\n")
    done = train(waves, tmp_path / "a.safetensors", "--clips", listed)
    assert done.status == 4 and "has no clip 'clip-99', which the list names" in done.err
    listed.write_text("\n")
    assert "lists no clip" in train(waves, tmp_path / "a.safetensors", "--clips", listed).err

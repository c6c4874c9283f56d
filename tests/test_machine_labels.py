"""Machine labels: thresholds for so many a clip, two recognisers side by side, half of what was seen, priors."""

import json

import builder
import numpy as np
import pytest
import torch
from cluster_world import run

from soundssl import files, models, objectives, picture_scores
from soundssl.files import writing
from soundssl.labels import labelset
from soundssl.labels import scores as scores_of
from soundssl.labels.choice import threshold_for, top
from soundssl.objectives import classification


def scores(path, keys, classes, seed):
    """Write probabilities of two windows of each clip."""
    rows = np.random.default_rng(seed).random((2 * len(keys), len(classes))).astype("f4")
    about = {"layer": "probabilities", "class": json.dumps(classes)}
    return builder.embeddings(path, rows, clip=np.repeat(np.arange(len(keys)), 2), keys=keys, attributes=about)


@pytest.mark.parametrize("mean", [0.5, 1.0, 2.3, 3.0])
def test_the_threshold_gives_so_many_labels_a_clip(mean):
    score = np.random.default_rng(0).random((200, 12))
    label = top(score, 3, threshold_for(np.split(score, [7, 120]), len(score), 3, mean))
    assert label.sum(1).mean() == pytest.approx(mean, abs=0.005) and label.sum(1).max() <= 3
    with pytest.raises(ValueError, match="4 labels a clip cannot be: at most 3 are taken"):
        threshold_for([score], len(score), 3, 4)


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_of_equal_scores_the_first_classes_are_taken_and_what_is_no_number_last(count):
    score = np.random.default_rng(1).integers(0, 4, (300, 9)) / 4
    score[::3, 2], score[5] = np.nan, np.nan
    expected = np.zeros(score.shape, np.int8)
    for row, best in enumerate(np.argsort(-score, axis=1, kind="stable")[:, : count or 9]):
        expected[row, best] = 1
    real = ~np.isnan(score)
    assert np.array_equal(top(score, count)[real], expected[real])
    assert np.array_equal(top(score, count, 0.5), expected * (real & (score >= 0.5)))


class Watched:
    """Give rows of a matrix, and keep how many were read at once."""

    def __init__(self, rows):
        self.rows, self.shape, self.read = rows, rows.shape, []

    def __getitem__(self, key):
        found = self.rows[key]
        self.read.append(len(found))
        return found


@pytest.mark.parametrize(("level", "mean"), [("clip", None), ("clip", 2.5), ("window", None)])
def test_scores_of_thousands_of_classes_are_read_some_rows_at_a_time(tmp_path, monkeypatch, level, mean):
    generator = np.random.default_rng(2)
    rows, clip = generator.random((90, 300)).astype("f4"), generator.permutation(np.repeat(np.arange(30), 3))
    about = {"layer": "probabilities", "class": json.dumps([f"c{i}" for i in range(300)])}
    source = files.Embeddings(builder.embeddings(tmp_path / "s.h5", rows, clip=clip, attributes=about))
    source.embedding = Watched(rows)
    monkeypatch.setattr(scores_of, "NUMBERS", 2100)
    found = scores_of.machine_labels(source, 3, 0.9 if mean is None else None, level, mean)
    assert 0 < max(source.embedding.read) <= 2100 // 300, "no more than so many numbers"
    assert sum(source.embedding.read) == len(rows) * (1 if mean is None else 2)
    score = rows if level == "window" else np.stack([rows[clip == i].mean(0, dtype=float) for i in range(30)])
    least = 0.9 if mean is None else np.sort(np.sort(score, 1)[:, -3:], None)[-75]
    expected = (score >= np.sort(score, 1)[:, -3:-2]) & (score >= least)
    assert np.array_equal(found.label == 1, expected)
    monkeypatch.setattr(writing, "BLOCK", 1000)
    with files.create(tmp_path / "l.h5", "labels", inputs=[], made_from="", attributes={}) as sink:
        labelset.write(sink, found)
    written = files.Labels(tmp_path / "l.h5")
    assert isinstance(written.label.base, np.memmap) and np.array_equal(written.label, found.label)
    assert not written.rated.any() and written.rated.shape == found.label.shape


def test_labels_of_pictures_and_of_sound_stand_side_by_side(tmp_path):
    keys = [f"clip-{i:02}" for i in range(6)]
    seen = scores(tmp_path / "seen.h5", keys, ["dog", "tree", "car"], 0)
    heard = scores(tmp_path / "heard.h5", keys[1:], ["bark", "dog"], 1)
    visual, both = tmp_path / "visual.h5", tmp_path / "both.h5"
    assert run("labels", "top", seen, "--top", 2, "--modality", "visual", "-o", visual).status == 0
    words = ["--top", 2, "--mean", 1, "--modality", "audio", "--beside", visual, "-o", both]
    done = run("labels", "top", heard, *words)
    assert done.status == 0, done.err
    found = files.Labels(both)
    assert found.classes == ["dog (visual)", "tree", "car", "bark", "dog (audio)"]
    assert found.modality == ["visual"] * 3 + ["audio"] * 2
    assert list(found.key) == keys and (found.label[0, 3:] == -1).all(), "nobody heard the first"
    assert (found.label[:, :3] == 1).sum() == 12 and (found.label[:, 3:] == 1).sum() == 5
    kept = labelset.of_file(found).columns([0, 4])
    assert kept.modality == ["visual", "audio"]
    for more, said in ((["--threshold", 0.5], "a mean chooses the threshold"), (["--level", "window"], "of clips")):
        refused = run("labels", "top", heard, "--mean", 1, *more, "-o", tmp_path / "x.h5")
        assert (refused.status, said in refused.err) == (2, True)
    refused = run("labels", "top", heard, "--mean", 9, "-o", tmp_path / "x.h5")
    assert (refused.status, "labels a clip cannot be" in refused.err) == (1, True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Give sixteen clips with ten visual and three audio classes: all are labelled with eight of the one, one other."""
    folder = tmp_path_factory.mktemp("machine")
    generator = np.random.default_rng(0)
    features = builder.features(folder / "f.h5", [generator.normal(size=(96, 64)) for _ in range(16)])
    keys = [f"clip-{i:02}" for i in range(16)]
    label = np.zeros((16, 13), np.int8)
    label[:, :8], label[:, 10] = 1, 1
    classes = [f"v{i}" for i in range(10)] + ["a0", "a1", "a2"]
    kinds = ["visual"] * 10 + ["audio"] * 3
    path = builder.labels(folder / "l.h5", builder.whole(keys), classes, label, modality=kinds)
    source = files.Features(features)
    return objectives.Inputs(source, np.ones(16, bool), labels=files.Labels(path))


@pytest.mark.parametrize(("dropped", "value"), [("zero", 0), ("ignore", -1)])
def test_each_step_keeps_a_random_half_of_the_visual_labels_and_all_others(inputs, dropped, value):
    options = classification.Options(loss="bce", visual="half", dropped=dropped)
    examples = classification.Examples(inputs, options, 0)
    keys = [(epoch, row) for epoch in range(50) for row in range(16)]
    label = examples.__getitems__(keys)["label"].numpy()
    assert (label[:, :8] == 1).sum(1).tolist() == [4] * 800 and ((label[:, :8] == value).sum(1) == 4).all()
    assert (label[:, 8:] == inputs.labels.label[0, 8:]).all()
    share = (label[:, :8] == 1).mean(0)
    assert np.abs(share - 0.5).max() < 0.07, "each as often as another"
    assert np.array_equal(examples.__getitems__(keys[5:6])["label"].numpy()[0], label[5])


def test_the_bias_starts_at_the_odds_of_each_class(inputs):
    torch.manual_seed(0)
    encoder = models.build("space-to-depth", 8)
    objective = classification.Objective(encoder, inputs, classification.Options(loss="bce", prior=True))
    share = torch.sigmoid(objective.classifier.layers[-1].bias)
    torch.testing.assert_close(share, torch.tensor([16.5 / 17] * 8 + [0.5 / 17] * 2 + [16.5 / 17] + [0.5 / 17] * 2))
    softmax = classification.prior(np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]]), "ce").softmax(0)
    torch.testing.assert_close(softmax, torch.tensor([2.5, 1.5, 0.5]) / 4.5)


def test_half_needs_labels_that_mark_what_was_seen(inputs, tmp_path):
    keys = [f"clip-{i:02}" for i in range(16)]
    path = builder.labels(tmp_path / "l.h5", builder.whole(keys), ["a"], np.ones((16, 1)))
    done = run(
        "train", inputs.features.path, "--labels", path, "--objective", "classification", "--set", "visual=half",
        "--set", "loss=bce", "--encoder", "space-to-depth", "--steps", 1, "-o", tmp_path / "m.safetensors",
    )  # fmt: skip
    assert (done.status, "visual=half needs labels that mark classes as visual" in done.err) == (1, True), done.err


# ---------------------------------------------------------------- pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Write features with three pictures a clip, two clips without; weights of a small net of timm; its classes."""
    timm = pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    frames = [generator.normal(size=(96, 64)) for _ in range(6)]
    images = [generator.integers(0, 256, (3 if i < 4 else 0, 32, 32, 3), np.uint8) for i in range(6)]
    builder.features(folder / "f.h5", frames, pictures=images)
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", pretrained=False, num_classes=3)
    torch.save(net.state_dict(), folder / "w.pth")
    (folder / "c.txt").write_text("dog\ntree\ncar\n")
    return folder, net.eval(), images


def embed(folder, output, *more):
    words = ["--modality", "image", "--layer", "probabilities", "--device", "cpu", "--precision", "float32"]
    return run("embed", folder / "f.h5", "-o", output, *words, *more)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_clip_has_the_mean_of_the_scores_of_its_pictures(pictures, tmp_path, activation):
    folder, net, images = pictures
    words = ["-m", "timm:test_resnet", "--weights", folder / "w.pth", "--classes", folder / "c.txt"]
    done = embed(folder, tmp_path / "s.h5", *words, "--activation", activation)
    assert done.status == 0 and "2 of 6 clips have no pictures; left out" in done.err
    found = files.Embeddings(tmp_path / "s.h5")
    assert json.loads(found.attributes["class"]) == ["dog", "tree", "car"] and list(found.clip) == [0, 1, 2, 3]
    mean, deviation = (torch.tensor(net.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    for row, image in zip(found.embedding[:], images, strict=False):
        given = torch.from_numpy(image).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            logits = net((given - mean) / deviation)
        expected = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
        np.testing.assert_allclose(row, expected.mean(0).numpy(), atol=1e-4)
    assert "up to date" in embed(folder, tmp_path / "s.h5", *words, "--activation", activation).err
    assert run("labels", "top", tmp_path / "s.h5", "--top", 1, "-o", tmp_path / "l.h5").status == 0


def rows(path) -> dict[str, bytes]:
    found = files.Embeddings(path)
    return {found.clips.key[clip]: row.tobytes() for clip, row in zip(found.clip, found.embedding[:], strict=True)}


def test_pictures_that_an_interrupted_run_classified_are_not_classified_again(pictures, tmp_path, monkeypatch):
    folder = pictures[0]
    words = ["-m", "timm:test_resnet", "--weights", folder / "w.pth", "--classes", folder / "c.txt"]
    assert embed(folder, tmp_path / "whole.h5", *words).status == 0
    seen, classified = [], picture_scores.Job._classified

    def interrupted(job, images):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(images)
        return classified(job, images)

    monkeypatch.setattr(picture_scores.Job, "_classified", interrupted)
    output = tmp_path / "s.h5"
    done = embed(folder, output, *words)
    assert done.status == 130 and "the same command goes on from here" in done.err and not output.exists()
    with open(tmp_path / "s.h5.parts" / "vectors", "ab") as file:
        file.write(bytes(5))  # as if it had been killed while it wrote a row
    seen.clear()
    done = embed(folder, output, *words)
    assert done.status == 0 and "going on: 2 of 4 clips were done before" in done.err and len(seen) == 2
    assert rows(output) == rows(tmp_path / "whole.h5") and not (tmp_path / "s.h5.parts").exists()
    monkeypatch.setattr(picture_scores.Job, "_classified", classified)
    done = embed(folder, output, *words, "--activation", "sigmoid")
    assert done.status == 0 and "going on" not in done.err and rows(output) != rows(tmp_path / "whole.h5")


def test_parts_of_the_pictures_are_those_of_one_run(pictures, tmp_path):
    folder = pictures[0]
    words = ["-m", "timm:test_resnet", "--weights", folder / "w.pth", "--classes", folder / "c.txt"]
    assert embed(folder, tmp_path / "whole.h5", *words).status == 0
    parts = [tmp_path / f"{number}.h5" for number in range(1, 6)]
    for number, path in enumerate(parts, 1):
        done = embed(folder, path, *words, "--part", f"{number}/5")
        assert done.status == 0, done.err
        assert files.Embeddings(path).attributes["part"] == f"{number}/5"
    assert [] in [list(files.Embeddings(path).clip) for path in parts], "one part has no pictures, and is no fault"
    done = run("embed", *parts, "--copy", "-o", tmp_path / "all.h5")
    assert done.status == 0, done.err
    whole, joined = (files.Embeddings(tmp_path / name) for name in ("whole.h5", "all.h5"))
    assert rows(joined.path) == rows(whole.path) and list(joined.clips.key) == list(whole.clips.key)
    assert run("embed", *parts, "-o", tmp_path / "referred.h5").status == 0
    assert rows(tmp_path / "referred.h5") == rows(whole.path)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-m", "timm:test_resnet", "--classes", "c.txt"], 2, "Missing option '--weights'"),
        (["-m", "timm:test_resnet", "--weights", "w.pth"], 2, "Missing option '--classes'"),
        (["-m", "model.safetensors"], 2, "is no image classifier; give timm:NAME"),
        (["-m", "timm:no_such", "--weights", "w.pth", "--classes", "c.txt"], 1, "timm has no model 'no_such'"),
        (["-m", "timm:test_resnet", "--weights", "w.pth", "--classes", "two.txt"], 1, "with 2 classes"),
        (["-m", "timm:test_resnet", "--weights", "w.pth", "--classes", "bad.txt"], 4, "has empty or repeated lines"),
        (["-m", "timm:test_resnet", "--modality", "sound"], 2, "are of --modality image"),
        (["-m", "timm:test_resnet", "--weights", "w.pth", "--classes", "c.txt", "--hop", "1"], 2, "leave out --hop"),
        (
            ["-m", "timm:test_resnet", "--weights", "w.pth", "--classes", "c.txt", "--store", "float16"],
            2,
            "and --store",
        ),
        (["-m", "timm:test_resnet", "--weights", "w.pth", "--classes", "c.txt", "--part", "3/2"], 2, "3/2"),
    ],
)
def test_bad_input_of_pictures(pictures, tmp_path, words, status, said):
    folder = pictures[0]
    (folder / "two.txt").write_text("dog\ntree\n")
    (folder / "bad.txt").write_text("dog\n\ndog\n")
    done = embed(folder, tmp_path / "s.h5", *(folder / word if (folder / word).is_file() else word for word in words))
    assert (done.status, said in done.err) == (status, True), done.err


def test_features_without_pictures_are_refused(pictures, tmp_path):
    builder.features(tmp_path / "f.h5", [np.zeros((96, 64))])
    folder = pictures[0]
    (tmp_path / "w.pth").write_bytes((folder / "w.pth").read_bytes())
    words = ["-m", "timm:test_resnet", "--weights", folder / "w.pth", "--classes", folder / "c.txt"]
    done = embed(tmp_path, tmp_path / "s.h5", *words)
    assert (done.status, "holds no pictures; make it from videos" in done.err) == (4, True), done.err

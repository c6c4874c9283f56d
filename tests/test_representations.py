"""The protocols for representations: kNN and the linear layer against scikit-learn, and what the command line makes."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from test_contrastive import train_command
from test_evaluations import CLASSES, clips, of_classes, overall

from soundssl import files, models, objectives
from soundssl.commands import main
from soundssl.evaluations import knn, linear
from soundssl.evaluations.table import Table


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code or 0


def protocol(data, **chosen) -> list[dict]:
    return knn.evaluate(data.table(), knn.Options(**{**knn.PRESETS["sound-events"], **chosen}))


@pytest.mark.parametrize("k", [199, 31, 1])
def test_the_preset_is_the_protocol_of_the_paper_by_scikit_learn(k):
    """Every window asks the k nearest of other clips; its clip takes the majority of its windows' majorities.

    Two classes, three windows a clip and an odd k: no vote is tied.
    """
    generator = np.random.default_rng(0)
    clip, target = np.repeat(np.arange(120), 3), np.arange(120) % 2
    unit = generator.standard_normal((360, 8)) + 0.4 * target[clip, None]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    decided = []
    for one in range(120):
        own = clip == one
        search = KNeighborsClassifier(k, metric=lambda a, b: 1 - a @ b, algorithm="brute")
        decided.append(np.median(search.fit(unit[~own], target[clip[~own]]).predict(unit[own])))
    assert knn.PRESETS["sound-events"]["k"] == 200
    options = knn.Options(**{**knn.PRESETS["sound-events"], "k": k})
    label, everywhere = np.eye(2, dtype=np.int8)[target], np.ones(120, bool)
    score, _ = knn.clip_scores(unit.astype(np.float32), clip, label, np.arange(120), everywhere, everywhere, options)
    assert np.array_equal(score.argmax(axis=1), decided)
    rows = knn.evaluate(Table(unit, label, ["x", "y"], clip=clip, recording=np.arange(120) // 4), options)
    right = np.array(decided) == target
    assert overall(rows)["accuracy"]["value"] == pytest.approx(right.mean())
    balanced = np.mean([right[target == number].mean() for number in (0, 1)])
    assert overall(rows)["balanced_accuracy"]["value"] == pytest.approx(balanced)


def test_equal_votes_go_to_the_lowest_class_as_the_published_code_has_it():
    """Each window's four neighbours are two of either class, then each clip's windows vote once for either class.

    The nearer neighbours are of the higher class: by nearness it would win both times.
    """
    angle = np.radians([0.0, 2.0, 3.0, -5.0, -6.0])  # the asking clip, two of class 1 near it, two of class 0 farther
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    label, clips = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [1, 0]], np.int8), np.arange(5)
    query = clips == 0
    chosen = {**knn.PRESETS["sound-events"], "k": 4}
    table = Table(vectors, label, ["x", "y"], test=query, train=~query)
    assert overall(knn.evaluate(table, knn.Options(**chosen)))["accuracy"]["value"] == 1.0
    nearer = knn.Options(**{**chosen, "ties": "nearer"})
    assert overall(knn.evaluate(table, nearer))["accuracy"]["value"] == 0.0
    two = np.concatenate([vectors[[0]], -vectors[[0]], vectors[1:3], -vectors[3:]])  # a window by y, one by x, farther
    clip = np.array([0, 0, 1, 2, 3, 4])
    table = Table(two, label, ["x", "y"], clip=clip, test=query, train=~query)
    options = knn.Options(**{**chosen, "k": 1})
    assert overall(knn.evaluate(table, options))["accuracy"]["value"] == 1.0
    nearer = knn.Options(**{**chosen, "k": 1, "ties": "nearer"})
    assert overall(knn.evaluate(table, nearer))["accuracy"]["value"] == 0.0


def test_leaving_out_the_clip_alone_lets_its_recording_answer():
    data = clips(0.0, 120)
    data.embedding = np.random.default_rng(0).standard_normal((30, 8))[data.clip // 4].astype(np.float32)
    data.label = np.eye(len(CLASSES), dtype=np.int8)[np.arange(120) // 4 % len(CLASSES)]
    with_recording = overall(protocol(data, k=3))["accuracy"]["value"]
    without = overall(protocol(data, k=3, leave_out="recording"))["accuracy"]["value"]
    assert with_recording == 1.0 and without < 0.6


# ---------------------------------------------------------------- the linear layer


def run(data, validation=None, seed=0, **chosen) -> list[dict]:
    options = linear.Options(**({"epochs": 30, "drops": (15, 25), "standardise": False} | chosen))
    return linear.evaluate(data.table(train=data.part(0), test=data.part(1), validation=validation), options, seed)


def test_converged_it_is_the_logistic_regression_of_scikit_learn():
    """One window a clip and all of them in a batch: SGD goes to the one minimum of loss and weight decay."""
    data = clips(1.0, 300)
    data.embedding, data.clip = data.embedding[::2], data.clip[::2]
    train, target, decay = data.part(0), data.label.argmax(axis=1), 1e-2
    options = linear.Options(
        learning_rate=0.5, weight_decay=decay, batch_size=1000, epochs=2000, drops=(), standardise=False
    )
    windows = linear.Windows(data.embedding, data.clip, 300)
    layer = linear.fit(windows, data.label, train, None, options, 0)
    found = linear.clip_scores(layer, windows, data.part(1))
    ones = np.concatenate([data.embedding, np.ones((300, 1))], axis=1)  # the bias decays too
    theirs = LogisticRegression(C=1 / (train.sum() * decay), fit_intercept=False, tol=1e-8, max_iter=5000)
    expected = theirs.fit(ones[train], target[train]).predict_proba(ones[data.part(1)])
    assert np.abs(found - expected).max() < 1e-3


def test_rows_are_whole_and_classes_that_are_apart_are_told_apart():
    rows = run(clips(20.0), learning_rate=0.01)
    assert overall(rows)["balanced_accuracy"]["value"] == overall(rows)["mAP"]["value"] == 1.0
    assert overall(rows)["training_clips"]["value"] == 80 and list(of_classes(rows)) == CLASSES
    named = [one["class"] is not None for one in rows]
    assert named == sorted(named)
    chance = overall(run(clips(0.0, 600)))["balanced_accuracy"]
    assert chance["value"] == pytest.approx(chance["chance"], abs=0.08) and chance["chance"] == 0.2


def test_the_score_of_a_clip_is_the_mean_softmax_of_its_windows():
    data = clips(1.0)
    windows = linear.Windows(data.embedding, data.clip, len(data.label))
    layer = linear.fit(windows, data.label, data.part(0), None, linear.Options(epochs=2), 0)
    chosen = data.part(1)
    with torch.no_grad():
        probability = layer(torch.from_numpy(data.embedding)).double().softmax(1).numpy()
    expected = [probability[data.clip == clip].mean(axis=0) for clip in np.flatnonzero(chosen)]
    assert np.allclose(linear.clip_scores(layer, windows, chosen), expected)


def test_an_epoch_takes_one_window_of_each_clip():
    data = clips(0.0, 60)
    windows = linear.Windows(data.embedding, data.clip, 60)
    drawn = [windows.one_of_each(np.array([7, 3]), np.random.default_rng(seed)).numpy() for seed in range(40)]
    for place, clip in enumerate((7, 3)):
        own = data.embedding[data.clip == clip]
        assert {tuple(each[place]) for each in drawn} == {tuple(row) for row in own}


def test_the_rate_falls_at_its_epochs(monkeypatch):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self, *a, **k: (rates.append(self.param_groups[0]["lr"]), step(self, *a, **k))[1],
    )
    data = clips(1.0, 60)
    linear.evaluate(data.table(train=data.part(0), test=data.part(1)))
    assert rates == pytest.approx([0.1] * 80 + [0.01] * 80 + [0.001] * 40)


def test_seed_and_validation_decide():
    data = clips(0.8)
    assert run(data, seed=1) == run(data, seed=1) != run(data, seed=2)
    kept = run(data, data.part(2), learning_rate=3.0, drops=())
    assert overall(kept)["balanced_accuracy"]["value"] >= 0.3
    turned = data.label[:, ::-1].copy()
    turned[~data.part(1)] = data.label[~data.part(1)]
    data.label = turned
    assert overall(run(data))["training_clips"] == overall(run(clips(0.8)))["training_clips"]


def test_it_standardises_by_the_training_windows_unless_told_otherwise():
    """Dimensions of very different sizes, and one that is constant in training but not in the test."""
    assert linear.Options().standardise and not linear.Options(**linear.PRESETS["sound-events"]).standardise
    data = clips(2.0)
    data.embedding = np.concatenate([data.embedding * 10.0 ** np.arange(-4, 4), np.ones((480, 1))], axis=1, dtype="f4")
    data.embedding[data.part(1)[data.clip], -1] += 1e-3 * np.random.default_rng(0).standard_normal(160)
    scaled = overall(run(data, standardise=True))["balanced_accuracy"]["value"]
    plain = overall(run(data, learning_rate=1e-6))["balanced_accuracy"]["value"]
    assert scaled > 0.7 and scaled > plain + 0.2
    windows = linear.Windows(data.embedding, data.clip, len(data.label))
    layer = linear.fit(windows, data.label, data.part(0), None, linear.Options(epochs=1), 0)
    own = data.embedding[data.part(0)[data.clip]].astype("f8")
    assert np.allclose(layer.mean, own.mean(0), rtol=1e-4, atol=1e-6)
    assert np.allclose(layer.deviation[:-1], own.std(0)[:-1], rtol=1e-4) and layer.deviation[-1] == 1


def test_test_labels_never_reach_training():
    data, other = clips(0.8), clips(0.8)
    other.label[other.part(1)] = np.roll(other.label[other.part(1)], 1, axis=1)
    layers = [
        linear.fit(linear.Windows(each.embedding, each.clip, 240), each.label, each.part(0), None, linear.Options(), 0)
        for each in (data, other)
    ]
    assert torch.equal(layers[0].linear.weight, layers[1].linear.weight)


def test_misuse_is_named():
    data = clips(1.0)
    data.label[0] = 1
    with pytest.raises(ValueError, match="1 clips have several classes; use the evaluation shallow"):
        run(data)
    data = clips(1.0)
    with pytest.raises(ValueError, match="80 test clips are in another part"):
        linear.evaluate(data.table(train=data.part(1), test=data.part(1)))
    unknown = np.where(data.part(1)[:, None], -1, data.label)
    with pytest.raises(ValueError, match="none of 80 test clips has a window and a class"):
        linear.evaluate(Table(data.embedding, unknown, CLASSES, clip=data.clip, test=data.part(1)))
    data.embedding *= 1e30
    with pytest.raises(ValueError, match=r"loss of the linear layer is (nan|inf); standardise, or lower"):
        run(data)
    assert overall(run(data, standardise=True))["balanced_accuracy"]["value"] > 0.4


# ---------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def model(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("representations") / "m.safetensors"
    words = train_command(toy.features, path, 2, 4)
    assert command(*words) == 0
    return path


def test_projections_are_what_the_head_makes_of_the_encoder(toy, model, tmp_path):
    words = ("-m", model, "-o", tmp_path / "p.h5", "--layer", "projection", "--hop", 0.5, "--precision", "float32")
    assert command("embed", toy.features, *words, "-q") == 0
    trained, source = files.read_model(model), files.Features(toy.features)
    encoder = models.restore(trained.config, trained.tensors).eval()
    head = objectives.restore("projection", trained.config, trained.tensors).head.eval()
    projected = files.Embeddings(tmp_path / "p.h5")
    assert projected.attributes["layer"] == "projection" and projected.embedding[:].shape[1] == 8
    windows = next(source.windows(96, 50, 20)).frames
    with torch.no_grad():
        expected = head(encoder(torch.from_numpy(windows).float())).numpy()
    assert np.abs(projected.embedding[: len(windows)] - expected).max() < 1e-4
    assert np.allclose(np.linalg.norm(projected.embedding[:], axis=1), 1, atol=1e-5)


def test_the_command_line_has_both_protocols(toy, model, tmp_path, capsys):
    words = ("-m", model, "-o", tmp_path / "p.h5", "--layer", "projection", "--hop", 0.5)
    assert command("embed", toy.features, *words, "-q") == 0
    capsys.readouterr()
    assert command("evaluate", "knn", tmp_path / "p.h5", "--labels", toy.labels, "--preset", "sound-events") == 0
    preset = [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()]
    spelled = ("--level", "window", "--k", "200", "--vote", "majority", "--leave-out", "clip", "--ties", "first")
    assert command("evaluate", "knn", tmp_path / "p.h5", "--labels", toy.labels, *spelled) == 0
    assert preset == [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()]
    spelled = ("--unit", "window", *spelled[2:])  # as it was once called
    assert command("evaluate", "knn", tmp_path / "p.h5", "--labels", toy.labels, *spelled) == 0
    assert preset == [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()]
    assert command("evaluate", "linear", tmp_path / "p.h5", "--labels", toy.labels, "--folds", "--epochs", 20) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["split"] for row in rows} == {"1", "2", "3", "mean"}
    assert {"accuracy", "balanced_accuracy"} <= {row["metric"] for row in rows}
    words = ("evaluate", "linear", tmp_path / "p.h5", "--labels", toy.labels, "--test", 1)
    capsys.readouterr()
    assert command(*words, "--preset", "sound-events") == 0
    published = capsys.readouterr()
    assert "those of embed --raw are wanted" in " ".join(published.err.split())
    spelled = ("--no-standardise", "--learning-rate", 0.1, "--epochs", 200)
    assert command(*words, *spelled) == 0 and capsys.readouterr().out == published.out
    capsys.readouterr()
    assert command(*words) == 0
    usual = capsys.readouterr()
    assert usual.err == "", "the default standardises, and then lengths do not matter"
    assert command(*words, "--preset", "sound-events", "--standardise") == 0 and capsys.readouterr() == usual
    assert command("evaluate", "linear", tmp_path / "p.h5", "--labels", toy.labels) == 2


def test_a_model_without_a_projection_is_named(tmp_path):
    with pytest.raises(ValueError, match="no projection; train one with --objective contrastive"):
        objectives.restore("projection", {"heads": {}}, {})

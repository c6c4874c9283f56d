"""Classification: it learns, a frozen encoder stays as it is, windows lie in the segments whose labels they take."""

import json

import numpy as np
import pytest
import torch
from test_training import CLASSES, CLIPS, FRAMES, command, write_features

from soundssl import curriculum, device, files, models, objectives, training
from soundssl.objectives import classification
from soundssl.progress import Progress

NAMES = ["low", "middle", "high", "top"]


def write_labels(path, segments: list[tuple[int, float, float]], label: np.ndarray, weight=None, names=NAMES, **table):
    """Write labels of (clip, start, end) segments."""
    with files.create(path, "labels", inputs=[], made_from="toy", attributes={}) as sink:
        sink.write("label", label.astype(np.int8))
        sink.write("segment/key", [f"clip-{clip:02}" for clip, _, _ in segments])
        sink.write("segment/start", np.array([start for _, start, _ in segments], "f8"))
        sink.write("segment/end", np.array([end for _, _, end in segments], "f8"))
        sink.write("class", names)
        if weight is not None:
            sink.write("weight", np.asarray(weight, "f4"))
        for name, column in table.items():
            sink.write(name, column)
    return path


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classification")
    features = write_features(folder / "toy.features.h5")
    segments = [(clip, 0.0, np.inf) for clip in range(CLIPS)]
    label = np.eye(CLASSES)[np.arange(CLIPS) % CLASSES]
    return features, write_labels(folder / "toy.labels.h5", segments, label)


def inputs_of(toy, clips=None) -> objectives.Inputs:
    clips = np.ones(CLIPS, bool) if clips is None else clips
    return objectives.Inputs(files.Features(toy[0]), clips, labels=files.Labels(toy[1]))


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_it_learns_the_classes(toy, loss):
    examples = classification.Examples(inputs_of(toy), classification.Options(loss=loss), 0)
    torch.manual_seed(0)
    encoder = models.build("draft", 16)
    encoder.set_statistics(*map(torch.from_numpy, (inputs_of(toy).features.mean, inputs_of(toy).features.deviation)))
    objective = classification.Objective(encoder, inputs_of(toy), classification.Options(loss=loss)).train()
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    with device.start("cpu", "auto", 1) as accelerator:
        for step in range(12):
            batch = examples.__getitems__([(step, row) for row in np.random.default_rng(step).permutation(CLIPS)[:16]])
            with accelerator.autocast():
                value, figures = objective(batch, 0.0)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    assert figures["correct"] >= 0.7  # chance is a quarter


def test_a_frozen_encoder_keeps_weights_and_statistics(toy, tmp_path):
    torch.manual_seed(0)
    encoder = models.build("draft", 8)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    stage = curriculum.Stage({"classification": {"weight": 1.0, "freeze": True}}, steps=3, batch_size=4)
    plan = curriculum.Curriculum("draft", 8, stage=(stage,))
    with device.start("cpu", "float32", 1) as accelerator:
        checkpoint, log = training.Checkpoint(tmp_path / "m", "x", 1e9), files.Log(None)
        heads = training.train(
            plan, encoder, inputs_of(toy), accelerator, seed=0, workers=0, checkpoint=checkpoint, log=log
        ).heads
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert heads["classification"]["classifier.layers.0.weight"].abs().sum() > 0


def test_a_frozen_encoder_has_its_stage_for_itself(toy):
    parts = {"classification": {"weight": 1.0, "freeze": True}, "contrastive": {"weight": 1.0}}
    stage = curriculum.Stage(parts, steps=1, batch_size=4)
    with pytest.raises(ValueError, match="a frozen encoder teaches other objectives nothing"):
        training.build_stage(stage, models.build("draft", 8), inputs_of(toy), {}, 0)


def test_a_frozen_encoder_is_standardised_by_the_training_windows(toy):
    """Embeddings far from the origin and of little spread: without it the classifier finds next to nothing."""
    torch.manual_seed(0)
    encoder = models.build("draft", 8)
    with torch.no_grad():
        encoder.backbone.projection.weight *= 1e-2
        encoder.backbone.projection.bias.copy_(torch.arange(8.0))
    learnt = {}
    for scaled in (True, False):
        torch.manual_seed(0)
        options = classification.Options(freeze=True, standardise=scaled)
        objective = classification.Objective(encoder, inputs_of(toy), options).train()
        examples = classification.Examples(inputs_of(toy), options, 0)
        batch = examples.__getitems__([(0, row) for row in range(CLIPS)])
        optimizer = torch.optim.Adam(objective.classifier.parameters(), 1e-2)
        for _ in range(60):
            loss, figures = objective(batch, 0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        learnt[scaled] = float(figures["correct"])
        with torch.no_grad():
            vectors = encoder.eval()(batch["window"].float())
        mean, deviation = (vectors.mean(0), vectors.std(0, correction=0)) if scaled else (torch.zeros(8), torch.ones(8))
        assert torch.allclose(objective.classifier.mean, mean, atol=1e-4)
        assert torch.allclose(objective.classifier.deviation, deviation, rtol=1e-2)
    assert learnt[True] >= learnt[False] + 0.2
    free = classification.Objective(encoder, inputs_of(toy), classification.Options())
    assert not free.classifier.mean.any() and (free.classifier.deviation == 1).all(), "what learns scales itself"


def test_a_dimension_that_never_changes_is_not_scaled():
    classifier = classification.Classifier(2, 3)
    classifier.standardise(torch.tensor([[5.0, 1.0], [5.0, 3.0]]))
    assert classifier.mean.tolist() == [5.0, 2.0] and classifier.deviation.tolist() == [1.0, 1.0]


def test_the_state_of_a_classifier_of_before_is_taken():
    before = classification.Classifier(3, 2)
    state = {name: value for name, value in before.state_dict().items() if "layers" in name}
    now = classification.Classifier(3, 2)
    now.standardise(torch.randn(5, 3))
    now.load_state_dict(state)
    assert torch.equal(now(torch.eye(3)), before(torch.eye(3)))
    with pytest.raises(RuntimeError, match=r"layers\.0\.bias"):
        now.load_state_dict({name: value for name, value in state.items() if "bias" not in name})


def test_windows_lie_in_their_segments(toy, tmp_path):
    segments = [(0, 0.0, 1.2), (1, 0.3, 1.5), (2, 0.64, 0.7), (3, 0.0, np.inf), (4, 1.5, 1.6)]
    labels = write_labels(tmp_path / "l.h5", segments, np.eye(CLASSES)[[0, 1, 2, 3, 0]])
    examples = classification.Examples(inputs_of((toy[0], labels)), classification.Options(), 0)
    assert (examples.low - np.arange(5) * FRAMES).tolist() == [0, 30, 19, 0, FRAMES - 96]
    assert (examples.high - np.arange(5) * FRAMES).tolist() == [24, 54, 19, FRAMES - 96, FRAMES - 96]


def test_segments_without_use_are_left_out(toy, tmp_path):
    segments = [(0, 0.0, np.inf), (1, 0.0, np.inf), (2, 0.0, np.inf), (20, 0.0, np.inf)]
    label = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [-1, -1, -1, -1], [0, 1, 0, 0]])
    labels = write_labels(tmp_path / "l.h5", segments, label)
    chosen = np.arange(CLIPS) < 10
    assert len(classification.Examples(inputs_of((toy[0], labels), chosen), classification.Options(), 0)) == 1
    assert len(classification.Examples(inputs_of((toy[0], labels), chosen), classification.Options(loss="bce"), 0)) == 2
    with pytest.raises(ValueError, match="are the keys of labels and features the same"):
        classification.Examples(inputs_of((toy[0], labels), ~np.ones(CLIPS, bool)), classification.Options(), 0)


def test_weights_are_taken_or_not(toy, tmp_path):
    segments = [(clip, 0.0, np.inf) for clip in range(3)]
    labels = write_labels(tmp_path / "l.h5", segments, np.eye(CLASSES)[:3], weight=[0.5, 1.0, 0.0])
    inputs, keys = inputs_of((toy[0], labels)), [(0, 0), (0, 1), (0, 2)]
    assert classification.Examples(inputs, classification.Options(), 0).__getitems__(keys)["weight"].tolist() == [
        0.5,
        1,
        0,
    ]
    unweighted = classification.Examples(inputs, classification.Options(weighted=False), 0)
    assert unweighted.__getitems__(keys)["weight"].tolist() == [1, 1, 1]


def test_the_command_line_trains_embeds_probabilities_and_goes_on_from_a_model(toy, tmp_path):
    model, tagger, out = (tmp_path / name for name in ("m.safetensors", "t.safetensors", "p.h5"))
    net = ["--encoder", "draft", "--size", 8, "--norm", "group", "--batch-size", 4, "-q"]
    base = ["train", toy[0], "--labels", toy[1], "--objective", "classification", *net]
    command([*base, "--steps", 2, "-o", model])
    command([*base, "--steps", 1, "--init", model, "--set", "freeze=true", "--set", "loss=bce", "-o", tagger])
    first, second = files.read_model(model), files.read_model(tagger)
    assert second.config["heads"]["classification"] == {"classes": NAMES, "hidden": 0, "output": "sigmoid"}
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors if "encoder" in name)
    assert [each["role"] for each in json.loads(second.attributes["inputs"])] == ["features", "labels", "init"]
    command(["embed", toy[0], "-m", model, "--layer", "probabilities", "-o", out, "-q"])
    found = files.Embeddings(out)
    assert json.loads(found.attributes["class"]) == NAMES and found.attributes["layer"] == "probabilities"
    assert np.allclose(found.embedding[:].sum(1), 1, atol=1e-5)
    plain = command(["train", toy[0], *net, "--triplets", toy[1], "-o", tmp_path / "x.safetensors"], check=False)
    assert plain.status == 4 and "holds labels, not triplets" in plain.stderr


def test_a_head_of_other_classes_begins_afresh(toy, tmp_path):
    segments = [(clip, 0.0, np.inf) for clip in range(CLIPS)]
    with device.start("cpu", "float32", 1) as accelerator:
        plan = {"size": 8, "norm": "group", "encoder": "draft"}
        stage = {"steps": 1, "batch_size": 4, "learning_rate": 0.0}

        def train(output, labels, init=None, **options) -> list[str]:
            stages = [{**stage, "objective": {"classification": options}}]
            said: list[str] = []
            teller = type("Teller", (Progress,), {"say": lambda self, message: said.append(message)})()
            built = curriculum.from_data({**plan, "stage": stages})
            job = training.Job(built, toy[0], accelerator, labels=labels, init=init, seed=int(init is not None))
            assert job.run(output, progress=teller)
            return said

        assert train(tmp_path / "one.safetensors", toy[1]) == []
        assert train(tmp_path / "same.safetensors", toy[1], tmp_path / "one.safetensors") == []
        label = np.eye(CLASSES)[np.arange(CLIPS) % CLASSES]
        other = write_labels(tmp_path / "l.h5", segments, label, names=NAMES[::-1])
        said = train(tmp_path / "other.safetensors", other, tmp_path / "one.safetensors")
        assert said == [
            "the head of classification in "
            + str(tmp_path / "one.safetensors")
            + " has other classes; it begins afresh"
        ]
        said = train(tmp_path / "wide.safetensors", toy[1], tmp_path / "one.safetensors", hidden=3)
        assert len(said) == 1 and "has other hidden; it begins afresh" in said[0]
    one, same, other = (files.read_model(tmp_path / f"{name}.safetensors") for name in ("one", "same", "other"))
    name = "head.classification.classifier.layers.0.weight"
    assert np.array_equal(one.tensors[name], same.tensors[name])
    assert not np.array_equal(one.tensors[name], other.tensors[name])
    assert other.config["heads"]["classification"]["classes"] == NAMES[::-1]


def test_an_objective_says_what_it_lacks(toy, tmp_path):
    stage = curriculum.Stage({"triplet": {"weight": 1.0}}, steps=1, batch_size=2)
    with pytest.raises(ValueError, match="the objective triplet needs triplets; give --triplets"):
        training.build_stage(stage, models.build("plain", 8), inputs_of(toy), {}, 0)

"""Training as papers train: schedules, measures on unseen clips, the best state, patience, averages."""

import json

import numpy as np
import pytest
import torch
from cluster_world import run
from test_training import CLASSES, CLIPS, write_features

from soundssl import curriculum, device, files, models, objectives, training
from soundssl.training.validation import Average, Validation, Watch


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation")
    features, labels = write_features(folder / "toy.features.h5"), folder / "labels.h5"
    with files.create(labels, "labels", inputs=[], made_from="", attributes={}) as sink:
        sink.write("label", np.eye(CLASSES, dtype=np.int8)[np.arange(CLIPS) % CLASSES])
        sink.write("segment/key", [f"clip-{i:02}" for i in range(CLIPS)])
        sink.write("segment/start", np.zeros(CLIPS))
        sink.write("segment/end", np.full(CLIPS, np.inf))
        sink.write("class", [f"class {i}" for i in range(CLASSES)])
    return features, labels


def plan(encoder="baseline-cnn", objective=None, **stage):
    values = {"steps": 8, "batch_size": 4, "objective": objective or {"classification": {}}, **stage}
    return curriculum.from_data({"encoder": encoder, "size": 8, "stage": [values]})


def train(toy, plan, output, **more):
    with device.start("cpu", "float32", 1) as accelerator:
        job = training.Job(plan, toy[0], accelerator, labels=toy[1], validation=["test"])
        finished = job.run(output, **more)
    return finished, train_lines(output)


def same(stored, state):
    """Whether a model file holds the state of an encoder; it holds a number as an array of one."""
    return all(
        np.array_equal(stored[f"encoder.{name}"].ravel(), tensor.numpy().ravel()) for name, tensor in state.items()
    )


def scripted(monkeypatch, values):
    """Let measures be these values, and return the states of the encoder that were measured."""
    given, seen = iter(values), []

    def measure(self, encoder, objective):
        seen.append({name: tensor.clone() for name, tensor in encoder.state_dict().items()})
        return next(given)

    monkeypatch.setattr(Validation, "measure", measure)
    return seen


def test_the_rate_falls_at_milestones():
    stage = curriculum.Stage(steps=200, learning_rate=1.0, warmup=0, schedule="multistep", milestones=(80, 160))
    rates = [training.learning_rate(stage, step) for step in (0, 79, 80, 159, 160, 199)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("stopped", [1, 5])
def test_stopped_anywhere_it_goes_on_to_the_same_bits(toy, tmp_path, stopped):
    chosen = {
        "optimiser": "sgd",
        "learning_rate": 0.02,
        "schedule": "plateau",
        "plateau": 1,
        "average": 0.7,
        "clip": 1.0,
    }
    chosen |= {"validate": "mAP", "every": 2, "patience": 9, "encoder_rate": 0.5}
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    assert train(toy, plan(**chosen), whole)[0]
    asked = iter([False] * stopped + [True])
    assert not train(toy, plan(**chosen), cut, stop=lambda: next(asked))[0]
    finished, lines = train(toy, plan(**chosen), cut)
    assert finished and lines == train_lines(whole)
    one, two = (files.read_model(path).tensors for path in (whole, cut))
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)
    assert [line["step"] for line in lines if "validation.mAP" in line] == [2, 4, 6, 8]


def train_lines(output):
    """Return the lines of a training without the time of day."""
    lines = (output.parent / f"{output.name}.metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "time"} for line in lines]


def test_the_best_state_is_kept_and_patience_ends_the_stage(toy, tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [0.1, 0.9, 0.2, 0.3])
    output = tmp_path / "m.safetensors"
    finished, lines = train(toy, plan(steps=40, every=2, patience=2, validate="knn"), output)
    assert finished and lines[-1]["step"] == 8 and len(seen) == 4
    stored = files.read_model(output).tensors
    assert same(stored, seen[1])
    assert not same(stored, seen[3])


def test_a_lower_loss_is_better_and_a_plateau_lowers_the_rate(toy, tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [3.0, 1.0, 2.0, 2.0, 2.0, 0.5])
    chosen = {
        "steps": 60,
        "every": 10,
        "validate": "loss",
        "schedule": "plateau",
        "plateau": 2,
        "decay": 0.5,
        "warmup": 0.0,
    }
    output = tmp_path / "m.safetensors"
    _, lines = train(toy, plan(**chosen, batch_size=1, learning_rate=1e-3), output)
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates == pytest.approx([1e-3] * 4 + [5e-4] * 2)
    stored = files.read_model(output).tensors
    assert same(stored, seen[5])


def test_an_average_is_the_recursion_and_gives_the_module_back():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    average, expected = Average(module, 0.9), module[0].weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            module[0].weight += torch.randn(3, 3)
        module(torch.randn(4, 3))
        average.update()
        expected = 0.9 * expected + 0.1 * module[0].weight.detach()
    own = module[0].weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(module[0].weight.detach(), expected)
    assert torch.equal(module[0].weight.detach(), own)
    assert torch.equal(average.kept["1.running_mean"], module[1].running_mean)
    average.give()
    torch.testing.assert_close(module[0].weight.detach(), expected)


def test_the_encoder_has_a_rate_of_its_own(toy, tmp_path):
    output = tmp_path / "m.safetensors"
    train(toy, plan("plain", encoder_rate=0.0, steps=2, optimiser="sgd", validate="loss"), output)
    stored = files.read_model(output).tensors
    device.seed(0)
    start = models.build("plain", 8)
    for name, weight in start.named_parameters():
        assert np.array_equal(stored[f"encoder.{name}"], weight.detach().numpy()), name
    assert files.read_model(output).config["stage"][0]["encoder_rate"] == 0.0


def test_gradients_are_clipped_and_their_norm_is_logged(toy, tmp_path):
    values = {"optimiser": "sgd", "momentum": 0.0, "learning_rate": 1.0, "clip": 1e-3, "warmup": 0.0}
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    before = torch.cat([weight.detach().flatten().clone() for weight in net.parameters()])

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, batches, progress):
            return 100 * self.net(batches["x"]["window"]).square().sum(), {}

    with device.start("cpu", "float32", 1) as accelerator:
        loaders = {("x",): iter([{"window": torch.ones(3, 2)}])}
        _, figures = training.take_step(Loss(), optimizer, loaders, accelerator, 0.0, 1e-3)
    after = torch.cat([weight.detach().flatten() for weight in net.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=1e-3) and figures["gradient"] > 1
    _, lines = train(toy, plan("plain", **values, steps=1, validate="loss"), tmp_path / "m.safetensors")
    assert lines[0]["gradient"] > 0


@pytest.mark.parametrize(
    ("measure", "objective"),
    [
        ("loss", {"classification": {}}),
        ("mAP", {"classification": {"loss": "bce"}}),
        ("knn", {"contrastive": {}}),
        ("retrieval", {"classification": {}}),
        ("entropy", {"clustering": {"clusters": 3}}),
    ],
)
def test_every_measure_is_a_number_and_changes_nothing(toy, measure, objective):
    stage = plan("plain", objective, validate=measure).stage[0]
    features = files.Features(toy[0])
    clips = features.clips.in_splits(["test"], features.path)
    inputs = objectives.Inputs(features, clips, labels=files.Labels(toy[1]))
    device.seed(0)
    encoder = models.build("plain", 8)
    module, _ = training.build_stage(stage, encoder, inputs, {}, 0)
    module.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random = torch.get_rng_state()
    with device.start("cpu", "float32", 1) as accelerator:
        measured = Validation(inputs, stage, accelerator, 0)
        values = [measured.measure(encoder, module) for _ in range(2)]
    assert values[0] == pytest.approx(values[1]) and np.isfinite(values[0])
    if measure in curriculum.LABELLED:
        assert 0 <= values[0] <= 1
    assert module.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_watch_goes_on_from_its_state():
    stage = curriculum.Stage(validate="mAP", schedule="plateau", plateau=1, decay=0.1, patience=3)
    module, watch = torch.nn.Linear(1, 1), Watch(stage)
    for value in (0.5, 0.4):
        watch.look(value, module)
    again = Watch(stage)
    again.take(watch.state())
    again.look(0.3, module)
    assert (again.factor, again.since, again.best, again.over) == (pytest.approx(0.01), 2, 0.5, False)


def test_what_was_not_chosen_is_not_stated_so_that_files_of_before_are_up_to_date():
    stated = plan().as_dict()["stage"][0]
    assert not set(curriculum.LATER) & set(stated) and "schedule" in stated
    chosen = plan(clip=1.0).as_dict()["stage"][0]
    assert chosen["clip"] == 1.0 and "every" not in chosen


def test_refusals_say_what_to_give(toy, tmp_path):
    words = ["train", toy[0], "--labels", toy[1], "--objective", "classification", "-o", tmp_path / "m.safetensors"]
    unseen = ["--validation", "test"]
    for more, fact in (
        ([*unseen], "nothing is measured on --validation"),
        (["--stage", "validate=mAP"], "name their splits with --validation"),
        ([*unseen, "--stage", "validate=f1"], "validate of the command line is 'f1'"),
        ([*unseen, "--stage", "validate=entropy"], "which only the objective clustering has"),
        (["--stage", "schedule=plateau"], "measures nothing"),
        (["--stage", "patience=3"], "measures nothing"),
        (["--stage", "schedule=multistep"], "no milestones"),
        (["--stage", "milestones=[160,80]"], "one after another"),
        (["--stage", "momentum=1.0"], "must be from 0 to below 1"),
        (["--stage", "clip=-1"], "must be at least 0"),
        (["--stage", "clip"], "not NAME=VALUE"),
        (["--stage", "nesterov=true"], "has the key 'nesterov'"),
        ([*unseen, "--stage", "validate=loss", "--stage", "patience=1", "--keep", "3"], "may end before such a step"),
        (["--validation", "none", "--stage", "validate=loss"], "none"),
    ):
        done = run(*words, *more)
        assert done.status == (1 if more[1] == "none" else 2), done.err
        assert fact in " ".join(done.err.replace("│", " ").split()), done.err
    done = run("train", toy[0], "--objective", "contrastive", *unseen, "--stage", "validate=knn", "-o", tmp_path / "m")
    assert done.status == 2 and "is measured by labels; give --labels" in done.err
    with pytest.raises(ValueError, match="give --validation"), device.start("cpu", "float32", 1) as accelerator:
        training.loop._validation(plan(validate="loss").stage[0], None, accelerator, 0)

"""The loop: learning beats chance, a killed run repeats an uninterrupted one bit for bit, two processes equal one."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import builder
import numpy as np
import program
import pytest
import torch

from soundssl import SoundsslError, curriculum, device, files, models, objectives, training
from soundssl.commands.train import train

CLASSES, CLIPS, FRAMES, BANDS = 4, 24, 160, 64
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def write_features(path: Path, seed: int = 0, **attributes) -> Path:
    """Write clips whose class is where a stripe of energy lies, under noise and a level of each clip's own."""
    from soundssl.ops.spectrogram import FrontEnd

    generator = np.random.default_rng(seed)
    frames = generator.normal(-2, 1, (CLIPS, FRAMES, BANDS))
    for clip in range(CLIPS):
        band = 8 + 14 * (clip % CLASSES)
        rhythm = np.sin(np.arange(FRAMES) * (0.2 + 0.15 * (clip % CLASSES)) + generator.uniform(0, 6)) > 0
        frames[clip, :, band : band + 4] += 3.0 * rhythm[:, None]
        frames[clip] += generator.normal(0, 1)
    frames = frames.astype("f2").reshape(-1, BANDS)
    end = {**FrontEnd().attributes(), "resampler": "none", "image_rate": 0.0, **attributes}
    with files.create(path, "features", inputs=[], made_from="toy", attributes=end) as sink:
        sink.write("frames", frames)
        sink.write("mean", frames.astype("f8").mean(0).astype("f4"))
        sink.write("deviation", frames.astype("f8").std(0).astype("f4"))
        sink.write("clip/offset", np.arange(CLIPS + 1) * FRAMES)
        for name in ("key", "recording", "source"):
            sink.write(f"clip/{name}", [f"clip-{i:02}" for i in range(CLIPS)])
        sink.write("clip/split", ["train" if i < CLIPS * 2 // 3 else "test" for i in range(CLIPS)])
        sink.write("clip/start", np.zeros(CLIPS))
        for name, dtype in (("parent", "i4"), ("track", "i1"), ("processor", "i1")):
            sink.write(f"clip/{name}", np.full(CLIPS, -1, dtype))
        sink.write("clip/level", np.zeros(CLIPS, "f4"))
        sink.write("skipped/path", [])
        sink.write("skipped/reason", [])
    return path


def write_triplets(path: Path, features: Path, sampler: str = "proximity", count: int = 400) -> Path:
    words = ["sample-triplets", features, "--sampler", sampler, "--count", count, "--min-distance", 0]
    command([*words, "-o", path, "-q"])  # the clips are short of two windows, one behind the other
    return path


def command(arguments: list, check: bool = True) -> program.Outcome:
    done = program.run(*arguments, CUDA_VISIBLE_DEVICES="")
    assert not check or done.status == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("training")
    features = write_features(folder / "toy.features.h5")
    return features, write_triplets(folder / "toy.triplets.h5", features)


def train_command(toy, output: Path, steps: int = 12, batch: int = 4) -> list:
    net = ["--encoder", "draft", "--norm", "group", "--size", 8, "--precision", "float32", "--threads", 1]
    return ["train", toy[0], "--triplets", toy[1], *net, "--steps", steps, "--batch-size", batch, "-o", output, "-q"]


def inputs_of(toy) -> objectives.Inputs:
    features = files.Features(toy[0])
    return objectives.Inputs(features, np.ones(CLIPS, bool), triplets=files.Triplets(toy[1]))


def run(toy, tmp_path, plan, encoder, seed=0, log=None, checkpoint=None, precision="float32"):
    with device.start("cpu", precision, 1) as accelerator:
        return training.train(
            plan,
            encoder,
            inputs_of(toy),
            accelerator,
            seed=seed,
            workers=0,
            checkpoint=checkpoint or training.Checkpoint(tmp_path / "m", "x", 1e9),
            log=log or files.Log(None),
        )


def separation(encoder, toy) -> float:
    """Mean cosine within classes minus that across classes, of clip vectors."""
    source = files.Features(toy[0])
    with torch.inference_mode():
        windows = next(source.windows(96, 64, 1000))
        vectors = torch.nn.functional.normalize(encoder.eval()(torch.from_numpy(windows.frames).float()), dim=1).numpy()
    label = windows.clip % CLASSES
    products, same = vectors @ vectors.T, label[:, None] == label[None]
    other = windows.clip[:, None] != windows.clip[None]
    return float(products[same & other].mean() - products[~same].mean())


def test_triplets_learn_what_a_class_is_without_labels(toy, tmp_path):
    stage = curriculum.Stage({"triplet": {"weight": 1.0}}, steps=20, batch_size=8, learning_rate=2e-3)
    torch.manual_seed(0)
    encoder = models.build("draft", 16)
    before = separation(encoder, toy)
    log = files.Log(tmp_path / "metrics.jsonl")
    run(toy, tmp_path, curriculum.Curriculum("draft", 16, stage=(stage,)), encoder, log=log, precision="auto")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert separation(encoder, toy) > before + 0.05


def test_a_batch_depends_on_seed_stage_and_step_alone():
    stage = curriculum.Stage(steps=7, batch_size=3)

    class World:
        rank, world_size = 0, 1

    def keys(first, world=World, batch=3):
        one = curriculum.Stage(steps=7, batch_size=batch)
        return list(training.Order(5, 0, one, first, 1, world))

    whole = keys(0)
    assert keys(4) == whole[4:]
    flat = [key for batch in whole for key in batch]
    assert sorted(row for epoch, row in flat if epoch == 0) == list(range(5))
    assert len(set(flat)) == len(flat) == stage.steps * stage.batch_size
    ranks = [type("World", (), {"rank": rank, "world_size": 2}) for rank in (0, 1)]
    halves = [keys(0, rank, 2) for rank in ranks]
    assert [a + b for a, b in zip(*halves, strict=True)] == keys(0, World, 4)


def test_learning_rate_rises_and_falls_to_nothing():
    stage = curriculum.Stage(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [training.learning_rate(stage, step) for step in range(100)]
    assert rates[9] == 1.0 and max(rates) == 1.0 and rates[0] == pytest.approx(0.1) and rates[-1] < 1e-3
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    constant = curriculum.Stage(steps=100, learning_rate=1.0, warmup=0.0, schedule="constant")
    assert training.learning_rate(constant, 99) == 1.0


def test_a_loss_that_is_not_finite_ends_with_advice(toy, tmp_path):
    stage = curriculum.Stage({"triplet": {"weight": float("inf")}}, steps=10, batch_size=4)
    torch.manual_seed(0)
    with pytest.raises(SoundsslError, match=r"the loss is (nan|inf) at step 10; lower --learning-rate"):
        run(toy, tmp_path, curriculum.Curriculum("draft", 8, stage=(stage,)), models.build("draft", 8, norm="group"))


def test_heads_and_encoder_live_on_and_stages_resume(toy, tmp_path):
    stage = curriculum.Stage({"triplet": {"weight": 1.0}}, steps=3, batch_size=2)
    plan = curriculum.Curriculum("draft", 8, "group", (stage, stage))
    torch.manual_seed(0)
    encoder = models.build("draft", 8, norm="group")
    checkpoint = training.Checkpoint(tmp_path / "m", "x", 1e9)
    run(toy, tmp_path, plan, encoder, checkpoint=checkpoint)
    state = checkpoint.load()
    assert (state["stage"], state["step"]) == (1, 0)
    again = models.build("draft", 8, norm="group")
    run(toy, tmp_path, plan, again, checkpoint=checkpoint)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_state_of_another_command_is_not_taken(tmp_path):
    training.Checkpoint(tmp_path / "m", "one", 0).save(stage=0, step=1)
    assert training.Checkpoint(tmp_path / "m", "two", 0).load() is None
    (tmp_path / "m.resume").write_bytes(b"nonsense")
    with pytest.raises(SoundsslError, match="delete it to begin afresh"):
        training.Checkpoint(tmp_path / "m", "one", 0).load()


def test_killed_at_a_random_step_and_repeated_gives_the_same_bits(toy, tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"

    def words(output: Path) -> list:
        return [*train_command(toy, output, steps=30), "--encoder", "draft"]

    command(words(whole))
    process = program.start(*words(cut), "--checkpoint-every", 0, CUDA_VISIBLE_DEVICES="")
    resume = cut.with_name(cut.name + ".resume")
    while not resume.exists() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    assert not cut.exists()
    command(words(cut))
    assert files.read_model(cut).tensors.keys() == files.read_model(whole).tensors.keys()
    for name, tensor in files.read_model(whole).tensors.items():
        assert np.array_equal(tensor, files.read_model(cut).tensors[name]), name
    metrics = [path.with_name(path.name + ".metrics.jsonl").read_text().splitlines() for path in (whole, cut)]
    first, second = ([{**json.loads(line), "time": ""} for line in lines] for lines in metrics)
    assert first == second
    assert not resume.exists()
    for made_from, stays in ((files.model_made_from(cut), False), ("another", True)):  # killed after its output stood
        training.Checkpoint(cut, made_from, 0).save(step=30)
        before = cut.read_bytes()
        command(words(cut))
        assert cut.read_bytes() == before and resume.exists() == stays


def test_interrupted_by_sigint_it_saves_and_says_130(toy, tmp_path):
    output = tmp_path / "m.safetensors"
    process = program.start(*train_command(toy, output, steps=5000), CUDA_VISIBLE_DEVICES="")
    log = output.with_name(output.name + ".metrics.jsonl")
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130, process.stderr
    assert output.with_name(output.name + ".resume").exists() and not output.exists()
    assert re.search(r"stopped after step \d+ of 5000; the state is saved in .*resume, and the same", process.stderr)


def test_a_training_that_is_asked_to_stop_returns_what_it_has_and_goes_on(toy, tmp_path):
    stage = curriculum.Stage({"clustering": {"weight": 1.0, "clusters": 4}}, steps=8, batch_size=4)
    plan, asked = curriculum.Curriculum("draft", 8, "group", (stage,)), iter([False, False, True])
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with device.start("cpu", "float32", 1) as accelerator:

        def job() -> training.Job:
            return training.Job(plan, toy[0], accelerator)

        whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
        assert job().run(whole) and not job().run(cut, stop=lambda: next(asked))
        assert not cut.exists() and job().checkpoint(cut).load()["step"] == 3
        assert not job().stands(cut, {}) and job().run(cut) and job().stands(cut, {})
        checkpoint = training.Checkpoint(tmp_path / "m", "x", 1e9)
        stopped = training.train(
            plan, models.build("draft", 8, norm="group"), inputs_of(toy), accelerator, seed=0, workers=0,
            checkpoint=checkpoint, log=files.Log(None), stop=lambda: True,
        )  # fmt: skip
    assert not stopped.finished and stopped.heads["clustering"]["head.weight"].shape == (4, 8)
    assert checkpoint.load()["step"] == 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    one, two = (files.read_model(path).tensors for path in (whole, cut))
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def test_the_function_of_the_command_is_called_from_python(toy, tmp_path, capsys):
    output = tmp_path / "m.safetensors"
    train(toy[0], output, triplets=toy[1], encoder="plain", steps=1, batch_size=2)
    made = files.read_model(output)
    assert made.config["encoder"] == "plain" and made.config["size"] == 128 and made.config["unit_length"]
    assert capsys.readouterr().out == ""
    train(toy[0], output, triplets=toy[1], encoder="plain", steps=1, batch_size=2)
    assert "is up to date" in capsys.readouterr().err
    train(toy[0], triplets=toy[1], steps=1, batch_size=2, size=8, quiet=True)
    beside = toy[0].with_name("toy.safetensors")
    assert capsys.readouterr() == (f"{beside}\n", "") and files.read_model(beside).config["size"] == 8


def test_options_of_a_net_are_its_own(toy, tmp_path):
    output = tmp_path / "m.safetensors"
    words = ["train", toy[0], "--triplets", toy[1], "--steps", 1, "--batch-size", 2, "--size", 8, "-q", "-o", output]
    command([*words, "--encoder", "plain", "--net", "norm=group"])
    made = files.read_model(output)
    assert made.config["norm"] == "group" and "net" not in made.config
    for more, fact in (
        (["--encoder", "plain", "--net", "norm"], "'norm' is not NAME=VALUE"),
        (["--encoder", "plain", "--net", "pool=blur"], "the net plain has the key 'pool', which is not known"),
        (["--encoder", "plain", "--net", "norm=layer"], "norm of the net plain is 'layer'; choose 'batch', 'group'"),
        (["--encoder", "vggish", "--net", "norm=group"], "the net vggish has the key 'norm', which is not known"),
    ):
        done = command([*words, *more, "--force"], check=False)
        assert done.status == 2 and fact in " ".join(done.stderr.replace("│", " ").split()), done.stderr


def test_a_second_run_on_the_same_output_is_refused(toy, tmp_path):
    output = tmp_path / "m.safetensors"
    with files.alone(output):
        second = command(train_command(toy, output, steps=2), check=False)
    line = f"soundssl train: another run is writing {output}; let it end, or end it, first\n"
    assert (second.status, second.stderr.splitlines(keepends=True)[-1]) == (1, line)
    (tmp_path / "m.safetensors.lock").touch()  # as a killed run leaves it
    command(train_command(toy, output, steps=2))
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors", "m.safetensors.metrics.jsonl"]


def test_a_finished_run_repeated_does_nothing_and_force_does(toy, tmp_path):
    output = tmp_path / "m.safetensors"
    arguments = [word for word in train_command(toy, output, steps=2) if word != "-q"]
    command(arguments)
    first = files.read_model(output).attributes["uuid"]
    assert "up to date" in command(arguments).stderr
    assert files.read_model(output).attributes["uuid"] == first
    assert "up to date" not in command([*arguments, "--steps", 3]).stderr
    assert files.read_model(output).attributes["uuid"] != first


def test_two_processes_equal_one_of_twice_the_batch(toy, tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    command(train_command(toy, one, steps=4, batch=8))
    launch = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(random.randint(20000, 60000))]
    words = [sys.executable, "-m", *launch, "-m", "soundssl", *map(str, train_command(toy, two, steps=4, batch=4))]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    start = models.build("draft", 8, norm="group").state_dict()
    one, two = (files.read_model(path).tensors for path in (one, two))
    moved = difference = 0.0
    for name, tensor in start.items():
        if name not in ("mean", "deviation"):
            moved += float(np.square(one[f"encoder.{name}"] - tensor.numpy()).sum())
            difference += float(np.square(one[f"encoder.{name}"] - two[f"encoder.{name}"]).sum())
    # sums in another order: rounding of float32, which Adam's division blows up where a gradient is next to nothing
    assert moved > 0 and np.sqrt(difference / moved) < 0.02, np.sqrt(difference / moved)


def test_two_processes_share_the_clusters_and_find_what_one_finds(tmp_path):
    matrix = tmp_path / "rows.npy"
    np.save(matrix, np.random.default_rng(0).standard_normal((400, 16), np.float32))
    runs = []
    for name, processes, batch in (("one", 1, 64), ("two", 2, 32)):
        words = ["cluster", matrix, "--k", 33, "--momentum", 0.9, "--starts", 1, "--steps", 20, "--threads", 1]
        words += ["--batch-size", batch, "--precision", "float32", "-o", tmp_path / f"{name}.h5", "-q"]
        runs += program.start_several(processes, *words)
    for run in runs:
        assert run.wait() == 0, run.stderr
    one, two = (files.Clusters(tmp_path / f"{name}.h5") for name in ("one", "two"))
    weights = [np.asarray(each.weight[:]) for each in (one, two)]
    assert np.abs(weights[0] - weights[1]).max() < 1e-4 * np.abs(weights[0]).max()
    assert np.mean(one.cluster[:] == two.cluster[:]) > 0.99
    logs = ((tmp_path / f"{name}.h5.metrics.jsonl").read_text("utf-8").splitlines() for name in ("one", "two"))
    for line, other in zip(*map(lambda lines: map(json.loads, lines), logs), strict=True):
        for figure in ("loss", "clustering.conditional_entropy", "clustering.marginal_entropy"):
            assert line[figure] == pytest.approx(other[figure], rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "given", "said"),
    [
        ("contrastive", "triplets", "contrastive would not read triplets; leave out --triplets"),
        ("coincidence", "labels", "coincidence would not read labels; leave out --labels"),
    ],
)
def test_an_input_that_the_objective_does_not_use_is_refused(toy, tmp_path, capsys, objective, given, said):
    from soundssl.commands import main

    words = ["train", toy[0], "--objective", objective, f"--{given}", toy[1], "-o", tmp_path / "m.safetensors"]
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, words)))
    assert ended.value.code == 2 and said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_labels_are_refused_where_no_triplet_is_supervised(toy, tmp_path):
    keys = [f"clip-{clip:02}" for clip in range(CLIPS)]
    label = np.eye(CLASSES, dtype="i1")[np.arange(CLIPS) % CLASSES]
    labels = builder.labels(tmp_path / "l.h5", builder.whole(keys), list("abcd"), label)
    plan = {"steps": 1, "batch_size": 2, "objective": {"triplet": {}}}
    said = r"toy\.triplets\.h5 is supervised, so none would read labels; leave out --labels"
    with device.start("cpu", "float32", 1) as accelerator:
        with pytest.raises(curriculum.Refused, match=said) as refused:
            training.Job(curriculum.from_data({"stage": [plan]}), *toy[:1], accelerator, triplets=toy[1], labels=labels)
        assert refused.value.status == 2
        both = {**plan, "objective": {"triplet": {}, "classification": {}}}
        data = curriculum.from_data({"stage": [both]})
        assert training.Job(data, toy[0], accelerator, triplets=toy[1], labels=labels).labels, "another reads them"


def test_triplets_with_nothing_left_to_learn_say_so(toy, tmp_path):
    lines: list[str] = []
    log = files.Log(None)
    for margin in (1e-9, 0.5):
        options = {"margin": margin, "mining": "none"}
        plan = curriculum.from_data({"stage": [{"steps": 2, "batch_size": 4, "objective": {"triplet": options}}]})
        with device.start("cpu", "float32", 1) as accelerator:
            torch.manual_seed(0)
            encoder = accelerator.place(models.build("draft", 8, norm="group"))
            checkpoint = training.Checkpoint(tmp_path / f"{margin}", "x", 60.0)
            inputs = inputs_of(toy)
            inputs.triplets.columns["positive"] = inputs.triplets.columns["anchor"]
            training.train(
                plan, encoder, inputs, accelerator, seed=0, workers=0, checkpoint=checkpoint, log=log, say=lines.append
            )
    assert len(lines) == 1 and lines[0].startswith("triplet: the loss ended at 0, no triplet of the last batch")


def test_triplets_of_other_features_are_refused(toy, tmp_path):
    other = write_features(tmp_path / "other.features.h5", seed=1)
    with pytest.raises(files.FormatError, match=r"toy.triplets.h5 was drawn for another features file"):
        files.Triplets(toy[1]).require_features(files.Features(other))


def test_mining_never_takes_the_anchors_recording_or_class(toy):
    from soundssl.objectives import triplet

    inputs = inputs_of(toy)
    options = triplet.Options()
    batch = triplet.Examples(inputs, options, 0).__getitems__([(0, row) for row in range(64)])
    assert (batch["anchor_recording"] != batch["negative_recording"]).all()
    windows = files.Features(toy[0]).frames.gather(inputs.triplets.columns["anchor"][:64], 96)
    assert np.array_equal(batch["anchor"].numpy(), windows)


def test_only_triplets_within_the_chosen_clips_are_trained_on(toy):
    from soundssl.objectives import triplet

    inputs = inputs_of(toy)
    chosen = np.arange(CLIPS) < CLIPS // 2
    examples = triplet.Examples(objectives.Inputs(inputs.features, chosen, inputs.triplets), triplet.Options(), 0)
    assert 0 < len(examples) < len(inputs.triplets)
    for name in ("anchor", "positive", "negative"):
        assert (examples.columns[name] // FRAMES < CLIPS // 2).all()
    with pytest.raises(ValueError, match="draw them with the same --split"):
        triplet.Examples(
            objectives.Inputs(inputs.features, ~np.ones(CLIPS, bool), inputs.triplets), triplet.Options(), 0
        )


def test_a_later_stage_with_a_new_head_resumes_to_the_same_bits(toy, tmp_path):
    stages = (
        curriculum.Stage({"triplet": {"weight": 1.0}}, steps=2, batch_size=2),
        curriculum.Stage({"clustering": {"weight": 1.0, "clusters": 4, "start": "random"}}, steps=3, batch_size=4),
    )
    plan = curriculum.Curriculum("draft", 8, "group", stages)
    torch.manual_seed(0)
    encoder = models.build("draft", 8, norm="group")
    checkpoint = training.Checkpoint(tmp_path / "m", "x", 1e9)
    heads = run(toy, tmp_path, plan, encoder, checkpoint=checkpoint).heads
    assert checkpoint.load()["stage"] == 1
    torch.manual_seed(99)  # what a new process has drawn is of no matter
    again = models.build("draft", 8, norm="group")
    resumed = run(toy, tmp_path, plan, again, checkpoint=checkpoint).heads
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(heads["clustering"]["head.weight"], resumed["clustering"]["head.weight"])

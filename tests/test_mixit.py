"""Mixture invariant training: pairs of different recordings, a loss that falls, checkpoints kept on the way."""

import json

import h5py
import numpy as np
import program
import pytest
import torch
from separation_world import RATE, write_waves
from test_tracks import write_tracks
from test_training import write_features

from soundssl import curriculum, files, models, objectives
from soundssl.commands import main
from soundssl.objectives import mixit
from soundssl.ops import separation


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    return write_waves(tmp_path_factory.mktemp("mixit") / "waves.h5")


def inputs_of(path, clips=None) -> objectives.Inputs:
    source = files.Features(path)
    return objectives.Inputs(source, np.ones(len(source.clips), bool) if clips is None else clips)


def train(waves, output, *more: object) -> int:
    net = ["--objective", "mixit", "--tracks", 2, "--set", "seconds=0.4", "--precision", "float32", "--threads", 1]
    with pytest.raises(SystemExit) as ended:
        main(["train", *map(str, [waves, *net, "--batch-size", 4, "-o", output, *more])])
    return ended.value.code or 0


def test_an_example_is_two_excerpts_of_different_recordings(waves):
    inputs = inputs_of(waves)
    examples = mixit.Examples(inputs, mixit.Options(seconds=0.5), 0)
    assert len(examples) == 8 * 3
    pairs = examples.__getitems__([(0, row) for row in range(24)])["mixtures"].numpy()
    assert pairs.shape == (24, 2, RATE // 2) and pairs.dtype == np.float32
    found = []
    for pair in pairs:
        for excerpt in pair:
            frames = inputs.features.frames
            places = np.flatnonzero(frames[:] == excerpt[0])
            place = next(i for i in places if np.array_equal(frames[i : i + RATE // 2], excerpt))
            found.append(np.searchsorted(inputs.features.offset, place, side="right") - 1)
    first, second = np.array(found).reshape(-1, 2).T
    assert (first == np.repeat(np.arange(8), 3)).all() and (first != second).all()
    other = examples.__getitems__([(1, 0)])["mixtures"].numpy()
    assert not np.array_equal(other[0, 0], pairs[0, 0]), "another place in another epoch"


def test_only_the_chosen_recordings_are_heard_and_no_tracks(waves, tmp_path):
    chosen = np.arange(8) < 3
    examples = mixit.Examples(inputs_of(waves, chosen), mixit.Options(seconds=0.5), 0)
    assert set(examples.clip) == {0, 1, 2}
    generator = np.random.default_rng(0)
    made = write_tracks(tmp_path / "s.h5", {key: generator.normal(size=16000).astype("f4") for key in "ab"})
    assert set(mixit.Examples(inputs_of(made), mixit.Options(seconds=0.5), 0).clip) == {0, 3}


def test_short_clips_stand_in_silence_and_silence_is_passed_over(tmp_path):
    generator = np.random.default_rng(0)
    long = np.zeros(10 * 16000, "f4")
    long[40000:120000] = generator.normal(0, 0.1, 80000)
    made = write_tracks(tmp_path / "s.h5", {"short": np.ones(16000, "f4"), "long": long})
    examples = mixit.Examples(inputs_of(made), mixit.Options(seconds=2.0), 0)
    pairs = examples.__getitems__([(epoch, row) for epoch in range(4) for row in range(len(examples))])["mixtures"]
    for pair in pairs:
        short = next(each for each in pair if (each == 1).any())
        heard = np.flatnonzero(short == 1)
        assert len(heard) == 16000 == heard[-1] - heard[0] + 1 and short.sum() == 16000
    heard = sum(float(pair[0 if pair[1].max() == 1 else 1].square().mean()) > mixit.AUDIBLE for pair in pairs)
    assert heard / len(pairs) > 0.9, "half of the places are silent, one in sixteen stays so"


def test_one_recording_or_the_wrong_features_are_refused(waves, tmp_path):
    with pytest.raises(ValueError, match="need two recordings or more among the chosen clips"):
        mixit.Examples(inputs_of(waves, np.arange(8) == 0), mixit.Options(), 0)
    with pytest.raises(files.FormatError, match="the objective mixit needs waveform features: make them with"):
        mixit.Examples(inputs_of(write_features(tmp_path / "f.h5")), mixit.Options(), 0)
    with pytest.raises(ValueError, match="seconds of the mixit objective is 0; it must be positive"):
        mixit.Examples(inputs_of(waves), mixit.Options(seconds=0), 0)


def test_equal_energy_is_equal():
    mixtures = torch.tensor([[[1.0, 1.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 0.0]]])
    made = mixit.equalise(mixtures)
    assert made.square().sum(2)[0].tolist() == pytest.approx([2, 2]) and torch.equal(made[1], mixtures[1])


def test_the_loss_is_that_of_the_kernel_whatever_the_precision(waves):
    inputs = inputs_of(waves)
    torch.manual_seed(0)
    separator = models.build_separator("tdcn-stft-small", 4)
    objective = mixit.Objective(separator, inputs, mixit.Options(seconds=0.3, equal=True))
    batch = mixit.Examples(inputs, mixit.Options(seconds=0.3), 0).__getitems__([(0, 0), (0, 9)])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        loss, figures = objective(batch, 0.0)
        mixtures = mixit.equalise(batch["mixtures"])
        tracks = separator(mixtures.sum(1))
    wanted, _ = separation.mixit(mixtures, tracks)
    assert float(loss) == pytest.approx(float(wanted.mean()), abs=1e-4)
    assert float(figures["active"]) == 4 and np.isfinite(float(figures["improvement"]))


def test_tones_are_taken_apart_without_labels(waves, tmp_path):
    output = tmp_path / "s.safetensors"
    assert train(waves, output, "--steps", 30, "--learning-rate", 0.003, "--keep", "5,20") == 0
    metrics = output.with_name(output.name + ".metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] - 2 and lines[-1]["mixit.improvement"] > 5
    kept = [files.read_model(tmp_path / f"s.step-{step}.safetensors") for step in (5, 20)]
    assert [model.config["step"] for model in kept] == [5, 20]
    last = files.read_model(output)
    assert last.config["encoder"] == "tdcn-stft-small" and last.config["front_end"]["representation"] == "waveform"
    models.restore_separator(last.config, last.tensors), models.restore_separator(kept[0].config, kept[0].tensors)
    name = "encoder.core.masks.weight"
    assert not np.array_equal(kept[0].tensors[name], kept[1].tensors[name])
    assert not np.array_equal(kept[1].tensors[name], last.tensors[name])


def test_kept_checkpoints_are_made_again_where_they_are_missing(waves, tmp_path, capsys):
    output, kept = tmp_path / "s.safetensors", tmp_path / "s.step-2.safetensors"
    more = ["--steps", 3, "--keep", 2]
    assert train(waves, output, *more) == 0
    before = files.read_model(kept).tensors
    capsys.readouterr()
    assert train(waves, output, *more) == 0 and "up to date" in capsys.readouterr().err
    kept.unlink()
    assert train(waves, output, *more) == 0 and "up to date" not in capsys.readouterr().err
    after = files.read_model(kept).tensors
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        (["--keep", "9"], "step 9 is none of 1 to 3"),
        (["--keep", "x"], "'x' is not a list of numbers"),
        (["--encoder", "plain"], "trains a separator, which 'plain' is not; there are tdcn-stft-small"),
        (["--separator", "tdcn-smal"], "names the separator 'tdcn-smal', which is not known; did you mean tdcn-small?"),
        (["--separator", "tdcn", "--encoder", "plain"], "a model has one net"),
        (["--tracks", "101"], "tracks of the command line is 101; a separator has 2 to 100"),
        (["--set", "snr_max=-1"], "snr_max of the mixit objective is -1.0; it must be positive"),
    ],
)
def test_what_cannot_be_trained_is_said(waves, tmp_path, more, fact, capsys):
    assert train(waves, tmp_path / "s.safetensors", "--steps", 3, *more) in (1, 2)
    said = " ".join(capsys.readouterr().err.split()).replace("│ ", "")
    assert fact in said, said


def test_spectrograms_and_waveforms_are_not_confused(waves, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", str(waves), "--objective", "clustering", "-o", str(tmp_path / "m.safetensors")])
    assert ended.value.code == 4 and "an encoder takes logmel features: make them with" in capsys.readouterr().err
    assert train(write_features(tmp_path / "f.h5"), tmp_path / "s.safetensors") == 4
    assert "a separator takes waveform features: make them with" in capsys.readouterr().err


def test_separators_and_encoders_do_not_share_a_curriculum():
    stages = [{"objective": {"mixit": {}}}, {"objective": {"triplet": {}}}]
    with pytest.raises(
        curriculum.Refused, match="a separator by mixit and an encoder by triplet; train them one after"
    ):
        curriculum.from_data({"stage": stages})
    assert curriculum.from_data({"stage": stages[:1]}).encoder == models.SEPARATOR
    assert curriculum.from_data({"stage": stages[1:]}).encoder == curriculum.AUTO


def test_sound_that_is_no_number_ends_in_a_line_with_both_remedies(tmp_path):
    path = write_waves(tmp_path / "w.h5")
    with h5py.File(path, "r+") as file:
        file["frames"][...] = np.nan
    words = [
        "train",
        path,
        "--objective",
        "mixit",
        "--separator",
        "tdcn-stft-small",
        "--steps",
        1,
        "--set",
        "seconds=0.5",
    ]
    done = program.run(*words, "--batch-size", 2, "-o", tmp_path / "m.safetensors", "-q")
    assert done.status == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "the loss is nan at step 1; lower --learning-rate, or see with soundssl info --verify" in done.stderr
    assert not (tmp_path / "m.safetensors").exists()

"""Presets, all of them: what is given wins over what a preset says, in every command, even where it is the default."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from soundssl import clustering, extraction, labelling, objectives, training
from soundssl.commands import application, cluster, featurize, main, scoring
from soundssl.evaluations import shallow
from soundssl.ops import spectrogram

# Values of the options on which presets have a say: other than theirs, mostly the defaults.
GIVEN = {
    "knn": {"level": "clip", "k": 5, "vote": "share", "leave_out": "recording", "ties": "nearer", "hop": 0.25},
    "linear": {"standardise": True, "learning_rate": 0.25, "epochs": 7, "hop": 0.25},
    "shallow": {"learning_rate": 0.25, "pool": "mean", "dropout": 0.125, "weight_decay": 0.5, "hop": 0.25},
    "cluster": {"scale": 33.0, "context": 1.5, "gamma": 1.25},
    "label-clusters": {"order": "random", "ask": "confident", "spread": 0.75},
}
TRAINED = [name for name in objectives.OBJECTIVES if getattr(objectives.load(name), "PRESETS", None)]


class Seen(Exception):
    """Carry what a command would have worked with."""


def seen(words: list[object]) -> dict[str, object]:
    """Return what a command works with, of which one place is replaced by `stop`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOUNDSSL_DEBUG", "1")
        with pytest.raises(Seen) as caught:
            main([str(word) for word in words])
    return caught.value.args[0]


def stop(**found: object) -> None:
    raise Seen(found)


def option(name: str, value: object) -> list[object]:
    dashed = name.replace("_", "-")
    return [f"--{'' if value else 'no-'}{dashed}"] if isinstance(value, bool) else [f"--{dashed}", value]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Replace the place of each command where its options are in force; give the words that lead there."""
    monkeypatch.chdir(tmp_path)
    np.save("m.npy", np.random.default_rng(0).normal(size=(40, 4)).astype("f4"))
    hops: list[float] = []
    table = SimpleNamespace(of_length_one=False)
    monkeypatch.setattr(scoring, "load", lambda *_, hop, **__: hops.append(hop) or table)
    monkeypatch.setattr(scoring, "evaluate", lambda task, table, options, *_: stop(**vars(options), hop=hops[-1]))
    monkeypatch.setattr(extraction, "given_waveforms", lambda inputs: True)
    monkeypatch.setattr(extraction, "featurize", lambda source, path, recipe, **_: stop(**vars(recipe.front_end)))
    monkeypatch.setattr(labelling, "read_windows", lambda *_: SimpleNamespace(used=None))
    monkeypatch.setattr(labelling, "questions", lambda windows, plan, *_: stop(**vars(plan)))
    monkeypatch.setattr(training, "Job", lambda plan, *_, **__: stop(plan=plan))
    average = clustering.Rows.averaged
    context: list[float] = []
    monkeypatch.setattr(
        clustering.Rows, "averaged", lambda rows, seconds: context.append(seconds) or average(rows, 0.0)
    )
    monkeypatch.setattr(
        cluster,
        "_fit",
        lambda job, runs, *_: stop(**runs[0].plan.stage[0].objective["clustering"], context=context[-1]),
    )
    quiet = ["--device", "cpu", "-q"]
    return {
        "knn": ["evaluate", "knn", "e.h5", "--labels", "l.h5"],
        "linear": ["evaluate", "linear", "e.h5", "--labels", "l.h5", "--test", "5"],
        "shallow": ["evaluate", "shallow", "e.h5", "--labels", "l.h5", "--train", "1", "--test", "2"],
        "cluster": ["cluster", "m.npy", "--k", 4, *quiet],
        "featurize": ["featurize", "sound.wav", "-q"],
        "label-clusters": ["label-clusters", "c.h5", "--budget", 4, "-q"],
        "train": ["train", "f.h5", *quiet],
    }


def commands_with_presets(group) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_with_presets(command)
        elif any(parameter.name == "preset" for parameter in command.params):
            yield name


def test_every_command_with_presets_is_asked_here():
    asked = {*GIVEN, "featurize", "tagging"}  # and the mean of tagging in test_protocols
    assert set(commands_with_presets(typer.main.get_group(application()))) == asked


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("knn", "sound-events"),
        ("linear", "sound-events"),
        *(("shallow", preset) for preset in shallow.PRESETS if preset != "none"),
        *(("cluster", preset) for preset in clustering.PRESETS),
        *(("label-clusters", preset) for preset in labelling.PRESETS),
    ],
)
def test_what_is_given_wins_over_the_preset_and_the_rest_stays(places, name, preset):
    words = [*places[name], "--preset", preset]
    usual = seen(words)
    given = GIVEN[name]
    assert all(usual[each] != value for each, value in given.items()), usual
    first = next(iter(given))
    assert seen([*words, *option(first, given[first])]) == {**usual, first: given[first]}, "nothing else changes"
    assert seen(words + [word for each in given.items() for word in option(*each)]) == {**usual, **given}


@pytest.mark.parametrize("preset", spectrogram.PRESETS)
def test_numbers_win_over_the_preset_of_a_front_end(places, preset):
    words = [*places["featurize"], "--preset", preset]
    usual = seen(words)
    given = {"bands": usual["bands"] - 8, "fmin": usual["fmin"] + 20.0, "fmax": usual["fmax"] - 500.0}
    found = seen(words + [word for each in given.items() for word in option(*each)])
    assert found == {**usual, **given, "preset": f"{preset}, changed"}
    rate = 2 * usual["sample_rate"]
    found = seen([*words, "--sample-rate", rate, "--window-length", 40, "--frame-hop", 0.02, "--window", 2])
    lengths = {"window_length": round(0.04 * rate), "hop_length": round(0.02 * rate), "window_frames": 100}
    assert {"sample_rate": rate, **lengths}.items() <= found.items()


@pytest.mark.parametrize("preset", spectrogram.PRESETS)
def test_a_waveform_has_the_rate_of_the_preset(places, preset):
    words = [*places["featurize"], "--representation", "waveform", "--preset", preset]
    rate = spectrogram.PRESETS[preset].sample_rate
    found = seen(words)
    assert (found["preset"], found["sample_rate"], found["fmax"]) == ("waveform", rate, rate / 2)
    assert seen([*words, "--sample-rate", 8000])["sample_rate"] == 8000
    usual = seen([*places["featurize"], "--representation", "waveform"])
    assert usual == vars(spectrogram.WAVEFORM), "without a preset it stays as it was"


@pytest.mark.parametrize("preset", spectrogram.PRESETS)
def test_short_recordings_are_treated_as_the_preset_says(preset):
    assert featurize._short(preset) == ("tile" if preset in ("fsd50k", "uclser20", "fsdnoisy18k") else "skip")


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in TRAINED for preset in objectives.load(name).PRESETS]
)
def test_settings_win_over_the_preset_of_an_objective(places, name, preset):
    module = objectives.load(name)
    usual, values = module.Options(), module.PRESETS[preset]
    words = [*places["train"], "--objective", name, "--set", f"preset={preset}"]
    of_default = {each: getattr(usual, each) for each in values}
    first = list(values)[:1]
    for given in ([], first, list(values)):
        more = [word for each in given for word in ("--set", f"{each}={str(of_default[each]).lower()}")]
        stage = seen([*words, *more])["plan"].stage[0].objective[name]
        chosen = {**values, **{each: of_default[each] for each in given}}
        assert {key: value for key, value in stage.items() if key != "weight"} == chosen, given


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in TRAINED for preset in objectives.load(name).PRESETS]
)
def test_what_is_given_wins_in_python_too_where_it_is_not_the_default(name, preset):
    module = objectives.load(name)
    values = module.PRESETS[preset]
    number = next((each for each, value in values.items() if isinstance(value, float)), None)
    for given in [{}, *([{number: 0.5}] if number else [])]:
        settled = module.settle(module.Options(preset=preset, **given))
        assert all(getattr(settled, each) == value for each, value in {**values, **given}.items())

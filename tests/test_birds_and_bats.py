"""Birds and bats: calls above the range of people's front ends are kept, found again by search, and timed by detect."""

import builder
import numpy as np
import pytest
import soundfile
from cluster_world import run

from soundssl import files, load_model
from soundssl.detection import formats

SECONDS = {"bird": 8.0, "bat": 1.2}
RATE = {"bird": 48000, "bat": 256000}  # Hz
CALL = {"bird": (9000.0, 13000.0, 0.3), "bat": (90000.0, 40000.0, 0.02)}  # Hz from and to, seconds
PLACES = (0.15, 0.4, 0.6, 0.85)  # of the recording, middles of the calls


@pytest.fixture(scope="module", params=["bird", "bat"])
def recorded(request, tmp_path_factory):
    """Write a recording with four calls, and train a recogniser by the preset for a step: its net is as drawn."""
    preset, folder = request.param, tmp_path_factory.mktemp(request.param)
    rate, seconds, generator = RATE[preset], SECONDS[preset], np.random.default_rng(2)
    low, high, length = CALL[preset]
    sound = generator.normal(0, 0.003, round(rate * seconds))
    time = np.arange(round(rate * length)) / rate
    for place in PLACES:
        first = round((place * seconds - length / 2) * rate)
        sweep = 2 * np.pi * (low * time + (high - low) / length * time**2 / 2)
        sound[first : first + len(time)] += 0.3 * np.sin(sweep) * np.hanning(len(time))
    path, features, model = folder / f"{preset}.wav", folder / "features.h5", folder / "model.safetensors"
    soundfile.write(path, sound, rate)
    assert run("featurize", path, "--preset", preset, "--no-images", "-o", features, "-j", 1).status == 0
    half = seconds / 2
    key = files.Features(features).clips.key[0]
    said = [(key, 0.0, half), (key, half, seconds)]
    labels = builder.labels(folder / "labels.h5", said, ["call", "none heard"], [[1, 0], [0, 1]])
    words = ("--objective", "classification", "--labels", labels, "--steps", 1, "--batch-size", 4, "--size", 32)
    done = run("train", features, *words, "--learning-rate", 0, "--precision", "float32", "-q", "-o", model)
    assert done.status == 0, done.err
    return preset, path, features, model


def test_a_call_finds_the_other_calls(recorded, tmp_path):
    preset, path, features, model = recorded
    seconds, window = SECONDS[preset], load_model(model, "cpu").window
    like, output = f"{path}@{PLACES[1] * seconds}", tmp_path / "found.csv"
    words = ("--like", like, "--hop", max(0.01, window / 8), "--top", 3, "--precision", "float32", "-o", output)
    done = run("search", features, "-m", model, *words)
    assert done.status == 0, done.err
    found = sorted((event.start + event.end) / 2 for event in formats.read(output.read_bytes(), output))
    others = [place * seconds for place in PLACES if place != PLACES[1]]
    assert np.abs(np.array(found) - others).max() < window / 2, (found, others)


def test_windows_of_detect_are_those_of_the_preset(recorded, tmp_path):
    preset, _, features, model = recorded
    trained, output = load_model(model, "cpu"), tmp_path / "heard.jsonl"
    assert (trained.front_end.preset, round(trained.window, 6)) == (preset, {"bird": 0.96, "bat": 0.096}[preset])
    done = run("detect", features, "-m", model, "--threshold", 0, "--top", 1, "-o", output)
    assert done.status == 0, done.err
    events = formats.read(output.read_bytes(), output)
    assert sum(event.end - event.start for event in events) == pytest.approx(SECONDS[preset], abs=trained.window)
    edges = np.array([time for event in events for time in (event.start, event.end)]) / (trained.window / 4)
    assert np.abs(edges - edges.round()).max() < 0.01  # windows half a window apart meet in their middles

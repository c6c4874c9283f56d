"""Front ends of one's own: what is given wins, what is not stays as long, and what cannot be is said in words."""

import numpy as np
import pytest
import soundfile
from cluster_world import run

from soundssl import files
from soundssl.ops import front_ends, spectrogram
from soundssl.ops.spectrogram import PRESETS, WAVEFORM


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_computed_and_stays_as_it_is(name):
    front_ends.check(PRESETS[name])
    assert front_ends.changed(PRESETS[name]) == PRESETS[name]


def test_a_higher_rate_leaves_times_as_they_are():
    made = front_ends.changed(PRESETS["vggish"], sample_rate=32000, fmax=15000.0)
    assert (made.window_length, made.hop_length, made.fft_length, made.window_frames) == (800, 320, 1024, 96)
    assert made.frame_rate == 100 and made.fmin == 125 and made.preset == "vggish, changed"
    longer = front_ends.changed(PRESETS["vggish"], window_length=40.0, window=2.0, bands=40)
    assert (longer.window_length, longer.fft_length, longer.window_frames, longer.bands) == (640, 1024, 200, 40)


def test_a_tone_lies_in_its_band_of_the_presets_of_ours():
    for name, hertz in (("bird", 12000.0), ("bat", 45000.0)):
        front_end = PRESETS[name]
        t = np.arange(front_end.sample_rate // 4) / front_end.sample_rate
        frames = spectrogram.log_mel(np.sin(2 * np.pi * hertz * t).astype("f4"), front_end)
        low, high = spectrogram.hertz_to_mel(np.array([front_end.fmin, front_end.fmax]))
        place = (spectrogram.hertz_to_mel(np.array(hertz)) - low) / (high - low) * 65 - 1
        assert abs(frames.mean(0).argmax() - place) <= 1


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ({"fmax": 9000.0}, "hold nothing above 8000 Hz, the bands end at 9000 Hz; give --fmax 8000 at most"),
        ({"sample_rate": 8000}, "give --fmax 4000 at most"),
        ({"fmin": 8000.0}, "give an --fmin below --fmax"),
        ({"bands": 200}, "are too many: some hold no bin of the FFT, one every 31.25 Hz; give --bands 122 at most"),
        ({"window": 0.001}, "give a longer --window"),
        ({"window_length": 0.05}, "give a longer --window-length"),
    ],
)
def test_what_does_not_go_together_is_said(given, fact, toy, tmp_path):
    with pytest.raises(front_ends.FrontEndError, match=fact):
        front_ends.changed(PRESETS["vggish"], **given)
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    done = run("featurize", toy.folder, *words, "-o", tmp_path / "f.h5")
    assert done.status == 2 and fact in " ".join(done.err.split()) and not list(tmp_path.iterdir())


def test_the_most_bands_that_are_proposed_can_be_had():
    assert front_ends.changed(PRESETS["vggish"], bands=122).bands == 122
    with pytest.raises(front_ends.FrontEndError):
        front_ends.changed(PRESETS["vggish"], bands=123)


def test_waveforms_have_a_rate_and_a_window_but_no_bands():
    made = front_ends.changed(WAVEFORM, sample_rate=32000)
    assert (made.sample_rate, made.fmax, made.window_frames) == (32000, 16000, 31200)
    with pytest.raises(front_ends.FrontEndError, match="a waveform has no bands"):
        front_ends.changed(WAVEFORM, bands=10)


def test_options_win_over_the_preset_and_the_window_is_that_of_all_tools(toy, tmp_path):
    words = ["--preset", "bird", "--bands", 48, "--window", 0.5, "--fmax", 14000]
    assert run("featurize", toy.folder, *words, "-o", tmp_path / "f.h5", "-q").status == 0
    source = files.Features(tmp_path / "f.h5")
    about = source.attributes
    found = [about[name] for name in ("preset", "sample_rate", "bands", "window_frames", "fmax")]
    assert found == ["bird, changed", 32000, 48, 50, 14000] and source.window == 50
    assert run("sample-triplets", tmp_path / "f.h5", "--count", 20, "-o", tmp_path / "t.h5", "-q").status == 0
    assert files.Triplets(tmp_path / "t.h5").attributes["window_frames"] == 50
    train = ["train", tmp_path / "f.h5", "--triplets", tmp_path / "t.h5", "--steps", 1, "--batch-size", 4, "-q"]
    done = run(*train, "--encoder", "plain", "--device", "cpu", "-o", tmp_path / "m.safetensors")
    assert done.status == 0, done.err
    embed = ["embed", tmp_path / "f.h5", "-m", tmp_path / "m.safetensors", "--hop", 0.5, "--device", "cpu", "-q"]
    assert run(*embed, "-o", tmp_path / "e.h5").status == 0
    assert files.Embeddings(tmp_path / "e.h5").attributes["window"] == pytest.approx(0.5)


@pytest.mark.parametrize(("hertz", "said"), [(12000, True), (3000, False)])
def test_much_energy_above_the_bands_is_said(hertz, said, tmp_path):
    t = np.arange(2 * 32000) / 32000
    for number in range(3):
        pitch = hertz if number else 1000
        soundfile.write(tmp_path / f"{number}.wav", 0.3 * np.sin(2 * np.pi * pitch * t), 32000)
    done = run("featurize", tmp_path, "-o", tmp_path / "f.h5")
    line = "67% of the energy of 3 files looked at is above 7.5 kHz, where the bands end; 2 of them have more than 10%"
    assert done.status == 0 and (line in done.err) == said
    assert "looked at" not in run("featurize", tmp_path, "--preset", "bird", "-o", tmp_path / "b.h5").err

"""Limits: no file takes much memory, and no number that is none is stored."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from conftest import RATE, run
from media_world import clicks, film, wave

from soundssl.ops.spectrogram import PRESETS, LogMel, Overflow, held

HALF = 500  # megabytes

MEASURE = """
import resource, sys
from soundssl.media import read_audio, read_images
from soundssl.ops.spectrogram import PRESETS, LogMel
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for frames in LogMel(PRESETS["vggish"])(read_audio(sys.argv[1], 16000, 0, float(sys.argv[2]), None, True)):
        pass
    for image in read_images(sys.argv[1], 1.0, (32, 32), 0, float(sys.argv[2])):
        pass
except Exception as error:
    print(error, file=sys.stderr)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def megabytes(path: Path, seconds: float = 1e9) -> int:
    """Return how much memory reading a file takes, beside that of the program."""
    command = [sys.executable, "-c", MEASURE, str(path), str(seconds)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def test_a_second_a_sample_takes_no_memory(tmp_path):
    (tmp_path / "a.wav").write_bytes(wave(np.random.default_rng(0).normal(0, 0.1, 60000), 1))
    assert megabytes(tmp_path / "a.wav", 3000.0) < HALF


def test_many_channels_take_no_memory(tmp_path):
    silence = np.zeros((50000, 1024), np.int16)
    soundfile.write(tmp_path / "a.wav", silence, RATE)
    assert megabytes(tmp_path / "a.wav") < HALF


def test_a_broken_clock_takes_no_memory(tmp_path):
    film(tmp_path / "a.mkv", 4.0, lambda kind, time: time + 36000 * (kind == "sound"))
    assert megabytes(tmp_path / "a.mkv") < HALF
    film(tmp_path / "b.mkv", 4.0, lambda kind, time: time + 590 * (time >= 2))
    assert megabytes(tmp_path / "b.mkv") < HALF


@pytest.mark.parametrize("preset", ["vggish", "uclser20"])
def test_samples_that_overflow_are_an_error(preset):
    loud = np.zeros(32000, np.float32)
    loud[9000] = 3e38
    with pytest.raises(Overflow, match=r"samples as large as 3e\+38 overflow the frames"):
        list(LogMel(PRESETS[preset])([loud]))
    quiet = np.clip(loud, -1, 1)
    assert np.isfinite(np.concatenate(list(LogMel(PRESETS[preset])([quiet])))).all()


def test_a_waveform_is_held_by_its_type():
    blocks = [np.array([0.5, -70000.0], np.float32), np.empty(0, np.float32)]
    assert len(list(held(blocks, "float32"))) == 2
    with pytest.raises(Overflow, match=r"samples as large as 7e\+04, float16 holds 6\.6e\+04"):
        list(held(blocks, "float16"))
    with pytest.raises(Overflow):
        list(held([np.array([np.nan], np.float32)], "float32"))


def test_a_file_that_overflows_is_skipped_with_its_reason(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    loud = clicks(3.0)
    loud[20000] = 3e38
    soundfile.write(media / "loud.wav", loud, RATE, subtype="FLOAT")
    soundfile.write(media / "scaled.wav", clicks(3.0) * 2**23, RATE, subtype="FLOAT")
    soundfile.write(media / "good.wav", clicks(3.0), RATE)
    done = run("featurize", media, "-o", tmp_path / "f.h5", "-j", "1")
    fact = "samples as large as 3e+38 overflow the frames; scale them to between -1 and 1; skipped"
    assert done.status == 3 and f"{media / 'loud.wav'}: {fact}" in done.stderr
    with h5py.File(tmp_path / "f.h5") as file:
        assert np.isfinite(file["frames"][:]).all() and np.isfinite(file["mean"][:]).all()
        assert len(file["clip/key"]) == 2
    store = ("--representation", "waveform", "--store", "float16")
    done = run("featurize", *store, media, "-o", tmp_path / "w.h5", "-j", "1")
    assert (
        done.status == 3
        and "skipped, and 1 more for such a reason" in done.stderr
        and "or store float32" in done.stderr
    )
    with h5py.File(tmp_path / "w.h5") as file:
        assert np.isfinite(file["frames"][:]).all() and len(file["clip/key"]) == 1


def test_damage_is_kept_or_skipped_as_asked(tmp_path):
    soundfile.write(tmp_path / "a.flac", clicks(6.0), RATE)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2 :][:600] = b""
    data[len(data) // 2 : len(data) // 2 + 600] = np.random.default_rng(0).bytes(600)
    (tmp_path / "a.flac").write_bytes(data)
    done = run("featurize", tmp_path / "a.flac", "-o", tmp_path / "f.h5", "-j", "1")
    assert done.status == 0 and ": damaged" in done.stderr and done.stderr.count("; kept") == 1
    done = run("featurize", "--damaged", "skip", tmp_path / "a.flac", "-o", tmp_path / "g.h5", "-j", "1")
    assert done.status == 1 and "damaged" in done.stderr and not (tmp_path / "g.h5").exists()
    done = run("featurize", "--damaged", "mend", tmp_path / "a.flac", "-o", tmp_path / "g.h5")
    assert done.status == 2 and "--damaged" in done.stderr

"""The front end against its definition, written out, and against the vectors of the original where they are at hand."""

import os
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from soundssl.commands.featurize import featurize
from soundssl.ops.spectrogram import (
    PRESETS,
    FrontEnd,
    LogMel,
    cut,
    extended,
    frame_count,
    level_of,
    levelled,
    log_mel,
    mel_matrix,
)

SHARED = Path(os.environ.get("SOUNDSSL_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
REFERENCE = SHARED / "vggish_ref"


def mel(hertz: float) -> float:
    return 1127.0 * np.log(1.0 + hertz / 700.0)


def defined(waveform: np.ndarray) -> np.ndarray:
    """Compute VGGish's log-mel frames from their definition, sum by sum, in float64."""
    n, bins = np.arange(400), np.arange(257)
    hann = 0.5 * (1.0 - np.cos(2.0 * np.pi * n / 400.0))
    fourier = np.exp(-2j * np.pi * np.outer(bins, n) / 512.0)
    edges = [mel(125.0) + (mel(7500.0) - mel(125.0)) * i / 65.0 for i in range(66)]
    rows = []
    for first in range(0, len(waveform) - 399, 160):
        magnitude = np.abs(fourier @ (waveform[first : first + 400].astype(np.float64) * hann))
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            energy = 0.0
            for k in range(1, 257):
                m = mel(k * 16000.0 / 512.0)
                if low < m < high:
                    energy += magnitude[k] * (
                        (m - low) / (centre - low) if m <= centre else (high - m) / (high - centre)
                    )
            row.append(np.log(energy + 0.01))
        rows.append(row)
    return np.array(rows)


def test_frames_agree_with_the_definition():
    waveform = np.random.default_rng(0).normal(0, 0.1, 2400) + 0.3 * np.sin(np.arange(2400) * 0.5)
    wanted = defined(waveform)
    assert np.abs(log_mel(waveform, dtype="float64") - wanted).max() < 1e-9
    assert np.abs(log_mel(waveform.astype(np.float32)) - wanted).max() < 1e-4


def test_silence_is_the_logarithm_of_the_floor():
    assert log_mel(np.zeros(800), dtype="float64") == pytest.approx(np.log(0.01))


@pytest.mark.parametrize(
    ("samples", "frames"), [(160000, 998), (15600, 96), (15599, 95), (400, 1), (399, 0), (559, 1), (560, 2), (0, 0)]
)
def test_only_whole_frames_count(samples, frames):
    assert len(log_mel(np.zeros(samples))) == frames == frame_count(samples, FrontEnd())


def test_a_tone_peaks_in_its_band():
    matrix = mel_matrix(FrontEnd())
    edges = np.linspace(mel(125), mel(7500), 66)
    for band in range(8, 64, 5):
        frequency = 700 * (np.exp(edges[band + 1] / 1127) - 1)  # the band's centre
        frames = log_mel(np.sin(2 * np.pi * frequency * np.arange(4000) / 16000))
        assert abs(frames.mean(0).argmax() - band) <= (1 if band < 20 else 0), "below, bands are narrower than bins"
    assert not matrix[0].any() and (matrix >= 0).all() and matrix.max() <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_of_any_size_give_identical_frames(dtype):
    generator = np.random.default_rng(1)
    waveform = generator.normal(0, 0.1, 100_003)
    whole = log_mel(waveform, dtype=dtype)
    for sizes in ([1] * 500, [160] * 30, [399, 401, 0, 7], [65536], generator.integers(1, 5000, 40)):
        parts = np.split(waveform, np.minimum(np.cumsum(sizes), len(waveform)))
        assert np.array_equal(np.concatenate(list(LogMel(FrontEnd(), dtype)(parts))), whole)


def test_a_delay_of_one_hop_delays_by_one_frame():
    waveform = np.random.default_rng(2).normal(0, 0.1, 8000)
    assert log_mel(np.concatenate([np.zeros(160), waveform]), dtype="float64")[3:] == pytest.approx(
        log_mel(waveform, dtype="float64")[2:], abs=1e-12
    )


def test_two_channels_are_refused():
    with pytest.raises(ValueError, match=r"one dimension, not shape \[2, 400\]"):
        log_mel(np.zeros((2, 400)))


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference vectors here; SOUNDSSL_SHARED_DATA names their folder")
def test_frames_agree_with_the_original():
    names = sorted(path for path in REFERENCE.glob("*.npz") if "waveform_16k" in np.load(path))
    assert names
    for name in names:
        with np.load(name) as stored:
            waveform, wanted = stored["waveform_16k"], stored["log_mel"]
        assert np.abs(log_mel(waveform, dtype="float64") - wanted).max() <= 1e-9
        assert np.abs(log_mel(waveform) - wanted).max() <= 1e-4
    with np.load(REFERENCE / "mel_matrix_257x64.npz") as stored:
        assert np.abs(mel_matrix(FrontEnd()) - stored["mel_matrix"]).max() <= 1e-12


def slaney(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) * 27 / np.log(6.4)


def test_the_front_end_of_uclser20_agrees_with_its_definition():
    """Written out: levelled, centred windows in a longer FFT, Slaney's triangles, logarithm to base 10."""
    front_end, generator = PRESETS["uclser20"], np.random.default_rng(0)
    waveform = generator.normal(0.1, 0.2, 5000)
    level = waveform - waveform.mean()
    level /= np.abs(level).max() + 0.005
    padded = np.pad(level, 1024, "reflect")
    window = np.zeros(2048)
    window[694 : 694 + 660] = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(660) / 660)
    grid = np.linspace(slaney(50), slaney(10500), 98)
    edges = [mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27) for mel in grid]
    rows = []
    for first in range(0, len(padded) - 2047, 220):
        power = np.abs(np.fft.rfft(padded[first : first + 2048] * window)) ** 2
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            f = np.arange(1025) * 22050 / 2048
            weight = np.maximum(0, np.minimum((f - low) / (centre - low), (high - f) / (high - centre)))
            row.append(np.log10(power @ weight + 1.1e-8))
        rows.append(row)
    found = log_mel(waveform, front_end, "float64")
    assert len(found) == 1 + 5000 // 220 == frame_count(5000, front_end)
    assert np.abs(found - np.array(rows)).max() < 1e-9
    assert np.abs(log_mel(waveform.astype("f4"), front_end) - np.array(rows)).max() < 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_their_window_and_do_not_care_for_blocks(preset):
    front_end = PRESETS[preset]
    assert front_end.preset == preset
    frames, least = front_end.window_frames, front_end.samples(front_end.window_frames)
    assert frame_count(least, front_end) == frames == frame_count(least - 1, front_end) + 1
    waveform = np.random.default_rng(1).normal(0, 0.1, 30_001)
    blocks = np.split(waveform, [1, 2, 300, 331, 400, 20_000])
    found = np.concatenate(list(LogMel(front_end, "float64")(blocks)))
    assert np.array_equal(found, np.concatenate(list(LogMel(front_end, "float64")([waveform]))))
    assert len(found) == frame_count(len(waveform), front_end)


def test_the_command_offers_every_preset():
    hint = get_type_hints(featurize, include_extras=True)["preset"].__origin__
    assert list(get_args(hint)) == list(PRESETS)


def test_levels_and_pieces_do_not_care_for_blocks():
    waveform = np.random.default_rng(2).normal(0.5, 2.0, 1000)
    blocks = np.split(waveform, [0, 10, 10, 700])
    mean, largest = level_of(blocks)
    assert mean == pytest.approx(waveform.mean()) and largest == np.abs(waveform - mean).max() + 0.005
    assert np.concatenate(list(levelled(blocks, (mean, largest)))) == pytest.approx((waveform - mean) / largest)
    for samples in (1000, 300, 7):
        pieces = [np.concatenate(list(piece)) for piece in cut(iter(blocks), samples)]
        assert [len(piece) for piece in pieces[:-1]] == [samples] * (len(pieces) - 1)
        assert np.array_equal(np.concatenate(pieces), waveform)
    assert sum(map(len, extended(blocks, 1200))) == 1200 and sum(map(len, extended(blocks, 10))) == 1000


def test_times_are_exact_after_a_day():
    """The start of window k, from sample positions, is within a sample of k times the hop after 24 hours."""
    for front_end in PRESETS.values():
        last = front_end.sample_rate * 86400 // front_end.hop_length
        seconds = np.int64(last) * front_end.hop_length / front_end.sample_rate
        assert abs(seconds * front_end.sample_rate - last * front_end.hop_length) < 1e-3


def test_half_precision_costs_less_than_a_thousandth():
    frames = log_mel(np.random.default_rng(3).normal(0, 0.1, 160_000))
    error = np.abs(frames.astype(np.float16).astype(np.float32) - frames)
    assert error.max() <= 2**-11 * 8 and error.mean() < 1e-3

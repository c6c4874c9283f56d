"""Formats by rate, channels and coding: each gives the same sound. `python tests/test_formats.py` prints a table."""

import os
import struct
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from conftest import RATE, write_video
from test_media import CONTAINERS, SIZE, agreement, sound

from soundssl.media import DecodeError, Heard, channel_count, read_audio, read_images

# name: (rate, channels, options of soundfile)
FORMATS = {
    "u8.wav": (16000, 1, {"subtype": "PCM_U8"}),
    "32.wav": (44100, 1, {"subtype": "PCM_32"}),
    "double.wav": (48000, 2, {"subtype": "DOUBLE"}),
    "ulaw.wav": (16000, 1, {"subtype": "ULAW"}),
    "adpcm.wav": (22050, 1, {"subtype": "IMA_ADPCM"}),
    "msadpcm.wav": (44100, 1, {"subtype": "MS_ADPCM"}),
    "extensible.wav": (48000, 6, {"format": "WAVEX", "subtype": "PCM_24"}),
    "rf64.wav": (96000, 2, {"format": "RF64"}),
    "eight.wav": (48000, 8, {}),
    "192.wav": (192000, 1, {}),
    "384.wav": (384000, 1, {"subtype": "PCM_24"}),
    "8.wav": (8000, 1, {}),
    "384.flac": (384000, 1, {}),
    "seven.flac": (44100, 7, {}),
    "stereo.mp3": (48000, 2, {}),
    "low.mp3": (16000, 1, {}),
    "stereo.ogg": (48000, 2, {}),
    "opus.OGG": (48000, 2, {"format": "OGG", "subtype": "OPUS"}),
}


def come_back(name: str, folder: Path) -> tuple[float, float, float, float]:
    """Write a format and read it; return lag in ms, correlation, level, and seconds too many."""
    if name in CONTAINERS:
        write_video(folder / name, sound(rate=CONTAINERS[name]["rate"]), **CONTAINERS[name])
        rate = RATE
    else:
        rate, channels, options = FORMATS[name]
        each = sound(rate=rate)
        soundfile.write(folder / name, np.stack([each] * channels, 1), rate, **options)
    found = np.concatenate(list(read_audio(folder / name, RATE)))
    wanted = sound() if rate != 8000 else np.concatenate(list(read_audio(folder / name, RATE)))
    return (*agreement(found, wanted), len(found) / RATE - 3.0)


@pytest.mark.parametrize("name", FORMATS)
def test_sound_of_any_coding_rate_and_channels(tmp_path, name):
    lag, correlation, level, longer = come_back(name, tmp_path)
    assert abs(lag) <= 2 and correlation > 0.98 and level == pytest.approx(1, abs=0.05) and abs(longer) < 0.06


@pytest.mark.parametrize("name", ["a.wav", "a.m4a"])
def test_a_channel_is_taken_by_its_number(tmp_path, name):
    channels = np.stack([sound(1.0, seed=seed) for seed in (1, 2)])
    if name == "a.wav":
        soundfile.write(tmp_path / name, channels.T, RATE, subtype="FLOAT")
    else:
        write_video(tmp_path / name, channels, codec=None)
    assert channel_count(tmp_path / name) == 2
    for number, wanted in enumerate(channels, 1):
        found = np.concatenate(list(read_audio(tmp_path / name, RATE, channel=number)))
        assert agreement(found, wanted)[1] > 0.95
    with pytest.raises(DecodeError, match="no channel 3, it has 2"):
        list(read_audio(tmp_path / name, RATE, channel=3))


def test_channels_of_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")  # opening it would wait for ever
    for name, fact in (("pipe.wav", "not a regular file"), ("none.wav", "does not exist")):
        with pytest.raises(DecodeError, match=fact):
            channel_count(tmp_path / name)


def test_silence_and_clipping_are_counted_at_the_source(tmp_path):
    loud = np.zeros((44100, 2))
    loud[100:110, 1] = 1.0
    loud[500, 0] = -1.0
    for name, samples, wanted in (("silent.wav", loud * 0, (0.0, 0)), ("loud.wav", loud, (1.0, 11))):
        soundfile.write(tmp_path / name, samples, 44100)
        heard = Heard()
        assert len(np.concatenate(list(read_audio(tmp_path / name, RATE, heard=heard)))) == RATE
        assert (round(heard.peak, 3), heard.clipped) == wanted and not heard.truncated


@pytest.mark.parametrize("name", ["a.ogg", "a.flac", "a.mp3", "a.wav", "a.mkv", "a.aac"])
def test_what_can_be_decoded_of_a_truncated_file_is_kept_and_marked(tmp_path, name):
    if name in ("a.mkv", "a.aac"):
        options = {"fmt": "adts"} if name == "a.aac" else {}
        write_video(tmp_path / name, sound(6.0), codec=None, **options)
    else:
        soundfile.write(tmp_path / name, sound(6.0), RATE)
    whole = np.concatenate(list(read_audio(tmp_path / name, RATE)))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: (tmp_path / name).stat().st_size // 2])
    heard = Heard()
    found = np.concatenate(list(read_audio(tmp_path / name, RATE, keep_truncated=True, heard=heard)))
    assert heard.truncated.startswith("truncated: ") and 1.5 * RATE < len(found) < 4.5 * RATE
    assert np.abs(found[:RATE] - whole[:RATE]).max() < 1e-4
    with pytest.raises(DecodeError, match="truncated: "):
        list(read_audio(tmp_path / name, RATE))


def test_damage_in_the_middle_is_no_truncation(tmp_path):
    soundfile.write(tmp_path / "a.flac", sound(6.0), RATE)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2 :][:600] = b""
    data[len(data) // 2 : len(data) // 2 + 600] = np.random.default_rng(0).bytes(600)
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.raises(DecodeError, match="damaged"):
        list(read_audio(tmp_path / "a.flac", RATE, keep_truncated=True))


def test_a_hole_in_the_middle_keeps_its_place(tmp_path):
    """Sound of a second, nothing for a second and a half, and sound again."""
    samples = sound(2.0, 48000)
    with av.open(str(tmp_path / "hole.mkv"), "w") as container:
        stream = container.add_stream("flac", rate=48000, layout="mono")
        for half, begin in ((samples[:48000], 0), (samples[48000:], round(2.5 * 48000))):
            for first in range(0, len(half), 4608):
                frame = av.AudioFrame.from_ndarray(
                    (half[None, first : first + 4608] * 32767).astype("i2"), "s16", "mono"
                )
                frame.sample_rate, frame.pts = 48000, begin + first
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = np.concatenate(list(read_audio(tmp_path / "hole.mkv", RATE)))
    assert len(found) == pytest.approx(3.5 * RATE, abs=0.11 * RATE)
    assert np.abs(found[round(1.2 * RATE) : round(2.4 * RATE)]).max() < 1e-3
    assert abs(agreement(found[2 * RATE :], sound(2.0)[RATE:])[0] - 500) < 10


def test_pictures_of_uneven_times_are_those_shown(tmp_path):
    """Pictures at 0, 0.3, 1.7 and 2.1 s: every second shows the last that began."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for tenth, level in ((0, 20), (3, 60), (17, 100), (21, 140), (30, 180)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts = tenth
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    levels = [image.mean() for image in read_images(tmp_path / "a.mkv", 1.0, SIZE)]
    assert levels[:4] == pytest.approx([20, 60, 100, 180], abs=5)


def test_a_turned_video_is_turned_back(tmp_path):
    """Write the left half bright, then turn it by its header as a telephone does."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32] = 200
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    [image] = read_images(tmp_path / "a.mp4", 1.0, (64, 64))
    assert image[:, :28].mean() > 150 > 50 > image[:, 36:].mean()
    data = (tmp_path / "a.mp4").read_bytes()
    one, none, last = 0x10000, 0, 0x40000000
    straight = struct.pack(">9i", one, none, none, none, one, none, none, none, last)
    at = data.index(straight, data.index(b"tkhd"))
    quarter = struct.pack(">9i", none, one, none, -one, none, none, 48 * one, none, last)  # a quarter clockwise
    (tmp_path / "turned.mp4").write_bytes(data[:at] + quarter + data[at + len(quarter) :])
    [image] = read_images(tmp_path / "turned.mp4", 1.0, (64, 64))
    assert image.shape == (64, 64, 3) and image[:28].mean() > 150 > 50 > image[36:].mean(), "left has become the top"


if __name__ == "__main__":
    print(f"{'format':16} {'lag ms':>7} {'correlation':>11} {'level':>6} {'longer s':>8}")
    with tempfile.TemporaryDirectory() as place:
        for each in [*FORMATS, *CONTAINERS]:
            print("{:16} {:7.2f} {:11.4f} {:6.3f} {:8.3f}".format(each, *come_back(each, Path(place))), flush=True)
    sys.exit()

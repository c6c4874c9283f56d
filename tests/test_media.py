"""Codecs: the same sound and the same pictures come back, in time; what is broken is named for what it is."""

import os
import pickle
import struct

import av
import numpy as np
import pytest
import soundfile
import soxr
from conftest import RATE, unprivileged, write_video

from soundssl.media import DecodeError, read_audio, read_images

SIZE = (48, 64)


def sound(seconds: float = 3.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Return noise below 2 kHz whose level swells, the same at any rate."""
    generator = np.random.default_rng(seed)
    x = np.convolve(generator.normal(size=round(seconds * RATE)), np.hanning(13) / 6.5, "same")
    x = 0.1 * x * (1 + 0.5 * np.sin(2 * np.pi * 3 * np.arange(len(x)) / RATE))
    return (x if rate == RATE else soxr.resample(x, RATE, rate)).astype(np.float32)


def whole(path, rate: int = RATE, start: float = 0.0, end: float | None = None) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *read_audio(path, rate, start, end)])


def agreement(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float, float]:
    """Return lag in milliseconds, correlation at that lag, and level relative to what is wanted."""
    n = 1 << (len(found) + len(wanted)).bit_length()
    product = np.fft.irfft(np.fft.rfft(found, n) * np.conj(np.fft.rfft(wanted, n)), n)
    lag = int(product.argmax())
    lag -= n if lag > n // 2 else 0
    a, b = found[max(lag, 0) :], wanted[max(-lag, 0) :]
    length = min(len(a), len(b))
    return lag * 1000 / RATE, np.corrcoef(a[:length], b[:length])[0, 1], a[:length].std() / b[:length].std()


SOUND_FILES = {
    "pcm16.wav": (44100, {"subtype": "PCM_16"}, 1e-3),
    "pcm24.wav": (48000, {"subtype": "PCM_24"}, 1e-3),
    "float.wav": (22050, {"subtype": "FLOAT"}, 1e-3),
    "same.wav": (16000, {"subtype": "FLOAT"}, 0.0),
    "a.flac": (44100, {}, 1e-3),
    "a.ogg": (44100, {}, 0.05),
    "opus.ogg": (48000, {"format": "OGG", "subtype": "OPUS"}, 0.1),
    "a.mp3": (44100, {}, 0.1),
    "a.aiff": (44100, {}, 1e-3),
    "low.wav": (8000, {}, 0.3),
}


@pytest.mark.parametrize("name", SOUND_FILES)
def test_sound_files_come_back(tmp_path, name):
    rate, options, loss = SOUND_FILES[name]
    wanted = sound()
    soundfile.write(tmp_path / name, sound(rate=rate), rate, **options)
    found = whole(tmp_path / name)
    assert len(found) == len(wanted) and found.dtype == np.float32
    lag, correlation, level = agreement(found, wanted)
    assert (lag, correlation, level) == (
        pytest.approx(0, abs=2), pytest.approx(1, abs=max(loss, 1e-6)), pytest.approx(1, abs=max(loss, 1e-6)),
    )  # fmt: skip
    assert list(read_images(tmp_path / name, 1.0, SIZE)) == []


CONTAINERS = {
    "a.m4a": {"codec": None, "rate": 44100},
    "a.mp4": {"codec": "libx264", "rate": 44100},
    "b.mp4": {"codec": "mpeg4", "rate": 48000},
    "a.mkv": {"codec": "libx264", "rate": 48000},
    "flac.mkv": {"codec": "mpeg4", "sound_codec": "flac", "rate": 48000},
    "vp8.webm": {"codec": "libvpx", "sound_codec": "libopus", "rate": 48000},
    "vp9.webm": {"codec": "libvpx-vp9", "sound_codec": "libopus", "rate": 48000},
    "a.avi": {"codec": "mpeg4", "sound_codec": "pcm_s16le", "rate": 44100},
    "a.mov": {"codec": "mpeg4", "sound_codec": "pcm_s16le", "rate": 48000},
    "a.aac": {"codec": None, "rate": 44100, "fmt": "adts"},
    "a.ts": {"codec": "mpeg4", "rate": 48000, "fmt": "mpegts"},
    "sound.ts": {"codec": None, "rate": 22050, "fmt": "mpegts"},
    "a.flv": {"codec": "flv", "rate": 44100, "fmt": "flv"},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_come_back(tmp_path, name):
    options = CONTAINERS[name]
    write_video(tmp_path / name, sound(rate=options["rate"]), **options)
    found = whole(tmp_path / name)
    lag, correlation, level = agreement(found, sound())
    assert abs(lag) <= 2 and correlation > 0.95 and level == pytest.approx(1, abs=0.06)
    assert abs(len(found) - 3 * RATE) <= 0.05 * RATE, "codecs pad to whole frames, not more"
    images = list(read_images(tmp_path / name, 1.0, SIZE))
    if options["codec"] is None:
        assert images == []
        return
    assert [image.shape for image in images] == [(*SIZE, 3)] * 3 and images[0].dtype == np.uint8
    assert [image.mean() for image in images] == pytest.approx([10, 30, 50], abs=4)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_tags_that_are_no_utf_8_cost_nothing(tmp_path, name):
    write_video(tmp_path / name, sound(), codec=None)
    before, written = whole(tmp_path / name), (tmp_path / name).read_bytes()
    assert b"Lav" in written, "the tag of the encoder"
    (tmp_path / name).write_bytes(written.replace(b"Lav", b"L\xff\xfe"))
    np.testing.assert_array_equal(whole(tmp_path / name), before)


def test_channels_are_averaged(tmp_path):
    left, right = sound(1.0, seed=1), sound(1.0, seed=2)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    assert whole(tmp_path / "stereo.wav") == pytest.approx((left + right) / 2, abs=1e-7)
    write_video(tmp_path / "stereo.m4a", np.stack([left, -left]), codec=None)
    assert np.abs(whole(tmp_path / "stereo.m4a")).max() < 0.02, "opposite channels cancel"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp4", "a.mov"])
def test_a_span_is_a_slice_of_the_whole(tmp_path, name):
    path = tmp_path / name
    if name in ("a.wav", "a.flac"):
        soundfile.write(path, sound(5.0), RATE)
    else:
        write_video(path, sound(5.0), codec="mpeg4", sound_codec="aac" if name == "a.mp4" else "pcm_s16le")
    everything = whole(path)
    for start, end in ((0.0, 1.0), (0.5, 0.75), (1.25, 3.5), (2.0, None), (3.99, 4.0), (4.5, None)):
        part = whole(path, RATE, start, end)
        wanted = everything[round(start * RATE) : None if end is None else round(end * RATE)]
        assert len(part) == len(wanted)
        assert np.abs(part - wanted).max() < (1e-6 if name != "a.mp4" else 0.01)
    with pytest.raises(DecodeError, match=r"nothing from 60 s on, its sound ends at 5.[01] s"):
        whole(path, RATE, 60.0)


def test_a_span_at_another_rate_has_the_right_length(tmp_path):
    soundfile.write(tmp_path / "a.wav", sound(4.0, 44100), 44100)
    everything, part = whole(tmp_path / "a.wav"), whole(tmp_path / "a.wav", RATE, 1.0, 2.5)
    assert len(everything) == 4 * RATE and len(part) == 1.5 * RATE
    assert np.abs(part - everything[RATE : round(2.5 * RATE)])[200:-200].max() < 1e-4


def test_sound_that_starts_late_is_placed_in_time(tmp_path):
    for name, codec in (("late.mp4", "aac"), ("late.mkv", "flac"), ("late.ts", "aac"), ("late.flv", "aac")):
        picture = "flv" if name == "late.flv" else "mpeg4"
        write_video(tmp_path / name, sound(), delay=1.5, sound_codec=codec, codec=picture)
        found = whole(tmp_path / name)
        lag, correlation, _ = agreement(found, sound())
        assert lag == pytest.approx(1500, abs=2) and correlation > 0.95
        assert np.abs(found[: int(1.4 * RATE)]).max() < 1e-3
        part = whole(tmp_path / name, RATE, 1.0, 2.0)
        assert (
            len(part) == RATE and np.abs(part[: int(0.4 * RATE)]).max() < 1e-3 < np.abs(part[int(0.6 * RATE) :]).max()
        )


def test_a_picture_is_the_one_shown_at_its_time(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, None, codec="libx264", levels=lambda seconds: 10 + round(40 * seconds), pictures=5.0)
    for rate, start, end in ((1.0, 0.0, None), (2.0, 0.0, None), (1.0, 2.5, None), (4.0, 1.25, 2.5)):
        levels = [image.mean() for image in read_images(path, rate, SIZE, start, end)]
        times = np.arange(start, 5.0 if end is None else end, 1 / rate)
        shown = np.floor(times * 10 + 1e-6) / 10
        assert levels == pytest.approx([10 + round(40 * time) for time in shown], abs=4)


def test_a_cover_is_no_video(tmp_path):
    write_video(tmp_path / "a.m4a", sound(1.0), codec=None)
    with av.open(str(tmp_path / "a.m4a")) as source, av.open(str(tmp_path / "cover.mka"), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert list(read_images(tmp_path / "cover.mka", 1.0, SIZE)) == []


# --- what is broken ---


def wave(seconds: float = 2.0) -> bytes:
    """Return the bytes of a 16-bit WAV file."""
    samples = (sound(seconds) * 32767).astype("<i2").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", len(samples))  # fmt: skip  # noqa: E501
    return head + samples


def reason(path) -> str:
    with pytest.raises(DecodeError) as caught:
        whole(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


def cut(source, target, share: float = 0.5):
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("empty.wav", b"", "empty file"),
        ("text.wav", b"these are words\n" * 99, "not a media file"),
        ("text.au", b"these are words\n" * 999, "not a media file"),
        ("text.raw", b"these are words\n" * 999, "not a media file"),
        ("words.mp4", b"words " * 999, "not a media file"),
        ("cut.wav", wave()[:30000], "truncated: 0.9 of 2.0 s"),
    ],
)
def test_bytes_that_are_no_sound(tmp_path, name, content, wanted):
    (tmp_path / name).write_bytes(content)
    assert reason(tmp_path / name) == wanted


@pytest.mark.parametrize("stated", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0])
def test_a_wave_written_into_a_pipe_states_no_length_and_is_read(tmp_path, stated):
    (tmp_path / "pipe.wav").write_bytes(wave()[:40] + struct.pack("<I", stated) + wave()[44:])
    assert whole(tmp_path / "pipe.wav") == pytest.approx(sound(2.0), abs=1e-4)


def test_the_name_does_not_count(tmp_path):
    for name in ("sound.raw", "SOUND.TXT", "sound", "sound.mp4", "12:30.wav"):
        (tmp_path / name).write_bytes(wave())
        assert len(whole(tmp_path / name)) == 2 * RATE
    write_video(tmp_path / "video.mp4", sound())
    for name in ("10:30 video.wav", "video%03d.jpg", os.fsdecode(b"video\xff.bin")):
        (tmp_path / name).write_bytes((tmp_path / "video.mp4").read_bytes())
        assert len(whole(tmp_path / name)) > 2.9 * RATE and len(list(read_images(tmp_path / name, 1.0, SIZE))) == 3


def test_a_relative_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch):
    write_video(tmp_path / "http:a.mp4", sound(1.0))
    monkeypatch.chdir(tmp_path)
    assert len(whole("http:a.mp4")) > 0.9 * RATE


def test_a_playlist_reads_no_other_file(tmp_path):
    write_video(tmp_path / "secret.ts", sound(), fmt="mpegts")
    (tmp_path / "list.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n"
    )
    assert reason(tmp_path / "list.mp4") == "not a media file"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(tmp_path, value):
    samples = sound()
    samples[40000] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert reason(tmp_path / "a.wav") == "non-finite samples"


def test_files_cut_short(tmp_path, capfd):
    for name in ("a.flac", "a.mp3", "a.aiff", "a.au"):
        soundfile.write(tmp_path / name, sound(4.0, 44100), 44100)
        assert reason(cut(tmp_path / name, tmp_path / f"cut-{name}")).startswith(("truncated", "damaged")), name
    write_video(tmp_path / "a.mp4", sound())
    assert reason(cut(tmp_path / "a.mp4", tmp_path / "cut.mp4")) == "truncated: its index is missing"
    write_video(tmp_path / "a.mkv", sound(4.0), sound_codec="flac")
    assert reason(cut(tmp_path / "a.mkv", tmp_path / "cut.mkv")).startswith(
        ("truncated: 1.", "truncated: 2.", "damaged")
    )
    assert len(whole(cut(tmp_path / "a.mp4", tmp_path / "whole.mp4", 1.0))) > 2.9 * RATE


def test_a_video_without_sound(tmp_path):
    write_video(tmp_path / "a.mp4", None, pictures=2.0)
    assert reason(tmp_path / "a.mp4") == "no audio stream"
    assert len(list(read_images(tmp_path / "a.mp4", 1.0, SIZE))) == 2


def test_a_codec_that_nobody_knows(tmp_path):
    write_video(tmp_path / "a.mp4", sound(1.0), codec="libx264")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(DecodeError, match="no decoder for its video"):
        list(read_images(tmp_path / "b.mp4", 1.0, SIZE))


def test_what_is_no_file(tmp_path):
    assert reason(tmp_path / "none.wav") == "does not exist"
    assert reason(tmp_path) == "not a regular file"
    os.mkfifo(tmp_path / "pipe.wav")
    assert reason(tmp_path / "pipe.wav") == "not a regular file"
    with pytest.raises(DecodeError, match="does not exist"):
        list(read_images(tmp_path / "none.mp4", 1.0, SIZE))


def test_a_file_without_permission(tmp_path):
    (tmp_path / "a.wav").write_bytes(wave())
    (tmp_path / "a.wav").chmod(0)
    done = unprivileged("featurize", tmp_path, "-o", tmp_path / "f.h5", "-j", "1")
    fact = f"soundssl featurize: {tmp_path / 'a.wav'}: cannot be read (Permission denied); skipped"
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, fact)


def test_random_damage_is_named_or_read_over(tmp_path):
    generator = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.flac", sound(1.0), RATE)
    write_video(tmp_path / "a.mp4", sound(1.0))
    write_video(tmp_path / "a.webm", sound(1.0), codec="libvpx", sound_codec="libopus")
    for name in ("a.flac", "a.mp4", "a.webm"):
        data = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        for trial in range(12):
            broken = data.copy()
            broken[generator.integers(0, len(data) if trial % 2 else 300, 5)] = generator.integers(0, 256, 5)
            broken.tofile(tmp_path / "broken")
            try:
                assert np.isfinite(whole(tmp_path / "broken")).all()
                list(read_images(tmp_path / "broken", 1.0, SIZE))
            except DecodeError as error:
                assert error.reason


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(DecodeError("a.wav", "empty file")))
    assert (str(error), error.reason) == ("a.wav: empty file", "empty file")

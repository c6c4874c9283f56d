"""One clock: sound and pictures stay beside each other whatever their time stamps, and broken clocks cost nothing."""

import av
import numpy as np
import pytest
import soundfile
from conftest import RATE, write_video
from media_world import checked, click_times, clicks, encode, film, joined, level, overwritten, tracks
from test_media import SIZE, agreement, sound
from test_media_length import heard_of

from soundssl.media import DecodeError, Heard, read_audio, read_images

HOUR = 3600.0


def pictures_of(path, start: float = 0.0, end: float | None = None) -> list[float]:
    return [float(image.mean()) for image in read_images(path, 1.0, SIZE, start, end)]


def late(seconds: float, after: float = 5.0, kinds: tuple[str, ...] = ("sound", "picture")):
    """Return what moves stamps from `after` on so far."""
    return lambda kind, time: time + seconds if time >= after - 1e-6 and kind in kinds else time


JUMPS = {
    "both, a quarter of an hour": late(900),
    "both, ten hours": late(10 * HOUR),
    "pictures, ten hours": late(10 * HOUR, kinds=("picture",)),
    "sound, ten hours": late(10 * HOUR, kinds=("sound",)),
}


@pytest.mark.parametrize("name", JUMPS)
def test_a_jump_moves_neither_sound_nor_pictures(tmp_path, name):
    path = film(tmp_path / "a.mkv", move=JUMPS[name])
    found, heard = heard_of(path)
    assert click_times(found) == pytest.approx([i + 0.5 for i in range(10)], abs=0.05) and not heard.damaged
    assert pictures_of(path)[:10] == pytest.approx([level(i + 0.2) for i in range(10)], abs=6)
    assert len(found) / RATE == pytest.approx(10, abs=0.3) and len(pictures_of(path)) <= 11


def test_a_hole_keeps_its_length_for_both(tmp_path):
    path = film(tmp_path / "a.mkv", move=late(300))
    found, heard = heard_of(path)
    wanted = [i + 0.5 + 300 * (i >= 5) for i in range(10)]
    assert click_times(found) == pytest.approx(wanted, abs=0.05) and "300.0 s of silence" in heard.said
    images = pictures_of(path)
    assert len(images) == 310 and images[306] == pytest.approx(level(6), abs=6)


def test_stamps_that_start_again_go_on(tmp_path):
    film(tmp_path / "a.ts", 4.0, codec="mpeg2video", sound_codec="mp2", fmt="mpegts")
    path = joined([tmp_path / "a.ts"] * 3, tmp_path / "b.ts")
    found, heard = heard_of(path)
    assert click_times(found) == pytest.approx([i + 0.5 for i in range(12)], abs=0.1) and not heard.damaged
    assert pictures_of(path, 0.5)[:12] == pytest.approx([level(i % 4) for i in range(12)], abs=6)
    part, _ = heard_of(path, 5.25, 9.75)
    assert np.abs(part - found[round(5.25 * RATE) : round(9.75 * RATE)])[200:-200].max() < 1e-3
    assert pictures_of(path, 6.2, 8.0) == pytest.approx([level(2), level(3)], abs=6)


@pytest.mark.parametrize("seconds", [10 * HOUR, 2.0**31])
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_sound_that_is_hours_or_years_late_is_a_broken_clock(tmp_path, name, seconds):
    kinds = ("sound",)
    codec = "flac" if name == "a.mkv" else "aac"
    path = film(tmp_path / name, 4.0, late(seconds, -9.0, kinds), sound_codec=codec)
    with pytest.raises(DecodeError, match="broken clock"):
        next(read_audio(path, RATE, keep_truncated=True, keep_damaged=True))


def test_hours_of_holes_are_a_broken_clock(tmp_path):
    path = film(tmp_path / "a.mkv", 20.0, lambda kind, time: time + 500 * int(time))
    with pytest.raises(DecodeError, match=r"broken clock: [0-9,]+ s without sound or picture"):
        for _ in read_audio(path, RATE, keep_truncated=True, keep_damaged=True):
            pass
    heard = Heard()
    assert len(list(read_images(path, 1.0, SIZE, heard=heard))) < 5000 and "broken clock" in heard.said


def test_a_picture_lasts_no_longer_than_the_film(tmp_path):
    path = film(tmp_path / "a.mkv", 4.0, last=10 * HOUR)
    assert len(pictures_of(path)) <= 5


# --- pictures never cost the sound ---


def test_a_codec_that_nobody_knows_costs_no_sound(tmp_path):
    data = film(tmp_path / "a.mp4", 4.0, codec="libx264", sound_codec="aac").read_bytes()
    for name, old, new in (("tag.mp4", b"avc1", b"zzz1"), ("header.mp4", b"avcC\x01", b"avcC\xff")):
        (tmp_path / name).write_bytes(data.replace(old, new))
        found, heard = heard_of(tmp_path / name)
        assert len(click_times(found)) == 4 and heard.pictures
        list(read_images(tmp_path / name, 1.0, SIZE, heard=heard))
        assert "pictures as far as they go" in heard.said or name == "header.mp4"


def test_a_broken_picture_costs_no_sound_and_few_pictures(tmp_path):
    path = film(tmp_path / "a.mkv", 6.0, codec="mjpeg")
    with av.open(str(path)) as container:
        packet = bytes([packet for packet in container.demux(container.streams.video[0])][30])
    path = overwritten(path, tmp_path / "b.mkv", path.read_bytes().index(packet), len(packet))
    heard = Heard()
    assert len(heard_of(path)[0]) > 5.9 * RATE
    assert len(list(read_images(path, 1.0, SIZE, heard=heard))) == 6
    with pytest.raises(DecodeError, match="damaged video"):
        pictures_of(path)
    assert heard.said == "pictures as far as they go: damaged video"


def test_ogg_with_pictures_is_a_video(tmp_path):
    write_video(tmp_path / "a.ogv", clicks(4.0, 48000), 48000, codec="libvpx", sound_codec="libopus", fmt="ogg")
    found, heard = heard_of(tmp_path / "a.ogv")
    assert len(click_times(found)) == 4 and heard.pictures
    assert pictures_of(tmp_path / "a.ogv") == pytest.approx([level(i) for i in range(4)], abs=6)


def test_theora_that_is_broken_costs_no_sound(tmp_path):
    """The first page of a stream of Theora and nothing more, before sound."""
    soundfile.write(tmp_path / "a.ogg", clicks(4.0), RATE)
    head = b"\x80theora\3\2\1" + bytes([0, 4, 0, 3]) + bytes(28)
    page = b"OggS\0\2" + bytes(8) + b"thra" + bytes(8) + bytes([1, len(head)]) + head
    (tmp_path / "a.ogv").write_bytes(checked(page) + (tmp_path / "a.ogg").read_bytes())
    found, heard = heard_of(tmp_path / "a.ogv")
    assert len(click_times(found)) == 4 and not heard.said
    assert list(read_images(tmp_path / "a.ogv", 1.0, SIZE, heard=heard)) == []


# --- spans from the middle ---

SPANS = {
    "a.mpg": {"codec": "mpeg2video", "sound_codec": "mp2", "fmt": "mpeg"},
    "a.vob": {"codec": "mpeg2video", "sound_codec": "ac3", "fmt": "vob"},
    "a.ts": {"codec": "mpeg2video", "sound_codec": "aac", "fmt": "mpegts"},
    "a.mkv": {"codec": "mpeg4", "sound_codec": "aac"},
    "a.avi": {"codec": "mpeg4", "sound_codec": "libmp3lame"},
    "a.flv": {"codec": "flv", "sound_codec": "aac", "fmt": "flv"},
    "a.swf": {"codec": None, "sound_codec": "libmp3lame", "fmt": "swf"},
    "a.aac": {"codec": None, "fmt": "adts"},
    "a.ac3": {"codec": None, "sound_codec": "ac3", "fmt": "ac3"},
    "a.mp3": {"codec": None, "sound_codec": "libmp3lame", "fmt": "mp3"},
    "a.opus": {"codec": None, "sound_codec": "libopus", "fmt": "ogg"},
    "gsm.wav": {"subtype": "GSM610"},
    "ima.wav": {"subtype": "IMA_ADPCM"},
    "g721.au": {"subtype": "G721_32"},
    "a.ogg": {},
}


@pytest.mark.parametrize("name", SPANS)
def test_spans_of_what_cannot_seek_or_seeks_badly(tmp_path, name):
    path, options = tmp_path / name, SPANS[name]
    if "subtype" in options or name == "a.ogg":
        soundfile.write(path, sound(10.0, 8000), 8000, **options)
    else:
        rate = 44100 if name in ("a.swf", "a.flv") else 48000
        write_video(path, sound(10.0, rate), rate, **options)
    whole, _ = heard_of(path)
    for start, end in ((4.0, 7.0), (0.5, 1.25), (8.5, 9.75), (6.0, 6.1)):
        part, heard = heard_of(path, start, end)
        assert len(part) == round((end - start) * RATE) and not heard.said
        lag, correlation, _ = agreement(part, whole[round(start * RATE) : round(end * RATE)])
        assert abs(lag) < 0.6 and correlation > 0.98, (start, end)  # stamps of a container are whole milliseconds
    part, heard = heard_of(path, 8.0, 13.0)
    assert len(part) / RATE == pytest.approx(2, abs=0.1)
    assert heard.truncated == f"truncated: it ends at {8 + len(part) / RATE:.1f} s, before 13 s"
    with pytest.raises(DecodeError, match=r"before 13 s"):
        list(read_audio(path, RATE, 8.0, 13.0))
    with pytest.raises(DecodeError, match=r"nothing from 60 s on, its sound ends at (9\.[5-9]|10\.\d) s"):
        heard_of(path, 60.0, 61.0)


@pytest.mark.parametrize("name", ["a.ts", "a.mp3", "a.aac", "a.mpg"])
def test_a_file_that_begins_in_the_middle_of_its_stream(tmp_path, name):
    options = SPANS[name]
    write_video(tmp_path / name, clicks(10.0, 48000), 48000, **options)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[len(data) // 3 :])
    found, heard = heard_of(tmp_path / name)
    assert not heard.damaged and not heard.truncated
    times = click_times(found)
    assert len(times) in (6, 7) and np.diff(times) == pytest.approx([1.0] * (len(times) - 1), abs=0.02)


# --- tracks and channels ---


def test_the_default_track_is_heard_and_said(tmp_path):
    other = sound(4.0)
    for default in (0, 1, 2):
        path = tracks(tmp_path / "a.mkv", [clicks(4.0) if i == default else other for i in range(3)], default)
        found, heard = heard_of(path)
        assert len(click_times(found)) == 4 and heard.said == f"its sound is track {default + 1} of 3"


def test_the_first_track_that_decodes_is_heard(tmp_path):
    path = tracks(tmp_path / "a.mkv", [sound(4.0), clicks(4.0)], 0, garbage=0)
    found, heard = heard_of(path)
    assert len(click_times(found)) == 4 and heard.said == "its sound is track 2 of 2"
    data = tracks(tmp_path / "b.mkv", [sound(4.0), clicks(4.0)]).read_bytes()
    (tmp_path / "b.mkv").write_bytes(data.replace(b"A_FLAC", b"A_NONE", 1))
    found, heard = heard_of(tmp_path / "b.mkv")
    assert len(click_times(found)) == 4 and heard.said == "its sound is track 2 of 2"


@pytest.mark.parametrize(
    ("name", "layout", "codec"),
    [
        ("a.mkv", "7.1", "flac"),
        ("b.mkv", "7.1.4", "pcm_s16le"),
        ("c.mkv", "hexadecagonal", "pcm_s16le"),
        ("a.mov", "hexadecagonal", "pcm_s16le"),
        ("a.mp4", "7.1", "aac"),
        ("d.mkv", "7.0", "flac"),
    ],
)
def test_many_channels_through_ffmpeg(tmp_path, name, layout, codec):
    number = {"7.0": 7, "7.1": 8, "7.1.4": 12, "hexadecagonal": 16}[layout]
    sounds = np.stack([0.3 * sound(2.0, 48000, seed=seed) for seed in range(number)])
    encode(tmp_path / name, sounds, 48000, codec, layout=layout)
    found, _ = heard_of(tmp_path / name)
    mean = np.mean([0.3 * sound(2.0, seed=seed) for seed in range(number)], 0)
    lag, correlation, size = agreement(found, mean)
    assert abs(lag) < 0.1 and correlation > 0.9 and size == pytest.approx(1, abs=0.1)
    if codec != "aac":  # which orders channels its own way
        last = np.concatenate(list(read_audio(tmp_path / name, RATE, channel=number)))
        assert agreement(last, 0.3 * sound(2.0, seed=number - 1))[1] > 0.99

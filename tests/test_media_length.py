"""Lengths: what is decoded counts, not what a header guesses; what stands in the file is read."""

import struct

import numpy as np
import pytest
import soundfile
from conftest import RATE, write_video
from media_world import checked, click_times, clicks, encode, joined, overwritten, pages, piped, wave, wave_around
from test_media import reason, sound

from soundssl.media import DecodeError, Heard, read_audio, read_images

BARE = {"write_xing": "0", "id3v2_version": "0"}  # MP3 as it comes from a pipe
VARIABLE = {"flags": "+qscale", "global_quality": "236"}  # of LAME: quality 2
FEW = 2 * RATE * 3  # bytes of three seconds
SIZES = {"few": FEW, "zero": 0, "pipe": -1}


def heard_of(path, start: float = 0.0, end: float | None = None) -> tuple[np.ndarray, Heard]:
    heard = Heard()
    blocks = read_audio(path, RATE, start, end, None, True, heard, True)
    return np.concatenate([np.empty(0, np.float32), *blocks]), heard


def check_clicks(path, count: int, within: float = 0.03, every: float = 1.0, late: float = 0.0) -> Heard:
    """Check that clicks of every second come back, in place."""
    found, heard = heard_of(path)
    wanted = [second * every + 0.5 + late for second in range(count)]
    assert click_times(found) == pytest.approx(wanted, abs=within)
    assert len(found) / RATE == pytest.approx(count, abs=max(0.1, 5 * within))
    return heard


@pytest.mark.parametrize("name", ["a.mp3", "mp3.wav"])
def test_mp3_of_varying_rate_without_its_length(tmp_path, name):
    """Half a minute of noise and half a minute of silence: by the rate of its beginning it would be 15 s."""
    x = np.concatenate([sound(30.0, 44100), np.zeros(30 * 44100, np.float32)])
    made = encode(tmp_path / "a.mp3", x, 44100, "libmp3lame", "mp3", options=BARE, codec_options=VARIABLE)
    if name == "mp3.wav":
        extra = struct.pack("<HIHHH", 1, 2, 417, 1, 0)
        (tmp_path / name).write_bytes(wave_around(made.read_bytes(), 44100, 0x55, extra, 16000, 1))
    found, heard = heard_of(tmp_path / name)
    assert len(found) / RATE == pytest.approx(60, abs=0.06) and not heard.said
    assert found[: 29 * RATE].std() > 0.03 > 0.001 > np.abs(found[31 * RATE :]).max()


def test_mp3_whose_length_stands_at_zero_or_lies(tmp_path):
    soundfile.write(tmp_path / "a.mp3", clicks(6.0), RATE)
    data = bytearray((tmp_path / "a.mp3").read_bytes())
    at = max(data.find(b"Xing"), data.find(b"Info"))
    (frames,) = struct.unpack_from(">I", data, at + 8)
    for stated in (0, frames // 3):
        struct.pack_into(">I", data, at + 8, stated)
        (tmp_path / "b.mp3").write_bytes(data)
        assert not check_clicks(tmp_path / "b.mp3", 6, within=0.08).said
    struct.pack_into(">I", data, at + 8, 2 * frames)
    (tmp_path / "b.mp3").write_bytes(data)
    assert check_clicks(tmp_path / "b.mp3", 6, within=0.08).truncated.startswith("truncated: 6.")


def test_raw_aac_of_varying_rate(tmp_path):
    x = np.concatenate([sound(4.0), np.zeros(8 * RATE, np.float32)])
    found, heard = heard_of(encode(tmp_path / "a.aac", x, RATE, "aac", "adts"))
    assert len(found) / RATE == pytest.approx(12, abs=0.15) and not heard.said


@pytest.mark.parametrize(
    ("codec", "fmt", "rate"),
    [
        ("flac", "flac", 44100),
        ("flac", "ogg", 44100),
        ("libopus", "ogg", 48000),
        ("vorbis", "ogg", 44100),
        ("libmp3lame", "mp3", 44100),
        ("pcm_s16le", "wav", 44100),
        ("pcm_s16be", "aiff", 44100),
        ("pcm_s16be", "au", 44100),
        ("pcm_s16be", "caf", 44100),
        ("pcm_s16le", "w64", 44100),
        ("flac", "matroska", 44100),
        ("libopus", "webm", 48000),
        ("aac", "flv", 44100),
    ],
)
def test_what_was_written_into_a_pipe(tmp_path, codec, fmt, rate):
    if codec == "vorbis":
        encode(tmp_path / "pipe", np.stack([clicks(6.0, rate)] * 2), rate, codec, fmt, codec_options={"strict": "-2"})
    else:
        piped(tmp_path / "pipe", clicks(6.0, rate), rate, codec, fmt)
    assert not check_clicks(tmp_path / "pipe", 6, within=0.04).said
    part, _ = heard_of(tmp_path / "pipe", 3.0, 5.0)
    assert click_times(part) == pytest.approx([0.5, 1.5], abs=0.04)


JOINED = {
    "a.mp3": (RATE, {}, 0.3),
    "a.flac": (RATE, {}, 1e-3),
    "a.ogg": (RATE, {}, 0.06),
    "opus.ogg": (48000, {"format": "OGG", "subtype": "OPUS"}, 0.03),
}


@pytest.mark.parametrize("name", JOINED)
def test_recordings_one_behind_the_other(tmp_path, name):
    rate, options, within = JOINED[name]
    soundfile.write(tmp_path / name, clicks(4.0, rate), rate, **options)
    path = joined([tmp_path / name] * 3, tmp_path / f"joined-{name}")
    assert not check_clicks(path, 12, within).said
    whole, _ = heard_of(path)
    part, _ = heard_of(path, 5.25, 9.75)
    assert len(part) == 4.5 * RATE
    assert np.corrcoef(part, whole[round(5.25 * RATE) : round(9.75 * RATE)])[0, 1] > 0.95


def test_chained_flac_in_ogg(tmp_path):
    encode(tmp_path / "a.oga", clicks(4.0), RATE, "flac", "ogg")
    assert not check_clicks(joined([tmp_path / "a.oga"] * 3, tmp_path / "b.oga"), 12).said


def test_mp3_with_tags_between(tmp_path):
    """A tag with the picture of an album, 16 kB, is no lost time."""
    made = encode(tmp_path / "a.mp3", clicks(4.0), RATE, "libmp3lame", "mp3").read_bytes()
    tag = b"ID3\3\0\0\0\1\0\0" + np.random.default_rng(1).bytes(1 << 14)
    (tmp_path / "b.mp3").write_bytes(tag + made + b"TAG" + bytes(125) + tag + made)
    found, _ = heard_of(tmp_path / "b.mp3")
    assert len(found) / RATE == pytest.approx(8, abs=0.3)
    assert click_times(found) == pytest.approx([i + 0.5 for i in range(8)], abs=0.2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fmt", ["WAV", "RF64", "AIFF", "AU", "CAF", "W64"])
def test_headers_that_state_too_little_or_nothing(tmp_path, fmt, size):
    """A recorder that died wrote its header last when it had three seconds, or never."""
    path = tmp_path / "a"
    soundfile.write(path, clicks(6.0), RATE, format=fmt, subtype="PCM_16")
    data, stated = bytearray(path.read_bytes()), SIZES[size]
    place, form, more = {
        "WAV": (data.find(b"data") + 4, "<I", 0),
        "RF64": (data.find(b"ds64") + 16, "<Q", 0),
        "AIFF": (data.find(b"SSND") + 4, ">I", 8),
        "AU": (8, ">I", 0),
        "CAF": (data.find(b"data\0") + 4, ">Q", 4),
        "W64": (data.find(b"data\xf3") + 16, "<Q", 24),
    }[fmt]
    struct.pack_into(form, data, place, (stated + more if stated > 0 else stated) % (1 << 8 * struct.calcsize(form)))
    path.write_bytes(data)
    heard = check_clicks(path, 6)
    assert heard.said == ("its header states 3.0 s, it holds 6.0 s" if size == "few" else "")
    part, _ = heard_of(path, 3.25, 5.25)
    assert len(part) == 2 * RATE and click_times(part) == pytest.approx([0.25, 1.25], abs=0.01)


def test_a_size_that_started_again_at_four_gigabytes(tmp_path):
    """Sparse: two seconds stated, four gigabytes more there, of silence but for a click and a chunk behind it."""
    path, whole = tmp_path / "a.wav", 2 * 2 * RATE + (1 << 32)
    with open(path, "wb") as file:
        file.write(wave(clicks(2.0), stated=2 * 2 * RATE, riff=36))
        file.seek(44 + whole - 2 * RATE)
        file.write((clicks(1.0, seed=1) * 32767).astype("<i2").tobytes())
        file.write(b"LIST" + struct.pack("<I", 400) + b"INFO" + np.random.default_rng(0).bytes(396))
    seconds = whole / 2 / RATE
    part, _ = heard_of(path, seconds - 3.0)
    assert len(part) == 3 * RATE and click_times(part) == pytest.approx([2.5], abs=0.01)
    with pytest.raises(DecodeError, match="nothing from 200000 s on"):
        heard_of(path, 200000.0)


def test_what_stands_behind_the_sound_and_is_none(tmp_path):
    chunk = b"LIST" + struct.pack("<I", 30000) + b"INFO" + np.random.default_rng(0).bytes(29996)
    for tail in (chunk, bytes(20000), b"ID3\4" + np.random.default_rng(0).bytes(20000), b"TAG" + bytes(125)):
        (tmp_path / "a.wav").write_bytes(wave(clicks(4.0), tail=tail))
        assert not check_clicks(tmp_path / "a.wav", 4).said
    soundfile.write(tmp_path / "a.ogg", clicks(4.0), RATE)
    (tmp_path / "a.ogg").write_bytes((tmp_path / "a.ogg").read_bytes() + b"TAG" + bytes(125))
    assert not check_clicks(tmp_path / "a.ogg", 4).said


@pytest.mark.parametrize("size", [0, 4, 0x7FFFFFFF, 0xFFFFFFF0, 30000])  # libsndfile issue 1118; a file cut in it
@pytest.mark.parametrize("name", [b"LIST", b"id3 ", b"guan"])
def test_a_chunk_behind_the_sound_whose_size_lies_is_no_sound(tmp_path, name, size):
    tail = name + struct.pack("<I", size) + np.random.default_rng(0).bytes(20000)
    (tmp_path / "a.wav").write_bytes(wave(clicks(4.0), tail=tail))
    found, heard = heard_of(tmp_path / "a.wav")
    assert len(found) == 4 * RATE and not heard.said and not heard.truncated


def odd_wave(name):
    """Return a WAV file of clicks for 4 s as a program or a device writes it that other readers fail on."""
    x = clicks(4.0)
    pcm = (x * 32767).astype("<i2")
    if name == "PEAK of one channel for two":  # libsndfile issue 1046
        peak = b"PEAK" + struct.pack("<IIIfI", 16, 1, 0, 1.0, 5)
        return riff(form(2, 32, 3), peak, b"data", np.repeat(x[:, None], 2, 1).astype("<f4").tobytes())
    if name == "24 bits and a chunk":  # torchcodec issue 1378
        three = (x * 8388607).astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes()
        return riff(form(1, 24), b"data", three, tail=b"LIST" + struct.pack("<I", 4) + b"INFO")
    if name == "a frame cut":  # bitswype/saleae_tdm_analyer issue 7
        return riff(form(8), b"data", np.repeat(pcm[:, None], 8, 1).tobytes()[:-6], stated=len(pcm) * 16)
    if name == "chunks before the format":  # Mattk70/Chirpity-Electron issue 85
        before = b"bext" + struct.pack("<I", 602) + bytes(602) + b"iXML" + struct.pack("<I", 5000) + b" " * 5000
        return riff(before, form(1, 32, 3), b"data", x.astype("<f4").tobytes())
    return riff(form(int(name)), b"data", np.repeat(pcm[:, None], int(name), 1).tobytes())  # pytorch/audio 3718, 3659


def form(channels: int, bits: int = 16, tag: int = 1) -> bytes:
    block = channels * bits // 8
    return b"fmt " + struct.pack("<IHHIIHH", 16, tag, channels, RATE, RATE * block, block, bits)


def riff(*chunks: bytes, tail: bytes = b"", stated: int | None = None) -> bytes:
    *before, name, sound_ = chunks
    body = b"WAVE" + b"".join(before) + name + struct.pack("<I", stated or len(sound_)) + sound_ + tail
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "name",
    ["PEAK of one channel for two", "24 bits and a chunk", "a frame cut", "chunks before the format", "17", "30"],
)
def test_waves_that_other_readers_fail_on(tmp_path, name):
    (tmp_path / "a.wav").write_bytes(odd_wave(name))
    assert not check_clicks(tmp_path / "a.wav", 4, within=1e-3).said


@pytest.mark.parametrize("order", ["51", "15"])
def test_a_number_of_channels_that_changes_in_the_stream(tmp_path, order):
    """As in broadcasts: a decoder set up for the first frame reads beyond the others (AetherEngine issue 452)."""
    x, layouts = clicks(3.0, 48000), {"5": (6, "5.1"), "1": (1, "mono")}
    paths = []
    for each in order:
        channels, layout = layouts[each]
        paths.append(
            encode(tmp_path / f"{each}.ts", np.repeat(x[None], channels, 0), 48000, "ac3", "mpegts", layout=layout)
        )
    found, _ = heard_of(joined(paths, tmp_path / "a.ts"))
    wanted = [0.5054, 1.5054, 2.5054]  # AC-3 is 256 samples late
    assert np.array(click_times(found)) % 3.024 == pytest.approx(wanted * 2, abs=0.03)


def test_a_chunk_of_an_odd_size_and_one_of_zeros(tmp_path):
    odd = wave(clicks(4.0))[:36] + b"LIST" + struct.pack("<I", 7) + b"INFOabc" + b"\0" + wave(clicks(4.0))[36:]
    zeros = wave(clicks(4.0))[:36] + b"LIST" + struct.pack("<I", 393164) + bytes(393164) + wave(clicks(4.0))[36:]
    for data in (odd, zeros):
        (tmp_path / "a.wav").write_bytes(data)
        assert not check_clicks(tmp_path / "a.wav", 4).said


def test_an_avi_cut_short_is_said(tmp_path):
    write_video(tmp_path / "a.avi", clicks(6.0, 48000), 48000, sound_codec="pcm_s16le")
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(data[: len(data) * 2 // 3])
    assert reason(tmp_path / "a.avi").startswith("truncated: 3.") or reason(tmp_path / "a.avi").startswith(
        "truncated: 4."
    )


def test_an_ogg_that_is_cut_out_of_a_longer_one(tmp_path):
    """Its places begin at a hundred seconds, as of a stream that was recorded from its middle."""
    for subtype, rate in (("VORBIS", RATE), ("OPUS", 48000)):
        soundfile.write(tmp_path / "a.ogg", clicks(4.0, rate), rate, format="OGG", subtype=subtype)
        data = b"".join(moved(page, 100 * rate) for page in pages((tmp_path / "a.ogg").read_bytes()))
        (tmp_path / "b.ogg").write_bytes(data)
        assert not check_clicks(tmp_path / "b.ogg", 4).said


def moved(page: bytes, samples: int) -> bytes:
    """Return a page of Ogg whose sound ends so many samples later."""
    (place,) = struct.unpack_from("<q", page, 6)
    return checked(page[:6] + struct.pack("<q", place + samples if place > 0 else place) + page[14:])


# --- damage in the middle ---


def damaged(folder, name: str):
    """Write six seconds of clicks that are broken somewhere after the third."""
    path, broken = folder / name, folder / f"broken-{name}"
    if name == "hole.ogg":
        soundfile.write(path, clicks(6.0), RATE)
        every = pages(path.read_bytes())
        broken.write_bytes(b"".join(every[: len(every) // 2] + every[len(every) // 2 + 1 :]))
        return broken
    if name == "a.aac":
        encode(path, clicks(6.0), RATE, "aac", "adts", bit_rate=96000)
    elif name == "a.mka":
        encode(path, clicks(6.0), RATE, "aac", "matroska", bit_rate=96000)
    else:
        soundfile.write(path, clicks(6.0), RATE)
    return overwritten(path, broken, path.stat().st_size // 2, 3000 if name != "a.flac" else 600)


@pytest.mark.parametrize("name", ["a.mp3", "hole.ogg", "a.ogg", "a.flac", "a.aac", "a.mka"])
def test_later_sound_stays_in_place(tmp_path, name):
    path = damaged(tmp_path, name)
    found, heard = heard_of(path)
    assert heard.damaged.startswith("damaged"), heard
    assert len(found) / RATE == pytest.approx(6, abs=0.3)
    times = click_times(found)
    assert times[:2] == pytest.approx([0.5, 1.5], abs=0.05) and times[-1] == pytest.approx(5.5, abs=0.15)
    with pytest.raises(DecodeError, match="damaged"):
        list(read_audio(path, RATE, keep_truncated=True))
    assert list(read_images(path, 1.0, (32, 32))) == []

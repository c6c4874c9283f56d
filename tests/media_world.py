"""Media as they come: small files with one thing that is odd, made with PyAV, soundfile and bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from conftest import RATE

PAGE = b"OggS\0"  # what every page of Ogg begins with


def clicks(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Return faint noise with a click of 5 ms in the middle of every second."""
    generator = np.random.default_rng(seed)
    x = generator.normal(0, 0.002, round(seconds * rate))
    for second in range(int(seconds)):
        at = round((second + 0.5) * rate)
        x[at : at + rate // 200] = 0.8 * generator.choice([-1, 1], rate // 200)
    return x.astype(np.float32)


def click_times(found: np.ndarray, rate: int = RATE) -> list[float]:
    """Return when clicks begin, in seconds."""
    loud = np.flatnonzero(np.abs(found) > 0.25)
    return [float(i) / rate for i, before in zip(loud, [-rate, *loud[:-1]], strict=False) if i - before > rate // 10]


def encode(
    path: Path,
    sound: np.ndarray,
    rate: int = RATE,
    codec: str = "aac",
    fmt: str | None = None,
    layout: str | None = None,
    options: dict[str, str] | None = None,
    bit_rate: int | None = None,
    codec_options: dict[str, str] | None = None,
) -> Path:
    """Write one track of sound [samples] or [channels, samples] with PyAV."""
    channels = np.atleast_2d(sound)
    layout = layout or {1: "mono", 2: "stereo"}[len(channels)]
    with av.open(str(path), "w", format=fmt, options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options=codec_options or {})
        if bit_rate:
            stream.bit_rate = bit_rate
        for packet in encoded(stream, channels, rate, layout):
            container.mux(packet)
    return path


def encoded(stream, channels: np.ndarray, rate: int, layout: str, first: int = 0) -> Iterator[av.Packet]:
    """Yield the packets of sound [channels, samples] that begins at a sample."""
    step = stream.codec_context.frame_size or 1024
    form = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
    for begin in range(0, channels.shape[1], step):
        part = channels[:, begin : begin + step].T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part, np.float32), format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, first + begin
        for shaped in form.resample(frame):
            yield from stream.encode(shaped)
    yield from stream.encode()


def film(
    path: Path,
    seconds: float = 10.0,
    move: Callable[[str, float], float] = lambda kind, time: time,
    codec: str = "mpeg4",
    sound_codec: str = "flac",
    fmt: str | None = None,
    last: float | None = None,
) -> Path:
    """Write clicks, and pictures as bright as `level`, interleaved; `move(kind, time)` moves stamps, in seconds.

    The last picture lasts for `last` seconds.
    """
    rate = 48000
    with av.open(str(path), "w", format=fmt) as container:
        video, audio = container.add_stream(codec, rate=10), container.add_stream(sound_codec, rate=rate, layout="mono")
        video.width, video.height, video.max_b_frames = 64, 48, 0
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        container.start_encoding()
        packets = [("sound", packet) for packet in encoded(audio, clicks(seconds, rate)[None], rate, "mono")]
        for i in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level(i / 10), np.uint8), format="rgb24")
            frame.pts = i
            packets += [("picture", packet) for packet in video.encode(frame)]
        packets += [("picture", packet) for packet in video.encode()]
        if last is not None:
            packets[-1][1].duration = round(last / packets[-1][1].time_base)
        for kind, packet in sorted(packets, key=lambda pair: float((pair[1].dts or 0) * pair[1].time_base)):
            time = float((packet.dts or 0) * packet.time_base)
            shift = round((move(kind, time) - time) / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, (packet.dts or 0) + shift
            container.mux(packet)
    return path


def level(seconds: float) -> int:
    """Return how bright the pictures of a film are at a time: a second each."""
    return 10 + 20 * (int(seconds) % 12)


def tracks(path: Path, sounds: Sequence[np.ndarray], default: int | None = None, garbage: int | None = None) -> Path:
    """Write tracks of FLAC, of which one may be the default and one garbage."""
    with av.open(str(path), "w", format="matroska") as container:
        streams = [container.add_stream("flac", rate=RATE, layout="mono") for _ in sounds]
        for i, stream in enumerate(streams):
            stream.disposition = Disposition.default if i == default else Disposition(0)
        for i, (stream, sound) in enumerate(zip(streams, sounds, strict=True)):
            for packet in encoded(stream, sound[None], RATE, "mono"):
                if i == garbage:
                    broken = av.Packet(bytes(packet.size))
                    broken.stream, broken.pts, broken.dts, broken.time_base = stream, packet.pts, packet.dts, packet.time_base  # fmt: skip  # noqa: E501
                    container.mux(broken)
                else:
                    container.mux(packet)
    return path


class Pipe:
    """Take bytes as a pipe does: nobody can go back in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"")

    def write(self, data: bytes) -> int:
        """Append bytes."""
        with open(self.path, "ab") as file:
            return file.write(data)


def piped(path: Path, sound: np.ndarray, rate: int, codec: str, fmt: str) -> Path:
    """Write one track of sound [samples] into a pipe."""
    with av.open(Pipe(path), "w", format=fmt) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        for packet in encoded(stream, sound[None], rate, "mono"):
            container.mux(packet)
    return path


def overwritten(source: Path, target: Path, first: int, length: int) -> Path:
    """Copy a file and put noise in place of some of its bytes."""
    data = bytearray(source.read_bytes())
    data[first : first + length] = np.random.default_rng(0).bytes(length)
    target.write_bytes(data)
    return target


def wave(
    samples: np.ndarray, rate: int = RATE, stated: int | None = None, riff: int | None = None, tail: bytes = b""
) -> bytes:
    """Return a 16-bit WAV file of one channel whose header states `stated` bytes of sound and `riff` of the whole."""
    data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    stated = len(data) if stated is None else stated
    riff = 36 + len(data) + len(tail) if riff is None else riff
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", stated)  # fmt: skip  # noqa: E501
    return head + data + tail


def wave_around(data: bytes, rate: int, tag: int, extra: bytes, byte_rate: int, block: int) -> bytes:
    """Return a WAV file around bytes that another codec made: `tag` says which."""
    form = struct.pack("<HHIIHHH", tag, 1, rate, byte_rate, block, 0, len(extra)) + extra
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def pages(data: bytes) -> list[bytes]:
    """Return the pages of an Ogg file."""
    starts = [i for i in range(len(data)) if data.startswith(PAGE, i)]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def checked(page: bytes) -> bytes:
    """Return a page of Ogg with its checksum (RFC 3533)."""
    page, remainder = page[:22] + bytes(4) + page[26:], 0
    for byte in page:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x04C11DB7 if remainder >> 31 else 0)) & 0xFFFFFFFF
    return page[:22] + struct.pack("<I", remainder) + page[26:]


def joined(parts: Sequence[Path], target: Path) -> Path:
    """Write the bytes of files one behind the other, as `cat` does."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target

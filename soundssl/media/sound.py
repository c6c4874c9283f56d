"""Sound: blocks of one channel at one rate, placed in time; what was heard is counted on the way."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import soundfile
import soxr

from soundssl.media.opening import DecodeError, open_container, open_readable, seek, video_streams, zero_of

BLOCK = 1 << 18  # samples read at a time: six seconds at 44.1 kHz
RESAMPLER = "soxr HQ"
TOLERANCE = 0.25  # seconds that a container may declare more than it holds
HOLE = (0.1, 600.0)  # seconds without sound in the middle that are filled with silence; a longer jump is a broken clock
FULL_SCALE = 32767 / 32768  # the largest sample of 16 bits
OGG_PAGE = 65307  # bytes of the longest page
UNCORRECTED = {"FLAC", "MP3", "OGG"}  # formats of which libsndfile tells the length as it is stated
SIXTEEN_BITS = np.float32(2.0**-15)  # what an integer sample of 16 bits counts


@dataclass
class Heard:
    """Count what went by: the peak, samples at full scale in any channel, and what is missing at the end.

    `pictures` says whether moving pictures may lie beside the sound.
    """

    peak: float = 0.0
    clipped: int = 0
    truncated: str = ""
    pictures: bool = True

    def listen(self, block: np.ndarray, path) -> None:
        """Take note of a block; raise DecodeError where it holds samples that are no numbers."""
        peak = max(float(block.max()), -float(block.min()))
        if not math.isfinite(peak):
            raise DecodeError(path, "non-finite samples")
        if peak >= FULL_SCALE:
            self.clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        self.peak = max(self.peak, peak)


@dataclass
class _Request:
    """Say what is wanted of a file; `truncated` is called with the reason where it ends before its time."""

    path: str | os.PathLike
    start: float
    end: float | None
    channel: int | None
    keep_truncated: bool
    heard: Heard

    def one(self, block: np.ndarray) -> np.ndarray:
        """Listen to a block [samples, channels] and return one channel, or the average of all."""
        if not len(block):
            return np.empty(0, np.float32)
        self.heard.listen(block, self.path)
        channels = block.shape[1]
        if self.channel is not None:
            if self.channel > channels:
                raise DecodeError(self.path, f"no channel {self.channel}, it has {channels}")
            return np.ascontiguousarray(block[:, self.channel - 1])
        return block[:, 0] if channels == 1 else block @ np.full(channels, 1 / channels, np.float32)

    def truncated(self, reason: str) -> None:
        """Remember that the file ends before its time, or raise DecodeError."""
        if not self.keep_truncated:
            raise DecodeError(self.path, reason)
        self.heard.truncated = reason

    def check_whole(self, decoded: float, declared: float) -> None:
        """Notice when much less sound was decoded than declared, both in seconds."""
        if decoded < declared - TOLERANCE:
            self.truncated(f"truncated: {decoded:.1f} of {declared:.1f} s")


def read_audio(
    path: str | os.PathLike,
    rate: int,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
    keep_truncated: bool = False,
    heard: Heard | None = None,
) -> Iterator[np.ndarray]:
    """Yield the sound of a file as float32 mono blocks at `rate` Hz, from `start` to `end` seconds.

    Channels are averaged, or `channel` (from 1) is taken; resampling is by soxr, high quality. What was heard is told
    to `heard`, also that a file ends before its time where `keep_truncated` lets it pass. Shape: `[samples]` each.
    Raises DecodeError.
    """
    request = _Request(path, start, end, channel, keep_truncated, heard or Heard())
    blocks, source_rate = _open_audio(request)
    return resample(blocks, source_rate, rate)


def channel_count(path: str | os.PathLike) -> int:
    """Return the number of channels of the sound of a file; raise DecodeError."""
    try:
        with _open_sound_file(path) as file:
            if file.frames:
                return file.channels
    except soundfile.LibsndfileError:
        pass
    container = open_container(path)
    with container:
        return _audio_stream(container, path).codec_context.channels


def _open_audio(request: _Request) -> tuple[Iterator[np.ndarray], int]:
    try:
        file = _open_sound_file(request.path)
    except soundfile.LibsndfileError:
        return _av_audio(request)
    if not file.frames:  # a recorder that died leaves a header that says so, and sound behind it
        file.close()
        return _av_audio(request)
    request.heard.pictures = False
    return _soundfile_audio(file, request), file.samplerate


class _SoundFile(soundfile.SoundFile):
    """Read on from where reading stopped; soundfile would seek there after every block, and codecs decode it again."""

    def seekable(self) -> bool:
        return False

    def next_block(self, samples: int) -> np.ndarray:
        """Return the next samples as float32. Shape: `[n, channels]`."""
        if self.format in ("WAV", "WAVEX", "RF64") and self.subtype == "PCM_16":  # three times as fast this way
            return np.multiply(self.read(samples, "int16", always_2d=True), SIXTEEN_BITS, dtype=np.float32)
        return self.read(samples, "float32", always_2d=True)


def _open_sound_file(path) -> _SoundFile:
    # A descriptor and not a name: libsndfile takes any bytes for sound where the name ends in .au, .raw or .vox.
    return _SoundFile(open_readable(path))


def _soundfile_audio(file, request: _Request) -> Iterator[np.ndarray]:
    rate, start, end = file.samplerate, request.start, request.end
    position, stop = 0, file.frames if end is None else min(max(0, round(end * rate)), file.frames)
    with file:
        try:
            position = file.seek(min(round(start * rate), file.frames)) if start else 0
            while position < stop:
                block = file.next_block(min(BLOCK, stop - position))
                if not len(block):
                    break
                position += len(block)
                yield request.one(block)
            if end is None or position < round(end * rate):
                request.check_whole(position / rate, _declared_frames(file) / rate)
                if file.format == "OGG" and not _ogg_ends(request.path):
                    request.truncated("truncated: its last page is missing")
            return
        except soundfile.LibsndfileError as error:
            reason = f"damaged ({str(error).strip().rstrip('.') or 'at ' + format(position / rate, '.1f') + ' s'})"
    # FFmpeg reads up to where the file ends; where it finds the end, the damage is in the middle.
    try:
        rest, other = _av_audio(request, position / rate)
    except DecodeError:
        raise DecodeError(request.path, reason) from None
    if other != rate:
        raise DecodeError(request.path, reason)
    yield from rest
    if not request.heard.truncated:
        raise DecodeError(request.path, reason)


def _declared_frames(file) -> int:
    """Return the length that the header states: libsndfile silently corrects it in WAV, AIFF and AU files cut short.

    A writer that cannot seek back, into a pipe, leaves about 2^31 or 2^32 there, which states nothing.
    """
    if file.format in UNCORRECTED:
        return file.frames
    found = re.search(r"^Length : (\d+)$.*?^\s*(?:data|ssnd)(?: size)? *: (\d+)", file.extra_info, re.I | re.M | re.S)
    length, stated = (int(found[1]), int(found[2])) if found else (1, 0)
    if stated <= length or min(abs(stated - (1 << 31)), abs(stated - (1 << 32))) <= 1 << 16:
        return file.frames
    return file.frames * stated // length


def _ogg_ends(path) -> bool:
    """Return whether the last page of an Ogg file is whole and says that it is the last."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * OGG_PAGE))
        tail = file.read()
    place = tail.rfind(b"OggS\0")
    header = tail[place : place + 27] if place >= 0 else b""
    if len(header) < 27:
        return False
    lacing = tail[place + 27 : place + 27 + header[26]]
    whole = len(lacing) == header[26] and place + 27 + len(lacing) + sum(lacing) <= len(tail)
    return whole and bool(header[5] & 4)


def _audio_stream(container, path):
    if not container.streams.audio:
        raise DecodeError(path, "no audio stream")
    stream = container.streams.audio[0]
    if stream.codec_context is None or not stream.rate:
        raise DecodeError(path, "no decoder for its audio")
    return stream


def _av_audio(request: _Request, start: float | None = None) -> tuple[Iterator[np.ndarray], int]:
    """Open the sound with PyAV, from `start` seconds on without seeking, else from where it is wanted."""
    container = open_container(request.path)
    try:
        stream = _audio_stream(container, request.path)
    except DecodeError:
        container.close()
        raise
    request.heard.pictures = bool(video_streams(container))
    blocks = _av_blocks(container, stream, request, request.start if start is None else 0.0)
    placed = _trim(blocks, stream.rate, request.start if start is None else start, request.end)
    return (request.one(block) for block in placed), stream.rate


def _av_blocks(container, stream, request: _Request, start: float) -> Iterator[tuple[int | None, np.ndarray]]:
    """Yield (first sample since the container's zero, None where unknown; block `[samples, channels]`)."""
    path, broken = request.path, None
    clock, convert = _Clock(stream, zero_of(container)), _Converter(stream.rate)
    with container:
        try:
            seek(container, clock.zero, start)
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError as error:  # the last one may be cut through; else the file is damaged
                    broken = broken or error
                    continue
                if broken and frames:
                    raise broken
                for frame in frames:
                    first = clock(frame)
                    for block in convert(frame):
                        yield first, block
                        first = None
        except av.error.FFmpegError as error:
            raise DecodeError(path, f"damaged ({error.strerror or error})") from error
        if convert.form is None:
            raise DecodeError(path, "its audio cannot be decoded")
        request.check_whole(clock.end, _declared_end(stream))
        if broken and not request.heard.truncated:
            request.truncated("truncated: its last frame is broken")


class _Clock:
    """Say which sample since the container's `zero` a frame begins with, in integers; None where it bears no stamp."""

    def __init__(self, stream, zero: Fraction) -> None:
        base = Fraction(stream.time_base)
        self.base, self.zero = base, zero
        self.divisor = base.denominator * zero.denominator
        self.factor = base.numerator * zero.denominator * stream.rate
        self.offset = zero.numerator * base.denominator * stream.rate
        self.last: tuple[int, int, int] | None = None

    def __call__(self, frame) -> int | None:
        stamp = frame.pts
        if stamp is None:
            return None
        self.last = stamp, frame.samples, frame.sample_rate
        sample, rest = divmod(stamp * self.factor - self.offset, self.divisor)
        return sample + (2 * rest > self.divisor or (2 * rest == self.divisor and sample % 2))

    @property
    def end(self) -> float:
        """Where the last frame with a stamp ends, in seconds of the container's time."""
        if self.last is None:
            return 0.0
        stamp, samples, rate = self.last
        return float(stamp * self.base) + samples / rate


class _Converter:
    """Turn frames into float32 `[samples, channels]` at one rate; broadcasts change form in the middle."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.form: tuple | None = None
        self.resampler: av.AudioResampler | None = None

    def __call__(self, frame) -> Iterable[np.ndarray]:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self.form:
            plain = frame.format.name == "fltp" and frame.sample_rate == self.rate
            self.form, self.resampler = form, None if plain else av.AudioResampler(format="fltp", rate=self.rate)
        return map(_planes, (frame,) if self.resampler is None else self.resampler.resample(frame))


def _planes(frame) -> np.ndarray:
    """Return the samples of a frame of format fltp. Shape: `[samples, channels]`."""
    planes = [np.frombuffer(plane, np.float32, frame.samples) for plane in frame.planes]
    return planes[0][:, None] if len(planes) == 1 else np.array(planes).T


def _declared_end(stream) -> float:
    """Return the end that the container states for a stream, in seconds, 0 where it states none."""
    if stream.duration:
        return float((stream.start_time or 0) + stream.duration) * float(stream.time_base)
    stated = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska
    return int(stated[1]) * 3600 + int(stated[2]) * 60 + float(stated[3]) if stated else 0.0


def _trim(blocks, rate: int, start: float, end: float | None) -> Iterator[np.ndarray]:
    """Place blocks on the time line from `start` to `end`, in larger blocks; early sound is cut.

    Silence stands before late sound and in holes.
    """
    position, stop = round(start * rate), None if end is None else round(end * rate)
    held: list[np.ndarray] = []
    begun, count = False, 0
    for first, block in blocks:
        expected = position if begun else 0
        first = expected if first is None else first
        late = first - position
        if late > 0 and (not begun or HOLE[0] * rate < late < HOLE[1] * rate):
            late = late if stop is None else min(late, stop - position)
            held, count = [*held, *_silence(late, block.shape[1])], count + late
            position += late
        elif not begun:
            block = block[max(0, -late) :]
        begun = begun or len(block) > 0
        if stop is not None:
            block = block[: max(0, stop - position)]
        position += len(block)
        count += len(block)
        held.append(block)
        while count >= BLOCK and len(held) > 1 and len(held[0]) >= BLOCK:
            count -= len(held[0])
            yield held.pop(0)
        if count >= BLOCK:
            yield _joined(held)
            held, count = [], 0
        if stop is not None and position >= stop:
            break
    if count:
        yield _joined(held)


def _silence(samples: int, channels: int) -> Iterator[np.ndarray]:
    for first in range(0, samples, BLOCK):
        yield np.broadcast_to(np.float32(0), (min(BLOCK, samples - first), channels))


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    """Concatenate blocks; where the number of channels changes in the middle, as their averages."""
    if len({block.shape[1] for block in blocks}) > 1:
        blocks = [block.mean(1, keepdims=True) for block in blocks]
    return np.concatenate(blocks)


# Resamplers that are done, by rates: a new one costs a tenth of what it takes to resample five seconds.
_idle: dict[tuple[float, float], soxr.ResampleStream] = {}


def resample(blocks: Iterable[np.ndarray], source_rate: float, rate: float) -> Iterator[np.ndarray]:
    """Yield mono float32 blocks at `source_rate` Hz as blocks at `rate` Hz, by soxr. Shape: [samples] each."""
    if source_rate == rate:
        yield from blocks
        return
    stream = _idle.pop((source_rate, rate), None)
    if stream is None:
        stream = soxr.ResampleStream(source_rate, rate, 1, dtype="float32", quality="HQ")
    held = np.empty(0, np.float32)
    for block in blocks:  # one behind: a short clip is then one block, and not that and a few samples
        if len(held):
            yield stream.resample_chunk(held)
        held = block
    yield stream.resample_chunk(held, last=True)
    stream.clear()
    _idle[source_rate, rate] = stream


def write_audio(path: str | os.PathLike, rate: int, blocks: Iterable[np.ndarray]) -> None:
    """Write mono blocks at `rate` Hz as a WAV file of 32-bit floating point. Shape: `[samples]` each."""
    with soundfile.SoundFile(path, "w", rate, 1, "FLOAT", format="WAV") as file:
        for block in blocks:
            file.write(block)

"""Codecs: sound and pictures out of media files, block by block; the only room that decodes.

Sound files are read by soundfile, everything else by PyAV with one decoding thread. Content decides, not the name.
Blocks keep memory bounded: a recording of 24 hours never lies in memory as a whole.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
import soundfile
import soxr

from soundssl import SoundsslError

BLOCK = 1 << 17  # samples read at a time: three seconds at 44.1 kHz
RESAMPLER = "soxr HQ"
TOLERANCE = 0.25  # seconds that a container may declare more than it holds

av.logging.set_level(av.logging.PANIC)  # what is wrong is said once, by DecodeError


class DecodeError(SoundsslError):
    """A media file gives no sound or no pictures; `reason` says why in few words."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{os.fsdecode(path)}: {reason}")
        self.path, self.reason = os.fsdecode(path), reason

    def __reduce__(self):
        return type(self), (self.path, self.reason)


def read_audio(
    path: str | os.PathLike, rate: int, start: float = 0.0, end: float | None = None
) -> Iterator[np.ndarray]:
    """Yield the sound of a file as float32 mono blocks at `rate` Hz, from `start` to `end` seconds.

    Channels are averaged; resampling is by soxr, high quality. Shape: `[samples]` each. Raises DecodeError.
    """
    blocks, source_rate = _open_audio(path, start, end)
    yield from _resample(_finite(blocks, path), source_rate, rate)


def _open_audio(path, start: float, end: float | None) -> tuple[Iterator[np.ndarray], int]:
    _check_readable(path)
    try:
        # A descriptor and not a name: libsndfile takes any bytes for sound where the name ends in .au, .raw or .vox.
        file = soundfile.SoundFile(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
    except soundfile.LibsndfileError:
        return _av_audio(path, start, end)
    if not file.frames:  # a recorder that died leaves a header that says so, and sound behind it
        file.close()
        return _av_audio(path, start, end)
    return _soundfile_audio(file, path, start, end), file.samplerate


def _check_readable(path) -> None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait for ever
            raise DecodeError(path, "not a regular file")
        with open(path, "rb") as file:
            if not file.read(1):
                raise DecodeError(path, "empty file")
    except FileNotFoundError:
        raise DecodeError(path, "vanished") from None
    except OSError as error:
        raise DecodeError(path, f"cannot be read ({error.strerror})") from error


def _soundfile_audio(file, path, start: float, end: float | None) -> Iterator[np.ndarray]:
    with file:
        left = None if end is None else max(0, round(end * file.samplerate) - round(start * file.samplerate))
        try:
            position = file.seek(min(round(start * file.samplerate), file.frames)) if start else 0
            while left is None or left > 0:
                block = file.read(BLOCK if left is None else min(BLOCK, left), dtype="float32", always_2d=True)
                if not len(block):
                    break
                position += len(block)
                left = None if left is None else left - len(block)
                yield block[:, 0] if block.shape[1] == 1 else block.mean(1)
            if left != 0:
                _check_whole(path, position / file.samplerate, _declared_frames(file) / file.samplerate)
        except soundfile.LibsndfileError as error:
            raise DecodeError(path, f"damaged ({str(error).strip().rstrip('.')})") from error


def _declared_frames(file) -> int:
    """Return the length that the header states: libsndfile silently corrects it in WAV, AIFF and AU files cut short.

    A writer that cannot seek back, into a pipe, leaves about 2^31 or 2^32 there, which states nothing.
    """
    found = re.search(r"^Length : (\d+)$.*?^\s*(?:data|ssnd)(?: size)? *: (\d+)", file.extra_info, re.I | re.M | re.S)
    length, stated = (int(found[1]), int(found[2])) if found else (1, 0)
    if stated <= length or min(abs(stated - (1 << 31)), abs(stated - (1 << 32))) <= 1 << 16:
        return file.frames
    return file.frames * stated // length


def _check_whole(path, decoded: float, declared: float) -> None:
    """Raise DecodeError when much less sound was decoded than declared, both in seconds."""
    if decoded < declared - TOLERANCE:
        raise DecodeError(path, f"truncated: {decoded:.1f} of {declared:.1f} s")


def _open_container(path):
    with open(path, "rb") as file:
        try:
            # A descriptor and not a name: FFmpeg would guess by suffix, and take a colon or a percent sign for its own.
            return av.open(f"/dev/fd/{file.fileno()}", metadata_errors="ignore")
        except av.error.FFmpegError as error:
            quicktime = file.read(8)[4:] == b"ftyp"
            raise DecodeError(path, "truncated: its index is missing" if quicktime else "not a media file") from error


def _av_audio(path, start: float, end: float | None) -> tuple[Iterator[np.ndarray], int]:
    container = _open_container(path)
    if not container.streams.audio:
        container.close()
        raise DecodeError(path, "no audio stream")
    stream = container.streams.audio[0]
    if stream.codec_context is None or not stream.rate:
        container.close()
        raise DecodeError(path, "no decoder for its audio")
    return _trim(_av_blocks(container, stream, path, start), stream.rate, start, end), stream.rate


def _av_blocks(container, stream, path, start: float) -> Iterator[tuple[int | None, np.ndarray]]:
    """Yield (first sample since the container's zero, None where unknown; mono block)."""
    zero = Fraction(container.start_time or 0, av.time_base)
    decoded, form, converter = 0.0, None, av.AudioResampler(format="fltp")
    with container:
        try:
            _seek(container, zero, start)
            for frame in container.decode(stream):
                first = None
                if frame.pts is not None:
                    decoded = float(frame.pts * frame.time_base) + frame.samples / frame.sample_rate
                    first = round((frame.pts * frame.time_base - zero) * stream.rate)
                if form != (frame.format.name, frame.layout.name, frame.sample_rate):  # broadcasts change in the middle
                    form = (frame.format.name, frame.layout.name, frame.sample_rate)
                    converter = av.AudioResampler(format="fltp", rate=stream.rate)  # the layout stays
                for converted in converter.resample(frame):
                    yield first, converted.to_ndarray().mean(0, dtype=np.float32)
        except av.error.FFmpegError as error:
            raise DecodeError(path, f"damaged ({error.strerror or error})") from error
        if form is None:
            raise DecodeError(path, "its audio cannot be decoded")
        _check_whole(path, decoded, _declared_end(stream))


def _seek(container, zero: Fraction, start: float) -> None:
    """Go to a place from which decoding reaches `start` seconds; half a second lets a decoder find its feet."""
    if start > 1:
        container.seek(int((float(zero) + start - 0.5) * av.time_base))


def _declared_end(stream) -> float:
    """Return the end that the container states for a stream, in seconds, 0 where it states none."""
    if stream.duration:
        return float((stream.start_time or 0) + stream.duration) * float(stream.time_base)
    stated = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska
    return int(stated[1]) * 3600 + int(stated[2]) * 60 + float(stated[3]) if stated else 0.0


def _trim(blocks, rate: int, start: float, end: float | None) -> Iterator[np.ndarray]:
    """Place blocks on the time line from `start` to `end`: late sound is preceded by silence, early sound is cut."""
    position, stop = round(start * rate), None if end is None else round(end * rate)
    begun = False
    for first, block in blocks:
        if first is None or begun:
            first = position if begun else 0
        if first > position and not begun:
            late = first if stop is None else min(first, stop)
            while position < late:
                silence = np.zeros(min(late - position, BLOCK), np.float32)
                position += len(silence)
                yield silence
        block = block[max(0, position - first) :] if not begun else block
        begun = begun or len(block) > 0
        if stop is not None:
            block = block[: max(0, stop - position)]
        position += len(block)
        if len(block):
            yield block
        if stop is not None and position >= stop:
            return


def _finite(blocks: Iterator[np.ndarray], path) -> Iterator[np.ndarray]:
    for block in blocks:
        if not np.isfinite(block).all():
            raise DecodeError(path, "non-finite samples")
        yield block


def _resample(blocks: Iterator[np.ndarray], source_rate: int, rate: int) -> Iterator[np.ndarray]:
    if source_rate == rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def write_audio(path: str | os.PathLike, rate: int, blocks: Iterable[np.ndarray]) -> None:
    """Write mono blocks at `rate` Hz as a WAV file of 32-bit floating point. Shape: `[samples]` each."""
    with soundfile.SoundFile(path, "w", rate, 1, "FLOAT", format="WAV") as file:
        for block in blocks:
            file.write(block)


def is_sound_only(path: str | os.PathLike) -> bool:
    """Return whether the first bytes are those of a format without moving pictures (WAV, FLAC, Ogg, MP3, AIFF …)."""
    with open(path, "rb") as file:
        start = file.read(12)
    wave = start[:4] in (b"RIFF", b"RF64", b"riff") and start[8:12] != b"AVI "
    mpeg = start[:1] == b"\xff" and start[1:2] >= b"\xe0"
    return wave or mpeg or start.startswith((b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd"))


def _video_streams(container) -> list:
    still = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & still]


def read_images(
    path: str | os.PathLike, rate: float, size: tuple[int, int], start: float = 0.0, end: float | None = None
) -> Iterator[np.ndarray]:
    """Yield pictures of a video at `rate` per second: picture k is the one shown `k / rate` seconds after `start`.

    The whole picture is scaled to `size` (height, width). Shape: `[height, width, 3]` each, uint8 RGB. Yields nothing
    where there is no video stream. Raises DecodeError.
    """
    _check_readable(path)
    if is_sound_only(path):
        return
    with _open_container(path) as container:
        streams = _video_streams(container)
        if not streams:
            return
        stream = streams[0]
        if stream.codec_context is None:
            raise DecodeError(path, "no decoder for its video")
        stream.thread_type = "NONE"
        zero = Fraction(container.start_time or 0, av.time_base)
        try:
            _seek(container, zero, start)
            frames = _from_key_frame(container.decode(stream)) if start > 1 else container.decode(stream)
            yield from _sample_images(frames, zero, rate, size, start, end)
        except av.error.FFmpegError as error:
            raise DecodeError(path, f"damaged video ({error.strerror or error})") from error


def _from_key_frame(frames) -> Iterator:
    """Drop pictures before the first that stands on its own: after a seek, transport streams begin with grey ones."""
    return itertools.dropwhile(lambda frame: not frame.key_frame, frames)


def _sample_images(frames, zero: Fraction, rate: float, size, start: float, end: float | None) -> Iterator[np.ndarray]:
    shown, count, frame_end = None, 0, 0.0

    def scaled(frame) -> np.ndarray:
        return frame.reformat(width=size[1], height=size[0], format="rgb24").to_ndarray()

    for frame in frames:
        time = float(frame.pts * frame.time_base - zero) if frame.pts is not None else frame_end
        frame_end = time + (float(frame.duration * frame.time_base) if frame.duration else 0.0)
        while time > start + count / rate + 1e-6:
            if end is not None and start + count / rate >= end:
                return
            yield scaled(shown or frame)
            count += 1
        shown = frame
    while shown is not None and start + count / rate < (frame_end if end is None else min(end, frame_end)) - 1e-6:
        yield scaled(shown)
        count += 1

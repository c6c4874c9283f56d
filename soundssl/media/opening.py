"""Opening: a container by its content, its zero of time, and in few words why a file cannot be read."""

from __future__ import annotations

import os
import stat
from fractions import Fraction

import av

from soundssl import SoundsslError

av.logging.set_level(av.logging.PANIC)  # what is wrong is said once, by DecodeError

# Containers that do not say how many samples an AAC encoder put before the sound, and how many that are: one frame
# (inferred: FFmpeg's encoder; others put up to 2,112 there).
UNTOLD = {"aac", "mpegts", "flv"}
PRIMING = 1024


class DecodeError(SoundsslError):
    """A media file gives no sound or no pictures; `reason` says why in few words.

    `passing` says that the file may be read another time, as it is.
    """

    def __init__(self, path: str | os.PathLike, reason: str, passing: bool = False) -> None:
        super().__init__(f"{os.fsdecode(path)}: {reason}")
        self.path, self.reason, self.passing = os.fsdecode(path), reason, passing

    def __reduce__(self):
        return type(self), (self.path, self.reason, self.passing)


def open_readable(path: str | os.PathLike) -> int:
    """Open a regular file and return its descriptor; raise DecodeError for others, and what is empty or unreadable."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait for ever
            raise DecodeError(path, "not a regular file")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            if not os.read(descriptor, 1):
                raise DecodeError(path, "empty file")
            os.lseek(descriptor, 0, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
    except FileNotFoundError:
        raise DecodeError(path, "vanished", passing=True) from None
    except OSError as error:
        raise DecodeError(path, f"cannot be read ({error.strerror})", passing=True) from error
    return descriptor


def check_readable(path: str | os.PathLike) -> None:
    """Raise DecodeError for what is no regular file, is empty, or cannot be read."""
    os.close(open_readable(path))


def open_container(path: str | os.PathLike):
    """Open a container with PyAV; raise DecodeError."""
    with open(path, "rb") as file:
        try:
            # A descriptor and not a name: FFmpeg would guess by suffix, and take a colon or a percent sign for its own.
            return av.open(f"/dev/fd/{file.fileno()}", metadata_errors="ignore")
        except av.error.FFmpegError as error:
            quicktime = file.read(8)[4:] == b"ftyp"
            raise DecodeError(path, "truncated: its index is missing" if quicktime else "not a media file") from error


def video_streams(container) -> list:
    """Return the streams of moving pictures; the picture of an album is none."""
    still = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & still]


def zero_of(container) -> Fraction:
    """Return the time, by the container's clock and in seconds, at which its sound or its picture begins.

    Where AAC lies in a container that does not say how much the encoder put before the sound, the sound begins so much
    later than its first sample.
    """
    begins = Fraction(container.start_time or 0, av.time_base)
    if not UNTOLD & set(container.format.name.split(",")):
        return begins
    starts = [
        (stream.start_time or 0) * stream.time_base + _priming(container, stream)
        for stream in (*container.streams.video[:1], *container.streams.audio[:1])
        if stream.codec_context is not None
    ]
    return min(starts, default=begins)


def _priming(container, stream) -> Fraction:
    """Return the seconds of a stream that its encoder put before the sound and its container does not tell of."""
    untold = stream.type == "audio" and stream.codec_context.name.startswith("aac")
    untold &= bool(UNTOLD & set(container.format.name.split(",")))
    return Fraction(PRIMING, stream.rate) if untold and stream.rate else Fraction(0)


def seek(container, zero: Fraction, start: float) -> None:
    """Go to a place from which decoding reaches `start` seconds; half a second lets a decoder find its feet."""
    if start > 1:
        container.seek(int((float(zero) + start - 0.5) * av.time_base))

"""Opening: a container by its content, its tracks, and in few words why a file cannot be read."""

from __future__ import annotations

import os
import stat
from typing import Any

import av
from av.stream import Disposition

from soundssl import SoundsslError

av.logging.set_level(av.logging.PANIC)  # what is wrong is said once, by DecodeError

# Tags that are no UTF-8 cost no file. From its release 19 on PyAV sees to that by itself, and has no such option.
TAGS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}


class DecodeError(SoundsslError):
    """A media file gives no sound or no pictures; `reason` says why in few words.

    `passing` says that the file may be read another time, as it is.
    """

    def __init__(self, path: str | bytes | os.PathLike, reason: str, passing: bool = False) -> None:
        super().__init__(f"{os.fsdecode(path)}: {reason}")
        self.path, self.reason, self.passing = os.fsdecode(path), reason, passing

    def __reduce__(self):
        return type(self), (self.path, self.reason, self.passing)


def open_readable(path: str | os.PathLike) -> int:
    """Open a regular file and return its descriptor; raise DecodeError for others, and what is empty or unreadable."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.scandir(os.fspath(path)).close()  # for the reason why a folder could not be searched through
        if not stat.S_ISREG(mode):  # opening a named pipe would wait for ever
            raise DecodeError(path, "not a regular file")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            if not os.read(descriptor, 1):
                raise DecodeError(path, "empty file")
            os.lseek(descriptor, 0, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
    except (FileNotFoundError, NotADirectoryError):
        raise DecodeError(path, _missing(path), passing=True) from None
    except OSError as error:
        raise DecodeError(path, f"cannot be read ({error.strerror})", passing=True) from error
    return descriptor


def _missing(path: str | os.PathLike) -> str:
    """Return why there is nothing at a path, and where a relative one was looked for."""
    if os.path.islink(path):
        return "a link to what does not exist"
    return "does not exist" if os.path.isabs(path) else f"does not exist in {os.getcwd()}"


def check_readable(path: str | os.PathLike) -> None:
    """Raise DecodeError for what is no regular file, is empty, or cannot be read."""
    os.close(open_readable(path))


def open_container(path: str | bytes | os.PathLike) -> Any:
    """Open a container with PyAV; raise DecodeError."""
    with open(path, "rb") as file:
        try:
            # A descriptor and not a name: FFmpeg would guess by suffix, and take a colon or a percent sign for its own.
            return av.open(f"/dev/fd/{file.fileno()}", **TAGS)
        except av.error.FFmpegError as error:
            quicktime = file.read(8)[4:] == b"ftyp"
            raise DecodeError(path, "truncated: its index is missing" if quicktime else "not a media file") from error


def video_streams(container: Any) -> list[Any]:
    """Return the streams of moving pictures; the picture of an album is none."""
    still = Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & still]


def choose_tracks(container: Any) -> list[Any]:
    """Return the tracks of sound that have a decoder: those marked as default first, then in their order."""
    tracks = [track for track in container.streams.audio if track.codec_context is not None and track.rate]
    return sorted(tracks, key=lambda track: not track.disposition & Disposition.default)

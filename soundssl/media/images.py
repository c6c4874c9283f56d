"""Images: pictures of a video at a steady rate, whatever its own, the right way up."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import av
import numpy as np

from soundssl.media import ogg
from soundssl.media.clock import Clock
from soundssl.media.opening import DecodeError, check_readable, choose_tracks, open_container, video_streams
from soundssl.media.request import Heard

UNSAID = 0.1  # seconds that the first picture lasts where nothing says how long
LONGEST = 1.0  # seconds that the last picture stays where there is no sound
MOST_PIXELS = 1 << 26  # of a picture: twice that of 8K, a tenth of a gigabyte


def is_sound_only(path: str | os.PathLike) -> bool:
    """Return whether the first bytes are those of a format without moving pictures (WAV, FLAC, MP3, AIFF …)."""
    with open(path, "rb") as file:
        start = file.read(12)
    if start.startswith(b"OggS"):
        return not ogg.has_pictures(path)
    wave = start[:4] in (b"RIFF", b"RF64", b"riff") and start[8:12] != b"AVI "
    mpeg = start[:1] == b"\xff" and start[1:2] >= b"\xe0"
    return wave or mpeg or start.startswith((b"fLaC", b"ID3", b"FORM", b"caff", b".snd"))


def read_images(
    path: str | os.PathLike,
    rate: float,
    size: tuple[int, int],
    start: float = 0.0,
    end: float | None = None,
    heard: Heard | None = None,
) -> Iterator[np.ndarray]:
    """Yield pictures of a video at `rate` per second: picture k is the one shown `k / rate` seconds after `start`.

    The whole picture, turned as its metadata say, is scaled to `size` (height, width). Shape: `[height, width, 3]`
    each, uint8 RGB. Yields nothing where there is no video stream. What is wrong with pictures is told to `heard`, and
    they are given as far as they go; without it, raises DecodeError.
    """
    check_readable(path)
    if is_sound_only(path):
        return
    try:
        with open_container(path) as container:
            if streams := video_streams(container):
                yield from _pictures(path, container, streams[0], rate, size, start, end, heard)
    except DecodeError as error:
        if heard is None:
            raise
        heard.note(f"pictures as far as they go: {error.reason}")


def _pictures(path, container, stream, rate, size, start, end, heard: Heard | None) -> Iterator[np.ndarray]:
    if stream.codec_context is None:
        raise DecodeError(path, "no decoder for its video")
    stream.thread_type = "NONE"
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    clock = Clock(path, container, [*choose_tracks(container)[:1], stream])
    try:
        clock.go_to(start)
        frames = _decoded(path, clock, stream, heard)
        yield from _sample_images(_from_key_frame(frames) if start > 1 else frames, clock, rate, size, start, end)
    except av.error.FFmpegError as error:
        raise DecodeError(path, f"damaged video ({error.strerror or error})") from error


def _decoded(path, clock: Clock, stream, heard: Heard | None) -> Iterator:
    """Yield the pictures that can be decoded; a broken one before the first good one is a beginning in the middle."""
    begun = False
    for packet in clock.packets():
        if packet.stream.index != stream.index:  # its own number is 0 where the decoder shall give what is left
            continue
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            if begun and heard is None:
                raise DecodeError(path, f"damaged video ({error.strerror or error})") from error
            if heard is not None and (begun or not clock.sought):
                heard.note("pictures as far as they go: damaged video")
            continue
        begun = begun or bool(frames)
        yield from frames


def _from_key_frame(frames) -> Iterator:
    """Drop pictures before the first that stands on its own: after a seek, transport streams begin with grey ones."""
    return itertools.dropwhile(lambda frame: not frame.key_frame, frames)


def _upright(frame, size: tuple[int, int]) -> np.ndarray:
    """Return a picture of a size as its display matrix has it: turned by quarters, mirrored, or as it is stored.

    The matrix takes (x, y) to (a x + c y, b x + d y). Shape: `[height, width, 3]`, uint8 RGB.
    """
    said = frame.side_data.get("DISPLAYMATRIX")
    a, b, _, c, d = np.frombuffer(bytes(said), "i4", 5).tolist() if said else (1, 0, 0, 0, 1)
    swapped = abs(b) + abs(c) > abs(a) + abs(d)  # width and height change places
    height, width = size[::-1] if swapped else size
    picture = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    across, down = (c, b) if swapped else (a, d)
    picture = picture.transpose(1, 0, 2) if swapped else picture
    return picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _sample_images(frames, clock: Clock, rate: float, size, start: float, end: float | None) -> Iterator[np.ndarray]:
    shown, count, time, frame_end, lasting = None, 0, 0.0, 0.0, UNSAID

    def scaled(frame) -> np.ndarray:
        return _upright(frame, size)

    for frame in frames:
        before, time = time, float(frame.pts * frame.time_base - clock.zero) if frame.pts is not None else frame_end
        time = min(time, clock.shown)
        lasting = time - before if shown and time > before else lasting  # as long as the one before, where none says it
        frame_end = time + (float(frame.duration * frame.time_base) if frame.duration else lasting)
        while time > start + count / rate + 1e-6:
            if end is not None and start + count / rate >= end:
                return
            yield scaled(shown or frame)
            count += 1
        shown = frame
    last = min(frame_end, max(clock.shown, time + LONGEST))  # a picture stays no longer than there is anything
    while shown is not None and start + count / rate < (last if end is None else min(end, last)) - 1e-6:
        yield scaled(shown)
        count += 1

"""Images: pictures of a video at a steady rate, whatever its own, the right way up."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from soundssl.media.opening import DecodeError, check_readable, open_container, seek, video_streams, zero_of


def is_sound_only(path: str | os.PathLike) -> bool:
    """Return whether the first bytes are those of a format without moving pictures (WAV, FLAC, Ogg, MP3, AIFF …)."""
    with open(path, "rb") as file:
        start = file.read(12)
    wave = start[:4] in (b"RIFF", b"RF64", b"riff") and start[8:12] != b"AVI "
    mpeg = start[:1] == b"\xff" and start[1:2] >= b"\xe0"
    return wave or mpeg or start.startswith((b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd"))


def read_images(
    path: str | os.PathLike, rate: float, size: tuple[int, int], start: float = 0.0, end: float | None = None
) -> Iterator[np.ndarray]:
    """Yield pictures of a video at `rate` per second: picture k is the one shown `k / rate` seconds after `start`.

    The whole picture, turned as its metadata say, is scaled to `size` (height, width). Shape: `[height, width, 3]`
    each, uint8 RGB. Yields nothing where there is no video stream. Raises DecodeError.
    """
    check_readable(path)
    if is_sound_only(path):
        return
    with open_container(path) as container:
        streams = video_streams(container)
        if not streams:
            return
        stream = streams[0]
        if stream.codec_context is None:
            raise DecodeError(path, "no decoder for its video")
        stream.thread_type = "NONE"
        zero = zero_of(container)
        try:
            seek(container, zero, start)
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
        turns = round(frame.rotation / 90) % 4  # quarters, counterclockwise
        height, width = size if turns % 2 == 0 else size[::-1]
        return np.rot90(frame.reformat(width=width, height=height, format="rgb24").to_ndarray(), turns)

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

"""Sound: blocks of one channel at one rate, placed in time; what was heard is counted on the way.

libsndfile reads what it reads whole and in time; everything else, and what libsndfile leaves, is read by FFmpeg.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
import soundfile
import soxr

from soundssl.media import containers, headers, ogg, sndfile
from soundssl.media.opening import DecodeError, check_readable
from soundssl.media.request import BLOCK, Heard, Request

RESAMPLER = "soxr HQ"


def read_audio(
    path: str | os.PathLike,
    rate: int,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
    keep_truncated: bool = False,
    heard: Heard | None = None,
    keep_damaged: bool = False,
) -> Iterator[np.ndarray]:
    """Yield the sound of a file as float32 mono blocks at `rate` Hz, from `start` to `end` seconds.

    Channels are averaged, or `channel` (from 1) is taken; resampling is by soxr, high quality. Silence stands where
    sound is missing. What was heard is told to `heard`, also that a file ends before its time where `keep_truncated`
    lets it pass, and that sound is lost in the middle where `keep_damaged` does. Shape: `[samples]` each.
    Raises DecodeError.
    """
    request = Request(path, start, end, channel, keep_truncated, keep_damaged, heard or Heard())
    blocks, source_rate = _open_audio(request)
    return resample(blocks, source_rate, rate)


def channel_count(path: str | os.PathLike) -> int:
    """Return the number of channels of the sound of a file; raise DecodeError."""
    check_readable(path)
    file = sndfile.open_sound_file(path) if _is_for_sndfile(path) else None
    if file is None:
        return containers.channels_of(path)
    with file:
        return file.channels


def _open_audio(request: Request) -> tuple[Iterator[np.ndarray], int]:
    check_readable(request.path)
    file = sndfile.open_sound_file(request.path) if _is_for_sndfile(request.path) else None
    if file is None:
        damaged = ogg.is_ogg(request.path) and ogg.examine(request.path).damaged
        return containers.open_blocks(request, damaged=damaged)
    request.heard.pictures = False
    return _read_on(file, request), file.samplerate


def _is_for_sndfile(path: str | os.PathLike) -> bool:
    """Return whether libsndfile reads a file as it is, if it reads it at all.

    Of MP3 it guesses the length, of Ogg it reads the first recording and does not say what is lost.
    """
    if headers.is_mpeg_audio(path):
        return False
    if not ogg.is_ogg(path):
        return True
    pages = ogg.examine(path)
    return not (pages.pictures or pages.chained or pages.damaged)


def _read_on(file: sndfile.SoundFile, request: Request) -> Iterator[np.ndarray]:
    """Yield what libsndfile reads, and behind that what it cannot read and FFmpeg can."""
    rate = file.samplerate
    rest = yield from sndfile.read_blocks(file, request)
    if rest is None:
        return
    try:
        blocks, _ = containers.open_blocks(request, rest.behind, rate, rest.damaged)
    except DecodeError:
        if rest.damaged:
            raise DecodeError(request.path, f"damaged at {rest.behind:.1f} s") from None
        request.heard.note(f"what stands behind its first {rest.behind:.1f} s is not read")
        return
    yield from blocks


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
    for block in _small(blocks, max(1, int(BLOCK * source_rate / rate))):
        if len(held):  # one behind: a short clip is then one block, and not that and a few samples
            yield stream.resample_chunk(held)
        held = block
    yield stream.resample_chunk(held, last=True)
    stream.clear()
    _idle[source_rate, rate] = stream


def _small(blocks: Iterable[np.ndarray], longest: int) -> Iterator[np.ndarray]:
    """Yield blocks of at most `longest` samples: a low rate makes many of one."""
    for block in blocks:
        for first in range(0, len(block), longest):
            yield block[first : first + longest]


def write_audio(path: str | os.PathLike, rate: int, blocks: Iterable[np.ndarray]) -> None:
    """Write mono blocks at `rate` Hz as a WAV file of 32-bit floating point. Shape: `[samples]` each."""
    with soundfile.SoundFile(path, "w", rate, 1, "FLOAT", format="WAV") as file:
        for block in blocks:
            file.write(block)

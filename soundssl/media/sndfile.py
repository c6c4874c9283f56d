"""Sound files by libsndfile: WAV, FLAC, Ogg, AIFF and their like; what it leaves unread is left to FFmpeg."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import soundfile

from soundssl.media import ogg
from soundssl.media.headers import Corrected, Extent, sound_extent
from soundssl.media.opening import open_readable
from soundssl.media.request import BLOCK, TOLERANCE, Request

SIXTEEN_BITS = np.float32(2.0**-15)  # what an integer sample of 16 bits counts
UNCOUNTED = 1 << 48  # samples that no file holds: libsndfile says 2^63 - 1 where the header states nothing
LONGEST_HEADER = 1 << 26  # bytes before the sound that are copied to correct them
READ_AHEAD = 1 << 14  # bytes that a decoder may leave unread behind the last sample: tags, padding


class Rest(NamedTuple):
    """Say what libsndfile left of a file: from which second on, and whether decoding failed there."""

    behind: float
    damaged: bool


class SoundFile(soundfile.SoundFile):
    """Read on from where reading stopped; soundfile would seek there after every block, and codecs decode it again."""

    extent: Extent | None = None
    descriptor: int | None = None
    source: Corrected | None = None

    def seekable(self) -> bool:
        """Return False, which keeps soundfile from seeking."""
        return False

    def close(self) -> None:
        """Close the file, and what it is read through."""
        super().close()
        if self.source is not None:
            self.source.close()

    def go_to(self, sample: int) -> None:
        """Go to a sample; where the coding cannot seek, by reading up to it."""
        if super().seekable():
            self.seek(sample)
            return
        while sample > 0 and len(block := self.next_block(min(sample, BLOCK))):
            sample -= len(block)

    def next_block(self, samples: int) -> np.ndarray:
        """Return the next samples as float32. Shape: `[n, channels]`."""
        if self.format in ("WAV", "WAVEX", "RF64") and self.subtype == "PCM_16":  # three times as fast this way
            return np.multiply(self.read(samples, "int16", always_2d=True), SIXTEEN_BITS, dtype=np.float32)
        return self.read(samples, "float32", always_2d=True)

    @property
    def counted(self) -> bool:
        """Whether libsndfile knows how many samples there are."""
        return 0 < self.frames < UNCOUNTED

    @property
    def declared(self) -> float:
        """Seconds that the header states: libsndfile silently corrects it in files of chunks that are cut short."""
        if not self.counted:
            return 0.0
        stated, held = (self.extent.stated, self.extent.held) if self.extent else (None, 0)
        frames = self.frames * stated / held if stated and held and stated > held else self.frames
        return frames / self.samplerate

    def unread(self) -> int:
        """Return the bytes of the file that no sample was taken from, as far as the place of the descriptor tells."""
        if self.descriptor is None or self.extent is not None:
            return 0
        return os.fstat(self.descriptor).st_size - os.lseek(self.descriptor, 0, os.SEEK_CUR)


def open_sound_file(path: str | os.PathLike) -> SoundFile | None:
    """Open what libsndfile reads whole; None for what FFmpeg is to read. Raises DecodeError for what is no file.

    A header that states too little, or nothing, is read as if it stated what the file holds.
    """
    # A descriptor and not a name: libsndfile takes any bytes for sound where the name ends in .au, .raw or .vox.
    descriptor = open_readable(path)
    extent = sound_extent(path)
    understated = extent is not None and extent.stated != extent.held and (extent.stated or 0) < extent.held
    source = Corrected(path, extent) if extent is not None and understated and extent.begin < LONGEST_HEADER else None
    try:
        if source is None:
            file = SoundFile(descriptor)
            file.descriptor = descriptor
        else:
            os.close(descriptor)
            file = SoundFile(source)
            file.source = source
    except soundfile.LibsndfileError:
        if source is not None:
            source.close()
        return None
    file.extent = extent
    if not file.frames or file.subtype.startswith("MPEG"):
        file.close()
        return None
    return file


def read_blocks(file: SoundFile, request: Request) -> Generator[np.ndarray, None, Rest | None]:
    """Yield blocks of one channel from `request.start` on, at the file's rate. Shape: `[samples]` each.

    Returns what is left to FFmpeg, None where all was read. Raises DecodeError.
    """
    rate, start, end = file.samplerate, request.start, request.end
    first = min(round(start * rate), file.frames)
    stop = file.frames if end is None else min(max(0, round(end * rate)), file.frames)
    position, step = 0, max(1, BLOCK // file.channels)
    with file:
        try:
            if first:
                file.go_to(first)
            position = first
            while position < stop:
                block = file.next_block(min(step, stop - position))
                if not len(block):
                    break
                position += len(block)
                yield request.one(block)
        except soundfile.LibsndfileError:
            return Rest(position / rate, True)
        if end is not None and position >= round(end * rate):
            return None
        if file.unread() > READ_AHEAD:
            return Rest(max(position / rate, start), False)
        _note_extent(file, request)
        request.check_whole(position / rate, file.declared)
        if file.format == "OGG" and not ogg.examine(request.path).ended:
            request.truncated("truncated: its last page is missing")
        request.check_span(position / rate)
    return None


def _note_extent(file: SoundFile, request: Request) -> None:
    """Say that a header states less than the file holds."""
    extent = file.extent
    if extent is None or extent.stated is None or not extent.held:
        return
    seconds = file.frames / file.samplerate
    stated = seconds * extent.stated / extent.held
    if stated < seconds - TOLERANCE:
        request.heard.note(f"its header states {stated:.1f} s, it holds {seconds:.1f} s")

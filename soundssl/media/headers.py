"""Headers: how much sound the header of a file states, and how much its bytes hold.

WAV, RF64, Wave64, AIFF, CAF and AU state the bytes of their sound, MP3 may state its frames. A recorder that died
leaves 0 there or what held a minute before; a counter of 32 bits starts again at 4 GiB.
"""

from __future__ import annotations

import io
import os
import string
import struct
from typing import BinaryIO, NamedTuple

UNSTATED = 1 << 16  # bytes about 2^31 and 2^32 that writers into a pipe leave where they cannot know
IMPOSSIBLE = 1 << 50  # bytes, a petabyte: what 2^63 and its like stand for
PADDING = 1 << 16  # zeros behind the sound, at most: more are silence
# What may stand behind the sound and is none: the tags of MP3 players.
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
NAME = set((string.ascii_letters + string.digits + " _-.()").encode())  # bytes of the name of a chunk
# Chunks that stand behind the sound in WAV, Wave64, AIFF and CAF. One of them ends it also where its size lies, or
# where the file is cut in it (libsndfile issue 1118).
CHUNKS = (
    "LIST list INFO JUNK junk PAD FLLR fact PEAK cue smpl inst plst bext iXML _PMX axml chna id3 ID3 guan wamd umid "
    "MARK INST COMT ANNO NAME AUTH (c) APPL MIDI free info mark strg regn uuid"
)
BEHIND = frozenset(name.encode().ljust(4) for name in CHUNKS.split())
OLD_TAG = 128  # bytes of a tag of ID3v1
LONGEST_TAG = 1 << 26  # bytes of an ID3 tag with pictures that are read over
# Frames of layer III: samples by version (MPEG 2.5, none, 2, 1).
LAYER_3 = (576, 0, 576, 1152)
RATES = ((11025, 12000, 8000), (), (22050, 24000, 16000), (44100, 48000, 32000))  # Hz, by version


class Extent(NamedTuple):
    """Say where the sound of a file lies: from byte `begin` on, `stated` bytes by its header, `held` in the file.

    `stated` is None where the header does not know. The `field` of the header that states it is of `form` (struct).
    """

    begin: int
    stated: int | None
    held: int
    field: int
    form: str


class _Layout(NamedTuple):
    """Say how a format of chunks is laid out: where they begin, how their sizes are written and what these count."""

    first: int  # byte of the first chunk
    name: int  # bytes of a chunk's name
    form: str  # struct of its size
    counted: int  # bytes of its head that the size counts
    align: int  # chunks begin at multiples of so many bytes
    sound: bytes  # name of the chunk of the sound
    before: int  # bytes in that chunk before the sound


LAYOUTS = {
    b"RIFF": _Layout(12, 4, "<I", 0, 2, b"data", 0),
    b"RF64": _Layout(12, 4, "<I", 0, 2, b"data", 0),
    b"BW64": _Layout(12, 4, "<I", 0, 2, b"data", 0),
    b"RIFX": _Layout(12, 4, ">I", 0, 2, b"data", 0),
    b"FORM": _Layout(12, 4, ">I", 0, 2, b"SSND", 8),
    b"caff": _Layout(8, 4, ">q", 0, 1, b"data", 4),
    b"riff": _Layout(40, 16, "<q", 24, 8, b"data", 0),
}


def sound_extent(path: str | os.PathLike) -> Extent | None:
    """Return where the sound lies in a file of chunks, or in AU; None in others, and where there is none."""
    with open(path, "rb") as file:
        start = file.read(12)
        size = file.seek(0, os.SEEK_END)
        if start.startswith(b".snd") and len(start) == 12:
            begin, stated = struct.unpack(">II", start[4:])
            return _extent(file, size, begin, _known(stated), 8, ">I", None) if begin <= size else None
        layout = LAYOUTS.get(start[:4])
        if layout is None or start[8:12] == b"AVI ":
            return None
        return _chunk_of_sound(file, size, layout)


def _chunk_of_sound(file: BinaryIO, size: int, layout: _Layout) -> Extent | None:
    place, width, wide = layout.first, struct.calcsize(layout.form), None
    while place + layout.name + width <= size:
        file.seek(place)
        head = file.read(layout.name + width + 16)
        name, body = head[: layout.name], place + layout.name + width
        (length,) = struct.unpack_from(layout.form, head, layout.name)
        length = length - layout.counted
        if name == b"ds64" and len(head) == 24:  # RF64: sizes of 64 bits, that of the sound behind that of the file
            wide = (body + 8, struct.unpack_from("<Q", head, 16)[0])
        if name.startswith(layout.sound):
            begin, field, form, stated = body + layout.before, place + layout.name, layout.form, _known(length)
            if wide is not None and length == 0xFFFFFFFF:
                field, stated, form = wide[0], _known(wide[1]), "<Q"
            return _extent(file, size, begin, stated and stated - layout.before, field, form, layout)
        if length < 0:
            return None
        place = body + length
        place += -place % layout.align
    return None


def _known(stated: int) -> int | None:
    """Return a size, None where it is none: a writer that cannot seek back leaves 0, -1, about 2^31 or 2^32."""
    unknown = not 0 < stated < IMPOSSIBLE or min(abs(stated - (1 << 31)), abs(stated - (1 << 32))) <= UNSTATED
    return None if unknown else stated


def _extent(file, size: int, begin: int, stated: int | None, field: int, form: str, layout) -> Extent:
    """Return the extent of sound whose header states `stated` bytes: what follows may be chunks, tags, or sound."""
    held = max(0, size - begin)
    if stated is not None:
        for end in range(begin + stated, size + 1, 1 << 32):  # a counter of 32 bits may have started again
            if _ends_at(file, size, end, layout):
                held = min(held, end - begin)
                break
    return Extent(begin, stated, held, field, form)


def _ends_at(file: BinaryIO, size: int, end: int, layout: _Layout | None) -> bool:
    """Return whether sound ends at a byte: nothing stands behind it, or zeros, or a tag, or a chunk."""
    for place in (end, end + 1):  # with and without the byte that makes it even
        file.seek(place)
        behind = file.read(32)
        if size - place < 12 or behind.startswith(TAGS):
            return True
        if size - place < PADDING and not any(behind) and not any(file.read()):
            return True
        if layout is not None and behind[:4] in BEHIND:
            return True
        if layout is not None and set(behind[:4]) <= NAME and len(behind) >= layout.name + struct.calcsize(layout.form):
            (length,) = struct.unpack_from(layout.form, behind, layout.name)
            if 0 <= length <= size - place:
                return True
    return False


class Corrected(io.RawIOBase):
    """Show a file with another size of its sound in the header, and nothing behind the sound.

    A WAV file whose sound is longer than 4 GiB is shown as RF64.
    """

    def __init__(self, path: str | os.PathLike, extent: Extent) -> None:
        self.file = open(path, "rb")  # noqa: SIM115 (closed by `close`)
        self.begin, self.held, self.place = extent.begin, extent.held, 0
        head = bytearray(self.file.read(extent.begin))
        largest = (1 << 8 * struct.calcsize(extent.form) - (extent.form[-1] == "q")) - 1
        struct.pack_into(extent.form, head, extent.field, min(extent.held, largest))
        if extent.held > largest and head.startswith(b"RIFF"):
            sizes = struct.pack("<4sIQQQI", b"ds64", 28, len(head) + 28 + extent.held, extent.held, 0, 0)
            head[:12] = b"RF64\xff\xff\xff\xffWAVE" + sizes
        self.head = bytes(head)

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that places can be gone to."""
        return True

    def tell(self) -> int:
        """Return the place."""
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        self.place = offset + (0, self.place, len(self.head) + self.held)[whence]
        return self.place

    def readinto(self, buffer) -> int:
        """Read bytes of the header, or of the sound."""
        view = memoryview(buffer).cast("B")
        if self.place < len(self.head):
            part = self.head[self.place : self.place + len(view)]
            view[: len(part)] = part
            count = len(part)
        else:
            sound = self.place - len(self.head)
            self.file.seek(self.begin + sound)
            count = self.file.readinto(view[: max(0, min(len(view), self.held - sound))])
        self.place += count
        return count

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()


def is_mpeg_audio(path: str | os.PathLike) -> bool:
    """Return whether a file begins with a frame of MPEG audio or with the tag that stands before one (MP3, AAC)."""
    with open(path, "rb") as file:
        start = file.read(3)
    return start == b"ID3" or (start[:1] == b"\xff" and start[1:2] >= b"\xe0")


class Tags:
    """Count the bytes of tags of MP3 players in a stream of packets: a tag may go on in those that follow."""

    def __init__(self) -> None:
        self.left = 0  # bytes of a tag that are still to come

    def within(self, data: bytes) -> int:
        """Return how many bytes of the next packet are tags."""
        known = min(self.left, len(data))
        self.left -= known
        place = data.find(b"ID3", known)
        if place >= 0 and len(data) >= place + 10 and max(data[place + 6 : place + 10]) < 0x80:
            whole = 10 + _tag_length(data[place : place + 10])
            here = min(whole, len(data) - place)
            self.left, known = whole - here, known + here
        return known + (OLD_TAG if b"TAG" in data[-OLD_TAG:] else 0)


def leading_tag(path: str | os.PathLike) -> int:
    """Return the bytes of the tag of ID3 that a file begins with, 0 where none does."""
    with open(path, "rb") as file:
        head = file.read(10)
    return 10 + _tag_length(head) if head.startswith(b"ID3") and len(head) == 10 else 0


def _tag_length(head: bytes) -> int:
    """Return how many bytes follow the ten that a tag of ID3 begins with."""
    return sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


def mp3_seconds(path: str | os.PathLike) -> float:
    """Return the seconds that the Xing or Info frame of an MP3 file states, 0 where none does."""
    with open(path, "rb") as file:
        head = file.read(10)
        while head.startswith(b"ID3") and len(head) == 10:
            length = _tag_length(head)
            if length > LONGEST_TAG:
                return 0.0
            file.seek(length, os.SEEK_CUR)
            head = file.read(10)
        frame = head + file.read(200)
    version, rate = (frame[1] >> 3 & 3, frame[2] >> 2 & 3) if len(frame) > 2 else (1, 3)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0 or version == 1 or rate == 3 or len(frame) < place + 12 or not frame[place + 7] & 1:
        return 0.0
    (frames,) = struct.unpack_from(">I", frame, place + 8)
    return frames * LAYER_3[version] / RATES[version][rate]

"""Ogg: what the pages of a file say, without decoding: several recordings, pictures, damage, and whether it ends.

A page carries its number and a checksum (RFC 3533), so damage is seen before any sound is decoded.
"""

from __future__ import annotations

import functools
import os
import zlib
from typing import BinaryIO, NamedTuple

CAPTURE = b"OggS\0"  # what every page begins with, and the version
HEAD = 27  # bytes before the lengths of a page's segments
BEGINS, ENDS = 2, 4  # flags of the first and the last page of a stream
READ = 1 << 16  # bytes read at a time: as long as a page can be; a mebibyte took longer to lay out than a clip to read
# How the first packet of a stream of pictures begins: Theora, VP8, Dirac, OGM, Daala.
PICTURES = (b"\x80theora", b"OVP80", b"BBCD\0", b"\x01video\0", b"\x80daala")
# Ogg takes the bits of a byte from the highest, zlib from the lowest: the checksum of turned bytes is the turned one.
TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Pages(NamedTuple):
    """Say what the pages of an Ogg file tell of it."""

    pictures: bool  # moving pictures lie beside the sound
    chained: bool  # recordings stand one behind the other
    damaged: bool  # a page is missing or its checksum wrong
    ended: bool  # the last page is whole and says that it is the last


def is_ogg(path: str | os.PathLike) -> bool:
    """Return whether a file begins with a page of Ogg."""
    with open(path, "rb") as file:
        return file.read(len(CAPTURE)) == CAPTURE


def has_pictures(path: str | os.PathLike) -> bool:
    """Return whether an Ogg file has moving pictures: its streams all begin on its first pages."""
    with open(path, "rb") as file:
        while (page := _next_page(file)) is not None and page[5] & BEGINS:
            if _payload(page).startswith(PICTURES):
                return True
    return False


def examine(path: str | os.PathLike) -> Pages:
    """Return what all pages of an Ogg file say; of a file that did not change it is remembered."""
    status = os.stat(path)
    return _examine(os.fsencode(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _examine(path: bytes, size: int, changed: int) -> Pages:
    numbers: dict[bytes, int] = {}
    pictures = chained = damaged = ended = lost = begun = False
    with open(path, "rb", buffering=READ) as file:
        while True:
            place = file.tell()
            page = _next_page(file)
            if page is None:
                cut = _stands_at(file, place)
                if not _page_behind(file, place + 1):
                    ended &= not cut
                    break
                lost = True
                continue
            flags, serial, number = page[5], page[14:18], int.from_bytes(page[18:22], "little")
            if flags & BEGINS:
                chained |= begun
                pictures |= _payload(page).startswith(PICTURES)
            else:
                begun = True
                lost |= number != numbers.get(serial, number - 1) + 1
            damaged |= lost or not _is_sound(page)
            numbers[serial], ended = number, bool(flags & ENDS)
    return Pages(pictures, chained, damaged, ended)


def _next_page(file: BinaryIO) -> bytes | None:
    """Return the page that stands here; None where none does, or not the whole of it."""
    head = file.read(HEAD)
    if len(head) < HEAD or not head.startswith(CAPTURE):
        return None
    lacing = file.read(head[26])
    body = file.read(sum(lacing))
    return head + lacing + body if len(lacing) == head[26] and len(body) == sum(lacing) else None


def _stands_at(file: BinaryIO, place: int) -> bool:
    """Return whether a page begins here, whole or not."""
    file.seek(place)
    return file.read(len(CAPTURE)) == CAPTURE


def _payload(page: bytes) -> bytes:
    return page[HEAD + page[26] :]


def _is_sound(page: bytes) -> bool:
    """Return whether the checksum of a page is right."""
    turned = page.translate(TURNED)
    stated = int.from_bytes(turned[22:26], "big")
    found = zlib.crc32(turned[26:], zlib.crc32(bytes(4), zlib.crc32(turned[:22], 0xFFFFFFFF)))
    return found ^ 0xFFFFFFFF == stated


def _page_behind(file: BinaryIO, place: int) -> bool:
    """Go to the next place from `place` on where a page may begin; return whether there is one."""
    file.seek(place)
    before = b""
    while block := file.read(READ):
        found = (before + block).find(CAPTURE)
        if found >= 0:
            file.seek(place - len(before) + found)
            return True
        place += len(block)
        before = (before + block)[-len(CAPTURE) + 1 :]
    return False

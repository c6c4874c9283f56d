"""Shards: which clips belong to which of several shares of the work, by the names of the inputs alone."""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple


class Shard(NamedTuple):
    """Name one of `total` shards by its number, from 1.

    >>> str(Shard(3, 8))
    '3/8'
    """

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


def place(key: str, total: int) -> int:
    """Return which of `total` shares a key falls into, from 0, by its checksum (CRC-32): new keys move no others.

    >>> place("a.wav", 3)
    2
    """
    return zlib.crc32(os.fsencode(key)) % total


def belongs(key: str, shard: tuple[int, int] | None) -> bool:
    """Return whether a clip belongs to a shard, see `place`.

    >>> sum(belongs("a.wav", Shard(k, 3)) for k in (1, 2, 3))
    1
    """
    return shard is None or place(key, shard[1]) == shard[0] - 1

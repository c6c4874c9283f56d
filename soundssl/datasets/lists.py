"""Lists of paths, as other programs write them: one a line, in UTF-8 or UTF-16, or ended by NUL bytes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from soundssl import SoundsslError

MARK = b"\xef\xbb\xbf"  # that of UTF-8
MARKS = (b"\xff\xfe", b"\xfe\xff")  # those of UTF-16


class ListError(SoundsslError):
    """A list of paths is not what it was said to be."""

    status = 2


def read(content: bytes, null: bool = False, name: str = "standard input") -> list[Path]:
    """Return the paths of a list, in its order, one a line or, if `null`, ended by NUL bytes.

    Byte order marks, UTF-16, CRLF and empty lines are undone; other bytes stay as they are. Raises ListError for NUL
    bytes between lines, and for lines where NUL bytes were said to be.

    >>> [str(path) for path in read(b"a.wav\\r\\nb.wav\\n")]
    ['a.wav', 'b.wav']
    """
    content = _unmarked(content)
    if null:
        if b"\0" not in content and b"\n" in content.strip(b"\n"):
            raise ListError(f"{name} holds lines and no NUL byte; leave out -0")
        names = content.split(b"\0")
    elif b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise ListError(f"{name} line {line} holds a NUL byte; give -0 if paths end with NUL, or write them in UTF-8")
    else:
        names = [line.rstrip(b"\r") for line in content.split(b"\n")]
    return [Path(os.fsdecode(each)) for each in names if each.strip()]


def _unmarked(content: bytes) -> bytes:
    """Return a list in UTF-8 without a mark; what only looks like UTF-16 is left as it is."""
    if content[:2] in MARKS:
        with contextlib.suppress(UnicodeError):
            return content.decode("utf-16").encode("utf-8")
    return content.removeprefix(MARK)

"""Lists in text files, one a line: keys of clips, as `evaluate coincidence --at-least` prints them, and classes."""

from __future__ import annotations

import os
from collections.abc import Collection

import numpy as np

from soundssl.files.outputs import text
from soundssl.files.reading import Clips, FormatError, require


def read_keys(path: str | os.PathLike) -> set[str]:
    """Return the keys of clips that a text file lists; raise Missing, or FormatError for a list that is none."""
    found = {line for line in _lines(path, "keys of clips") if line}
    if not found:
        raise FormatError(f"{text(path)} lists no clip; write one with soundssl evaluate coincidence --at-least")
    return found


def read_classes(path: str | os.PathLike) -> list[str]:
    """Return the names of outputs that a text file lists, one a line; raise Missing, FormatError for no such list."""
    names = _lines(path, "the classes")
    if not names or not all(names) or len(set(names)) < len(names):
        raise FormatError(f"{text(path)} has empty or repeated lines; list the classes, one a line")
    return names


def _lines(path: str | os.PathLike, what: str) -> list[str]:
    try:
        return require(path).read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{text(path)} is no text: {error}; list {what}, one a line") from error


def among(clips: Clips, keys: Collection[str], path: str | os.PathLike = "the file") -> np.ndarray:
    """Return which clips have one of these keys. Shape: boolean `[clips]`.

    Raises FormatError for a key that none has.
    """
    known = clips.key.astype(str)
    if unknown := set(keys) - set(known):
        raise FormatError(
            f"{text(path)} has no clip {min(unknown)!r}, which the list names, nor {len(unknown) - 1} others of it; "
            "take the list of this file"
        )
    return np.array([key in keys for key in known], bool)

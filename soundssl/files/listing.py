"""Lists of clips: their keys in a text file, one a line, as `evaluate coincidence --at-least` prints them."""

from __future__ import annotations

import os
from collections.abc import Collection

import numpy as np

from soundssl.files.outputs import text
from soundssl.files.reading import Clips, FormatError, require


def read_keys(path: str | os.PathLike) -> set[str]:
    """Return the keys of clips that a text file lists; raise Missing, or FormatError for a list that is none."""
    try:
        found = {line for line in require(path).read_text("utf-8").splitlines() if line}
    except UnicodeDecodeError as error:
        raise FormatError(f"{text(path)} is no text: {error}; list keys of clips, one a line") from error
    if not found:
        raise FormatError(f"{text(path)} lists no clip; write one with soundssl evaluate coincidence --at-least")
    return found


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

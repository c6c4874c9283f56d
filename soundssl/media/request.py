"""Requests: what is wanted of the sound of a file, and what was heard of it on the way."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

import numpy as np

from soundssl.media.opening import DecodeError

BLOCK = 1 << 18  # samples read at a time: six seconds at 44.1 kHz
TOLERANCE = 0.25  # seconds that a header may state more than the file holds
FULL_SCALE = 32767 / 32768  # the largest sample of 16 bits


@dataclass
class Heard:
    """Count what went by: the peak, samples at full scale in any channel, and what is missing.

    `truncated` says what is missing at the end, `damaged` what is lost in the middle, `notes` what else there is to
    say; `pictures` says whether moving pictures may lie beside the sound.
    """

    peak: float = 0.0
    clipped: int = 0
    truncated: str = ""
    damaged: str = ""
    pictures: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """All there is to say of the file, in one line; nothing where it is as it should be."""
        return "; ".join(filter(None, (self.truncated, self.damaged, *self.notes)))

    def note(self, fact: str) -> None:
        """Remember a fact, once."""
        if fact not in self.notes:
            self.notes.append(fact)

    def listen(self, block: np.ndarray, path: str | os.PathLike) -> None:
        """Take note of a block; raise DecodeError where it holds samples that are no numbers."""
        peak = max(float(block.max()), -float(block.min()))
        if not math.isfinite(peak):
            raise DecodeError(path, "non-finite samples")
        if peak >= FULL_SCALE:
            self.clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        self.peak = max(self.peak, peak)


@dataclass
class Request:
    """Say what is wanted of a file; `truncated` and `damaged` are called with what is missing of it."""

    path: str | os.PathLike
    start: float
    end: float | None
    channel: int | None
    keep_truncated: bool
    keep_damaged: bool
    heard: Heard

    def one(self, block: np.ndarray) -> np.ndarray:
        """Listen to a block [samples, channels] and return one channel, or the average of all."""
        if not len(block):
            return np.empty(0, np.float32)
        self.heard.listen(block, self.path)
        channels = block.shape[1]
        if self.channel is not None:
            if self.channel > channels:
                raise DecodeError(self.path, f"no channel {self.channel}, it has {channels}")
            return np.ascontiguousarray(block[:, self.channel - 1])
        return block[:, 0] if channels == 1 else block @ np.full(channels, 1 / channels, np.float32)

    def truncated(self, reason: str) -> None:
        """Remember that the file ends before its time, or raise DecodeError."""
        if not self.keep_truncated:
            raise DecodeError(self.path, reason)
        self.heard.truncated = self.heard.truncated or reason

    def damaged(self, reason: str) -> None:
        """Remember that sound is lost in the middle, or raise DecodeError."""
        if not self.keep_damaged:
            raise DecodeError(self.path, reason)
        self.heard.damaged = self.heard.damaged or reason

    def check_whole(self, decoded: float, declared: float) -> None:
        """Notice when much less sound was decoded than declared, both in seconds."""
        if decoded < declared - TOLERANCE:
            self.truncated(f"truncated: {decoded:.1f} of {declared:.1f} s")

    def check_span(self, decoded: float) -> None:
        """Notice when the sound ends, at `decoded` seconds, before the span does or even begins.

        Raises DecodeError for a span that begins behind the end.
        """
        if self.start and decoded <= self.start:
            raise DecodeError(self.path, f"nothing from {self.start:.12g} s on, its sound ends at {decoded:.1f} s")
        if self.end is not None and decoded < self.end - TOLERANCE:
            self.truncated(f"truncated: it ends at {decoded:.1f} s, before {self.end:.12g} s")

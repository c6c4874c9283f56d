"""Clocks: the packets of a container with time stamps that go on, the same for sound and for pictures.

Stamps start again where recordings were joined, and jump where a recorder lost its clock. Whoever reads a container
reads the packets of its sound and its pictures through one Clock, so both are moved alike.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from soundssl.media.opening import DecodeError, choose_tracks, open_container, video_streams

HOLE = 600.0  # seconds without a packet that may be true; what jumps farther is a clock that was set
BACK = 0.5  # seconds that stamps may go back: farther, and they have started again
STRAY = 60.0  # seconds between the time of decoding and that of showing a picture, at most
REORDERED = 2.0  # seconds from one to the other that may be meant: sixteen pictures at eight a second
EMPTY = (10.0, 3600.0, 10.0)  # holes from so many seconds on; together at most so long, or so many times what is there
SOUND_LASTS, PICTURE_LASTS = 1.0, 0.1  # seconds that a packet counts, at most
FOUND = 0.5  # seconds before a span at which decoding begins: a decoder finds its feet there
RETRIES = 20  # broken places that reading goes on behind
# Containers that are frames and nothing else: stamps are counted from the beginning, so nobody goes to the middle.
BARE = {"mp3", "aac", "ac3", "eac3", "dts", "dtshd", "mlp", "truehd", "loas", "amr", "amrnb", "amrwb"}
UNINDEXED = {"mpegts", "mpeg", "ogg"}  # whose stamps are searched for, which fails where they start again
# Containers that do not say how many samples an AAC encoder put before the sound, and how many that are: one frame
# (inferred: FFmpeg's encoder; others put up to 2,112 there).
UNTOLD = {"aac", "mpegts", "flv"}
PRIMING = 1024


@dataclass
class _Course:
    """Follow the stamps of one stream: seconds of a unit, which setting of the clock holds, where its packets end."""

    unit: float
    longest: float  # seconds that one of its packets may count: the container may take a hole for a long one
    setting: int = 0
    end: float | None = None


class Clock:
    """Read the packets of the streams of a container, their stamps moved so that time goes on.

    `zero` is the container's time, in seconds, at which its sound or its picture begins. Raises DecodeError for a clock
    that cannot be meant.
    """

    def __init__(self, path: str | bytes | os.PathLike, container: Any, streams: Sequence[Any]) -> None:
        self.path, self.container, self.streams = path, container, streams
        self.names = set(container.format.name.split(","))
        self.zero = zero_of(container, streams)
        self._began = float(self.zero)
        self.bare = bool(BARE & self.names)
        self.settings = [0.0]  # seconds that are added to stamps, one for each time that the clock was set
        self.latest = 0.0  # seconds since zero that any packet has reached, by when it is decoded
        self.shown = 0.0  # the same by when it is shown: pictures are decoded in another order than they are shown in
        self.empty = self.filled = 0.0  # seconds of holes, and of packets
        self.sought = False
        self._courses = {stream.index: _course(stream) for stream in streams}

    def go_to(self, start: float) -> None:
        """Go to a place from which decoding reaches `start` seconds, where the container can be trusted to know it."""
        if start <= 1 or self.bare or (UNINDEXED & self.names and not _is_steady_file(self.path)):
            return
        try:
            self.container.seek(min(int((float(self.zero) + start - FOUND) * av.time_base), 1 << 62))
        except av.error.FFmpegError:  # it is read from where it stands
            return
        self.latest, self.shown, self.sought = start, start, True

    @property
    def steady(self) -> bool:
        """Whether the clock was never set."""
        return len(self.settings) == 1

    def packets(self) -> Iterator[Any]:
        """Yield the packets of all streams in the order of the file; what is broken between them is read over."""
        place = self._shift if self.bare else self._place
        for trial in range(RETRIES + 1):
            try:
                for packet in self.container.demux(self.streams):
                    place(packet)
                    yield packet
                return
            except av.error.InvalidDataError:
                if trial == RETRIES:
                    raise

    def lose(self, seconds: float) -> None:
        """Note that so much of a bare stream is lost: the stamps behind it have not counted it."""
        self.settings = [setting + seconds for setting in self.settings]

    def _place(self, packet: Any) -> None:
        """Move the stamps of a packet by how far the clock was set."""
        pts, dts = packet.pts, packet.dts
        if pts is None and dts is None:
            return
        course = self._courses[packet.stream_index]
        unit, stamp = course.unit, pts if dts is None else dts
        if pts is not None and dts is not None and abs(pts - dts) * unit > STRAY:
            packet.pts = dts
        time = stamp * unit - self._began
        self._set(course, time)
        if setting := self.settings[course.setting]:
            self._shift(packet, setting)
            time += setting
        lasting = min((packet.duration or 0) * unit, course.longest)
        self._check_holes(time - self.latest, lasting)
        course.end = time + lasting
        self.latest = max(self.latest, course.end)
        ahead = 0.0 if pts is None or dts is None else (pts - dts) * unit
        self.shown = max(self.shown, course.end + (ahead if 0 < ahead <= REORDERED else 0.0))

    def _shift(self, packet: Any, setting: float | None = None) -> None:
        setting = self.settings[0] if setting is None else setting
        if setting:
            shift = round(setting / self._courses[packet.stream_index].unit)
            packet.dts = None if packet.dts is None else packet.dts + shift
            packet.pts = None if packet.pts is None else packet.pts + shift

    def _set(self, course: _Course, time: float) -> None:
        """Find the setting of the clock with which a stream goes on; set the clock anew where none is."""
        end = course.end
        for setting in range(course.setting, len(self.settings)):
            moved = time + self.settings[setting]
            if (end is None or moved >= end - BACK) and moved <= max(self.latest, end or 0.0) + HOLE:
                course.setting = setting
                return
        if end is None and not self.sought:
            kind = "its sound or its picture begins" if time > 0 else "its time stamps begin"
            raise DecodeError(self.path, f"broken clock: {kind} {abs(time):,.0f} s late")
        goes_on = end if end is not None and time > end else max(self.latest, end or 0.0)  # a jump, or a new beginning
        self.settings.append(goes_on - time)
        course.setting = len(self.settings) - 1

    def _check_holes(self, hole: float, lasting: float) -> None:
        """Raise DecodeError where a file is hours of nothing: no clock means that."""
        self.filled += lasting
        if hole > EMPTY[0]:
            self.empty += hole
            if self.empty > EMPTY[1] and self.empty > EMPTY[2] * self.filled:
                raise DecodeError(self.path, f"broken clock: {self.empty:,.0f} s without sound or picture")


def _course(stream: Any) -> _Course:
    return _Course(float(stream.time_base), SOUND_LASTS if stream.type == "audio" else PICTURE_LASTS)


def zero_of(container: Any, streams: Sequence[Any]) -> Fraction:
    """Return the time, by the container's clock and in seconds, at which its sound or its picture begins.

    Where AAC lies in a container that does not say how much the encoder put before the sound, the sound begins so much
    later than its first sample.
    """
    begins = Fraction(container.start_time or 0, av.time_base)
    if not UNTOLD & set(container.format.name.split(",")):
        return begins
    starts = [
        (stream.start_time or 0) * stream.time_base + _priming(stream)
        for stream in streams
        if stream.codec_context is not None
    ]
    return min(starts, default=begins)


def _priming(stream: Any) -> Fraction:
    """Return the seconds of a stream that its encoder put before the sound and its container does not tell of."""
    untold = stream.type == "audio" and stream.codec_context.name.startswith("aac")
    return Fraction(PRIMING, stream.rate) if untold and stream.rate else Fraction(0)


def _is_steady_file(path: str | bytes | os.PathLike) -> bool:
    """Return whether the stamps of a file go on from its beginning to its end; remembered while it does not change."""
    status = os.stat(path)
    return _is_steady(os.fsencode(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _is_steady(path: bytes, size: int, changed: int) -> bool:
    with open_container(path) as container:
        clock = Clock(path, container, [*choose_tracks(container)[:1], *video_streams(container)[:1]])
        try:
            for _ in clock.packets():
                if not clock.steady:
                    return False
        except av.error.FFmpegError:
            return False
    return True

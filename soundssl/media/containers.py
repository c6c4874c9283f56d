"""Sound by FFmpeg: that of videos and of all that libsndfile cannot read, placed in time by the container's clock."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np

from soundssl.media import ogg
from soundssl.media.clock import FOUND, Clock
from soundssl.media.headers import Tags, leading_tag, mp3_seconds
from soundssl.media.opening import DecodeError, choose_tracks, open_container, video_streams
from soundssl.media.request import BLOCK, Request

HOLE = 0.1  # seconds without sound that are filled with silence; stamps of sound that goes on differ by less
EXACT = 0.02  # the same behind damage, where a frame or two may be lost
PLANES = 7  # channels, at most, that PyAV hands out as planes: it looks for the end of the list in the eighth
SETTLING = 1.0  # seconds of sound after which the bytes of a second are known
# Containers that state how long their streams are. Of others FFmpeg guesses it by their bytes.
STATING = {"mov", "matroska", "avi", "flv", "asf", "aiff", "caf", "w64", "flac", "nut", "mxf"}


def channels_of(path: str | os.PathLike) -> int:
    """Return the number of channels of the sound that is chosen; raise DecodeError."""
    with open_container(path) as container:
        return _tracks(container, path)[0].codec_context.channels


def open_blocks(
    request: Request, behind: float | None = None, rate: int | None = None, damaged: bool = False
) -> tuple[Iterator[np.ndarray], int]:
    """Open the sound and return its blocks of one channel, and their rate: its own unless one is given.

    It is read from `request.start` on; with `behind` from there on, decoded from the beginning. `damaged` says that
    the file is known to be. Shape: `[samples]` each. Raises DecodeError.
    """
    container = open_container(request.path)
    try:
        tracks = _tracks(container, request.path)
    except DecodeError:
        container.close()
        raise
    request.heard.pictures = bool(video_streams(container))
    rate = rate or tracks[0].rate
    return _first_that_decodes(container, [track.index for track in tracks], request, behind, rate, damaged), rate


def _tracks(container: Any, path: str | os.PathLike) -> list[Any]:
    """Return the tracks of sound that have a decoder, the chosen one first; raise DecodeError where none has."""
    if not container.streams.audio:
        raise DecodeError(path, "no audio stream")
    tracks = choose_tracks(container)
    if not tracks:
        raise DecodeError(path, "no decoder for its audio")
    return tracks


def _first_that_decodes(
    container: Any, tracks: list[int], request: Request, behind: float | None, rate: int, damaged: bool
) -> Iterator[np.ndarray]:
    """Yield the sound of the first track that gives any."""
    for trial, index in enumerate(tracks):
        begun = False
        with container if trial == 0 else open_container(request.path) as opened:
            track = _Track(opened, opened.streams[index], request, rate, damaged)
            track.fault = behind if damaged else None
            try:
                blocks = track.blocks(request.start) if behind is None else _behind(track.blocks(0.0), behind, rate)
                for block in blocks:
                    begun = True
                    yield request.one(block)
                _note_choice(opened, index, request)
                return
            except DecodeError:
                if begun or trial == len(tracks) - 1:
                    raise


def _behind(blocks: Iterable[np.ndarray], behind: float, rate: int) -> Iterator[np.ndarray]:
    """Yield what blocks hold from `behind` seconds on."""
    early = round(behind * rate)
    for block in blocks:
        if early < len(block):
            yield block[early:]
        early = max(0, early - len(block))


def _note_choice(container: Any, index: int, request: Request) -> None:
    """Say which of several tracks was heard."""
    tracks = container.streams.audio
    if len(tracks) > 1:
        number = [track.index for track in tracks].index(index) + 1
        language = tracks[number - 1].language
        about = f" ({language})" if language and language != "und" else ""
        request.heard.note(f"its sound is track {number}{about} of {len(tracks)}")


class _Track:
    """Decode one track of a container; what is broken is counted, and its time kept."""

    def __init__(self, container: Any, stream: Any, request: Request, rate: int, damaged: bool) -> None:
        self.container, self.stream, self.request, self.rate = container, stream, request, rate
        self.clock = Clock(request.path, container, [stream, *video_streams(container)[:1]])
        self.convert = _Converter(rate)
        self.damaged = damaged
        self.fault: float | None = None  # seconds at which something could not be decoded
        self.broken = False  # whether the last packet could not be decoded
        self.last: tuple[int, float] | None = None  # stamp and seconds of the last frame that has one
        self.bytes, self.seconds = 0, 0.0  # of what was decoded
        self.looked = False  # for bytes that no packet holds

    @property
    def end(self) -> float:
        """Where the last frame with a stamp ends, in seconds of the container's time."""
        return 0.0 if self.last is None else float(self.last[0] * self.stream.time_base) + self.last[1]

    def blocks(self, start: float) -> Iterator[np.ndarray]:
        """Yield blocks [samples, channels] from `start` seconds on; raise DecodeError."""
        request = self.request
        self.clock.go_to(start)
        # From its beginning a span is cut out of the whole: stamps alone may miss what was put together before it.
        begin = start if self.clock.sought or self.clock.bare else 0.0
        place = _Placing(self.rate, begin, request.end)
        try:
            placed = place(self._frames(start if self.clock.bare else 0.0))
            yield from _behind(placed, start - begin, self.rate) if begin < start else placed
        except av.error.FFmpegError as error:
            if not self.seconds:
                raise DecodeError(request.path, f"damaged ({error.strerror or error})") from error
            request.truncated(f"truncated: unreadable from {place.position / self.rate:.1f} s on")
        if place.stopped:
            self._note_damage(place)
            return
        if not place.begun and start:
            request.check_span(place.follows / self.rate if self.seconds else self._stated_end())
        if not self.seconds:
            raise DecodeError(request.path, "its audio cannot be decoded")
        if self.clock.steady:
            request.check_whole(self.end, self._declared_end())
        if self.broken:
            request.truncated("truncated: its last frame is broken")
        if "ogg" in self.clock.names and not ogg.examine(request.path).ended:
            request.truncated("truncated: its last page is missing")
        self._note_damage(place)
        if place.begun:
            request.check_span(place.position / self.rate)

    def _note_damage(self, place: _Placing) -> None:
        if place.missing:
            fact = f"{place.missing:.1f} s of silence for what is missing, from {place.hole:.1f} s on"
            if self.damaged:
                self.request.damaged(f"damaged: {fact}")
            else:
                self.request.heard.note(fact)
        elif self.damaged and not self.request.heard.truncated:
            self.request.damaged("damaged" if self.fault is None else f"damaged at {self.fault:.1f} s")

    def _frames(self, start: float) -> Iterator[tuple[int | None, np.ndarray, bool]]:
        """Yield (first sample since zero, None where unknown; block [samples, channels]; whether damage came before).

        Of a bare stream only what lies about `start` and behind it is decoded.
        """
        index, clock = self.stream.index, self.clock
        sample, tags = _SampleClock(self.stream, clock.zero, self.rate), Tags()
        for packet in clock.packets():
            if packet.stream.index != index:  # its own number is 0 where the decoder shall give what is left
                continue
            if start and packet.pts is not None and float(packet.pts * packet.time_base - clock.zero) < start - FOUND:
                continue
            tag = tags.within(bytes(packet)) if clock.bare else 0
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # the last one may be cut through; else the file is damaged
                self._miss(packet, tag)
                continue
            if not frames:
                continue
            if self.broken:
                self.damaged, self.broken = True, False
                if not self.request.keep_damaged:
                    raise DecodeError(self.request.path, f"damaged at {self.fault:.1f} s")
            self.bytes += packet.size
            for frame in frames:
                stamp, seconds = frame.pts, frame.samples / frame.sample_rate
                self.seconds += seconds
                first = None if stamp is None else sample(stamp)
                if stamp is not None:
                    self.last = stamp, seconds
                for block in self.convert(frame):
                    yield first, block, self.damaged
                    first = None

    def _miss(self, packet: Any, tags: int) -> None:
        """Take note of a packet that cannot be decoded, whose bytes are `tags` in part.

        Before the first good one it is no damage, but a beginning.
        """
        if not self.seconds:
            return
        if self.clock.bare and self.seconds > SETTLING:  # nothing states the time, its bytes do
            lost = (max(0, packet.size - tags) + self._dropped()) * self.seconds / self.bytes
            self.clock.lose(lost - float((packet.duration or 0) * packet.time_base))
            if tags and lost < EXACT:
                return
        self.broken = True
        if self.fault is None:
            self.fault = max(0.0, self.end - float(self.clock.zero))

    def _dropped(self) -> int:
        """Return, at the first call, the bytes that no packet holds: FFmpeg looks for the next frame of raw AAC."""
        if "aac" not in self.clock.names or self.looked:
            return 0
        self.looked = True
        with open_container(self.request.path) as container:
            held = sum(packet.size for packet in container.demux(container.streams.audio[0]))
        return max(0, os.stat(self.request.path).st_size - leading_tag(self.request.path) - held)

    def _stated_end(self) -> float:
        """Return the end of the sound, in seconds since zero, as far as the container knows."""
        whole = (self.container.duration or 0) / av.time_base
        return max(0.0, self._declared_end() - float(self.clock.zero)) or whole

    def _declared_end(self) -> float:
        """Return the end that the container states for the track, in seconds of its time, 0 where it states none."""
        stream, names = self.stream, self.clock.names
        if "mp3" in names:
            return mp3_seconds(self.request.path)
        if stream.duration and STATING & names:
            return float((stream.start_time or 0) + stream.duration) * float(stream.time_base)
        if "avi" in names and stream.codec_context.name.startswith("pcm_"):  # cut short it has no index, but a header
            return stream.frames / stream.rate
        stated = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska
        return int(stated[1]) * 3600 + int(stated[2]) * 60 + float(stated[3]) if stated else 0.0


class _SampleClock:
    """Say which sample since the container's `zero` a frame with a time stamp begins with, in integers."""

    def __init__(self, stream: Any, zero: Any, rate: int) -> None:
        base = stream.time_base
        self.divisor = base.denominator * zero.denominator
        self.factor = base.numerator * zero.denominator * rate
        self.offset = zero.numerator * base.denominator * rate

    def __call__(self, stamp: int) -> int:
        sample, rest = divmod(stamp * self.factor - self.offset, self.divisor)
        return sample + (2 * rest > self.divisor or (2 * rest == self.divisor and sample % 2))


class _Converter:
    """Turn frames into float32 `[samples, channels]` at one rate; broadcasts change form in the middle."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.form: tuple | None = None
        self.resampler: av.AudioResampler | None = None

    def __call__(self, frame: Any) -> Iterable[np.ndarray]:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self.form:
            self.form, self.resampler = form, None
            if frame.layout.nb_channels > PLANES:
                self.resampler = av.AudioResampler(format="flt", rate=self.rate)
            elif form[0] != "fltp" or frame.sample_rate != self.rate:
                self.resampler = av.AudioResampler(format="fltp", rate=self.rate)
        return map(_samples, (frame,) if self.resampler is None else self.resampler.resample(frame))


def _samples(frame: Any) -> np.ndarray:
    """Return the samples of a frame of format fltp or flt. Shape: `[samples, channels]`."""
    if frame.format.name == "flt":
        channels = frame.layout.nb_channels
        return np.frombuffer(frame.planes[0], np.float32, frame.samples * channels).reshape(-1, channels)
    planes = [np.frombuffer(plane, np.float32, frame.samples) for plane in frame.planes]
    return planes[0][:, None] if len(planes) == 1 else np.array(planes).T


class _Placing:
    """Place blocks on the time line from `start` to `end` seconds, in larger blocks; early sound is cut.

    Silence stands before late sound and in holes. `position` is the sample reached, `missing` the seconds of holes and
    `hole` where the first begins; `stopped` says that the end was reached.
    """

    def __init__(self, rate: int, start: float, end: float | None) -> None:
        self.rate, self.position, self.stop = rate, round(start * rate), None if end is None else round(end * rate)
        self.missing, self.hole, self.stopped = 0.0, 0.0, False
        self.begun, self.follows = False, 0

    def __call__(self, frames: Iterable[tuple[int | None, np.ndarray, bool]]) -> Iterator[np.ndarray]:
        """Yield blocks. Shape: `[samples, channels]` each."""
        held: list[np.ndarray] = []
        count = 0
        for first, frame, exact in frames:
            first = self.follows if first is None else first
            self.follows = first + len(frame)
            if late := self._late(first, exact):
                if held:
                    yield _joined(held)
                held, count = [], 0
                yield from _silence(late, frame.shape[1])
            block = frame if self.begun else frame[max(0, self.position - first) :]
            self.begun = self.begun or len(block) > 0
            if self.stop is not None:
                block = block[: max(0, self.stop - self.position)]
            self.position += len(block)
            count += block.size
            held.append(block)
            if count >= BLOCK:
                yield _joined(held)
                held, count = [], 0
            if self.stop is not None and self.position >= self.stop:
                self.stopped = True
                break
        if count:
            yield _joined(held)

    def _late(self, first: int, exact: bool) -> int:
        """Return how many samples of silence stand before a frame, and step over them."""
        late = first - self.position
        if late <= 0 or (self.begun and late <= (EXACT if exact else HOLE) * self.rate):
            return 0
        late = late if self.stop is None else max(0, min(late, self.stop - self.position))
        if self.begun:
            self.hole = self.hole if self.missing else self.position / self.rate
            self.missing += late / self.rate
        self.position += late
        return late


def _silence(samples: int, channels: int) -> Iterator[np.ndarray]:
    for first in range(0, samples, BLOCK):
        yield np.broadcast_to(np.float32(0), (min(BLOCK, samples - first), channels))


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    """Concatenate blocks; where the number of channels changes in the middle, as their averages."""
    if len({block.shape[1] for block in blocks}) > 1:
        blocks = [block.mean(1, keepdims=True) for block in blocks]
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]

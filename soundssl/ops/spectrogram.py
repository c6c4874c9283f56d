"""Waveform to log-mel frames, in numpy, block by block; or the waveform as it is, for separation.

The default front end is that of VGGish (Hershey et al. 2017; the same frames serve Jansen et al. 2018 and 2020): 25 ms
periodic Hann windows every 10 ms, magnitude of a 512-point FFT, 64 triangles that are linear in mel between 125 and
7,500 Hz, natural logarithm of the energy plus 0.01, no padding, no centring. No library's filter bank has them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from soundssl import SoundsslError

BLOCK = 512  # frames given at a time: a clip of five seconds at once
TILE = 128  # of them computed at a time: with their spectra half a megabyte, which stays in a core's cache
GROUP = 16  # neighbouring mel bands that are summed in one product, over the bins that any of them has
HEAD_ROOM = 0.005  # added to the largest magnitude before it divides the waveform, as Fonseca et al. 2021

# The choices that a front end names; what is not listed here cannot be computed.
WINDOWS = {"hann, periodic": (0.5, 0.5), "hamming, periodic": (0.54, 0.46)}
VGGISH_MEL = "1127 ln(1 + f/700), triangles linear in mel, peak 1"
SLANEY_MEL = "Slaney, triangles linear in Hz, peak 1"
SLANEY_AREA_MEL = "Slaney, triangles linear in Hz, area 1"
DECIBELS = "decibels, at least the floor"  # 10 log10(max(mel, floor)): here the floor is not added
AS_RECORDED, LEVELLED = "as recorded", "mean removed, divided by the largest magnitude + 0.005"
UNPADDED, CENTRED = "none", "frames centred, ends reflected"


@dataclass(frozen=True)
class FrontEnd:
    """State every constant of a log-mel front end; it is stored with the features, field by field."""

    preset: str = "vggish"
    representation: str = "logmel"
    sample_rate: int = 16000  # Hz
    window_length: int = 400  # samples, 25 ms
    hop_length: int = 160  # samples, 10 ms
    fft_length: int = 512  # samples, the smallest power of two that holds the window
    window_function: str = "hann, periodic"
    mel_scale: str = VGGISH_MEL
    spectrum: str = "magnitude"
    logarithm: str = "natural"
    level: str = AS_RECORDED
    padding: str = UNPADDED
    bands: int = 64
    fmin: float = 125.0  # Hz
    fmax: float = 7500.0  # Hz
    floor: float = 0.01  # added before the logarithm, as VGGish
    window_frames: int = 96  # 0.96 s: what an encoder sees
    window_hop: int = 0  # frames from one window to the next where nobody says; 0: window_frames

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    def attributes(self) -> dict[str, object]:
        """Return all constants by name, as they stand in a features file."""
        return {**asdict(self), "frame_rate": self.frame_rate, "window_hop": self.window_hop or self.window_frames}

    def samples(self, frames: int) -> int:
        """Return the fewest samples that give so many frames.

        >>> FrontEnd().samples(96)
        15600
        """
        return (frames - 1) * self.hop_length + (0 if self.padding == CENTRED else self.window_length)


_FONSECA = FrontEnd(  # of the repository uclser20; the ends are reflected as librosa did by default in its day
    preset="uclser20",
    sample_rate=22050,
    window_length=660,
    hop_length=220,
    fft_length=2048,
    window_function="hamming, periodic",
    mel_scale=SLANEY_MEL,
    spectrum="power",
    logarithm="10",
    level=LEVELLED,
    padding=CENTRED,
    bands=96,
    fmin=50.0,
    fmax=10500.0,
    floor=1.1e-8,
    window_frames=101,
    window_hop=50,
)
PRESETS = {
    "vggish": FrontEnd(),
    # Cross-modal supervised learning, 2019. Inferred: FFT, band edges, offset; the window is 100 frames of the whole.
    "mm-videos": FrontEnd(preset="mm-videos", window_function="hamming, periodic", window_frames=100),
    # FSD50K and Fonseca et al. 2021, shift invariance. Inferred: all that is as in uclser20, natural logarithm, level.
    "fsd50k": replace(_FONSECA, preset="fsd50k", logarithm="natural", level=AS_RECORDED),
    "uclser20": _FONSECA,
    # PANNs (Kong et al. 2020), as the public code of the released weights has it; windows of a second are inferred.
    "panns": FrontEnd(
        preset="panns",
        sample_rate=32000,
        window_length=1024,
        hop_length=320,
        fft_length=1024,
        mel_scale=SLANEY_AREA_MEL,
        spectrum="power",
        logarithm=DECIBELS,
        padding=CENTRED,
        bands=64,
        fmin=50.0,
        fmax=14000.0,
        floor=1e-10,
        window_frames=100,
    ),
    # Learning with noisy labels, Fonseca et al. 2019 (repositories icassp19, waspaa19): 40 ms, 20 ms, windows of 2 s.
    # Inferred: window function and mel scale as in uclser20. Their standardisation by band is the net's.
    "fsdnoisy18k": replace(
        _FONSECA,
        preset="fsdnoisy18k",
        sample_rate=44100,
        window_length=1764,
        hop_length=882,
        fmin=0.0,
        fmax=22050.0,
        floor=2.2e-16,
        window_frames=100,
    ),
    # Ours, not published: VGGish's 31.25 Hz a bin and 10 ms a frame, up to where most birds sing.
    "bird": FrontEnd(
        preset="bird", sample_rate=32000, window_length=800, hop_length=320, fft_length=1024, fmin=150.0, fmax=15000.0
    ),
    # Ours, not published: 2 ms every 1 ms, for calls of a few milliseconds; a window is 96 ms.
    "bat": FrontEnd(
        preset="bat", sample_rate=256000, window_length=512, hop_length=256, fft_length=1024, fmin=1e4, fmax=1.2e5
    ),
}
TILING = ("fsd50k", "uclser20", "fsdnoisy18k")  # presets whose papers repeat clips that are shorter than a window
WAVEFORM = FrontEnd(  # the sound itself: a frame is a sample, a number between -1 and 1
    preset="waveform",
    representation="waveform",
    window_length=1,
    hop_length=1,
    fft_length=1,
    window_function="none",
    mel_scale="none",
    spectrum="none",
    logarithm="none",
    bands=1,
    fmin=0.0,
    fmax=8000.0,
    floor=0.0,
    window_frames=15600,  # samples that 96 frames of log-mel take, 0.975 s
)


class Overflow(SoundsslError):
    """Samples are so large that what is computed or stored of them is no number any more."""


def hertz_to_mel(frequency: np.ndarray, mel_scale: str = VGGISH_MEL) -> np.ndarray:
    """Return the mel value of frequencies in Hz; Slaney's is linear up to 1 kHz, 200/3 Hz a mel.

    >>> float(np.round(hertz_to_mel(np.array(1000.0)), 1)), float(hertz_to_mel(np.array(1000.0), SLANEY_MEL))
    (1000.0, 15.0)
    """
    frequency = np.asarray(frequency, np.float64)
    if mel_scale in (SLANEY_MEL, SLANEY_AREA_MEL):
        steps = np.log(np.maximum(frequency, 1000.0) / 1000.0) * 27 / np.log(6.4)
        return np.minimum(frequency, 1000.0) * 3 / 200 + steps
    return 1127.0 * np.log1p(frequency / 700.0)


def _slaney_to_hertz(mel: np.ndarray) -> np.ndarray:
    return np.minimum(mel, 15.0) * 200 / 3 * np.exp(np.maximum(mel - 15.0, 0.0) * np.log(6.4) / 27)


def mel_matrix(front_end: FrontEnd) -> np.ndarray:
    """Return the weights from FFT bins to mel bands; the bin of frequency zero has none.

    Shape: `[fft_length / 2 + 1, bands]`, float64. Raises ValueError for an unknown mel scale.
    """
    if front_end.mel_scale not in (VGGISH_MEL, SLANEY_MEL, SLANEY_AREA_MEL):
        raise ValueError(f"no mel scale is called {front_end.mel_scale!r}")
    bins = np.arange(front_end.fft_length // 2 + 1) * front_end.sample_rate / front_end.fft_length
    lowest, highest = hertz_to_mel(np.array([front_end.fmin, front_end.fmax]), front_end.mel_scale)
    edges = np.linspace(lowest, highest, front_end.bands + 2)
    if front_end.mel_scale == VGGISH_MEL:
        bins = hertz_to_mel(bins)
    else:
        edges = _slaney_to_hertz(edges)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - lower) / (centre - lower)
    falling = (upper - bins[:, None]) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    if front_end.mel_scale == SLANEY_AREA_MEL:
        weights *= 2.0 / (upper - lower)
    weights[0] = 0.0
    return weights


def frame_count(samples: int, front_end: FrontEnd) -> int:
    """Return how many whole frames a waveform gives; an incomplete last one is dropped.

    >>> frame_count(160000, FrontEnd()), frame_count(15600, FrontEnd()), frame_count(399, FrontEnd())
    (998, 96, 0)
    """
    window = 0 if front_end.padding == CENTRED else front_end.window_length
    return max(0, 1 + (samples - window) // front_end.hop_length) if samples else 0


class LogMel:
    """Compute log-mel frames of a stream of waveform blocks; the same frames whatever the sizes of the blocks.

    `dtype` float32 agrees with float64 to better than 1e-4. Raises ValueError for a front end it does not know, and
    Overflow for samples whose frames are no numbers.
    """

    def __init__(self, front_end: FrontEnd, dtype: str = "float32") -> None:
        import scipy.fft  # in single precision three times as fast as numpy's; takes 0.2 s to load, of workers alone

        a, b = WINDOWS[front_end.window_function]
        n = np.arange(front_end.window_length)
        self.rfft = scipy.fft.rfft
        self.front_end, self.dtype = front_end, np.dtype(dtype)
        self.window = (a - b * np.cos(2 * np.pi * n / front_end.window_length)).astype(dtype)
        self.groups = list(_groups(mel_matrix(front_end).astype(dtype)))
        self.padded = np.zeros((TILE, front_end.fft_length), dtype)  # frames, and the zeros that the FFT wants
        self.floor = self.dtype.type(front_end.floor)
        logarithms: dict[str, Callable] = {"natural": np.log, "10": np.log10, DECIBELS: _decibels}
        self.log = logarithms[front_end.logarithm]

    def __call__(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield frames of mono blocks at the front end's rate. Shape: `[samples]` each → `[frames, bands]` each."""
        hop, window = self.front_end.hop_length, self.front_end.window_length
        step = BLOCK * hop
        waiting = np.empty(0, self.dtype)
        for block in _reflected(blocks, window // 2) if self.front_end.padding == CENTRED else blocks:
            block = np.ascontiguousarray(block, self.dtype)
            waiting = np.concatenate([waiting, block]) if len(waiting) else block
            first = 0
            while len(waiting) - first >= step - hop + window:
                yield self._frames(waiting[first : first + step - hop + window])
                first += step
            waiting = waiting[first:]
        if len(waiting) >= window:
            yield self._frames(waiting)

    def _frames(self, waveform: np.ndarray) -> np.ndarray:
        hop, window = self.front_end.hop_length, self.front_end.window_length
        shape, strides = (1 + (len(waveform) - window) // hop, window), (waveform.itemsize * hop, waveform.itemsize)
        # as_strided, which does the same, takes ten times as long.
        frames: np.ndarray = np.ndarray(shape, waveform.dtype, waveform, 0, strides)
        mel = np.empty((len(frames), self.front_end.bands), self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # it is an error below
            for first in range(0, len(frames), TILE):
                self._mel(frames[first : first + TILE], mel[first : first + TILE])
        if self.front_end.logarithm == DECIBELS:
            np.maximum(mel, self.floor, out=mel)
        else:
            mel += self.floor
        if not mel.max(initial=0) < np.inf:  # too large, or no number: also where others were too large
            peak = float(np.abs(waveform).max())
            raise Overflow(f"samples as large as {peak:.2g} overflow the frames; scale them to between -1 and 1")
        return self.log(mel, out=mel)

    def _mel(self, frames: np.ndarray, mel: np.ndarray) -> None:
        """Write the mel bands of frames. Shape: `[n, window]`, `[n, bands]`."""
        padded = self.padded[: len(frames)]
        np.multiply(frames, self.window, out=padded[:, : frames.shape[1]])
        spectrum = self.rfft(padded)
        if self.front_end.spectrum == "magnitude":
            energy = np.abs(spectrum)
        else:
            energy = spectrum.real**2 + spectrum.imag**2
        for bands, bins, weights in self.groups:
            np.matmul(energy[:, bins], weights, out=mel[:, bands])


def _decibels(energy: np.ndarray, out: np.ndarray) -> np.ndarray:
    np.log10(energy, out=out)
    out *= 10.0
    return out


def _groups(matrix: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield groups of mel bands, the FFT bins they are sums of, and the weights: most of the matrix is zeros."""
    for first in range(0, matrix.shape[1], GROUP):
        bands = slice(first, min(first + GROUP, matrix.shape[1]))
        used = np.flatnonzero(matrix[:, bands].any(1))
        bins = slice(int(used.min(initial=len(matrix))), int(used.max(initial=-1)) + 1)
        yield bands, bins, np.ascontiguousarray(matrix[bins, bands])


def _reflected(blocks: Iterable[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """Yield blocks with `width` samples before and behind them that mirror the ends; nothing for an empty waveform."""
    held, begun = np.empty(0), False
    for block in blocks:
        held = np.concatenate([held, block]) if len(held) else np.asarray(block)
        if not begun and len(held) > width:
            yield held[width:0:-1]
            begun = True
        if begun and len(held) > width + 1:
            yield held[: -width - 1]
            held = held[-width - 1 :]
    if not begun and len(held):
        yield np.pad(held, width, "reflect" if len(held) > 1 else "edge")
    elif begun:
        yield np.concatenate([held, held[-2 : -width - 2 : -1]])


def held(blocks: Iterable[np.ndarray], dtype: str) -> Iterator[np.ndarray]:
    """Yield the blocks of a waveform that is to be stored as `dtype`; raise Overflow where that does not hold it."""
    largest = float(np.finfo(dtype).max)
    for block in blocks:
        peak = max(float(block.max()), -float(block.min())) if len(block) else 0.0
        if not peak <= largest:
            raise Overflow(
                f"samples as large as {peak:.2g}, {np.dtype(dtype).name} holds {largest:.2g}; scale them to between -1 "
                "and 1, or store float32"
            )
        yield block


def level_of(blocks: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return the mean of a waveform, and what divides it after that: its largest magnitude plus 0.005."""
    total, count, low, high = 0.0, 0, np.inf, -np.inf
    for block in blocks:
        if len(block):
            total, count = total + float(block.sum(dtype=np.float64)), count + len(block)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
    mean = total / max(count, 1)
    return mean, (max(high - mean, mean - low) if count else 0.0) + HEAD_ROOM


def levelled(blocks: Iterable[np.ndarray], level: tuple[float, float]) -> Iterator[np.ndarray]:
    """Yield blocks without their mean, divided; `level` as of `level_of`."""
    for block in blocks:
        yield (block - block.dtype.type(level[0])) / block.dtype.type(level[1])


def extended(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """Yield blocks, and zeros behind them where they are fewer than `samples`."""
    count = 0
    for block in blocks:
        count += len(block)
        yield block
    if count < samples:
        yield np.zeros(samples - count, np.float32)


def tiled(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """Yield blocks, and where they are fewer than `samples` themselves again behind them, until it is so many.

    >>> [block.tolist() for block in tiled([np.arange(2), np.arange(2, 3)], 7)]
    [[0, 1], [2], [0, 1], [2], [0]]
    """
    count = 0
    first: list[np.ndarray] = []
    for block in blocks:
        if count < samples:
            first.append(block.copy())
        count += len(block)
        yield block
    for block in itertools.cycle(first) if count else ():
        if count >= samples:
            return
        part = block[: samples - count]
        count += len(part)
        yield part


def cut(blocks: Iterable[np.ndarray], samples: int) -> Iterator[Iterator[np.ndarray]]:
    """Yield the pieces of `samples` that a waveform falls into, each as blocks; exhaust one before the next.

    >>> [[part.tolist() for part in piece] for piece in cut([np.arange(3), np.arange(3, 5)], 2)]
    [[[0, 1]], [[2], [3]], [[4]]]
    """
    waiting = iter(blocks)
    rest = next(waiting, None)

    def piece() -> Iterator[np.ndarray]:
        nonlocal rest
        left = samples
        while rest is not None and left:
            part, behind = rest[:left], rest[left:]
            left -= len(part)
            rest = behind if len(behind) else next(waiting, None)
            if len(part):
                yield part

    while rest is not None:
        yield piece()


def log_mel(waveform: np.ndarray, front_end: FrontEnd = PRESETS["vggish"], dtype: str = "float32") -> np.ndarray:
    """Return the log-mel frames of a whole waveform in [-1, 1].

    Shape: `[samples]` → `[frames, bands]`. Raises ValueError for anything but one channel.
    """
    if waveform.ndim != 1:
        raise ValueError(f"a waveform has one dimension, not shape {list(waveform.shape)}")
    blocks: Iterable[np.ndarray] = [np.asarray(waveform, dtype)]
    if front_end.level == LEVELLED:
        blocks = levelled(blocks, level_of(blocks))
    frames = list(LogMel(front_end, dtype)(blocks))
    return np.concatenate(frames) if frames else np.empty((0, front_end.bands), dtype)


def silence(floor: float, logarithm: str) -> float:
    """Return the log-mel value of no sound at all.

    >>> silence(0.01, "natural"), silence(1e-10, DECIBELS)
    (-4.605170185988091, -100.0)
    """
    return {"natural": math.log, "10": math.log10, DECIBELS: lambda energy: 10 * math.log10(energy)}[logarithm](floor)

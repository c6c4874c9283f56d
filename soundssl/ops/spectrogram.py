"""Waveform to log-mel frames, in numpy, block by block; or the waveform as it is, for separation.

The default front end is that of VGGish (Hershey et al. 2017; the same frames serve Jansen et al. 2018 and 2020): 25 ms
periodic Hann windows every 10 ms, magnitude of a 512-point FFT, 64 triangles that are linear in mel between 125 and
7,500 Hz, natural logarithm of the energy plus 0.01, no padding, no centring. No library's filter bank has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

BLOCK = 256  # frames computed at a time: their spectra (0.5 MB) stay in the second-level cache


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
    mel_scale: str = "1127 ln(1 + f/700), triangles linear in mel, peak 1"
    spectrum: str = "magnitude"
    logarithm: str = "natural"
    level: str = "as recorded"
    padding: str = "none"
    bands: int = 64
    fmin: float = 125.0  # Hz
    fmax: float = 7500.0  # Hz
    floor: float = 0.01  # added before the logarithm, as VGGish

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    def attributes(self) -> dict[str, object]:
        """Return all constants by name, as they stand in a features file."""
        return {**asdict(self), "frame_rate": self.frame_rate}


PRESETS = {"vggish": FrontEnd()}
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
)


def hertz_to_mel(frequency: np.ndarray) -> np.ndarray:
    """Return the HTK mel value of frequencies in Hz.

    >>> float(np.round(hertz_to_mel(np.array(1000.0)), 1))
    1000.0
    """
    return 1127.0 * np.log1p(np.asarray(frequency) / 700.0)


def mel_matrix(front_end: FrontEnd) -> np.ndarray:
    """Return the weights from FFT bins to mel bands; the bin of frequency zero has none.

    Shape: `[fft_length / 2 + 1, bands]`, float64.
    """
    bins = hertz_to_mel(np.arange(front_end.fft_length // 2 + 1) * front_end.sample_rate / front_end.fft_length)
    lowest, highest = hertz_to_mel(np.array([front_end.fmin, front_end.fmax]))
    edges = np.linspace(lowest, highest, front_end.bands + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - lower) / (centre - lower)
    falling = (upper - bins[:, None]) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights


def frame_count(samples: int, front_end: FrontEnd) -> int:
    """Return how many whole frames a waveform gives; an incomplete last one is dropped.

    >>> frame_count(160000, FrontEnd()), frame_count(15600, FrontEnd()), frame_count(399, FrontEnd())
    (998, 96, 0)
    """
    return max(0, 1 + (samples - front_end.window_length) // front_end.hop_length)


class LogMel:
    """Compute log-mel frames of a stream of waveform blocks; the same frames whatever the sizes of the blocks.

    `dtype` float32 agrees with float64 to better than 1e-4.
    """

    def __init__(self, front_end: FrontEnd, dtype: str = "float32") -> None:
        import scipy.fft  # in single precision three times as fast as numpy's

        n = np.arange(front_end.window_length)
        self.rfft = scipy.fft.rfft
        self.front_end, self.dtype = front_end, np.dtype(dtype)
        self.window = (0.5 - 0.5 * np.cos(2 * np.pi * n / front_end.window_length)).astype(dtype)
        self.matrix = mel_matrix(front_end).astype(dtype)
        self.floor = self.dtype.type(front_end.floor)

    def __call__(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield frames of mono blocks at the front end's rate. Shape: `[samples]` each → `[frames, bands]` each."""
        hop, window = self.front_end.hop_length, self.front_end.window_length
        step = BLOCK * hop
        waiting = np.empty(0, self.dtype)
        for block in blocks:
            waiting = np.concatenate([waiting, np.asarray(block, self.dtype)])
            first = 0
            while len(waiting) - first >= step - hop + window:
                yield self._frames(waiting[first : first + step - hop + window])
                first += step
            waiting = waiting[first:]
        if len(waiting) >= window:
            yield self._frames(waiting)

    def _frames(self, waveform: np.ndarray) -> np.ndarray:
        count = frame_count(len(waveform), self.front_end)
        stride = waveform.strides[0]
        frames = np.lib.stride_tricks.as_strided(
            waveform,
            (count, self.front_end.window_length),
            (stride * self.front_end.hop_length, stride),
            writeable=False,
        )
        mel = np.abs(self.rfft(frames * self.window, self.front_end.fft_length)) @ self.matrix
        mel += self.floor
        return np.log(mel, out=mel)


def log_mel(waveform: np.ndarray, front_end: FrontEnd = PRESETS["vggish"], dtype: str = "float32") -> np.ndarray:
    """Return the log-mel frames of a whole waveform in [-1, 1].

    Shape: `[samples]` → `[frames, bands]`. Raises ValueError for anything but one channel.
    """
    if waveform.ndim != 1:
        raise ValueError(f"a waveform has one dimension, not shape {list(waveform.shape)}")
    frames = list(LogMel(front_end, dtype)([waveform]))
    return np.concatenate(frames) if frames else np.empty((0, front_end.bands), dtype)

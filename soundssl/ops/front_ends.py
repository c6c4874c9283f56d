"""Front ends with other constants than a preset has, checked in words before any sound is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from soundssl import SoundsslError
from soundssl.ops.spectrogram import FrontEnd, hertz_to_mel, mel_matrix


class FrontEndError(SoundsslError):
    """A front end cannot be computed as it is asked for."""

    status = 2


def changed(
    front_end: FrontEnd,
    *,
    sample_rate: int | None = None,
    fmin: float | None = None,
    fmax: float | None = None,
    bands: int | None = None,
    window_length: float | None = None,
    frame_hop: float | None = None,
    window: float | None = None,
) -> FrontEnd:
    """Return a front end with what is given in place of what it has; what is not given stays as long in seconds.

    `sample_rate`, `fmin` and `fmax` in Hz, `window_length` (analysis) in milliseconds, `frame_hop` and `window` (what
    an encoder sees) in seconds. The FFT becomes the smallest power of two that holds a changed analysis window, the
    window as many frames as it had unless it is given. Raises FrontEndError.

    >>> changed(FrontEnd(), sample_rate=32000, fmax=15000.0).fft_length
    1024
    """
    rate = sample_rate or front_end.sample_rate
    if front_end.representation == "waveform":
        return _waveform(front_end, rate, window, fmin, fmax, bands, window_length, frame_hop)
    length = round(front_end.window_length * rate / front_end.sample_rate)
    if window_length is not None:
        length = round(window_length * rate / 1000)
    hop = round(front_end.hop_length * rate / front_end.sample_rate if frame_hop is None else frame_hop * rate)
    if length < 2:
        raise FrontEndError(f"an analysis window of {length} samples has no spectrum; give a longer --window-length")
    fft = front_end.fft_length if length == front_end.window_length else 1 << (length - 1).bit_length()
    made = replace(
        front_end,
        sample_rate=rate,
        window_length=length,
        hop_length=max(1, hop),
        fft_length=fft,
        bands=bands or front_end.bands,
        fmin=front_end.fmin if fmin is None else fmin,
        fmax=front_end.fmax if fmax is None else fmax,
    )
    if window is not None:
        made = replace(made, window_frames=round(window * made.frame_rate))
    if made != front_end:
        made = replace(made, preset=f"{front_end.preset}, changed")
    check(made)
    return made


def _waveform(front_end: FrontEnd, rate: int, window: float | None, *others: float | None) -> FrontEnd:
    """Return the front end of waveforms at another rate, with windows as long as they were unless given."""
    if any(other is not None for other in others):
        raise FrontEndError("a waveform has no bands and frames; only --sample-rate and --window change it")
    seconds = front_end.window_frames / front_end.sample_rate if window is None else window
    return replace(front_end, sample_rate=rate, fmax=rate / 2, window_frames=round(seconds * rate))


def check(front_end: FrontEnd) -> None:
    """Raise FrontEndError, with what to give instead, for constants that do not go together."""
    rate, low, high = front_end.sample_rate, front_end.fmin, front_end.fmax
    if high > rate / 2:
        raise FrontEndError(
            f"{rate:g} samples a second hold nothing above {rate / 2:g} Hz, the bands end at {high:g} Hz; give "
            f"--fmax {rate / 2:g} at most, or a higher --sample-rate"
        )
    if not 0 <= low < high:
        raise FrontEndError(f"the bands begin at {low:g} Hz and end at {high:g} Hz; give an --fmin below --fmax")
    if front_end.window_frames < 1:
        raise FrontEndError(f"a window has no frame of {1 / front_end.frame_rate:g} s; give a longer --window")
    if (most := _most_bands(front_end)) < front_end.bands:
        step = rate / front_end.fft_length
        raise FrontEndError(
            f"{front_end.bands} bands from {low:g} to {high:g} Hz are too many: some hold no bin of the FFT, one every "
            f"{step:.4g} Hz; give --bands {most} at most, or a longer --window-length"
        )


def _most_bands(front_end: FrontEnd) -> int:
    """Return the most bands, up to those it has, of which each has weight in some bin of the FFT."""
    for bands in range(front_end.bands, 0, -1):
        tried = replace(front_end, bands=bands)
        if _spacing(tried) > 0 and mel_matrix(tried).any(0).all():
            return bands
    return 0


def _spacing(front_end: FrontEnd) -> float:
    low, high = hertz_to_mel(np.array([front_end.fmin, front_end.fmax]), front_end.mel_scale)
    return float(high - low) / (front_end.bands + 1)

"""Range: how much of a collection's sound lies above the highest band, in a sample of its files at their own rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from soundssl import media
from soundssl.datasets import Clip
from soundssl.extraction import pool
from soundssl.media import encoding
from soundssl.ops.spectrogram import FrontEnd

FILES = 24  # looked at, evenly spaced
SECONDS = 10.0  # of each
MUCH = 0.1  # share of a file's energy above the bands from which it is said
TIMEOUT = 60.0  # seconds that one may take
FRAME = 4096  # samples of a spectrum


def beyond(clips: Sequence[Clip], front_end: FrontEnd) -> str:
    """Return one line where some files have much of their energy above the bands; empty where none has, or can have.

    Energy is counted from the lowest band on, so that wind and rumble do not count. What cannot be decoded is left out.
    """
    chosen = [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, min(FILES, len(clips))).astype(int))]
    above, whole, much, heard = 0.0, 0.0, 0, 0
    for _, energy in pool.run(partial(_prepare, front_end), chosen, 1, TIMEOUT):
        if isinstance(energy, tuple):  # else it is named where it is decoded
            heard += 1
            much += energy[0] >= MUCH * energy[1] > 0
            above, whole = above + energy[0], whole + energy[1]
    if not much:
        return ""
    return (
        f"{above / whole:.0%} of the energy of {heard} files looked at is above {front_end.fmax / 1000:g} kHz, where "
        f"the bands end; {much} of them have more than {MUCH:.0%} there; --fmax and --sample-rate reach higher"
    )


def _prepare(front_end: FrontEnd, number: int) -> Callable[[Clip], tuple[float, float] | None]:
    """Return what listens to a clip: in a process of its own, as every codec that may crash."""
    return partial(_listen, front_end)


def _listen(front_end: FrontEnd, clip: Clip) -> tuple[float, float] | None:
    try:
        return _energy(clip.path, clip.start, clip.end, front_end)
    except (media.DecodeError, OSError):
        return None


def _energy(path: Path, start: float, end: float | None, front_end: FrontEnd) -> tuple[float, float]:
    """Return the energy above the bands, and that from the lowest band on."""
    until = start + SECONDS if end is None else min(end, start + SECONDS)
    rate = encoding.sound_rate(path)
    if rate / 2 <= front_end.fmax:
        return 0.0, 0.0
    blocks = media.read_audio(path, rate, start, until, keep_truncated=True, keep_damaged=True)
    sound = np.concatenate([np.zeros(0, np.float32), *blocks])
    sound = np.pad(sound, (0, -len(sound) % FRAME)).reshape(-1, FRAME)
    energy = (np.abs(np.fft.rfft(sound * np.hanning(FRAME))) ** 2).sum(0)
    hertz = np.arange(len(energy)) * rate / FRAME
    return float(energy[hertz > front_end.fmax].sum()), float(energy[hertz >= front_end.fmin].sum())

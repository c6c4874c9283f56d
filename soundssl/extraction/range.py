"""Range: how much of a collection's sound lies above the highest band, in a sample of its files at their own rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from soundssl import files, media
from soundssl.datasets import Clip
from soundssl.media import encoding
from soundssl.ops.spectrogram import FrontEnd

FILES = 8  # looked at, evenly spaced, where they are decoded
SECONDS = 2.0  # of each
MUCH = 0.1  # share of a file's energy above the bands from which it is said
FRAME = 4096  # samples of a spectrum


def sample(clips: Mapping[str, Clip], front_end: FrontEnd) -> frozenset[str]:
    """Return the keys of the files to look at, evenly spaced; none where frames are no bands."""
    keys = list(clips)
    if front_end.representation != "logmel":
        return frozenset()
    return frozenset(files.text(keys[i]) for i in np.linspace(0, len(keys) - 1, min(FILES, len(keys))).astype(int))


def beyond(looked_at: Iterable[tuple[float, float]], front_end: FrontEnd) -> str:
    """Return one line where some files have much of their energy above the bands; empty where none has, or can have.

    Energy, as `energy` has it, is counted from the lowest band on, so that wind and rumble do not count.
    """
    found = list(looked_at)
    much = sum(above >= MUCH * whole > 0 for above, whole in found)
    if not much:
        return ""
    share = sum(above for above, _ in found) / sum(whole for _, whole in found)
    return (
        f"{share:.0%} of the energy of {len(found)} files looked at is above {front_end.fmax / 1000:g} kHz, where "
        f"the bands end; {much} of them have more than {MUCH:.0%} there; --fmax and --sample-rate reach higher"
    )


def energy(path: Path, start: float, end: float | None, front_end: FrontEnd) -> tuple[float, float] | None:
    """Return the energy above the bands, and that from the lowest band on; None of what cannot be decoded."""
    until = start + SECONDS if end is None else min(end, start + SECONDS)
    try:
        rate = encoding.sound_rate(path)
        if rate / 2 <= front_end.fmax:
            return 0.0, 0.0
        blocks = media.read_audio(path, rate, start, until, keep_truncated=True, keep_damaged=True)
        sound = np.concatenate([np.zeros(0, np.float32), *blocks])
    except (media.DecodeError, OSError):  # it is named where it is decoded
        return None
    sound = np.pad(sound, (0, -len(sound) % FRAME)).reshape(-1, FRAME)
    power = (np.abs(np.fft.rfft(sound * np.hanning(FRAME).astype(np.float32))) ** 2).sum(0, dtype=np.float64)
    hertz = np.arange(len(power)) * rate / FRAME
    return float(power[hertz > front_end.fmax].sum()), float(power[hertz >= front_end.fmin].sum())

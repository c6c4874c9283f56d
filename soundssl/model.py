"""A trained model as an object: a waveform in, embeddings, probabilities or tracks out.

A waveform becomes windows exactly as `soundssl featurize` makes them for this model: channels averaged, resampled,
log-mel frames of the model's own front end, in the number type that features are stored in. A bare loop over one
array is all that is needed; whole files and collections are the business of `soundssl embed` and `soundssl separate`.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from soundssl import SoundsslError, files, media, models, objectives
from soundssl import device as hardware
from soundssl.device import Accelerator
from soundssl.ops import separation
from soundssl.ops.spectrogram import PRESETS, WAVEFORM, FrontEnd, log_mel

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BATCH = 256  # windows that run through the net at a time
LEAST_NORM = 1e-12  # added to the length of a vector before it divides it
MOST_CHANNELS = 256  # more are samples: the array lies the other way round
STORED = np.float16  # number type of frames in features files
SEGMENT, OVERLAP = 10.0, 2.0  # seconds separated at a time, and by which they overlap, as `soundssl separate` has it


def load_model(path: str | os.PathLike, device: str = "auto", precision: str = "auto") -> Model:
    """Load a model file that `soundssl train` wrote.

    `device` is auto, cpu, cuda or cuda:N; `precision` auto, float32 or bfloat16. Raises Missing or FormatError for a
    file that is no model, ValueError for another device or precision.
    """
    return Model(files.read_model(path), hardware.choose(device, precision))


@contextlib.contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Raise FormatError where a net cannot be restored because what the file says of it and its weights do not fit."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
        said = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        raise files.FormatError(
            f"{files.text(path)} is damaged: its weights do not fit what it says of them: {said}; train it again"
        ) from error


@dataclass(frozen=True)
class Output:
    """Turn windows into the vectors of one layer of a model; `classes` are named where it speaks of any."""

    network: nn.Module
    width: int
    classes: list[str]
    unit_length: bool
    accelerator: Accelerator

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Return vectors, float32. Shape: `[n, frames, bands]` to `[n, width]`.

        Raises SoundsslError where one, or its length, is not finite.
        """
        vectors = self.accelerator.run(self.network, windows)
        with np.errstate(over="ignore"):
            length = (vectors**2).sum(1, keepdims=True) ** 0.5
        if not np.isfinite(length).all():
            said = (
                "windows hold numbers that are not" if not np.isfinite(windows).all() else "what the net gives is not"
            )
            raise SoundsslError(f"{said} finite; soundssl info --verify says whether model or features are damaged")
        return vectors / (length + LEAST_NORM) if self.unit_length else vectors


class Model:
    """Hold a trained encoder or separator with all that it takes to use it.

    A waveform is an array `[samples]`, or `[samples, channels]` as soundfile gives it, whose channels are averaged:
    floats between -1 and 1, or integers of 8, 16 or 32 bits, which are divided by their range. `rate` is in Hz.
    Methods raise ValueError for any other waveform, for samples that are not finite, and for a rate that is none.
    """

    def __init__(self, stored: files.Model, accelerator: Accelerator) -> None:
        self.path, self.config, self.attributes = stored.path, stored.config, stored.attributes
        self.accelerator = accelerator
        self._tensors, self._outputs = stored.tensors, {}  # type: tuple[dict[str, np.ndarray], dict[tuple[str, bool], Output]]

    def __repr__(self) -> str:
        return f"<Model {self.config['encoder']} of {files.text(self.path)}, {self.accelerator.reason}>"

    @cached_property
    def front_end(self) -> FrontEnd:
        """How a waveform becomes frames."""
        named, length = {each.name for each in fields(FrontEnd)}, self.config["frames"]
        with fitting(self.path):
            given = {name: value for name, value in self.config["front_end"].items() if name in named}
        front_end = FrontEnd(preset="", window_frames=length, **given)
        known = (*PRESETS.values(), WAVEFORM)  # a model file does not say how far apart windows usually are
        alike = (each for each in known if replace(each, preset="", window_hop=0) == front_end)
        return next(alike, front_end)

    @property
    def rate(self) -> int:
        """Samples a second of the sound that the model hears, and of the tracks that it gives."""
        return self.front_end.sample_rate

    @property
    def window(self) -> float:
        """Length of a window in seconds."""
        return self.config["frames"] * self.front_end.hop_length / self.rate

    @property
    def classes(self) -> list[str]:
        """The classes that the model was trained to tell apart, none where it has no classifier."""
        return list(self.config.get("heads", {}).get("classification", {}).get("classes", []))

    @property
    def separates(self) -> bool:
        """Whether the model is a separator."""
        return self.config["encoder"] in models.SEPARATORS

    def output(self, layer: str = "embedding", raw: bool = False) -> Output:
        """Return what turns windows into vectors of a layer: `embedding`, or one of `objectives.LAYERS`.

        Embeddings that objectives compare by their angle have length one, unless `raw`: then all are what the net
        gives. Raises ValueError for an unknown layer, for a head that the model has not, and for a separator.
        """
        name = (layer, raw)
        if name not in self._outputs:
            encoder, size = self._network, self.config["size"]
            if layer == "embedding":
                scaled = self.config.get("unit_length", False) and not raw
                found = Output(encoder, size, [], scaled, self.accelerator)
            else:
                with fitting(self.path):
                    head, width, classes = objectives.restore(layer, self.config, self._tensors)
                network = nn.Sequential(encoder, self.accelerator.place(head)).eval()
                found = Output(network, width, classes, False, self.accelerator)
            self._outputs[name] = found
        return self._outputs[name]

    @cached_property
    def _network(self) -> nn.Module:
        with fitting(self.path):
            return self.accelerator.place(models.restore(self.config, self._tensors)).eval()

    @cached_property
    def _separator(self) -> Any:
        with fitting(self.path):
            return self.accelerator.place(models.restore_separator(self.config, self._tensors)).eval()

    def embed(
        self, waveform: ArrayLike, rate: float, hop: float | None = None, layer: str = "embedding", raw: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the embedding of each window of a waveform and the second at which it starts.

        Windows start every `hop` seconds, by default as the front end has it, most one after the other; an incomplete
        last one is dropped, so that a waveform shorter than a window has none. `raw` leaves embeddings at the length
        that the net gives them. Shape: `[windows, size]` float32 and `[windows]`.
        """
        output = self.output(layer, raw)
        windows, start = self._windows(waveform, rate, hop)
        vectors = [output(np.array(windows[i : i + BATCH])) for i in range(0, len(windows), BATCH)]
        return np.concatenate([np.empty((0, output.width), np.float32), *vectors]), start

    def probabilities(
        self, waveform: ArrayLike, rate: float, hop: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how probable each of `classes` is in each window, and the second at which it starts.

        Windows are those of `embed`. Shape: `[windows, classes]` float32 and `[windows]`. Raises ValueError where the
        model has no classifier.
        """
        return self.embed(waveform, rate, hop, "probabilities")

    def separate(
        self, waveform: ArrayLike, rate: float, length: float = SEGMENT, overlap: float = OVERLAP
    ) -> np.ndarray:
        """Return the tracks of a waveform, which sum to it, at the rate `self.rate` of the model.

        It is separated in segments of `length` seconds that overlap by `overlap`, so that it may be of any length.
        Shape: `[tracks, samples]` float32. Raises ValueError for an encoder, and where segments cannot overlap so.
        """
        network = self._separator
        samples, lap = (max(1, round(_positive(each, "seconds") * self.rate)) for each in (length, overlap))
        mixture = self._resampled(waveform, rate)
        pieces = separation.overlap_add(
            [mixture], lambda segment: self.accelerator.run(network, segment[None])[0], samples, lap
        )
        tracks = [piece for _, piece in pieces]
        return np.concatenate([np.empty((network.tracks, 0), np.float32), *tracks], axis=1)

    def _windows(self, waveform: ArrayLike, rate: float, hop: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of a waveform, a view, and their starts. Shape: [windows, frames, bands], [windows]."""
        length, front_end = self.config["frames"], self.front_end
        usual = front_end.window_hop or length
        step = usual if hop is None else max(1, round(_positive(hop, "hop") * front_end.frame_rate))
        frames = log_mel(self._resampled(waveform, rate), front_end).astype(STORED)
        if len(frames) < length:
            return np.empty((0, length, front_end.bands), STORED), np.empty(0)
        windows = np.lib.stride_tricks.sliding_window_view(frames, length, axis=0)[::step].transpose(0, 2, 1)
        return windows, np.arange(len(windows)) * step * front_end.hop_length / front_end.sample_rate

    def _resampled(self, waveform: ArrayLike, rate: float) -> np.ndarray:
        """Return a waveform as the model hears it: one channel at its own rate. Shape: [samples] float32."""
        rate, heard = _positive(rate, "rate"), _one_channel(waveform)
        if not len(heard):
            return heard
        return np.concatenate(list(media.resample([heard], rate, self.rate)))


def _one_channel(waveform: ArrayLike) -> np.ndarray:
    """Return the average of the channels of a waveform as float32; raise ValueError for what is none."""
    sound = np.asarray(waveform)
    if sound.ndim not in (1, 2) or (sound.ndim == 2 and not 1 <= sound.shape[1] <= MOST_CHANNELS):
        turn = "; turn it with .T" if sound.ndim == 2 and sound.shape[1] > MOST_CHANNELS else ""
        raise ValueError(
            f"the waveform has shape {list(sound.shape)}; [samples] or [samples, channels] is needed{turn}"
        )
    if sound.dtype.kind in "iu" and sound.dtype.itemsize <= 4:
        middle = 2.0 ** (8 * sound.dtype.itemsize - 1)  # what silence is where there is no sign, as in WAV of 8 bits
        sound = ((sound - middle * (sound.dtype.kind == "u")) / middle).astype(np.float32)
    elif sound.dtype.kind != "f" and sound.size:
        raise ValueError(
            f"the waveform holds {sound.dtype}; floats between -1 and 1 or integers of 8 to 32 bits are needed"
        )
    sound = sound.astype(np.float32, copy=False)
    if not np.isfinite(sound).all():
        raise ValueError("the waveform holds samples that are not finite; leave them out, or put zeros in their place")
    if sound.ndim == 1:
        return np.ascontiguousarray(sound)
    channels = sound.shape[1]
    return np.ascontiguousarray(sound @ np.full(channels, 1 / channels, np.float32) if channels > 1 else sound[:, 0])


def _positive(value: float, name: str) -> float:
    """Return a number that is positive and finite; raise ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} is {value!r}; a positive number is needed")
    return float(value)

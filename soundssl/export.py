"""Models for other programs: ONNX, or a program of torch.export; windows in, or the waveform of a window.

With the spectrogram inside the graph a window is a piece of waveform at the model's rate; its log-mel frames are two
convolutions, with the real and the imaginary part of the windowed Fourier transform, and a product with the mel bands.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from soundssl import SoundsslError, files
from soundssl.dependencies import needed
from soundssl.model import LEAST_NORM, Model
from soundssl.ops.spectrogram import AS_RECORDED, DECIBELS, WINDOWS, FrontEnd, mel_matrix

Input = Literal["windows", "waveform"]
FORMATS = {".onnx": "ONNX", ".pt2": "torch.export"}
OPSET = 18  # of ONNX


class Exported(NamedTuple):
    """Say what a program takes and gives. Shapes without the batch, which is free."""

    shape: tuple[int, ...]
    width: int


class LogMelLayer(nn.Module):
    """Compute the log-mel frames of a window of waveform, which has as many samples as they need and no border.

    Shape: [batch, samples] to [batch, frames, bands]. Raises SoundsslError where they depend on the whole recording.
    """

    kernels: Tensor
    mel: Tensor

    def __init__(self, front_end: FrontEnd, frames: int) -> None:
        super().__init__()
        if front_end.level != AS_RECORDED:
            raise SoundsslError("the front end levels whole recordings, a window knows nothing of them; export windows")
        self.front_end, length = front_end, front_end.window_length
        self.samples = (frames - 1) * front_end.hop_length + length
        a, b = WINDOWS[front_end.window_function]
        n = np.arange(length)
        window = a - b * np.cos(2 * np.pi * n / length)
        angle = 2 * np.pi * np.arange(front_end.fft_length // 2 + 1)[:, None] * n / front_end.fft_length
        kernels = np.concatenate([np.cos(angle) * window, -np.sin(angle) * window])[:, None]
        self.register_buffer("kernels", torch.from_numpy(kernels.astype(np.float32)))
        self.register_buffer("mel", torch.from_numpy(mel_matrix(front_end).astype(np.float32)))

    def forward(self, waveform: Tensor) -> Tensor:
        """Return log-mel frames."""
        front_end = self.front_end
        parts = nn.functional.conv1d(waveform[:, None], self.kernels, stride=front_end.hop_length)
        real, imaginary = parts.chunk(2, 1)
        energy = real.square() + imaginary.square()
        if front_end.spectrum == "magnitude":
            energy = energy.sqrt()
        mel = energy.transpose(1, 2) @ self.mel
        if front_end.logarithm == DECIBELS:
            return mel.clamp(min=front_end.floor).log10() * 10.0
        logarithm = torch.log10 if front_end.logarithm == "10" else torch.log
        return logarithm(mel + front_end.floor)


class Program(nn.Module):
    """Map windows, or their waveforms, to vectors of a layer, of length one where the model's are."""

    def __init__(self, model: Model, layer: str, given: Input) -> None:
        super().__init__()
        output = model.output(layer)
        frames = int(model.config["frames"])
        self.spectrogram = LogMelLayer(model.front_end, frames) if given == "waveform" else None
        self.network, self.unit_length, self.width = output.network, output.unit_length, output.width
        shape = (frames, model.front_end.bands)
        self.shape: tuple[int, ...] = shape if self.spectrogram is None else (self.spectrogram.samples,)

    def forward(self, given: Tensor) -> Tensor:
        """Return vectors. Shape: [batch, *shape] to [batch, width]."""
        vectors = self.network(given if self.spectrogram is None else self.spectrogram(given))
        if self.unit_length:
            vectors = vectors / (vectors.square().sum(1, keepdim=True).sqrt() + LEAST_NORM)
        return vectors


def export(model: Model, path: str | os.PathLike, *, layer: str = "embedding", given: Input = "windows") -> Exported:
    """Write a layer of a model as ONNX (.onnx, extra export) or for torch.export.load (.pt2); the batch is free.

    `model` computes in float32 on the CPU. Raises ValueError for another ending, a separator, or a layer that the model
    has not, DependencyError where an extra is lacking, and SoundsslError where a net cannot be exported.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{files.text(path)} ends in none of {', '.join(FORMATS)}; the ending says the format")
    if model.separates:
        raise ValueError(f"{files.text(model.path)} is a separator; encoders are exported")
    program = Program(model, layer, given).eval()
    example = torch.zeros(2, *program.shape)
    batch: Any = {0: torch.export.Dim("batch", min=1)}
    name = "waveform" if given == "waveform" else "windows"
    try:
        with torch.no_grad():
            made = torch.export.export(program, (example,), dynamic_shapes=(batch,))
    except Exception as error:  # whatever a net does that no graph can hold
        fact = str(error).strip().partition("\n")[0]
        raise SoundsslError(f"the net {model.config['encoder']} cannot be exported: {fact}") from error
    if path.suffix == ".pt2":
        with files.replace(path) as partial, open(partial, "wb") as file:
            torch.export.save(made, file)
        return Exported(program.shape, program.width)
    with needed("ONNX", "onnxscript", "pip install 'soundssl[export]'", ("onnx",)):
        import onnx
        import onnxscript  # noqa: F401 (torch.onnx imports it)

    with torch.no_grad():
        graph = torch.onnx.export(
            made, (example,), input_names=[name], output_names=[layer], opset_version=OPSET, dynamo=True, verbose=False
        )
    assert graph is not None
    with files.replace(path) as partial:
        onnx.save(graph.model_proto, os.fspath(partial))
    return Exported(program.shape, program.width)

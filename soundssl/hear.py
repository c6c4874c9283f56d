"""The common API of HEAR 2021 over any model file, and features of any module that offers this API.

Turian et al. 2022, "HEAR: Holistic Evaluation of Audio Representations": `load_model`, `get_timestamp_embeddings` and
`get_scene_embeddings`. Sound is tensors `[sounds, samples]` at `model.sample_rate`; timestamps are milliseconds, here
at the centres of windows. A sound goes on as silence before its begin and behind its end.

    model = soundssl.hear.load_model("model.safetensors")
    embeddings, timestamps = soundssl.hear.get_timestamp_embeddings(audio, model)
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from soundssl import SoundsslError, files, media
from soundssl.files.features import Windows
from soundssl.model import BATCH, LEAST_NORM, STORED, Model
from soundssl.model import load_model as load
from soundssl.ops.spectrogram import log_mel
from soundssl.progress import SILENT, Progress

HOP = 0.05  # seconds between timestamps: the coarsest that HEAR takes for its tasks of events
PREFIX = "hear:"  # what the name of a module begins with where a model is named


class HearModel(nn.Module):
    """Hold a model as HEAR wants it: a torch module that says its rate and sizes."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.front_end, self.length = model.front_end, int(model.config["frames"])
        output = model.output()
        self.network, self.unit_length = output.network, output.unit_length
        self.sample_rate = int(self.front_end.sample_rate)
        self.scene_embedding_size = self.timestamp_embedding_size = int(output.width)

    def forward(self, windows: Tensor) -> Tensor:
        """Embed windows. Shape: [n, frames, bands] to [n, size]."""
        vectors = self.network(windows.float()).float()
        if self.unit_length:
            vectors = vectors / (vectors.norm(dim=1, keepdim=True) + LEAST_NORM)
        return vectors


def load_model(model_file_path: str | os.PathLike = "") -> HearModel:
    """Load a model file that `soundssl train` wrote, on the CPU; move it with `.to`.

    Raises Missing or FormatError for a file that is none, SoundsslError for a separator.
    """
    model = load(model_file_path, device="cpu", precision="float32")
    if model.separates:
        raise SoundsslError(f"{files.text(model.path)} is a separator, which embeds nothing; give an encoder")
    return HearModel(model).eval()


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Return an embedding every 50 ms, of the window about that moment, and these moments in milliseconds.

    Shape: [sounds, samples] to [sounds, moments, size] and [sounds, moments], float32.
    """
    return _embedded(audio, model, HOP)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Return the mean embedding of windows half their length apart. Shape: [sounds, samples] to [sounds, size]."""
    seconds = model.length * model.front_end.hop_length / model.sample_rate
    return _embedded(audio, model, seconds / 2)[0].mean(1)


@torch.no_grad()
def _embedded(audio: Tensor, model: HearModel, hop: float) -> tuple[Tensor, Tensor]:
    if audio.ndim != 2:
        raise ValueError(f"sound has shape {list(audio.shape)}; [sounds, samples] is needed")
    front_end, length = model.front_end, model.length
    where = next((each.device for each in model.parameters()), audio.device)
    step = max(1, round(hop * front_end.frame_rate))  # frames
    half = (length * front_end.hop_length) // 2
    count = audio.shape[1] // (step * front_end.hop_length) + 1
    samples = front_end.samples((count - 1) * step + length)
    found = []
    for sound in audio.detach().cpu().float().numpy():
        padded = np.zeros(max(samples, half + len(sound)), np.float32)
        padded[half : half + len(sound)] = sound
        frames = log_mel(padded, front_end).astype(STORED)
        windows = np.lib.stride_tricks.sliding_window_view(frames, length, axis=0)[::step][:count].transpose(0, 2, 1)
        parts = [torch.from_numpy(np.array(windows[first : first + BATCH])) for first in range(0, count, BATCH)]
        found.append(torch.cat([model(part.to(where)) for part in parts]))
    moments = torch.arange(count, device=where) * (step * front_end.hop_length * 1000 / model.sample_rate)
    size = model.timestamp_embedding_size
    made = torch.stack(found) if found else torch.empty(0, count, size, device=where)
    return made, moments.float().expand(len(audio), count).clone()


class Embedded(NamedTuple):
    """Say how many vectors were written, of how many clips, and how far apart they are."""

    vectors: int
    clips: int
    hop: float


def module_of(name: str) -> Any:
    """Return an installed module of the common API by `hear:NAME`; raise SoundsslError where it is none."""
    own = name.removeprefix(PREFIX)
    try:
        module = importlib.import_module(own)
    except (ImportError, ValueError) as error:
        raise SoundsslError(f"no module {own!r} can be imported ({error}); install it, or name another") from error
    lacking = [each for each in ("load_model", "get_timestamp_embeddings") if not hasattr(module, each)]
    if lacking:
        raise SoundsslError(f"{own} has no {' and no '.join(lacking)}; it is no module of the common API of HEAR")
    return module


def embed(
    name: str,
    source: files.Features,
    output: str | os.PathLike,
    *,
    weights: str | os.PathLike | None = None,
    clips: np.ndarray | None = None,
    progress: Progress = SILENT,
    command: str | None = None,
) -> Embedded:
    """Write the timestamp embeddings that a module `hear:NAME` makes of the waveforms of a features file.

    A vector stands for the time about its moment, from half way to the one before to half way to the next. All vectors
    are held in memory until they are written. Raises SoundsslError for a module that is none, and FormatError for
    features that are no waveforms.
    """
    source.require("waveform", "a module of HEAR takes")
    module = module_of(name)
    model = module.load_model(os.fspath(weights)) if weights else module.load_model()
    chosen = np.flatnonzero(np.ones(len(source.clips), bool) if clips is None else clips)
    found: list[tuple[np.ndarray, Windows]] = []
    with progress.track("embed", len(chosen), "clips") as advance:
        for clip in chosen:
            found.append(_of_clip(module, model, source, int(clip)))
            advance(1)
    count = sum(len(vectors) for vectors, _ in found)
    if not count:
        raise files.FormatError(f"{files.text(source.path)} has no clip that {name} makes anything of")
    steps = np.concatenate([np.diff(windows.start) for _, windows in found])
    hop = float(np.median(steps)) if len(steps) else 1.0
    inputs = [files.identity("features", source.path, source.attributes)]
    made_from = files.digest("embeddings", inputs, name, str(weights), np.asarray(chosen).tolist())
    about = {"layer": "embedding", "hop": hop, "window": hop, "class": "[]", "model": name}
    about["features"] = source.attributes["uuid"]
    with files.create(
        output, "embeddings", inputs=inputs, made_from=made_from, attributes=about, command=command
    ) as sink:
        files.write_embeddings(sink, iter(found), count, found[0][0].shape[1], "f4", source.clips, None)
    return Embedded(count, len(found), hop)


def _of_clip(module: Any, model: Any, source: files.Features, clip: int) -> tuple[np.ndarray, Windows]:
    """Return the vectors of a clip, its row, and the seconds at which the time of each begins."""
    sound = np.concatenate([np.asarray(block, np.float32).ravel() for block in source.blocks(clip)])
    rate = float(source.attributes["sample_rate"])
    heard = np.concatenate(list(_resampled(sound, rate, float(model.sample_rate))))
    vectors, moments = module.get_timestamp_embeddings(torch.from_numpy(heard)[None], model)
    vectors, seconds = vectors[0].detach().float().cpu().numpy(), moments[0].detach().float().cpu().numpy() / 1000
    half = float(np.median(np.diff(seconds))) / 2 if len(seconds) > 1 else 0.0
    start = np.maximum(seconds.astype(np.float64) - half, 0.0)
    return vectors, Windows(vectors, np.full(len(vectors), clip), start)


def _resampled(sound: np.ndarray, rate: float, wanted: float) -> Iterator[np.ndarray]:
    yield from [sound] if rate == wanted else media.resample([sound], rate, wanted)

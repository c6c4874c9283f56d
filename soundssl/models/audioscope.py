"""AudioScope's on-screen classifier: which of the tracks of a separator belong to what is seen.

Tzinis et al. 2021 ("Into the wild with AudioScope: unsupervised audio-visual separation of on-screen sounds"), section
3. Each track is embedded from its log-mel frames, each picture as a vector a place and a vector of the whole. A track
looks at the places of all pictures at once, by the softmax of the products of its query with their keys; a classifier
on what it sees, on all pictures and on the track itself says whether it is on screen. The separator is a net of its
own. Ours: the norms, and the product of what is seen with the query, without which sound and picture are compared by
the hidden layer alone and hundreds of steps teach nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from soundssl import models
from soundssl.models.encoder import Encoder
from soundssl.models.image import Tower
from soundssl.models.tensors import below
from soundssl.ops.spectrogram import WINDOWS, FrontEnd, mel_matrix

PROBE = 64  # pixels of a side of the picture that tells how many channels the map of a tower has
PIECE = 256  # windows of tracks that are heard at a time


@dataclass(frozen=True)
class Sizes:
    """Say which nets hear and see, and how wide the rest is; all of it is stored with a model."""

    audio: str = "space-to-depth"  # an encoder
    image: str = "space-to-depth"  # an image tower
    size: int = 128  # numbers in the vector of a track and of a picture
    audio_norm: str = "batch"
    image_norm: str = "batch"
    audio_net: dict[str, Any] = field(default_factory=dict)  # further options of the encoder
    attention: int = 64  # numbers in a query, a key and what is seen
    hidden: int = 128  # units of the classifier
    frames: int = 96  # log-mel frames that the encoder hears at once
    front_end: dict[str, Any] = field(default_factory=dict)  # what differs from the front end of VGGish


def restore(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> AudioScope | None:
    """Return the on-screen classifier of a model file, None where it has none."""
    facts = config.get("heads", {}).get("onscreen")
    if facts is None:
        return None
    scope = AudioScope(Sizes(**{name: facts[name] for name in Sizes.__dataclass_fields__}))
    scope.load_state_dict(below(tensors, "head.onscreen.scope."))
    return scope


class AudioScope(nn.Module):
    """Tell of each track how far it is on screen, as a logit, and where it looks."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        known = {name: value for name, value in sizes.front_end.items() if name in FrontEnd.__dataclass_fields__}
        front_end = FrontEnd(**known)
        self.frames, self.log_mel = sizes.frames, LogMel(front_end)
        self.audio: Encoder = models.build(
            sizes.audio, sizes.size, front_end.bands, sizes.frames, norm=sizes.audio_norm, **sizes.audio_net
        )
        self.image: Tower = models.build_image(sizes.image, sizes.size, norm=sizes.image_norm)
        with torch.no_grad():
            channels = self.image.eval().local(torch.zeros(1, PROBE, PROBE, 3, dtype=torch.uint8))[0].shape[1]
        self.image.train()
        self.query = nn.Linear(sizes.size, sizes.attention)
        self.key, self.value = nn.Linear(channels, sizes.attention), nn.Linear(channels, sizes.attention)
        self.classifier = nn.Sequential(
            nn.Linear(2 * sizes.attention + 2 * sizes.size, sizes.hidden), nn.ReLU(), nn.Linear(sizes.hidden, 1)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(n) for n in (sizes.size, channels, sizes.size))

    def forward(self, tracks: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit of each track and its attention, which sums to 1 over pictures and places.

        Shape: tracks [batch, tracks, samples], images uint8 [batch, pictures, height, width, 3] to [batch, tracks] and
        [batch, tracks, pictures, h, w].
        """
        if tracks.ndim != 3 or images.ndim != 5 or len(tracks) != len(images) or not images.shape[1]:
            raise ValueError(
                f"tracks {list(tracks.shape)}, images {list(images.shape)}: [batch, tracks, samples] and [batch, "
                "pictures, height, width, 3] are needed"
            )
        heard = self.hear(tracks)
        places, whole = self.image.local(images.flatten(0, 1))
        h, w = places.shape[2:]
        places = places.flatten(2).transpose(1, 2).float().unflatten(0, images.shape[:2]).flatten(1, 2)
        whole = whole.float().unflatten(0, images.shape[:2]).mean(1)
        with torch.autocast(tracks.device.type, enabled=False):
            heard, places, whole = (norm(each) for norm, each in zip(self.norms, (heard, places, whole), strict=True))
            query = self.query(heard)
            attention = (query @ self.key(places).mT / query.shape[2] ** 0.5).softmax(2)
            seen = attention @ self.value(places)
            context = whole[:, None].expand(-1, tracks.shape[1], -1)
            logits = self.classifier(torch.cat([seen, context, heard, seen * query], 2))[:, :, 0]
        return logits, attention.unflatten(2, (-1, h, w))

    def hear(self, tracks: Tensor) -> Tensor:
        """Return the mean of the embeddings of the windows of each track. Shape: [..., samples] to [..., size]."""
        windows = self.windows(tracks.flatten(0, -2))
        vectors = [self.audio(piece).float() for piece in windows.flatten(0, 1).split(PIECE)]
        return torch.cat(vectors).unflatten(0, windows.shape[:2]).mean(1).unflatten(0, tracks.shape[:-1])

    def windows(self, waveforms: Tensor) -> Tensor:
        """Return the windows of waveforms, end to end, the last one filled up with silence where it is half a window.

        Shape: [n, samples] to [n, windows, frames, bands].
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            frames = self.log_mel(waveforms.float())
        count = max(1, round(frames.shape[1] / self.frames))
        lack = count * self.frames - frames.shape[1]
        if lack > 0:
            silence = self.log_mel.silence.expand(len(frames), lack, frames.shape[2])
            frames = torch.cat([frames, silence], 1)
        return frames[:, : count * self.frames].unflatten(1, (count, self.frames))


class LogMel(nn.Module):
    """Compute log-mel frames through which gradients flow back to the waveform; else as `ops.spectrogram.LogMel`."""

    window: Tensor
    mel: Tensor
    silence: Tensor

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        if front_end.logarithm != "natural" or front_end.padding != "none":
            raise ValueError(f"tracks are heard by front ends as that of vggish, not by {front_end.preset}")
        self.front_end = front_end
        n, (a, b) = torch.arange(front_end.window_length), WINDOWS[front_end.window_function]
        hann = a - b * torch.cos(2 * torch.pi * n / front_end.window_length)
        self.register_buffer("window", hann, persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel_matrix(front_end)).float(), persistent=False)
        self.register_buffer("silence", torch.tensor(front_end.floor).log(), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Compute. Shape: [n, samples] to [n, frames, bands]; a waveform shorter than a frame is one, with silence."""
        lack = self.front_end.window_length - waveforms.shape[1]
        padded = nn.functional.pad(waveforms, (0, max(0, lack)))
        frames = padded.unfold(1, self.front_end.window_length, self.front_end.hop_length) * self.window
        spectrum = torch.fft.rfft(frames, self.front_end.fft_length)
        power = spectrum.real.square() + spectrum.imag.square()
        energy = power if self.front_end.spectrum == "power" else (power + torch.finfo(power.dtype).tiny).sqrt()
        return (energy @ self.mel + self.front_end.floor).log()

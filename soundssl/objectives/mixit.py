"""Mixture invariant training: separate sums of two recordings without ever hearing a source alone (Wisdom et al. 2020).

The net gets the sum of two mixtures; its tracks are shared out between both in the best way. An example is a pair of
excerpts of different recordings, drawn anew in every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from soundssl.objectives import Inputs, option
from soundssl.ops import separation

NEEDS: tuple[str, ...] = ("features",)
SEPARATES = True
UNIT_LENGTH = False
HEAD = None
TRIES = 4  # places an excerpt is looked for, until one is heard
AUDIBLE = 1e-6  # mean square of an excerpt that is heard, -60 dB re full scale: silence teaches nothing


@dataclass(frozen=True)
class Options:
    """Options of mixture invariant training."""

    seconds: float = option(3.0, "length of the excerpts; the paper has 10")
    snr_max: float = option(30.0, "signal-to-noise ratio in dB beyond which nothing is gained")
    equal: bool = option(False, "bring both excerpts to the same energy before they are summed (inferred)")


def check(options: Options) -> None:
    """Raise ValueError for values out of range."""
    for name in ("seconds", "snr_max"):
        if not getattr(options, name) > 0:
            raise ValueError(f"{name} of the mixit objective is {getattr(options, name)}; it must be positive")


class Examples(torch.utils.data.Dataset):
    """Give pairs of excerpts of the chosen recordings. There are as many as excerpts fit into them end to end."""

    def __init__(self, inputs: Inputs, options: Options, seed: int) -> None:
        check(options)
        features = inputs.features
        features.require("waveform", "the objective mixit needs")
        self.seed, self.frames, self.offset = seed, features.frames, features.offset
        self.length = features.frames_of(options.seconds)
        self.recording = features.clips.recording_number()
        samples = np.diff(features.offset)
        chosen = inputs.clips & features.recorded & (samples > 0)
        self.clip = np.repeat(np.flatnonzero(chosen), -(-samples[chosen] // self.length))
        if len(np.unique(self.recording[self.clip])) < 2:
            raise ValueError("mixtures of mixtures need two recordings or more among the chosen clips")

    def __len__(self) -> int:
        return len(self.clip)

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the batch of (epoch, row) keys. Shape: `mixtures` `[batch, 2, samples]`, float32."""
        return {"mixtures": torch.from_numpy(np.stack([self._pair(epoch, row) for epoch, row in keys]))}

    def _pair(self, epoch: int, row: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, epoch, row])
        first = second = self.clip[row]
        while self.recording[second] == self.recording[first]:
            second = self.clip[generator.integers(len(self.clip))]
        return np.stack([self._excerpt(clip, generator) for clip in (first, second)])

    def _excerpt(self, clip: int, generator: np.random.Generator) -> np.ndarray:
        return self.excerpt(clip, generator)[0]

    def excerpt(self, clip: int, generator: np.random.Generator) -> tuple[np.ndarray, int]:
        """Return an excerpt from a place drawn at random, the loudest of TRIES where none is heard, and its place.

        The place is in samples from the start of the clip. A shorter clip stands at a place drawn at random, in
        silence; that of the excerpt is negative then. Shape: [length].
        """
        begin, room = self.offset[clip], self.offset[clip + 1] - self.offset[clip] - self.length
        if room < 0:
            excerpt, place = np.zeros(self.length, np.float32), int(generator.integers(-room + 1))
            excerpt[place : place + self.length + room] = self.frames[begin : begin + self.length + room]
            return excerpt, -place
        best, loudest, where = np.empty(0, np.float32), -1.0, 0
        for _ in range(TRIES):
            place = int(generator.integers(room + 1))
            excerpt = np.asarray(self.frames[begin + place : begin + place + self.length], np.float32)
            power = float(np.mean(excerpt**2))
            if not power <= loudest:  # also where it is no number: then so is the loss, which is told
                best, loudest, where = excerpt, power, place
            if loudest > AUDIBLE:
                break
        return best, where


class Objective(nn.Module):
    """Sum both excerpts, separate, and take the loss at the best assignment of tracks."""

    def __init__(self, encoder: Any, inputs: Inputs, options: Options) -> None:
        super().__init__()
        check(options)
        self.encoder, self.options = encoder, options

    def forward(self, batch: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss in dB, the improvement over the sum itself, and how many tracks are not next to silent."""
        mixtures = batch["mixtures"].float()
        if self.options.equal:
            mixtures = equalise(mixtures)
        together = mixtures.sum(1)
        tracks = self.encoder(together)
        with torch.autocast(together.device.type, enabled=False):
            loss, _ = separation.mixit(mixtures, tracks, self.options.snr_max)
            with torch.no_grad():
                before = separation.negative_snr(mixtures, together[:, None], self.options.snr_max).mean(1)
                share = separation.energy_shares(tracks)
        heard = (share > 10 ** (-self.options.snr_max / 10)).sum(1)
        figures = {"improvement": (before - loss.detach()).mean().float(), "active": heard.float().mean()}
        return loss.mean().float(), figures


def equalise(mixtures: Tensor) -> Tensor:
    """Bring the second of each pair to the energy of the first. Shape: `[batch, 2, samples]`."""
    energy = mixtures.square().sum(2, keepdim=True)
    heard = (energy > 0).all(1)
    gain = torch.where(heard, energy[:, 0] / energy[:, 1].clamp(min=torch.finfo(energy.dtype).tiny), 1).sqrt()
    return torch.stack([mixtures[:, 0], mixtures[:, 1] * gain], 1)

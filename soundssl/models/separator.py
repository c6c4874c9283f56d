"""The shell common to all separators: the level taken out and put back, and tracks that sum to their mixture."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundssl.ops import separation

SHORTEST = 1024  # samples, 64 ms: what is shorter is separated with silence behind it, as norms need frames
QUIET = 1e-5  # root mean square of a mixture that is taken for silence, -100 dB: it is not amplified further

Consistency = Literal["predicted", "energy", "uniform"]


class Separator(nn.Module):
    """Map waveforms to tracks that sum to them.

    `core` maps [batch, samples] at unit level to tracks [batch, tracks, samples] and to the mean over time of its
    activations [batch, core.size]; nets that are indifferent to the level learn at any (inferred). What the tracks lack
    of the mixture is shared out between them: equally (`uniform`), by their energy (`energy`), or as a layer on the
    activations, made by `core.shares`, says (`predicted`, the authors' choice).
    """

    def __init__(self, core, tracks: int, consistency: Consistency):
        super().__init__()
        self.core, self.tracks, self.consistency = core, tracks, consistency
        self.shares = core.shares(tracks) if consistency == "predicted" else None

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate mixtures. Shape: [batch, samples] to [batch, tracks, samples]."""
        if mixture.ndim != 2:
            raise ValueError(f"mixtures have shape {list(mixture.shape)}; [batch, samples] is needed")
        level = mixture.square().mean(1).sqrt().clamp(min=QUIET)[:, None]
        mixture = mixture / level
        samples = mixture.shape[1]
        tracks, activations = self.core(F.pad(mixture, (0, max(0, SHORTEST - samples))))
        with torch.autocast(mixture.device.type, enabled=False):
            tracks = tracks[:, :, :samples].float()
            weights = self._weights(tracks, activations.float())
            return separation.make_consistent(mixture, tracks, weights) * level[:, None]

    def _weights(self, tracks: Tensor, activations: Tensor) -> Tensor:
        if self.shares is not None:
            return self.shares(activations).softmax(1)
        if self.consistency == "energy":
            return separation.energy_shares(tracks)
        return torch.full(tracks.shape[:2], 1 / self.tracks, device=tracks.device)

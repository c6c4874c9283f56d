"""Triplet objective: an anchor lies nearer its positive than its negative, by a margin, on the unit sphere.

Jansen et al. 2018, equation 1, with the samplers of their section 2.2 and negatives mined within the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundssl import device
from soundssl.labels import Index
from soundssl.objectives import Inputs, option
from soundssl.objectives.pairs import log_scale
from soundssl.ops import augment, losses
from soundssl.ops.augment import LogScale

NEEDS = ("features", "triplets")
TAKES = ("labels",)  # of supervised triplets
SEPARATES = False
UNIT_LENGTH = True  # embeddings are compared by their angle: `embed` writes them with length one
HEAD = None


@dataclass(frozen=True)
class Options:
    """Options of the triplet objective."""

    margin: float = option(losses.MARGIN, "squared distance on the unit sphere (inferred)")
    mining: Literal["none", "semihard"] = option("semihard", "re-assign the batch's negatives: none or semihard")
    fallback: Literal["original", "farthest", "hardest"] = option(
        "original", "negative where none is semi-hard: original, farthest or hardest (inferred)"
    )
    mixing: Literal["energy", "cells"] = option(
        "energy",
        "what the gain of mixing triplets is a share of, which the paper leaves open: energy (magnitudes are squared "
        "first), or cells, the mel values as the features have them",
    )


class Examples(torch.utils.data.Dataset):
    """Read the windows of triplet recipes. Randomness lies in the recipes: a row is the same in every epoch."""

    def __init__(self, inputs: Inputs, options: Options, seed: int) -> None:
        inputs.triplets.require_features(inputs.features)
        self.frames = inputs.features.frames
        self.length = int(inputs.triplets.attributes["window_frames"])
        self.noise = float(inputs.triplets.attributes["noise"])
        features = inputs.features
        self.ends, self.recording = features.offset[1:], features.clips.recording_number()
        self.columns = self._allowed(inputs.triplets.columns, inputs.clips)
        self.labels = _Classes(inputs, self.length) if (self.columns["class"] >= 0).any() else None

    def _allowed(self, columns: dict[str, np.ndarray], clips: np.ndarray) -> dict[str, np.ndarray]:
        """Keep the recipes all of whose windows lie in the clips to train on."""
        used = [columns[name] for name in ("anchor", "positive", "negative")]
        kept = np.all([clips[self._clip(first)] for first in used], axis=0)
        if not kept.any():
            raise ValueError("no triplet lies within the chosen splits; draw them with the same --split")
        return columns if kept.all() else {name: column[kept] for name, column in columns.items()}

    def _clip(self, first: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.ends, first, side="right")

    def __len__(self) -> int:
        return len(self.columns["anchor"])

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the batch of (epoch, row) keys.

        Shape: `anchor`, `positive`, `negative`, `mixed` `[batch, frames, bands]`, everything else `[batch]` or
        `[batch, classes]`.
        """
        rows = np.array([row for _, row in keys])
        recipe = {name: column[rows] for name, column in self.columns.items()}
        mixed = recipe["mixed"] >= 0
        batch = {name: self._windows(recipe[name]) for name in ("anchor", "positive", "negative")}
        others = np.zeros(batch["anchor"].shape, np.float16)
        others[mixed] = self.frames.gather(recipe["mixed"][mixed], self.length)
        own = {name: self._recording(recipe[name]) for name in ("anchor", "negative")}
        batch |= {
            "mixed": torch.from_numpy(others),
            "gain": torch.from_numpy(recipe["gain"]),
            "seed": torch.from_numpy(recipe["seed"].astype(np.int64)),
            "deviation": torch.from_numpy(np.where(recipe["seed"] > 0, self.noise, 0.0).astype(np.float32)),
            "shift": torch.from_numpy(recipe["shift"].astype(np.int64)),
            "anchor_recording": torch.from_numpy(own["anchor"]),
            "negative_recording": torch.from_numpy(own["negative"]),
            "class": torch.from_numpy(recipe["class"].astype(np.int64)),
        }
        if self.labels:
            batch["negative_label"] = torch.from_numpy(self.labels.of(recipe["negative"]))
        return batch

    def _windows(self, first: np.ndarray) -> Tensor:
        return torch.from_numpy(self.frames.gather(first, self.length))

    def _recording(self, first: np.ndarray) -> np.ndarray:
        return self.recording[self._clip(first)]


class _Classes:
    """Look up the classes of any window, so that mining offers no negative that carries the anchor's class."""

    def __init__(self, inputs: Inputs, length: int) -> None:
        if inputs.labels is None:
            raise ValueError("supervised triplets need the labels they were drawn from; give --labels")
        if inputs.labels.classes != inputs.triplets.classes:
            raise ValueError("the labels have other classes than the triplets were drawn from; give the same --labels")
        self.features, self.length = inputs.features, length
        self.index = Index(inputs.labels, inputs.features.clips.key)

    def of(self, first: np.ndarray) -> np.ndarray:
        """Return labels of windows. Shape: `[n]` → `[n, classes]`, int8."""
        features = self.features
        clip = np.searchsorted(features.offset[1:], first, side="right")
        centre = features.seconds(first - features.offset[clip] + self.length // 2)
        return self.index.of_windows(clip, centre)


def apply_recipe(
    batch: dict[str, Tensor], scale: LogScale = augment.VGGISH, mixing: str = "energy"
) -> tuple[Tensor, Tensor, Tensor]:
    """Return anchors, positives changed as their recipes say, and negatives, in float32.

    The change is that of one sampler a row; where a recipe names several, in the order mixing, shift, noise. `scale`
    is that of the features, `mixing` energy or cells, see Options.
    """
    anchor, positive, negative = (batch[name].float() for name in ("anchor", "positive", "negative"))
    mixed, shifted, noisy = batch["gain"] > 0, batch["shift"].any(1), batch["deviation"] > 0
    shifts, summed = batch["shift"], scale if mixing == "energy" else replace(scale, spectrum="power")
    positive = _where(
        mixed,
        positive,
        lambda rows: augment.mix(positive[rows], batch["mixed"][rows].float(), batch["gain"][rows], summed),
    )
    positive = _where(
        shifted, positive, lambda rows: augment.translate(positive[rows], shifts[rows, 0], shifts[rows, 1], scale)
    )
    positive = _where(
        noisy,
        positive,
        lambda rows: augment.add_noise(positive[rows], batch["deviation"][rows], batch["seed"][rows], scale),
    )
    return anchor, positive, negative


def _where(changed: Tensor, windows: Tensor, change: Callable[[Tensor | slice], Tensor]) -> Tensor:
    """Replace the rows that a recipe changes: only those are computed on a CPU, all on a GPU, which none waits for."""
    return (_among_few if changed.device.type == "cpu" else _among_all)(changed, windows, change)


def _among_few(changed: Tensor, windows: Tensor, change: Callable[[Tensor | slice], Tensor]) -> Tensor:
    rows = changed.nonzero()[:, 0]
    return windows.index_copy(0, rows, change(rows)) if len(rows) else windows


def _among_all(changed: Tensor, windows: Tensor, change: Callable[[Tensor | slice], Tensor]) -> Tensor:
    return torch.where(changed[:, None, None], change(slice(None)), windows)


class Objective(nn.Module):
    """Embed triplets, mine negatives among those of all processes, and take the hinge loss."""

    def __init__(self, encoder: nn.Module, inputs: Inputs, options: Options) -> None:
        super().__init__()
        self.encoder, self.options, self.scale = encoder, options, log_scale(inputs.features)

    def forward(self, batch: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the share of active triplets and the mean distances, which tell a collapse."""
        windows = apply_recipe(batch, self.scale, self.options.mixing)
        embedding = F.normalize(self.encoder(torch.cat(windows)).float(), dim=1)
        anchor, positive, negative = embedding.chunk(3)
        if self.options.mining == "semihard":
            negative = self._mine(anchor, positive, negative, batch)
        values = losses.triplet(anchor, positive, negative, self.options.margin)
        with torch.no_grad():
            figures = {
                "active": (values > 0).float().mean(),
                "positive_distance": (anchor - positive).square().sum(1).mean(),
                "negative_distance": (anchor - negative).square().sum(1).mean(),
            }
        return values.mean(), figures

    def remark(self, figures: dict[str, float]) -> str:
        """Return what a person should know of the last figures: that nothing was left to learn, or nothing."""
        if figures["active"] > 0:
            return ""
        return (
            "the loss ended at 0, no triplet of the last batch was active: nothing is left to learn from them; take a "
            "larger margin, fallback hardest, or fewer steps"
        )

    def _mine(self, anchor: Tensor, positive: Tensor, negative: Tensor, batch: dict[str, Tensor]) -> Tensor:
        candidates = device.gather(negative)
        legal = batch["anchor_recording"][:, None] != device.gather(batch["negative_recording"])[None]
        if "negative_label" in batch:
            carried = device.gather(batch["negative_label"])[:, batch["class"].clamp(min=0)].T
            legal &= (carried == 0) | (batch["class"] < 0)[:, None]
        original = torch.arange(len(anchor), device=anchor.device) + device.rank() * len(anchor)
        chosen = losses.semi_hard_negatives(
            anchor, positive, candidates, legal, self.options.margin, original, self.options.fallback
        )
        return candidates[chosen]

"""Contrastive objective: of all views of a batch the one most like a view is the other view of its clip (NT-Xent).

Fonseca et al. 2021, "Unsupervised contrastive learning of sound event representations" (crops, mix-back, augmentations)
and "Self-supervised learning from automatically separated sound scenes" (a mixture and a track of it), with the loss of
Chen et al. 2020. Views are compared behind a projection; embeddings are what the encoder gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundssl import device
from soundssl.models.tensors import below
from soundssl.objectives import Head, Inputs, Layer, option, pairs, with_preset
from soundssl.ops import losses

NEEDS = ("features",)
SEPARATES = False
UNIT_LENGTH = True  # of embeddings in files (ours), as of the other objectives that compare them by their angle
COPY = 1  # of a shared batch: which augmentation of it is this objective's own

# Values that a recipe puts in the place of others.
_EVENTS = {
    **{"views": "mixback", "background": 0.05, "adjust": True, "temperature": 0.2, "hidden": 512, "output": 512},
    **{"crop_area": 0.8, "crop_aspect": 4 / 3, "compression": 0.75, "noise": 0.01},
    **{"masks": 2, "mask_frames": 20, "mask_bands": 20, "time": 29, "band": 9},
}
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "sound-events": {**_EVENTS, "augment": "crop,compression,noise"},
    "sound-events-masks": {**_EVENTS, "augment": "crop,masks"},
    "sound-scenes": {"views": "separated", "augment": "masks", "masks": 2, "mask_frames": 20, "mask_bands": 20},
}


@dataclass(frozen=True)
class Options(pairs.Augmentation, pairs.PairSampling):
    """Options of the contrastive objective."""

    temperature: float = option(0.2, "of the softmax over cosines")
    hidden: int = option(512, "units of the projection's hidden layer")
    output: int = option(512, "numbers in a projection, where views are compared")
    head_norm: Literal["batch", "layer"] = option(
        "batch", "norm of the projection: batch as in the paper, or layer, whatever the number of processes"
    )
    preset: Literal["none", "sound-events", "sound-events-masks", "sound-scenes"] = option(
        "none",
        "values of Fonseca et al. 2021, as far as nothing else is given: sound-events (mixback; crop, compression, "
        "noise), sound-events-masks (mixback; crop, masks), sound-scenes (separated; masks, its ranges inferred)",
    )


def settle(options: Options) -> Options:
    """Return the options with those of their preset in force; raise ValueError for values out of range."""
    options = with_preset(options, PRESETS[options.preset])
    pairs.check(options, "contrastive")
    for name, legal in (
        ("temperature", options.temperature > 0),
        ("hidden", options.hidden >= 1),
        ("output", options.output >= 1),
    ):
        if not legal:
            raise ValueError(f"{name} of the contrastive objective is {getattr(options, name)}, which is out of range")
    return options


class Projection(nn.Module):
    """Map embeddings to vectors of length one: a layer with norm and ReLU, then a linear one.

    `norm` is `batch`, as published, or `layer`, which does not depend on how a batch is split over devices. Shape:
    [batch, size] to [batch, output].
    """

    def __init__(self, size: int, hidden: int, output: int, norm: str) -> None:
        super().__init__()
        if norm not in ("batch", "layer"):
            raise ValueError(f"norm is {norm!r}; it is batch or layer")
        between = nn.BatchNorm1d(hidden) if norm == "batch" else nn.LayerNorm(hidden)
        self.layers = nn.Sequential(nn.Linear(size, hidden), between, nn.ReLU(), nn.Linear(hidden, output))

    def forward(self, embedding: Tensor) -> Tensor:
        """Return unit vectors, in float32 whatever the encoder computes in."""
        with torch.autocast(embedding.device.type, enabled=False):
            return F.normalize(self.layers(embedding.float()), dim=1)


def _facts(inputs: Inputs, options: Options) -> dict[str, Any]:
    options = settle(options)
    return {"hidden": options.hidden, "output": options.output, "norm": options.head_norm}


def _projection(facts: dict[str, Any], size: int, tensors: dict[str, np.ndarray]) -> Layer:
    projection = Projection(size, facts["hidden"], facts["output"], facts["norm"])
    projection.load_state_dict(below(tensors, "head.contrastive.projection."))
    return Layer(projection, facts["output"], [])


HEAD = Head("projection", _facts, ("hidden", "output", "norm"), {"projection": _projection})


class Examples(pairs.Pairs):
    """Draw the pairs of the views that the options name."""

    def __init__(self, inputs: Inputs, options: Options, seed: int) -> None:
        super().__init__(inputs, settle(options), seed)


class Objective(nn.Module):
    """Project two views of each clip and tell them from those of other recordings, of all processes."""

    def __init__(self, encoder: nn.Module, inputs: Inputs, options: Options) -> None:
        super().__init__()
        self.encoder, self.options = encoder, settle(options)
        self.recipe = pairs.Recipe(inputs, self.options, COPY)
        size: Any = encoder.size
        self.projection = Projection(size, self.options.hidden, self.options.output, self.options.head_norm)

    def forward(self, batch: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, the share of views whose other view is the most like, and the mean cosines of both kinds.

        Windows of the same recording are not told apart (inferred): they meet where a batch spans two epochs, or where
        recordings lie in several clips.
        """
        vectors = self.projection(self.encoder(torch.cat(self.recipe.apply(batch))))
        recording = batch["recording"].repeat(2)
        everyone, others = device.gather(vectors), device.gather(recording)
        legal = recording[:, None] != others
        count = len(vectors)
        own = torch.arange(count, device=vectors.device)
        positive = (own + count // 2) % count + device.rank() * count
        loss = losses.nt_xent(vectors, everyone, positive, legal, self.options.temperature).mean()
        with torch.no_grad():
            cosine = vectors @ everyone.T
            to_other = cosine.gather(1, positive[:, None])[:, 0]
            nearest = cosine.masked_fill(~legal, -torch.inf).amax(1)
            figures = {
                "accuracy": (to_other > nearest).float().mean(),
                "positive_cosine": to_other.mean(),
                "negative_cosine": (cosine * legal).sum() / legal.sum().clamp(min=1),
            }
        return loss, figures

"""Contrastive objective: of all views of a batch the one most like a view is the other view of its clip (NT-Xent).

Fonseca et al. 2021, "Unsupervised contrastive learning of sound event representations" (crops, mix-back, augmentations)
and "Self-supervised learning from automatically separated sound scenes" (a mixture and a track of it), with the loss of
Chen et al. 2020. Views are compared behind a projection; embeddings are what the encoder gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from soundssl import device, views
from soundssl.models.heads import Projection
from soundssl.objectives import Inputs, option
from soundssl.ops import losses

NEEDS = ("features",)
UNIT_LENGTH = True  # of embeddings in files (ours), as of the other objectives that compare them by their angle
COPY = 1  # of a shared batch: which changes of it are this objective's own

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
class Options(views.Changes, views.Drawing):
    """Options of the contrastive objective."""

    temperature: float = option(0.2, "of the softmax over cosines")
    hidden: int = option(512, "units of the projection's hidden layer")
    output: int = option(512, "numbers in a projection, where views are compared")
    head_norm: Literal["batch", "layer"] = option(
        "batch", "norm of the projection: batch as in the paper, or layer, whatever the number of processes"
    )
    preset: Literal["none", "sound-events", "sound-events-masks", "sound-scenes"] = option(
        "none",
        "values of Fonseca et al. 2021, whatever else is said of these: sound-events (mixback; crop, compression, "
        "noise), sound-events-masks (mixback; crop, masks), sound-scenes (separated; masks, its ranges inferred)",
    )


def settle(options: Options) -> Options:
    """Return the options with those of their preset in force; raise ValueError for values out of range."""
    options = replace(options, **PRESETS[options.preset])
    views.check(options, "contrastive")
    for name, legal in (
        ("temperature", options.temperature > 0),
        ("hidden", options.hidden >= 1),
        ("output", options.output >= 1),
    ):
        if not legal:
            raise ValueError(f"{name} of the contrastive objective is {getattr(options, name)}, which is out of range")
    return options


def facts(inputs: Inputs, options: Options) -> dict[str, Any]:
    """Return what a model file must say about the head, to project embeddings again."""
    options = settle(options)
    return {"hidden": options.hidden, "output": options.output, "norm": options.head_norm}


class Examples(views.Pairs):
    """Draw the pairs of the views that the options name."""

    def __init__(self, inputs: Inputs, options: Options, seed: int) -> None:
        super().__init__(inputs, settle(options), seed)


class Objective(nn.Module):
    """Project two views of each clip and tell them from those of other recordings, of all processes."""

    def __init__(self, encoder: nn.Module, inputs: Inputs, options: Options) -> None:
        super().__init__()
        self.encoder, self.options = encoder, settle(options)
        self.realise = views.Realise(inputs, self.options, COPY)
        size: Any = encoder.size
        self.projection = Projection(size, self.options.hidden, self.options.output, self.options.head_norm)

    def forward(self, batch: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, the share of views whose other view is the most like, and the mean cosines of both kinds.

        Windows of the same recording are not told apart (inferred): they meet where a batch spans two epochs, or where
        recordings lie in several clips.
        """
        vectors = self.projection(self.encoder(torch.cat(self.realise(batch))))
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

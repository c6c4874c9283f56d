"""Any backbone of timm that takes one channel, as `timm:NAME`; never with weights from the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from soundssl.models.resnet import timm_for

PREFIX = "timm:"


@dataclass(frozen=True)
class Options:
    """Leave no choice: what timm calls a model fixes it."""


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build a backbone of timm, with one input channel and a linear layer to the embedding.

    Those of a fixed picture size take that of the window where they can. Shape: [batch, 1, frames, bands] to [batch,
    size]. Raises ValueError for a name that timm does not know, and for a backbone that takes no such window.
    """
    with timm_for(name):
        import timm

    own = name.removeprefix(PREFIX)
    known = timm.list_models()
    if own not in known and own.partition(".")[0] not in known:
        near = timm.list_models(f"*{own[:6]}*")[:5] if own else []
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise ValueError(f"timm has no model {own!r}{hint}")
    chosen: dict[str, Any] = {"pretrained": False, "in_chans": 1, "num_classes": size}
    try:
        backbone = _created(timm, own, chosen, (frames, bands))
        given = backbone.training
        with torch.no_grad():  # nets of fixed windows say so only when they see one
            made = backbone.eval()(torch.zeros(1, 1, frames, bands)).shape
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} takes no windows of {frames} x {bands} in one channel: {error}") from error
    if made != (1, size):
        raise ValueError(f"{name} gives {list(made)[1:]} numbers a window, not {size}; choose another backbone")
    return backbone.train(given)


def _created(timm: Any, name: str, chosen: dict[str, Any], window: tuple[int, int]) -> nn.Module:
    try:
        return timm.create_model(name, **chosen, img_size=window)
    except TypeError:  # a convolutional net takes pictures of any size, and has no such argument
        return timm.create_model(name, **chosen)

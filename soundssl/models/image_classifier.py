"""Image classifiers of timm, with weights from a file: pictures to scores of classes, as machine labels need them."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundssl.models.resnet import timm_for

PREFIX = "timm:"


class ImageClassifier(nn.Module):
    """Map uint8 pictures to probabilities of classes, scaled as the net was trained (ImageNet's means, if it says so).

    `softmax` for exclusive classes (ImageNet), `sigmoid` for several at once (ML-Images).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: Any, activation: Literal["softmax", "sigmoid"]) -> None:
        super().__init__()
        self.net, self.activation = net, activation
        said = getattr(net, "pretrained_cfg", None) or {}
        for name, key, usual in (("mean", "mean", 0.5), ("deviation", "std", 0.5)):
            self.register_buffer(name, torch.tensor(said.get(key, (usual,) * 3)).view(3, 1, 1), persistent=False)
        self.side = said.get("input_size", (3, 0, 0))[1] if said.get("fixed_input_size") else 0

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities. Shape: [batch, height, width, 3], uint8, to [batch, classes]."""
        pictures = images.permute(0, 3, 1, 2).float() / 255
        if self.side and pictures.shape[2:] != (self.side, self.side):
            pictures = F.interpolate(pictures, (self.side, self.side), mode="bilinear", antialias=True)
        logits = self.net((pictures - self.mean) / self.deviation).float()
        return logits.softmax(1) if self.activation == "softmax" else logits.sigmoid()


def build(
    name: str, classes: int, tensors: dict[str, Tensor], activation: Literal["softmax", "sigmoid"] = "softmax"
) -> ImageClassifier:
    """Build a classifier of timm by `timm:NAME` with the weights of a file; nothing is fetched.

    Raises ValueError for a name that timm does not know, and for weights that are not of this net and as many classes.
    """
    with timm_for(name, "another machine"):
        import timm

    own = name.removeprefix(PREFIX)
    if not timm.is_model(own):
        near = timm.list_models(f"*{own[:6]}*")[:5] if own else []
        raise ValueError(f"timm has no model {own!r}" + (f"; near it are {', '.join(near)}" if near else ""))
    net = timm.create_model(own, pretrained=False, num_classes=classes)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        fact = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights are not those of {name} with {classes} classes: {fact}") from error
    return ImageClassifier(net, activation)

"""The shell common to all encoders: per-band normalisation, then a backbone.

The statistics of the training features travel with the model as buffers, so a stored model embeds raw log-mel windows.
"""

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Map log-mel windows to embeddings that are not normalised to unit length.

    `backbone` maps [batch, 1, frames, bands] to [batch, size]. The buffers `mean` and `deviation` [bands] start at 0
    and 1.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: nn.Module, size: int, bands: int):
        super().__init__()
        self.backbone = backbone
        self.size = size
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the per-band mean and standard deviation of the training features.

        Shape: both [bands]. Raises ValueError for another shape, and for a deviation that is not positive and finite.
        """
        for name, value in (("mean", mean), ("deviation", deviation)):
            if value.shape != self.mean.shape:
                raise ValueError(f"{name} has shape {list(value.shape)}; the encoder takes {list(self.mean.shape)}")
        if not torch.isfinite(mean).all():
            raise ValueError("the mean of a band is not finite")
        if not (torch.isfinite(deviation) & (deviation > 0)).all():
            raise ValueError(f"deviations must be positive and finite; the smallest is {float(deviation.min())}")
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, windows: Tensor) -> Tensor:
        """Embed windows. Shape: [batch, frames, bands] to [batch, size]."""
        if windows.ndim != 3 or windows.shape[-1] != self.mean.shape[0]:
            raise ValueError(f"windows have shape {list(windows.shape)}; [batch, frames, {len(self.mean)}] is needed")
        return self.backbone(((windows - self.mean) / self.deviation).unsqueeze(1))

"""The baseline CNN of Fonseca et al. 2019 ("Learning sound event classifiers from web audio with noisy labels").

Three times batch norm, ReLU, a 5x5 convolution, batch norm, ReLU; poolings of 4x2 (frames x bands) after the first two;
dropout, and a rectified layer whose 64 outputs are the paper's vector before the classes.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from soundssl.models import pooling

WIDTHS, KERNEL = (24, 48, 48), 5
POOL = (4, 2)  # frames x bands


@dataclass(frozen=True)
class Options(pooling.Options):
    """Choose the pooling, and the share of numbers dropped before and after the rectified layer."""

    dropout: float = 0.5


class BaselineCnn(nn.Module):
    """Apply the convolutions, flatten, and give the outputs of a rectified layer."""

    def __init__(self, size: int, bands: int, frames: int, options: Options) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for number, width in enumerate(WIDTHS):
            convolution = nn.Conv2d(before, width, KERNEL, padding=KERNEL // 2)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [nn.BatchNorm2d(before), nn.ReLU(), convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            if number + 1 < len(WIDTHS):
                layers.append(pooling.pool(options, width, POOL, POOL))
                frames, bands = frames // POOL[0], bands // POOL[1]
            before = width
        self.features = nn.Sequential(*layers)
        hidden = nn.Linear(before * frames * bands, size)
        nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
        drop = nn.Dropout(options.dropout)
        self.embedding = nn.Sequential(drop, hidden, nn.ReLU(), nn.Dropout(options.dropout))

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        return self.embedding(self.features(images).flatten(1))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build the baseline CNN; raise ValueError for a share of numbers to drop that is none."""
    if not 0 <= options.dropout < 1:
        raise ValueError(f"dropout is {options.dropout}; it is from 0 to below 1")
    return BaselineCnn(size, bands, frames, options)

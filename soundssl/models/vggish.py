"""VGGish (Hershey et al. 2017, in the released definition): VGG configuration A without its last group.

Convolutions of 64, 128, 256, 256, 512, 512 channels with four 2x2 poolings; on 96 x 64 the map is 6 x 4 x 512 = 12288,
then 4096, 4096 and the embedding, which is linear as in the later public definition. No batch norm.
"""

from dataclasses import dataclass

from torch import Tensor, nn

GROUPS = ((64,), (128,), (256, 256), (512, 512))  # channels of the convolutions between poolings
HIDDEN = 4096  # units of the two fully connected layers
INITIAL_DEVIATION = 0.01  # of the truncated normal of all weights, as released


@dataclass(frozen=True)
class Options:
    """Leave no choice: the net is as released."""


class Vggish(nn.Module):
    """Apply VGGish; 72,141,184 weights for 96 frames, 64 bands and 128 outputs."""

    def __init__(self, size: int, bands: int, frames: int):
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for group in GROUPS:
            for width in group:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Sequential(
            nn.Linear((frames // 16) * (bands // 16) * before, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, size),
        )
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images. Shape: [batch, 1, frames, bands] to [batch, size]."""
        maps = self.features(images).permute(0, 2, 3, 1)  # time, frequency, channel: the order of the released weights
        return self.embedding(maps.flatten(1))


def build(name: str, size: int, bands: int, frames: int, options: Options) -> nn.Module:
    """Build VGGish. Shape: [batch, 1, frames, bands] to [batch, size]."""
    return Vggish(size, bands, frames)


def _initialise(module: nn.Module) -> None:
    """Draw weights from a normal truncated at two deviations; set biases to zero."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=INITIAL_DEVIATION, a=-2 * INITIAL_DEVIATION, b=2 * INITIAL_DEVIATION)
        nn.init.constant_(module.get_parameter("bias"), 0)

"""Image towers: a picture to an embedding of the size of the sound's, for audio-visual coincidence.

Jansen et al. 2020, section 3.1: ResNet-50 as for sound, changed in its input size only, here with the usual stem of
stride 2 (inferred). The VGG tower is that of Arandjelovic and Zisserman 2017 ("Look, listen and learn") up to its last
pooling, with a linear layer to the embedding. The space-to-depth CNN is no paper's: it trains on a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from soundssl.models.resnet import timm_for

BLOCK = 4  # pixels, both ways, that become channels: convolutions of stride 2 train five times slower on a CPU
SPACE_TO_DEPTH = (48, 96, 192, 256)  # channels of 3x3 convolutions with poolings between
VGG = (64, 128, 256, 512)  # channels of pairs of 3x3 convolutions with poolings between
VGG_SMALL = (16, 32, 64, 128)
GROUPS = 8  # of group norm; divides every width


@dataclass(frozen=True)
class Options:
    """Choose how maps are normalised: over the batch, or, in all but ResNet-50, within each picture."""

    norm: Literal["batch", "group"] = "batch"


def build(name: str, size: int, options: Options) -> nn.Module:
    """Build the net of a tower by its name; raise ValueError for a norm that it has not."""
    if name == "space-to-depth":
        return space_to_depth(size, options.norm)
    if name != "resnet50":
        return vgg(size, options.norm, {"vgg": VGG, "vgg-small": VGG_SMALL}[name])
    if options.norm != "batch":
        raise ValueError(f"image tower {name!r} has no {options.norm} norm; the others have")
    return resnet50(size)


class Tower(nn.Module):
    """Map uint8 pictures, scaled to -1..1 (inferred), to embeddings that are not normalised to unit length."""

    def __init__(self, backbone: nn.Module, size: int):
        super().__init__()
        self.backbone, self.size = backbone, size

    def forward(self, images: Tensor) -> Tensor:
        """Embed pictures. Shape: [batch, height, width, 3], uint8, to [batch, size]."""
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
            raise ValueError(
                f"images are {images.dtype} {list(images.shape)}; uint8 [batch, height, width, 3] is needed"
            )
        return self.backbone(_scaled(images))

    def local(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return a vector for each place of a picture, and its embedding.

        Places lie 16 pixels apart, 8 x 8 of them in a picture of 128: what a net has before its last halving, or, of
        VGG, half of what it has in the end. Shape: [batch, height, width, 3] to [batch, channels, h, w], [batch, size].
        """
        pictures, net = _scaled(images), self.backbone
        if not isinstance(net, Pooled):
            resnet: Any = net
            places = pictures
            for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3"):
                places = getattr(resnet, name)(places)
            return places, resnet.forward_head(resnet.layer4(places))
        early, late = net.parted()
        places = early(pictures)
        whole = net.projection(net.pool(late(places).flatten(2)))
        return places if len(late) else nn.functional.max_pool2d(places, 2), whole


def _scaled(images: Tensor) -> Tensor:
    """Return pixels from -1 to 1, channels first: a permuted view is channels-last already, the faster order."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


class Pooled(nn.Module):
    """Apply convolutions, take numbers of their map by `pool`, then a linear layer."""

    def __init__(self, features: nn.Sequential, pool: Callable[[Tensor], Tensor], projection: nn.Linear):
        super().__init__()
        self.features, self.pool, self.projection = features, pool, projection

    def forward(self, images: Tensor) -> Tensor:
        """Embed scaled pictures. Shape: [batch, 3, height, width] to [batch, size]."""
        return self.projection(self.pool(self.features(images).flatten(2)))

    def parted(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return the convolutions up to the last of their poolings and those from it on; all, and none, of VGG."""
        at = max(i for i, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d))
        squares = isinstance(self.features[0], nn.PixelUnshuffle)
        return (self.features[:at], self.features[at:]) if squares else (self.features, nn.Sequential())


def space_to_depth(size: int, norm: str) -> nn.Module:
    """Build four convolutions with poolings between on 4x4 pixels taken as channels, then mean and maximum."""
    layers: list[nn.Module] = [nn.PixelUnshuffle(BLOCK)]
    before = 3 * BLOCK**2
    for width in SPACE_TO_DEPTH:
        layers += [nn.MaxPool2d(2)] if len(layers) > 1 else []
        layers += _convolution(before, width, norm)
        before = width
    return Pooled(nn.Sequential(*layers), _mean_and_maximum, nn.Linear(2 * before, size))


def vgg(
    size: int,
    norm: str,
    widths: tuple[int, ...] = VGG,
    channels: int = 3,
    pool: Callable[[int], nn.Module] = lambda width: nn.MaxPool2d(2),
) -> nn.Module:
    """Build four blocks of two convolutions with poolings between, then the maximum over the map.

    The 2x2 pooling at the end of the last block is part of that maximum; `pool` makes the others for a width.
    """
    layers: list[nn.Module] = []
    before = channels
    for width in widths:
        layers += [pool(before)] if layers else []
        layers += [*_convolution(before, width, norm), *_convolution(width, width, norm)]
        before = width
    return Pooled(nn.Sequential(*layers), _maximum, nn.Linear(before, size))


def _maximum(maps: Tensor) -> Tensor:
    return maps.amax(2)


def _mean_and_maximum(maps: Tensor) -> Tensor:
    return torch.cat([maps.mean(2), maps.amax(2)], 1)


def resnet50(size: int) -> nn.Module:
    """Build ResNet-50 for colour pictures. Shape: [batch, 3, height, width] to [batch, size]."""
    with timm_for("the image tower resnet50", "--set tower=folded"):
        from timm.models.resnet import Bottleneck, ResNet

    block: Any = Bottleneck
    return ResNet(block, (3, 4, 6, 3), num_classes=size)


def _convolution(before: int, after: int, norm: str) -> list[nn.Module]:
    """List a 3x3 convolution without bias, its norm and its ReLU."""
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    layer = nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(GROUPS, after)
    return [convolution, layer, nn.ReLU(inplace=True)]

"""Encoders and separators by name: tables and a function each; a family's module is imported when its net is built.

A row names what `build` makes; the module that makes it is named in the function, so listing costs no import of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soundssl.models.classifier import Classifier
    from soundssl.models.encoder import Encoder
    from soundssl.models.heads import Projection
    from soundssl.models.image import Tower
    from soundssl.models.separator import Consistency, Separator

ENCODERS: dict[str, str] = {
    "resnet18-half": "ResNet-18 with every width halved, stem stride 1: 2.8M weights, 61M multiply-adds",
    "resnet18": "ResNet-18, stem stride 1: 11.2M weights, 213M multiply-adds",
    "resnet50": "ResNet-50, stem stride 1, the net of Jansen et al. 2018 and 2020: 23.8M weights, 491M multiply-adds",
    "vggish": "VGGish with its fully connected layers, no batch norm: 72.1M weights, 864M multiply-adds",
    "plain": "eight 3x3 convolutions with norm and ReLU, mean and max over the map: 1.2M weights, 80M multiply-adds",
}

IMAGE_TOWERS: dict[str, str] = {
    "folded": "four 3x3 convolutions on folded 4x4 pixels, mean and max: 0.7M weights, 49M multiply-adds at 128 px",
    "vgg": "four VGG blocks to 512 channels (Arandjelovic and Zisserman 2017): 4.8M weights, 3.4G multiply-adds",
    "vgg-small": "the VGG tower with a quarter of its widths: 0.3M weights, 0.2G multiply-adds at 128 px",
    "resnet50": "ResNet-50, the net of Jansen et al. 2020: 23.8M weights, 1.3G multiply-adds at 128 px",
}

# What is taken where nobody chooses: on a CPU, and on a GPU, where both nets are those of Jansen et al. 2020.
SMALL = {"encoder": "plain", "tower": "folded"}
LARGE = {"encoder": "resnet50", "tower": "resnet50"}

SEPARATORS: dict[str, str] = {
    "tdcn-stft-small": "improved TDCN++ on the STFT, 16 blocks of width 128: 1.2M weights",
    "tdcn-stft": "improved TDCN++ on the STFT (32 ms every 8 ms), 32 blocks of width 256: 8.8M weights",
    "tdcn-small": "improved TDCN++ on a learned basis, 16 blocks of width 128: 1.3M weights",
    "tdcn": "improved TDCN++ on a learned basis (2.5 ms), the net of Wisdom et al. 2020: 8.8M weights",
    "conv-tasnet-small": "Conv-TasNet with 2.5 ms windows, 16 blocks, half the width: 1.8M weights",
    "conv-tasnet": "Conv-TasNet of torchaudio (Luo and Mesgarani 2019), 1 ms windows, 24 blocks: 5.1M weights",
}
SEPARATOR = "tdcn-stft-small"  # where none is named
MOST_TRACKS = 100  # a track's number is stored in one byte

# The nets that can do without batch norm, whose statistics depend on how a batch is split over devices.
CHOICE_OF_NORM = ("resnet18-half", "plain")


def build(name: str, size: int = 128, bands: int = 64, frames: int = 96, norm: str = "batch") -> Encoder:
    """Build an untrained encoder by its name in `ENCODERS`.

    `norm` is `batch` or, for the nets in `CHOICE_OF_NORM`, `group`: normalisation of each window on its own.
    Weights are drawn from torch's global generator: seed it first. Raises ValueError for an unknown name or norm and
    for a window too small for the net.

    >>> build("plain", size=16).size
    16
    """
    if name not in ENCODERS:
        raise ValueError(f"no encoder {name!r}; there are {', '.join(ENCODERS)}")
    if norm not in ("batch", "group"):
        raise ValueError(f"norm is {norm!r}; it is batch or group")
    if norm == "group" and name not in CHOICE_OF_NORM:
        raise ValueError(f"encoder {name!r} has no group norm; {' and '.join(CHOICE_OF_NORM)} have")
    if size < 1 or frames < 16 or bands < 16:
        raise ValueError(f"size {size}, frames {frames}, bands {bands}: at least 1, 16 and 16 are needed")
    from soundssl.models import encoder, plain, resnet, vggish

    if name == "vggish":
        backbone = vggish.vggish(size, bands, frames)
    elif name == "plain":
        backbone = plain.plain(size, norm)
    elif name == "resnet18-half":
        backbone = resnet.resnet18_half(size, norm)
    else:
        backbone = {"resnet18": resnet.resnet18, "resnet50": resnet.resnet50}[name](size)
    return encoder.Encoder(backbone, size, bands)


def restore_classifier(config: dict, tensors: dict) -> Classifier:
    """Build the classifier that a model holds beside its encoder; raise ValueError where it holds none."""
    from soundssl.models.classifier import Classifier

    facts = config.get("heads", {}).get("classification")
    if facts is None:
        raise ValueError("the model has no classifier; train one with --objective classification")
    classifier = Classifier(config["size"], len(facts["classes"]), facts["hidden"])
    classifier.load_state_dict(_part(tensors, "head.classification.classifier."))
    return classifier


def restore_projection(config: dict, tensors: dict) -> Projection:
    """Build the projection that a model holds beside its encoder; raise ValueError where it holds none."""
    from soundssl.models.heads import Projection

    facts = config.get("heads", {}).get("contrastive")
    if facts is None:
        raise ValueError("the model has no projection; train one with --objective contrastive")
    projection = Projection(config["size"], facts["hidden"], facts["output"], facts["norm"])
    projection.load_state_dict(_part(tensors, "head.contrastive.projection."))
    return projection


def build_image(name: str, size: int = 128, norm: str = "batch") -> Tower:
    """Build an untrained image tower by its name in `IMAGE_TOWERS`.

    Pictures have sides of 32 pixels or more that are multiples of 4.
    `norm` is `batch` or, for all but resnet50, `group`. Weights are drawn from torch's global generator. Raises
    ValueError for an unknown name or norm.

    >>> build_image("folded", size=16).size
    16
    """
    if name not in IMAGE_TOWERS:
        raise ValueError(f"no image tower {name!r}; there are {', '.join(IMAGE_TOWERS)}")
    if norm not in ("batch", "group"):
        raise ValueError(f"norm is {norm!r}; it is batch or group")
    if norm == "group" and name == "resnet50":
        raise ValueError("image tower 'resnet50' has no group norm; the others have")
    from soundssl.models import image

    if name == "resnet50":
        backbone = image.resnet50(size)
    elif name == "folded":
        backbone = image.folded(size, norm)
    else:
        backbone = image.vgg(size, norm, image.VGG if name == "vgg" else image.VGG_SMALL)
    return image.Tower(backbone, size)


def build_separator(name: str, tracks: int = 4, consistency: Consistency = "predicted") -> Separator:
    """Build an untrained separator by its name in `SEPARATORS`, for a number of tracks.

    `consistency` says how tracks are made to sum to their mixture, see `Separator`. Weights are drawn from torch's
    global generator. Raises ValueError for an unknown name or consistency, and for fewer than two tracks.

    >>> build_separator("tdcn-stft-small", tracks=2).tracks
    2
    """
    if name not in SEPARATORS:
        raise ValueError(f"no separator {name!r}; there are {', '.join(SEPARATORS)}")
    if not 2 <= tracks <= MOST_TRACKS:
        raise ValueError(f"tracks is {tracks}; a separator has 2 to {MOST_TRACKS}")
    if consistency not in ("predicted", "energy", "uniform"):
        raise ValueError(f"consistency is {consistency!r}; it is predicted, energy or uniform")
    from soundssl.models import conv_tasnet, separator, tdcn

    family, small = name.removesuffix("-small"), name.endswith("-small")
    core: tdcn.TDCN | conv_tasnet.ConvTasNet
    if family == "conv-tasnet":
        core = conv_tasnet.conv_tasnet_small(tracks) if small else conv_tasnet.conv_tasnet(tracks)
    else:
        core = (tdcn.tdcn_small if small else tdcn.tdcn)(tracks, learned=family == "tdcn")
    return separator.Separator(core, tracks, consistency)


def restore_separator(config: dict, tensors: dict) -> Separator:
    """Build the separator that a model's `config` describes and fill it; raise ValueError where it holds none."""
    if config["encoder"] not in SEPARATORS:
        raise ValueError("the model is an encoder, not a separator; train one with --objective mixit")
    separator = build_separator(config["encoder"], config["tracks"], config["consistency"])
    separator.load_state_dict(_part(tensors, "encoder."))
    return separator


def restore(config: dict, tensors: dict) -> Encoder:
    """Build the encoder that a model's `config` describes and fill it with its tensors (numpy arrays, `encoder.*`).

    Raises ValueError where the model is a separator.
    """
    if config["encoder"] in SEPARATORS:
        raise ValueError("the model is a separator, not an encoder; its tracks are made with soundssl separate")
    encoder = build(config["encoder"], config["size"], config["bands"], config["frames"], config["norm"])
    encoder.load_state_dict(_part(tensors, "encoder."))
    return encoder


def _part(tensors: dict, prefix: str) -> dict:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    import torch

    return {
        name.removeprefix(prefix): torch.from_numpy(value.copy())
        for name, value in tensors.items()
        if name.startswith(prefix)
    }

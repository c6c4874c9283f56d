"""Encoders, image towers and separators by name: one row a name says which module makes it.

A family's module has `Options`, a dataclass of the choices that its nets leave, and `build(name, …, options)`. A net
that is added touches its module and its row here. Modules are imported when their net is built, so that listing the
names costs no import of torch.
"""

from __future__ import annotations

import importlib
import typing
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from soundssl.models.encoder import Encoder
    from soundssl.models.image import Tower
    from soundssl.models.separator import Consistency, Separator


class Net(NamedTuple):
    """Say which module of this room builds a net, and in a line what it is.

    Of an encoder, `frames` and `bands` are the input of its paper, `size` the outputs to which the paper's number of
    weights belongs; `weights` and `products` (multiply-adds a window, norms and poolings left out) are counted at them.
    """

    module: str
    line: str
    weights: int = 0
    products: int = 0
    paper: str = ""
    size: int = 128
    frames: int = 96
    bands: int = 64

    @property
    def counts(self) -> str:
        """Weights and multiply-adds in words."""
        return f"{_short(self.weights)} weights, {_short(self.products)} multiply-adds at {self.frames} x {self.bands}"


def _short(count: int) -> str:
    """Return a number in millions or thousands of them.

    >>> _short(1_238_304), _short(313_262_080), _short(1_969_649_664)
    ('1.2M', '313M', '1.97G')
    """
    if count >= 1e9:
        return f"{count / 1e9:.2f}G"
    return f"{count / 1e6:.1f}M" if count < 2e7 else f"{count / 1e6:.0f}M"


def _lines(rows: dict[str, Net]) -> dict[str, str]:
    return {name: f"{row.line}: {row.counts}" if row.weights else row.line for name, row in rows.items()}


_H17, _MMV = "Hershey et al. 2017", "MM-Videos 2019"
_F19A, _F19B = "Fonseca et al. 2019, noisy labels", "Fonseca et al. 2019, model-agnostic"
_F21A, _F21C = "Fonseca et al. 2021, contrastive", "Fonseca et al. 2021, shift invariance"
_ENCODERS = {
    "plain": Net(
        "plain", "eight 3x3 convolutions with norm and ReLU, mean and max over the map", 1_238_304, 313_262_080, "none"
    ),
    "draft": Net("plain", "plain with a first convolution of stride 2, for drafts", 1_238_304, 78_364_672, "none"),
    "space-to-depth": Net(
        "space_to_depth",
        "four 3x3 convolutions on squares of 4 x 4 taken as channels, mean and max",
        458_304,
        7_143_424,
        "none",
    ),
    "resnet18-half": Net("resnet", "ResNet-18 with every width halved, stem stride 1", 2_828_640, 217_284_608, "none"),
    "resnet18": Net("resnet", "ResNet-18, stem stride 1", 11_235_904, 849_805_312, "He et al. 2016"),
    "resnet50": Net(
        "resnet",
        "ResNet-50, stem stride 1, the net of Jansen et al. 2018 and 2020",
        29_827_023,
        1_969_649_664,
        _H17,
        3087,
    ),
    "resnet18-torchvision": Net("resnet", "ResNet-18, stem stride 2", 11_170_240, 370_222_080, _F21A, 512, 101, 96),
    "dnn": Net("fully_connected", "three fully connected layers of 1,000 units", 11_237_087, 11_231_000, _H17, 3087),
    "alexnet": Net("alexnet", "AlexNet, first stride 2 x 1, batch norm", 37_352_495, 767_639_744, _H17, 3087),
    "vgg-e": Net("vgg", "VGG configuration E, batch norm", 62_044_495, 2_423_713_792, _H17, 3087),
    "inceptionv3": Net(
        "inception", "Inception V3 without the first four layers of its stem", 28_077_023, 5_437_980_672, _H17, 3087
    ),
    "vggish": Net(
        "vggish", "VGGish with its fully connected layers, no batch norm", 72_141_184, 863_895_552, "VGGish, released"
    ),
    "vggish-bn": Net("vggish", "VGGish, batch norm after every activation", 72_161_024, 882_917_376, _MMV, 128, 100),
    "vggish-bn-fc": Net("vggish", "VGGish, batch norm, fully convolutional", 72_161_280, 882_917_376, _MMV, 128, 100),
    "mobilenetv1": Net(
        "mobilenet", "MobileNet V1, the net of YAMNet", 3_740_425, 69_165_056, "Howard et al. 2017", 521
    ),
    "mobilenetv2": Net("mobilenet", "MobileNet V2, stem stride 1", 2_387_264, 145_578_240, _MMV, 128, 100),
    "vgg-like": Net(
        "vgg_like", "six 3x3 convolutions, mean and max over the map", 280_032, 358_587_392, _F21A, 512, 101, 96
    ),
    "crnn": Net("crnn", "three 5x5 convolutions and a bidirectional GRU", 946_816, 462_581_760, _F21A, 64, 101, 96),
    "vgg41": Net(
        "vgg4", "nine 3x3 convolutions, mean over bands, max over frames", 1_258_728, 771_900_416, _F21C, 200, 101, 96
    ),
    "vgg42": Net("vgg4", "VGG41 with twice its widths", 4_927_240, 3_081_914_368, _F21C, 200, 101, 96),
    "baseline-cnn": Net("baseline_cnn", "three 5x5 convolutions, dropout", 529_938, 49_056_768, _F19A, 64, 100, 96),
    "dense-se": Net("dense_se", "dense blocks with squeeze-and-excitation", 963_341, 381_485_376, _F19B, 20, 100, 96),
    "vgg-l3": Net(
        "vgg_l3",
        "four VGG blocks, batch norm, maximum over the map",
        4_751_808,
        1_249_312_768,
        "Arandjelovic and Zisserman 2017",
    ),
    "cnn14": Net(
        "cnn14",
        "six blocks of two 3x3 convolutions, for decibels",
        79_673_792,
        20_038_451_200,
        "Kong et al. 2020, PANNs",
        2048,
        1000,
    ),
}
TIMM = "timm:"  # what the name of a backbone of timm begins with
_IMAGE_TOWERS = {
    "space-to-depth": Net(
        "image",
        "four 3x3 convolutions on 4x4 pixels taken as channels, mean and max: 0.7M weights, 50M multiply-adds at "
        "128 px",
    ),
    "vgg": Net(
        "image",
        "four VGG blocks to 512 channels (Arandjelovic and Zisserman 2017): 4.8M weights, 3.4G multiply-adds at 128 px",
    ),
    "vgg-small": Net("image", "the VGG tower with a quarter of its widths: 0.3M weights, 0.2G multiply-adds at 128 px"),
    "resnet50": Net("image", "ResNet-50, the net of Jansen et al. 2020: 23.8M weights, 1.3G multiply-adds at 128 px"),
}
_SEPARATORS = {  # multiply-adds for a second of sound and four tracks
    "tdcn-stft-small": Net(
        "tdcn", "improved TDCN++ on the STFT, 16 blocks of width 128: 1.2M weights, 156M multiply-adds a second"
    ),
    "tdcn-stft": Net(
        "tdcn",
        "improved TDCN++ on the STFT (32 ms every 8 ms), 32 blocks of width 256: 9.2M weights, 1.2G multiply-adds a "
        "second",
    ),
    "tdcn-small": Net(
        "tdcn", "improved TDCN++ on a learned basis, 16 blocks of width 128: 1.3M weights, 1.0G multiply-adds a second"
    ),
    "tdcn": Net(
        "tdcn",
        "improved TDCN++ on a learned basis (2.5 ms), the net of Wisdom et al. 2020: 9.2M weights, 7.4G multiply-adds "
        "a second",
    ),
    "conv-tasnet-small": Net(
        "conv_tasnet",
        "Conv-TasNet with 2.5 ms windows, 16 blocks, half the width: 1.8M weights, 1.4G multiply-adds a second",
    ),
    "conv-tasnet": Net(
        "conv_tasnet",
        "Conv-TasNet of torchaudio (Luo and Mesgarani 2019), 1 ms windows, 24 blocks: 5.1M weights, 10.1G "
        "multiply-adds a second",
    ),
}

# What people read: names and their lines.
ENCODERS = _lines(_ENCODERS)
IMAGE_TOWERS = _lines(_IMAGE_TOWERS)
SEPARATORS = _lines(_SEPARATORS)

FORMER = {"folded": "space-to-depth"}  # names of nets in model files and options of before

# What is taken where nobody chooses: on a CPU, and on a GPU, where both nets are those of Jansen et al. 2020.
SMALL = {"encoder": "plain", "tower": "space-to-depth"}
LARGE = {"encoder": "resnet50", "tower": "resnet50"}
SEPARATOR = "tdcn-stft-small"  # where none is named
MOST_TRACKS = 100  # a track's number is stored in one byte


def options_type(name: str) -> type:
    """Return the dataclass of the choices that an encoder or a separator leaves; raise ValueError for no net."""
    if name in _SEPARATORS:
        return _module(_SEPARATORS[name]).Options
    if not is_encoder(name):
        raise ValueError(f"no net {name!r}; there are {', '.join(_ENCODERS | _SEPARATORS)}")
    return _module(net(name)).Options


def is_encoder(name: str) -> bool:
    """Return whether a name is that of an encoder, or of what timm may have.

    >>> is_encoder("vgg41"), is_encoder("timm:convnext_atto"), is_encoder("tdcn")
    (True, True, False)
    """
    return name in _ENCODERS or name.startswith(TIMM)


def net(name: str) -> Net:
    """Return the row of an encoder; raise ValueError for an unknown name."""
    if name.startswith(TIMM):
        return Net("timm_backbone", f"{name.removeprefix(TIMM)} of timm")
    if name not in _ENCODERS:
        raise ValueError(f"no encoder {name!r}; there are {', '.join(ENCODERS)}, and {TIMM}NAME")
    return _ENCODERS[name]


def stated(name: str) -> dict[str, Any]:
    """Return the options of a net that its model files state whatever was chosen: those that files of before lack.

    >>> stated("tdcn"), stated("plain")
    ({'revision': 2, 'skips': True}, {})
    """
    usual = options_type(name)()
    return {option: getattr(usual, option) for option in _former(name)}


def _former(name: str) -> dict[str, Any]:
    """Return what the options of a net were before its model files stated them."""
    return getattr(_module(_SEPARATORS[name]), "UNSTATED", {}) if name in _SEPARATORS else {}


def build(name: str, size: int = 128, bands: int = 64, frames: int = 96, **options: Any) -> Encoder:
    """Build an untrained encoder by its name in `ENCODERS`, or a backbone of timm by `timm:NAME`.

    `options` are fields of its module's Options. `norm` of those that have it is `batch` or `group`: normalisation of
    each window on its own, where the statistics of batch norm depend on how a batch is split over devices. Weights are
    drawn from torch's global generator: seed it first. Raises ValueError for an unknown name or option and for a window
    too small for the net.

    >>> build("plain", size=16, norm="group").size
    16
    """
    module = _module(net(name))
    chosen = _chosen(name, module.Options, options)
    if size < 1 or frames < 16 or bands < 16:
        raise ValueError(f"size {size}, frames {frames}, bands {bands}: at least 1, 16 and 16 are needed")
    shell = importlib.import_module("soundssl.models.encoder")
    return shell.Encoder(module.build(name, size, bands, frames, chosen), size, bands)


def build_image(name: str, size: int = 128, **options: Any) -> Tower:
    """Build an untrained image tower by its name in `IMAGE_TOWERS`.

    Pictures have sides of 32 pixels or more that are multiples of 4. `norm` is `batch` or, for all but resnet50,
    `group`. Weights are drawn from torch's global generator. Raises ValueError for an unknown name or option.

    >>> build_image("space-to-depth", size=16).size
    16
    """
    name = FORMER.get(name, name)
    if name not in _IMAGE_TOWERS:
        raise ValueError(f"no image tower {name!r}; there are {', '.join(IMAGE_TOWERS)}")
    module = _module(_IMAGE_TOWERS[name])
    return module.Tower(module.build(name, size, _chosen(name, module.Options, options)), size)


def build_separator(name: str, tracks: int = 4, consistency: Consistency = "predicted", **options: Any) -> Separator:
    """Build an untrained separator by its name in `SEPARATORS`, for a number of tracks.

    `consistency` says how tracks are made to sum to their mixture, see `Separator`; `options` are fields of its
    module's Options. Weights are drawn from torch's global generator. Raises ValueError for an unknown name, option or
    consistency, and for fewer than two tracks.

    >>> build_separator("tdcn-stft-small", tracks=2).tracks
    2
    """
    if name not in _SEPARATORS:
        raise ValueError(f"no separator {name!r}; there are {', '.join(SEPARATORS)}")
    if not 2 <= tracks <= MOST_TRACKS:
        raise ValueError(f"tracks is {tracks}; a separator has 2 to {MOST_TRACKS}")
    if consistency not in ("predicted", "energy", "uniform"):
        raise ValueError(f"consistency is {consistency!r}; it is predicted, energy or uniform")
    module = _module(_SEPARATORS[name])
    core = module.build(name, tracks, _chosen(name, module.Options, options))
    shell = importlib.import_module("soundssl.models.separator")
    return shell.Separator(core, tracks, consistency)


def restore(config: dict, tensors: dict) -> Encoder:
    """Build the encoder that a model's `config` describes and fill it with its tensors (numpy arrays, `encoder.*`).

    Raises ValueError where the model is a separator.
    """
    if config["encoder"] in SEPARATORS:
        raise ValueError("the model is a separator, not an encoder; its tracks are made with soundssl separate")
    options = {"norm": config["norm"], **config.get("net", {})}
    return _fill(build(config["encoder"], config["size"], config["bands"], config["frames"], **options), tensors)


def restore_separator(config: dict, tensors: dict) -> Separator:
    """Build the separator that a model's `config` describes and fill it; raise ValueError where it holds none."""
    if config["encoder"] not in SEPARATORS:
        raise ValueError("the model is an encoder, not a separator; train one with --objective mixit")
    options = _former(config["encoder"]) | config.get("net", {})
    return _fill(build_separator(config["encoder"], config["tracks"], config["consistency"], **options), tensors)


def _fill(network: Any, tensors: dict) -> Any:
    network.load_state_dict(importlib.import_module("soundssl.models.tensors").below(tensors, "encoder."))
    return network


def _module(row: Net) -> Any:
    return importlib.import_module(f"soundssl.models.{row.module}")


def _chosen(name: str, kind: type, given: dict[str, Any]) -> Any:
    """Return the Options of a net with what is given; raise ValueError for what the net has no choice of."""
    hints, chosen = typing.get_type_hints(kind), {}
    for option, value in given.items():
        if option in hints:
            choices = typing.get_args(hints[option])
            if choices and value not in choices:
                raise ValueError(f"{option} is {value!r}; it is {' or '.join(map(str, choices))}")
            chosen[option] = value
        elif (option, value) != ("norm", "batch"):  # every model file states a norm, also of a net without any
            raise ValueError(f"{name!r} has no {value} {option}; its options are {', '.join(hints) or 'none'}")
    return kind(**chosen)

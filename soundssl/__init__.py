"""soundssl: from unlabelled sound to a recogniser with a handful of labels, as composable tools.

From Python:

    model = soundssl.load_model("model.safetensors")
    embedding, start = model.embed(waveform, rate=44100)
    features = soundssl.Features("features.h5")

`soundssl.hear` is the common API of HEAR over a model file, `soundssl.export` writes one for other programs.

What needs torch or h5py is loaded when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soundssl.files import Clusters, Embeddings, Features, Labels
    from soundssl.model import load_model
    from soundssl.ops.spectrogram import log_mel

__version__ = "0.1.0"

__all__ = ["Clusters", "Embeddings", "Features", "Labels", "SoundsslError", "__version__", "load_model", "log_mel"]

_MODULES = {
    "load_model": "soundssl.model",
    "log_mel": "soundssl.ops.spectrogram",
    **dict.fromkeys(("Clusters", "Embeddings", "Features", "Labels"), "soundssl.files"),
}


class SoundsslError(Exception):
    """Say in one line what is wrong: the file, the fact, the remedy; `status` is the exit status of the command."""

    status = 1


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'soundssl' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

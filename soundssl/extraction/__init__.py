"""Extraction: media to features, clip by clip, in a pool of processes that no file can bring down.

features   inputs to one features file
sources    what a features file is made of
decode     media clips to frames and images
skipping   what is said of inputs that gave no clip
waveforms  the clips of a waveform file to frames
pool       processes for tasks that may crash or hang

A worker of the pool loads what it decodes with, and no more: the names below load their modules when asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soundssl.extraction.features import Extraction, featurize
    from soundssl.extraction.sources import Recipe, Source, collect
    from soundssl.extraction.waveforms import given_waveforms

__all__ = ["Extraction", "Recipe", "Source", "collect", "featurize", "given_waveforms"]

_MODULES = {
    **dict.fromkeys(("Extraction", "featurize"), "features"),
    **dict.fromkeys(("Recipe", "Source", "collect"), "sources"),
    "given_waveforms": "waveforms",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)

"""Objectives: one task a module, found by its name here. A module has `NEEDS`, `Options`, `Examples` and `Objective`.

`NEEDS` names the readers that must be given (`features`, `triplets`, `labels`). `Examples(inputs, options, seed)` says
what an example is: `len` of them, and `examples.__getitems__(keys)` returns the batch of (epoch, row) keys as tensors.
`Objective(encoder, inputs, options)` holds heads and loss: `objective(batch, progress)` returns a scalar and figures to
log by name, where progress runs from 0 to 1 and is all that a schedule needs. Objectives of a stage whose Examples are
equal (`==`) are given the same batch. Where embeddings are to be written with length one, a module says `UNIT_LENGTH`;
where the encoder is a separator and the features are waveforms, `SEPARATES`; what a model file must say of its head,
`facts(inputs, options)` returns.
"""

from __future__ import annotations

import importlib
from dataclasses import Field, dataclass, field, fields
from types import ModuleType
from typing import Any

OBJECTIVES = {
    "triplet": "an anchor lies nearer its positive than its negative (Jansen et al. 2018)",
    "coincidence": "two sounds, or a sound and a picture, belong to one recording (Jansen et al. 2020)",
    "contrastive": "two views of a clip are more alike than those of other recordings (Fonseca et al. 2021)",
    "clustering": "each window surely in one of many clusters, all windows together in many (Jansen et al. 2020)",
    "mixit": "sums of two recordings, taken apart again without knowing the sources (Wisdom et al. 2020)",
    "classification": "windows and their labels: explicit, spread from clusters, partly unknown (Jansen et al. 2020)",
}


@dataclass(frozen=True)
class Inputs:
    """Bundle the readers of a run and the clips (boolean, `[clips]`) that may be trained on."""

    features: Any
    clips: Any
    triplets: Any = None
    labels: Any = None
    embeddings: Any = None


def option(default: Any, description: str) -> Any:
    """Declare a field of an objective's Options, with the line that the manual prints."""
    return field(default=default, metadata={"help": description})


def load(name: str) -> ModuleType:
    """Return the module of an objective; raise ValueError for an unknown name."""
    if name not in OBJECTIVES:
        raise ValueError(f"no objective is called {name!r}; there are {', '.join(OBJECTIVES)}")
    return importlib.import_module(f"soundssl.objectives.{name}")


def separates(name: str) -> bool:
    """Return whether an objective trains a separator rather than an encoder."""
    return getattr(load(name), "SEPARATES", False)


def describe(name: str) -> list[Field]:
    """Return the fields of an objective's Options, each with its default and its line of help."""
    return list(fields(load(name).Options))

"""Objectives: one task a module, found by its name here; `Task` below says what every module has.

pairs  pair sampling and augmentation, which two objectives share
clock  which windows and pictures of a recording lie near a moment
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

T = TypeVar("T")

OBJECTIVES = {
    "triplet": "an anchor lies nearer its positive than its negative (Jansen et al. 2018)",
    "coincidence": "two sounds, or a sound and a picture, belong to one recording (Jansen et al. 2020)",
    "contrastive": "two views of a clip are more alike than those of other recordings (Fonseca et al. 2021)",
    "clustering": "each window surely in one of many clusters, all windows together in many (Jansen et al. 2020)",
    "mixit": "sums of two recordings, taken apart again without knowing the sources (Wisdom et al. 2020)",
    "onscreen": "mixit, and which of the tracks belong to what is seen (AudioScope, Tzinis et al. 2021)",
    "classification": "windows and their labels: explicit, spread from clusters, partly unknown (Jansen et al. 2020)",
}
# What `embed` can write of the head of an objective, beside the embedding that every encoder gives.
LAYERS = {
    "logits": "classification",
    "probabilities": "classification",
    "projection": "contrastive",
}


@dataclass(frozen=True)
class Inputs:
    """Bundle the readers of a run and the clips (boolean, `[clips]`) that may be trained on."""

    features: Any
    clips: Any
    triplets: Any = None
    labels: Any = None
    embeddings: Any = None
    coincidence: Any = None  # a model of sound and picture, whose nets others begin with


class Layer(NamedTuple):
    """Hold a head that is restored: it maps embeddings `[batch, size]` to `[batch, width]`, and names its classes."""

    head: nn.Module
    width: int
    classes: list[str]


@dataclass(frozen=True)
class Head:
    """Say what a model file says of a head, and how it is restored.

    `facts(inputs, options)` are stored in the model's config, under `heads` and the objective's name. A head whose
    facts of the names in `shape` differ begins afresh. `layers` restore what `embed` can write of it: each takes these
    facts, the size of an embedding and the tensors of the model file.
    """

    noun: str
    facts: Callable[[Inputs, Any], dict[str, Any]]
    shape: tuple[str, ...] = ()
    layers: Mapping[str, Callable[[dict[str, Any], int, dict[str, np.ndarray]], Layer]] = field(default_factory=dict)


class Task(Protocol):
    """What the module of an objective has."""

    NEEDS: tuple[str, ...]  # readers of Inputs that must be given: features, triplets, labels
    # TAKES, where there is one, names those that may be given.
    SEPARATES: bool  # whether the net is a separator and the features are waveforms
    UNIT_LENGTH: bool  # whether embeddings are written with length one
    HEAD: Head | None  # what a model file says of its head, None where nothing needs to be said

    # The dataclass of its options, each declared by `option`.
    Options: type

    # Examples(inputs, options, seed): `len` of them; `examples.__getitems__(keys)` returns the batch of (epoch, row)
    # keys as tensors. Objectives of a stage whose Examples are equal (`==`) are given the same batch. `notes`, where
    # there are any, are lines that a person should read before the first step; `arrange(epoch)`, where there is one and
    # it is not None, returns the rows of an epoch, in place of a permutation.
    Examples: Callable[[Inputs, Any, int], Any]

    # Objective(encoder, inputs, options), a torch module that holds heads and loss: `objective(batch, progress)`
    # returns a scalar and figures to log by name, where progress runs from 0 to 1 and is all that a schedule needs.
    # `objective.remark(figures)`, where there is one, returns a line about the last figures, or an empty one.
    Objective: Callable[[Any, Inputs, Any], Any]


def option(default: Any, description: str) -> Any:
    """Declare a field of an objective's Options, with the line that the manual prints."""
    return field(default=default, metadata={"help": description})


def load(name: str) -> Task:
    """Return the module of an objective; raise ValueError for an unknown name."""
    if name not in OBJECTIVES:
        raise ValueError(f"no objective is called {name!r}; there are {', '.join(OBJECTIVES)}")
    return cast(Task, importlib.import_module(f"soundssl.objectives.{name}"))


def uses(name: str, role: str) -> bool:
    """Return whether an objective needs or takes an input: features, triplets or labels.

    >>> uses("triplet", "labels"), uses("contrastive", "triplets")
    (True, False)
    """
    task = load(name)
    return role in task.NEEDS or role in getattr(task, "TAKES", ())


def with_preset(options: T, preset: Mapping[str, Any]) -> T:
    """Return options with the values of a preset for those that are as by default; others were given, and win."""
    usual = type(options)()
    chosen = {name: value for name, value in preset.items() if getattr(options, name) == getattr(usual, name)}
    return replace(options, **chosen)  # type: ignore[type-var]


def separates(name: str) -> bool:
    """Return whether an objective trains a separator rather than an encoder."""
    return load(name).SEPARATES


def describe(name: str) -> list[Field]:
    """Return the fields of an objective's Options, each with its default and its line of help."""
    return list(fields(load(name).Options))


def differences(name: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the facts by which a head of an objective cannot go on as it was, none where it can."""
    head = load(name).HEAD
    return [fact for fact in head.shape if before.get(fact) != after.get(fact)] if head else []


def restore(layer: str, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Layer:
    """Return a layer of LAYERS as the config and the tensors of a model file have it.

    Raises ValueError for an unknown layer, and where the model has no such head.
    """
    if layer not in LAYERS:
        raise ValueError(f"no layer is called {layer!r}; there are embedding, {', '.join(LAYERS)}")
    name = LAYERS[layer]
    head, known = load(name).HEAD, config.get("heads", {}).get(name)
    assert head is not None
    if known is None:
        raise ValueError(f"the model has no {head.noun}; train one with --objective {name}")
    return head.layers[layer](known, config["size"], tensors)

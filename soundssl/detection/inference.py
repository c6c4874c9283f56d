"""Inference: a factor graph that a user states in TOML, run on the scores of windows or on labels.

[variables] names each variable and what it is observed by: a class (two states: absent, present), a list of classes
that exclude each other (a state each), or a number of states that nothing observes. Each [[factors]] lists `variables`
and a `table` of log potentials, nested in their order; "next X" is X in the next window of the clip.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soundssl import SoundsslError, files
from soundssl.detection.decisions import NEAR, extents
from soundssl.labels import LabelSet
from soundssl.labels.scores import classes_of
from soundssl.ops import chains, factors

NEXT = "next "
JOINT = 256  # states of all variables together that hang on the next window; a step takes their square
LEAST = 1e-6  # probability that no score falls below


class ModelError(SoundsslError):
    """A model is no TOML, or states no factor graph, or none that fits the observations."""

    status = 2


@dataclass(frozen=True)
class Variable:
    """Say how many states a variable has, and which classes observe it: one, one a state, or none."""

    name: str
    states: int
    classes: tuple[str, ...]

    @property
    def outputs(self) -> list[str]:
        """Names of the probabilities of this variable: of being present, or of each state."""
        if len(self.classes) > 1:
            return list(self.classes)
        return [self.name] if self.states == 2 else [f"{self.name}={state}" for state in range(self.states)]


@dataclass(frozen=True)
class Factor:
    """A table of log potentials over variables by their numbers, those of the next window counted on."""

    variables: tuple[int, ...]
    table: Tensor


@dataclass(frozen=True)
class Template:
    """A graph that is repeated for every window."""

    name: str
    variables: list[Variable]
    factors: list[Factor]

    @property
    def outputs(self) -> list[str]:
        """Names of all probabilities."""
        return [name for variable in self.variables for name in variable.outputs]

    @property
    def in_time(self) -> bool:
        """Whether a factor reaches into the next window."""
        return any(max(factor.variables) >= len(self.variables) for factor in self.factors)


def read(path: Path) -> Template:
    """Read a model; raise ModelError with what is wrong and where."""
    name = files.text(path)
    try:
        data = tomllib.loads(files.require(path).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{name} is not a TOML file: {error}") from None
    if unknown := sorted(set(data) - {"variables", "factors"}):
        raise ModelError(f"{name} has {unknown[0]!r}; a model has [variables] and [[factors]]")
    if not isinstance(data.get("variables"), dict) or not data["variables"]:
        raise ModelError(f"{name} has no [variables]; name each, with the class that observes it")
    variables = [_variable(key, value, name) for key, value in data["variables"].items()]
    number = {variable.name: place for place, variable in enumerate(variables)}
    number |= {NEXT + one: place + len(variables) for one, place in number.items()}
    states = [variable.states for variable in variables] * 2
    stated = data.get("factors", [])
    if not isinstance(stated, list):
        raise ModelError(f"{name}: factors is no list; write each under [[factors]]")
    found = [_factor(each, number, states, f"factor {place} of {name}") for place, each in enumerate(stated, 1)]
    model = Template(name, variables, found)
    if len(set(model.outputs)) < len(model.outputs):
        raise ModelError(f"{name} names two probabilities alike; variables and classes have names of their own")
    return model


def _variable(name: str, value: object, where: str) -> Variable:
    if name.startswith(NEXT):
        raise ModelError(f"{where}: a variable cannot be called {name!r}; that is what factors call the next window's")
    if isinstance(value, str):
        return Variable(name, 2, (value,))
    if isinstance(value, list) and len(value) > 1 and all(isinstance(each, str) for each in value):
        return Variable(name, len(value), tuple(value))
    if isinstance(value, int) and not isinstance(value, bool) and value > 1:
        return Variable(name, value, ())
    raise ModelError(
        f"{where}: variable {name!r} is {value!r}; give a class, several in a list, or a number of states from 2 on"
    )


def _factor(stated: object, number: dict[str, int], states: list[int], where: str) -> Factor:
    if not isinstance(stated, dict) or set(stated) != {"variables", "table"}:
        raise ModelError(f"{where} has other keys than variables and table")
    names = stated["variables"]
    if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
        raise ModelError(f"{where}: variables is no list of names, each once")
    if unknown := [name for name in names if name not in number]:
        raise ModelError(f"{where} names {unknown[0]!r}, which is no variable; there are {', '.join(number)}")
    places = tuple(number[name] for name in names)
    if min(places) >= len(states) // 2:
        raise ModelError(f"{where} is of the next window alone; leave out 'next'")
    shape = [states[place] for place in places]
    try:
        table = torch.tensor(stated["table"], dtype=torch.float64)
    except (ValueError, TypeError):
        raise ModelError(f"{where}: the table is no nested list of numbers of shape {shape}") from None
    if list(table.shape) != shape:
        raise ModelError(f"{where}: the table is of shape {list(table.shape)}; its variables need {shape}")
    if bool((table.isnan() | (table == math.inf)).any()):
        raise ModelError(f"{where}: the table has nan or inf; log potentials are numbers or -inf")
    return Factor(places, table)


def evidence(model: Template, chance: np.ndarray, classes: Sequence[str]) -> list[Tensor]:
    """Return the log potentials of every variable in every window, `[windows, states]` each, from probabilities.

    NaN is a class that nothing is known of. Shape: `[windows, classes]`. Raises ModelError for a class that is not
    there.
    """
    column = {name: place for place, name in enumerate(classes)}
    if lacking := [name for each in model.variables for name in each.classes if name not in column]:
        known = ", ".join(map(repr, classes[:20]))
        raise ModelError(f"{model.name} observes {lacking[0]!r}, which the observations do not have, but {known}")
    found = []
    for variable in model.variables:
        own = chance[:, [column[name] for name in variable.classes]]
        if not variable.classes:
            own = np.full((len(chance), variable.states), np.nan)
        elif len(variable.classes) == 1:
            own = np.concatenate([1 - own, own], 1)
        with np.errstate(divide="ignore"):
            found.append(torch.from_numpy(np.nan_to_num(np.log(own), nan=0.0, neginf=-np.inf)))
    return found


def marginals(model: Template, observed: list[Tensor], runs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the probabilities of `Template.outputs`, exactly, given all windows of each run of neighbours.

    Without a factor over time every window is a graph of its own: exact on trees, by loopy messages elsewhere.
    Shape: runs (first, end) of windows; `[windows, outputs]`. Raises ModelError where nothing that is allowed fits.
    """
    try:
        if model.in_time:
            own = _over_time(model, observed, runs)
        else:
            factors_ = [factors.Factor((place,), table) for place, table in enumerate(observed)]
            factors_ += [factors.Factor(each.variables, each.table) for each in model.factors]
            graph = factors.Graph([variable.states for variable in model.variables], factors_)
            own = factors.sum_product(graph).marginals
    except ValueError as error:
        raise ModelError(f"{model.name}: {error}") from None
    columns = [
        each if len(variable.outputs) == variable.states else each[:, 1:]
        for variable, each in zip(model.variables, own, strict=True)
    ]
    return torch.cat([column.expand(len(observed[0]), -1) for column in columns], 1).numpy()


def _over_time(model: Template, observed: list[Tensor], runs: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return the marginals of each variable, by a chain whose states are those of all variables together."""
    states = [variable.states for variable in model.variables]
    if math.prod(states) > JOINT:
        raise ModelError(
            f"{model.name} has {math.prod(states)} states together that hang on the next window; at most {JOINT} do"
        )
    joint = torch.tensor(list(itertools.product(*map(range, states))))
    within = torch.zeros(len(joint), dtype=torch.float64)
    change = torch.zeros((len(joint), len(joint)), dtype=torch.float64)
    both = torch.cat([joint[:, None].expand(-1, len(joint), -1), joint[None].expand(len(joint), -1, -1)], 2)
    for factor in model.factors:
        if max(factor.variables) < len(states):
            within += factor.table[tuple(joint[:, place] for place in factor.variables)]
        else:
            change += factor.table[tuple(both[:, :, place] for place in factor.variables)]
    potentials = within + sum(table[:, joint[:, place]] for place, table in enumerate(observed))
    found = torch.empty_like(potentials)
    for first, end in runs:
        found[first:end] = chains.marginals(potentials[None, first:end], change).marginals[0]
    return [
        torch.stack([found[:, joint[:, place] == state].sum(1) for state in range(count)], 1)
        for place, count in enumerate(states)
    ]


def of_scores(model: Template, source: files.Embeddings) -> np.ndarray:
    """Return the probabilities of a model for each window of a scores file. Shape: `[windows, outputs]`, float32.

    Scores count as probabilities. Raises FormatError for embeddings.
    """
    classes, clip, start = classes_of(source), np.asarray(source.clip[:]), np.asarray(source.start[:])
    chance = np.asarray(source.embedding[:], np.float64)
    if len(chance) and not 0 <= np.nanmin(chance) <= np.nanmax(chance) <= 1:
        raise files.FormatError(
            f"{files.text(source.path)} holds scores beyond 0 to 1; make them with soundssl embed --layer probabilities"
        )
    observed = evidence(model, np.clip(chance, LEAST, 1 - LEAST), classes)
    edges = np.append(np.flatnonzero(np.diff(clip, prepend=-1)), len(clip))
    runs: list[tuple[int, int]] = []
    for first, end in itertools.pairwise(edges.tolist()):
        low, high = extents(start[first:end], float(source.attributes["window"]))
        apart = (np.flatnonzero(low[1:] > high[:-1] + NEAR) + 1 + first).tolist()
        runs += itertools.pairwise([first, *apart, end])
    return marginals(model, observed, runs).astype(np.float32)


def of_labels(model: Template, labels: LabelSet, sure: float) -> LabelSet:
    """Return what a model makes of labelled segments: present where the probability is `sure`, absent where 1 minus.

    Everything else is unknown. Raises ModelError for a model over time, for segments have no order.
    """
    if model.in_time:
        raise ModelError(f"{model.name} is over time, and segments of labels have no next; give scores of windows")
    chance = np.where(labels.label < 0, np.nan, labels.label.astype(np.float64))
    found = marginals(model, evidence(model, chance, labels.classes), ())
    label = np.where(found >= sure, 1, np.where(found <= 1 - sure, 0, -1)).astype(np.int8)
    kept = ("weight", "split", "origin", "recording", "uploader", "licence", "subset", "noisy")
    return LabelSet(
        label, model.outputs, labels.key, labels.start, labels.end, **{name: getattr(labels, name) for name in kept}
    )

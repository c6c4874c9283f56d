"""Curricula: a list of stages as data, from a TOML file or from options; unknown keys are refused."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from soundssl import SoundsslError, models, objectives
from soundssl.presets import in_force

AUTO = "auto"
# Keys of a stage that stand in a model file where they were chosen: files of before have none of them.
LATER = (
    "momentum",
    "milestones",
    "decay",
    "plateau",
    "encoder_rate",
    "clip",
    "average",
    "validate",
    "every",
    "patience",
)
LOWER = ("loss", "entropy")  # measures of which less is better
LABELLED = ("mAP", "knn", "retrieval")  # measures that ask for labels
AUTO_BATCH = 0  # a batch size that is left to the device, see `settle`
SEPARATED_ON_A_CPU = 8  # excerpts a step where a separator is trained on a CPU: 300 steps of 64 take over half an hour


class Refused(SoundsslError, ValueError):
    """A curriculum that cannot be meant as it stands: an unknown or ill-typed key, a name that does not exist."""

    status = 2


@dataclass(frozen=True)
class Stage:
    """Describe one stage: its objectives (name → options, with the `weight` of its loss) and how it is optimised.

    `momentum` is that of sgd. The schedule multistep multiplies the rate by `decay` at each of `milestones` (steps);
    plateau does where `plateau` measures in a row were no better than the best. `encoder_rate` is the rate of the
    encoder in parts of that of the heads; `clip` the largest norm of the gradient (0: any); `average` the decay of a
    moving average of the weights, which is measured and kept in their place (0: none). `validate` names what is
    measured `every` so many steps on the clips to validate on: the best state is kept, and after `patience` measures
    that were no better the stage ends (0: never).
    """

    objective: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: float = 0.05
    schedule: Literal["constant", "cosine", "multistep", "plateau"] = "cosine"
    optimiser: Literal["adam", "rowwise", "sgd"] = "adam"
    momentum: float = 0.9
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    plateau: int = 5
    encoder_rate: float = 1.0
    clip: float = 0.0
    average: float = 0.0
    validate: Literal["none", "loss", "mAP", "knn", "retrieval", "entropy"] = "none"
    every: int = 100
    patience: int = 0


@dataclass(frozen=True)
class Curriculum:
    """Describe a whole training: the encoder or separator, and stages in which it and the heads live on.

    `size` and `norm` are those of an encoder, `tracks` and `consistency` those of a separator, `net` holds further
    options of the net, as the Options of its module declares them. What is `auto` depends on the device and on the
    model that a run starts from: see `settle`.
    """

    encoder: str = AUTO
    size: int = 128
    norm: Literal["batch", "group"] = "batch"
    stage: tuple[Stage, ...] = ()
    tracks: int = 4
    consistency: Literal["predicted", "energy", "uniform"] = "predicted"
    net: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as stored in a model's config."""
        data = asdict(self)
        usual = asdict(Stage())
        data["stage"] = tuple(
            {name: value for name, value in stage.items() if name not in LATER or value != usual[name]}
            for stage in data["stage"]
        )
        return data if self.net else {name: value for name, value in data.items() if name != "net"}


def from_toml(path: Path) -> Curriculum:
    """Read a curriculum; raise ValueError for a file that is no TOML, and for unknown or ill-typed keys."""
    try:
        data = tomllib.loads(Path(path).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not a TOML file: {error}") from error
    return from_data(data, str(path))


def from_data(data: dict[str, Any], where: str = "the curriculum") -> Curriculum:
    """Check plain data and return the curriculum.

    >>> from_data({"stage": [{"steps": 5, "objective": {"triplet": {}}}]}).stage[0].steps
    5
    """
    stages = data.get("stage", [])
    if not isinstance(stages, list) or not stages:
        raise Refused(f"{where} has no [[stage]]; a curriculum is a list of stages")
    names = [where] if len(stages) == 1 else [f"stage {number} of {where}" for number in range(1, len(stages) + 1)]
    built = tuple(_stage(stage, name) for stage, name in zip(stages, names, strict=True))
    values = {"encoder": _usual_net(built, where), **data}
    plan = Curriculum(**{**_checked(Curriculum, {**values, "stage": ()}, where), "stage": built})
    _check_net(plan, where)
    return plan


def untrained(data: dict[str, Any], where: str = "the curriculum") -> Curriculum:
    """Return a curriculum without a stage: the net as it starts, for weights that others trained.

    >>> untrained({"encoder": "vggish"}).stage
    ()
    """
    return Curriculum(**{**_checked(Curriculum, data, where), "stage": ()})


def _usual_net(stages: tuple[Stage, ...], where: str) -> str:
    """Return the net where none is named: an encoder or a separator, as the objectives have it."""
    kinds = {name: objectives.separates(name) for stage in stages for name in stage.objective}
    if len(set(kinds.values())) > 1:
        one, other = (", ".join(name for name in kinds if kinds[name] is kind) for kind in (True, False))
        raise Refused(f"{where} trains a separator by {one} and an encoder by {other}; train them one after the other")
    return models.SEPARATOR if any(kinds.values()) else Curriculum.encoder


def _check_net(plan: Curriculum, where: str) -> None:
    """Refuse a net that does not exist, or is not of the kind that the objectives train."""
    separating = objectives.separates(next(iter(plan.stage[0].objective)))
    kind, known = ("separator", models.SEPARATORS) if separating else ("encoder", models.ENCODERS)
    named = plan.encoder in known or (not separating and (plan.encoder == AUTO or models.is_encoder(plan.encoder)))
    if not named:
        article = "an" if kind == "encoder" else "a"
        if models.is_encoder(plan.encoder) or plan.encoder in models.SEPARATORS:
            raise Refused(
                f"{where} trains {article} {kind}, which {plan.encoder!r} is not; there are {', '.join(known)}"
            )
        raise Refused(f"{where} names the {kind} {plan.encoder!r}{nearest(plan.encoder, known)}")
    if not 2 <= plan.tracks <= models.MOST_TRACKS:
        raise Refused(f"tracks of {where} is {plan.tracks}; a separator has 2 to {models.MOST_TRACKS}")


def settle(plan: Curriculum, gpu: bool, start: dict[str, Any] | None = None) -> Curriculum:
    """Return a curriculum without `auto`: nets as in the model that a run starts from (its config), else by the device.

    A separator takes a smaller batch on a CPU, where none is given. Raises ValueError for an option that the net does
    not have.

    >>> settle(from_data({"stage": [{"objective": {"triplet": {}}}]}), gpu=False).encoder
    'plain'
    """
    nets = (models.LARGE if gpu else models.SMALL) | _nets_of(start or {})
    stages = []
    for stage in plan.stage:
        chosen = {name: dict(options) for name, options in stage.objective.items()}
        for name, options in chosen.items():
            known = {each.name for each in objectives.describe(name)}
            options |= {key: net for key, net in nets.items() if key in known and options.get(key, AUTO) == AUTO}
        batch = stage.batch_size or (Stage.batch_size if gpu else SEPARATED_ON_A_CPU)
        stages.append(dataclasses.replace(stage, objective=chosen, batch_size=batch))
    encoder = nets["encoder"] if plan.encoder == AUTO else plan.encoder
    before = start.get("net", {}) if start and start["encoder"] == encoder else models.stated(encoder)
    net = before | plan.net
    net = _checked(models.options_type(encoder), net, f"the net {encoder}")
    norm = net.pop("norm", plan.norm)
    return dataclasses.replace(plan, encoder=encoder, norm=norm, net=net, stage=tuple(stages))


def _nets_of(config: dict[str, Any]) -> dict[str, str]:
    """Return the nets that a model's config names; the last stage that has one counts."""
    found = {"encoder": config["encoder"]} if "encoder" in config else {}
    for stage in config.get("stage", ()):
        found |= {
            key: options[key] for options in stage["objective"].values() for key in models.SMALL if key in options
        }
    return {key: models.FORMER.get(net, net) for key, net in found.items()}


def replace(plan: Curriculum, values: dict[str, Any]) -> Curriculum:
    """Return a curriculum with other values for its net: encoder, size, norm, net, tracks or consistency."""
    stages = [dataclasses.asdict(stage) for stage in plan.stage]
    for stage in stages:
        if stage["batch_size"] == AUTO_BATCH:
            del stage["batch_size"]
    return from_data({**plan.as_dict(), **values, "stage": stages})


def _stage(data: dict[str, Any], where: str) -> Stage:
    if not isinstance(data, dict):
        raise Refused(f"{where} is {data!r}; a stage is a table")
    values = _checked(Stage, data, where)
    for name, least in LEAST.items():
        if values.get(name, least) < least:
            raise Refused(f"{name} of {where} is {values[name]}; it must be at least {least}")
    for name in ("momentum", "average"):
        if not 0 <= values.get(name, 0) < 1:
            raise Refused(f"{name} of {where} is {values[name]}; it must be from 0 to below 1")
    milestones = values.get("milestones", ())
    if any(type(step) is not int or step < 1 for step in milestones) or sorted(milestones) != list(milestones):
        raise Refused(f"milestones of {where} are {list(milestones)}; they are steps, one after another, as [80, 160]")
    _check_measure(values, where)
    if not values.get("objective"):
        raise Refused(f"{where} names no objective; there are {', '.join(objectives.OBJECTIVES)}")
    checked = {}
    for name, options in values["objective"].items():
        if name not in objectives.OBJECTIVES:
            raise Refused(f"{where} names the objective {name!r}{nearest(name, objectives.OBJECTIVES)}")
        if not isinstance(options, dict):
            raise Refused(f"objective {name} in {where} is {options!r}; it must be a table of options")
        options = dict(options)
        weight = options.pop("weight", 1.0)
        here = f"objective {name} in {where}"
        module = objectives.load(name)
        options = _checked(module.Options, options, here)
        preset = getattr(module, "PRESETS", {}).get(options.pop("preset", "none"), {})
        checked[name] = {
            **in_force(preset, options),
            "weight": _typed(float, weight, "weight", here),
        }
    left = {"batch_size": AUTO_BATCH} if any(map(objectives.separates, checked)) else {}
    return Stage(**{**left, **values, "objective": checked})


LEAST = {"steps": 1, "batch_size": 1, "learning_rate": 0, "weight_decay": 0, "warmup": 0, "decay": 0, "plateau": 1}
LEAST |= {"encoder_rate": 0, "clip": 0, "every": 1, "patience": 0}


def _check_measure(values: dict[str, Any], where: str) -> None:
    """Refuse a stage that waits for a measure, or schedules by steps, without any."""
    schedule, measure = values.get("schedule"), values.get("validate", "none")
    if schedule == "multistep" and not values.get("milestones"):
        raise Refused(f"{where} has the schedule multistep and no milestones; give some, as milestones=[80, 160]")
    if measure == "none" and (schedule == "plateau" or values.get("patience")):
        raise Refused(
            f"{where} waits for a measure that improves, and measures nothing; give validate, as validate=loss"
        )
    needed = {"mAP": "classification", "entropy": "clustering"}.get(measure)
    if needed and needed not in values.get("objective", {}):
        raise Refused(f"{where} validates by {measure}, which only the objective {needed} has")


def _checked(kind: type, data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return values by name, each of the type its field has; raise ValueError for others."""
    hints = typing.get_type_hints(kind)
    known = [each.name for each in fields(kind)]
    for name in data:
        if name not in known:
            raise Refused(f"{where} has the key {name!r}{nearest(name, known)}")
    return {name: _typed(hints[name], value, name, where) for name, value in data.items()}


def _typed(hint: Any, value: Any, name: str, where: str) -> Any:
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in choices:
            raise Refused(f"{name} of {where} is {value!r}; choose {', '.join(map(repr, choices))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or hint
    if expected is tuple:
        return tuple(value)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise Refused(f"{name} of {where} is {value!r}; it must be {getattr(expected, '__name__', expected)}")
    return value


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: the nearest known one, or all of them.

    >>> nearest("margn", ["margin", "mining"])
    ', which is not known; did you mean margin?'
    """
    known = list(known)
    match = difflib.get_close_matches(name, known, n=1)
    return ", which is not known; " + (
        f"did you mean {match[0]}?" if match else f"there are {', '.join(known) or 'none'}"
    )


def parse_value(text: str) -> Any:
    """Return the value of `--set name=value`: what TOML reads, else the text itself.

    >>> parse_value("0.2"), parse_value("semihard"), parse_value("true")
    (0.2, 'semihard', True)
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

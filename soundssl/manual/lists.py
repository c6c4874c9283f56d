"""Description tables as sections of a page: what can be named, each with its line; and what a curriculum may say."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping

from soundssl import curriculum, datasets, models, objectives, samplers
from soundssl.manual.parameters import Parameter
from soundssl.manual.roff import bold, entry, escape, prose, section

TABLES: Mapping[str, Mapping[str, str]] = {
    "OBJECTIVES": objectives.OBJECTIVES,
    "ENCODERS": models.ENCODERS,
    "SAMPLERS": samplers.SAMPLERS,
    "DATASETS": datasets.DATASETS,
    "SEPARATORS": models.SEPARATORS,
}


def joined(table: Mapping[str, str]) -> str:
    """Return a table as the help of an option shows it.

    >>> joined({"plain": "convolutions", "vggish": "VGG"})
    'plain: convolutions; vggish: VGG'
    """
    return "; ".join(f"{name}: {line}" for name, line in table.items())


def tables_of(parameters: list[Parameter]) -> dict[str, Mapping[str, str]]:
    """Return the tables that the help of these parameters lists or names, by the title of their section."""
    named = {title: (joined(table), pointer(title)) for title, table in TABLES.items()}
    return {
        title: table
        for title, table in TABLES.items()
        if any(words in each.help for each in parameters for words in named[title])
    }


def pointer(title: str) -> str:
    """Return how the help of an option points to a table that is printed apart.

    >>> pointer("ENCODERS")
    'see --list encoders'
    """
    return f"see --list {title.lower()}"


def listing(title: str, table: Mapping[str, str]) -> list[str]:
    """Write a table as a section; objectives with what they need and their options."""
    lines = []
    for name, line in table.items():
        lines += entry(bold(name), f"{line[0].upper()}{line[1:]}.")
        lines += objective(name) if title == "OBJECTIVES" else []
    return section(title, *lines)


def objective(name: str) -> list[str]:
    """Write what an objective needs, and its options with their defaults."""
    module = objectives.load(name)
    types = typing.get_type_hints(module.Options)
    needs = f"Needs {' and '.join(module.NEEDS)}. " if module.NEEDS else ""
    lines = [".RS", ".PP", prose(f"{needs}Options, each given as --set NAME=VALUE:")]
    for field in objectives.describe(name):
        meaning = _with_choices(field, types[field.name])
        lines += entry(f"{bold(field.name)}={escape(str(field.default))}", f"{meaning[0].upper()}{meaning[1:]}.")
    return [*lines, *entry(f"{bold('weight')}=1.0", "Factor of this loss in its stage."), ".RE"]


def _with_choices(field: dataclasses.Field, hint: object) -> str:
    meaning = field.metadata["help"]
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    if any(str(choice) not in meaning for choice in choices):
        return f"{meaning}: {', '.join(map(str, choices))}"
    return meaning


def curricula() -> list[str]:
    """Write the keys of a curriculum with their defaults, as TOML."""
    whole, stage = curriculum.Curriculum().as_dict(), curriculum.Stage()
    rows = [f"{key} = {_toml(value)}" for key, value in whole.items() if key != "stage"]
    rows += ["", "[[stage]]", *(f"{key} = {_toml(value)}" for key, value in vars(stage).items() if key != "objective")]
    rows += ["", "[stage.objective.triplet]", "weight = 1.0"]
    text = "A file for --curriculum is TOML: keys of the encoder, then one stage after another, each with the options "
    text += "of one objective or of several. What is left out has these values:"
    return section("CURRICULUM", ".PP", prose(text), ".PP", ".in +4n", ".EX", *map(escape, rows), ".EE", ".in")


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return str(list(value))
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)

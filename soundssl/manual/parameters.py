"""What a command says of itself: its docstring in parts, its parameters with their types.

Parameters carry names, help and default; their types are in the annotations of the command.
"""

from __future__ import annotations

import enum
import inspect
import re
import typing
from pathlib import Path
from typing import Any, NamedTuple

HEADINGS = re.compile(r"Examples?:")


class Text(NamedTuple):
    """Hold a docstring in its parts: the first sentence, the paragraphs after it, and the command lines at its end."""

    summary: str
    paragraphs: list[str]
    examples: list[str]


def read_docstring(docstring: str | None) -> Text:
    """Divide a docstring; what follows `Example:` or `Examples:` are command lines, one a paragraph.

    >>> read_docstring("Do it.\\n\\nMore.\\n\\nExample:\\n\\nsoundssl do it").examples
    ['soundssl do it']
    """
    parts = [" ".join(part.split()) for part in inspect.cleandoc(docstring or "").split("\n\n")]
    end = next((i for i, part in enumerate(parts) if HEADINGS.fullmatch(part)), len(parts))
    lines = [part for part in parts[:end] if part.startswith("soundssl ")]  # the pipeline of the overview
    return Text(parts[0], [part for part in parts[1:end] if part not in lines], lines + parts[end + 1 :])


class Parameter(NamedTuple):
    """Hold what the manual says of one argument or option."""

    names: tuple[str, ...]
    opposite: tuple[str, ...]
    value: str
    help: str
    default: str
    required: bool
    repeated: bool


def hints_of(function) -> dict[str, Any]:
    """Return the annotations of a command's parameters, which typer's own parameters no longer carry."""
    return typing.get_type_hints(inspect.unwrap(function), include_extras=True)


def parameters_of(command) -> list[Parameter]:
    """Return the parameters of a command (of `typer.main.get_command`) in the order of their declaration."""
    hints = hints_of(command.callback)
    return [_parameter(each, hints[each.name]) for each in command.params]


def _parameter(declared, hint) -> Parameter:
    kind, repeated = _plain_type(typing.get_args(hint)[0])
    positional = declared.param_type_name == "argument"
    flag = kind is bool
    value = "" if flag else (declared.metavar or _value_name(declared, kind, positional))
    names = (value,) if positional else tuple(declared.opts)
    default = _default(declared.default, declared.opts if flag and declared.secondary_opts else None)
    text, mark, said = declared.help.partition(" Default:")
    meaning = text + _bounds(kind, hint) + mark + said
    return Parameter(names, tuple(declared.secondary_opts), value, meaning, default, declared.required, repeated)


def _plain_type(hint) -> tuple[Any, bool]:
    """Return the type of one value, without None and list, and whether several may be given."""
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    inner = [each for each in typing.get_args(hint) if each is not type(None)]
    return (inner[0], False) if typing.get_origin(hint) is not typing.Literal and inner else (hint, False)


def _value_name(declared, kind, positional: bool) -> str:
    name = declared.name.strip("_").upper().replace("_", "-")
    return name if positional else {Path: "FILE", int: "N", float: "X"}.get(kind, name)


def _default(value: Any, names: list[str] | None) -> str:
    if names:
        return names[-1] if value else ""
    value = value.value if isinstance(value, enum.Enum) else value
    if value is None or value is False or value in ([], ()):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bounds(kind, hint) -> str:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f" One of {', '.join(each.value for each in kind)}."
    if typing.get_origin(kind) is typing.Literal:
        return f" One of {', '.join(map(str, typing.get_args(kind)))}."
    low, high = (getattr(hint.__metadata__[0], bound, None) for bound in ("min", "max"))
    limits = [f"at least {low:g}"] if low else []  # a minimum of zero goes without saying
    limits += [f"at most {high:g}"] if high is not None else []
    return f" {' and '.join(limits).capitalize()}." if limits else ""


def is_argument(parameter: Parameter) -> bool:
    """Return whether a parameter is given by its place, not by a name."""
    return not parameter.names[0].startswith("-")

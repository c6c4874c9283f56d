"""Manual pages, made from the commands themselves: `python -m soundssl.commands.manual man/` writes them.

What a page says stands where the command is: name, description and examples in its docstring, options in its
annotations, lists of names in the description tables, files in the schemas, exit statuses in `soundssl.commands`. The
pages carry a version and no date, so that they change only where the command line does.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import typing
from pathlib import Path
from typing import Any, NamedTuple

import typer

import soundssl
from soundssl import commands

HEADINGS = re.compile(r"Examples?:")
ENVIRONMENT = {
    "SOUNDSSL_DEBUG": "Set to anything, an error shows its traceback instead of one line.",
    "NO_COLOR": "Set to anything, help is plain text also on a terminal.",
    "OMP_NUM_THREADS": "Compute threads, where --threads does not say.",
    "RANK, WORLD_SIZE, LOCAL_RANK": "Set by torchrun; train and embed then share the work among its processes.",
}
SIZES = {
    "C": "clips",
    "T": "frames of all clips, or samples of all clips in a waveform",
    "N": "windows, or triplets",
    "D": "numbers in an embedding",
    "K": "clusters",
    "S": "skipped inputs, or labelled segments",
    "L": "classes",
    "E": "events",
    "I": "images",
    "bands": "mel bands",
    "height": "pixels",
    "width": "pixels",
}


class Text(NamedTuple):
    """Hold a docstring in its parts: the first sentence, the paragraphs after it, and the command lines at its end."""

    summary: str
    paragraphs: list[str]
    examples: list[str]


def read_docstring(docstring: str) -> Text:
    """Divide a docstring; what follows `Example:` or `Examples:` are command lines, one a paragraph.

    >>> read_docstring("Do it.\\n\\nMore.\\n\\nExample:\\n\\nsoundssl do it").examples
    ['soundssl do it']
    """
    parts = [" ".join(part.split()) for part in inspect.cleandoc(docstring).split("\n\n")]
    end = next((i for i, part in enumerate(parts) if HEADINGS.fullmatch(part)), len(parts))
    lines = [part for part in parts[:end] if part.startswith("soundssl ")]  # the pipeline of the overview
    return Text(parts[0], [part for part in parts[1:end] if part not in lines], lines + parts[end + 1 :])


# ---- roff ------------------------------------------------------------------------------------------------------------


def escape(text: str) -> str:
    """Write text for roff: what it would take for its own, and everything outside ASCII, as named characters.

    >>> escape(".5 → --no-x")
    '\\\\&.5 \\\\[u2192] \\\\-\\\\-no\\\\-x'
    """
    named = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
    written = "".join(named.get(c, c if ord(c) < 128 else f"\\[u{ord(c):04X}]") for c in text)
    return f"\\&{written}" if written.startswith(".") else written


def bold(text: str) -> str:
    """Set in bold."""
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    """Set in italics, as what a reader replaces."""
    return f"\\fI{escape(text)}\\fR"


def prose(text: str) -> str:
    """Write running text; options in it are bold."""
    pieces = re.split(r"(?<![\w-])(--[a-z][a-z-]*)", text)
    return "".join(bold(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces)).replace("\\fR\\&", "\\fR")


def section(title: str, *lines: str) -> list[str]:
    """Write a section, nothing where it would be empty."""
    return [f'.SH "{escape(title.upper())}"', *lines] if lines else []


def paragraphs(texts: list[str]) -> list[str]:
    """Write paragraphs of running text."""
    return [line for text in texts for line in (".PP", prose(text))]


def entry(term: str, *texts: str) -> list[str]:
    """Write a term that is roff already, and what is to be said about it."""
    first, *others = texts
    return [".TP", term, prose(first), *(line for text in others for line in (".IP", prose(text)))]


def verbatim(lines: list[str]) -> list[str]:
    """Write command lines as they are typed."""
    return [piece for line in lines for piece in (".PP", ".in +4n", ".EX", escape(line), ".EE", ".in")]


def page(name: str, number: int, body: list[str]) -> str:
    """Put the title line over a page. The date is left empty: a page depends on nothing but the code."""
    title = f'.TH "{escape(name.upper())}" {number} "" "soundssl {soundssl.__version__}" "soundssl manual"'
    return "\n".join(['.\\" Made by python -m soundssl.commands.manual; do not edit.', title, *body]) + "\n"


# ---- parameters ------------------------------------------------------------------------------------------------------


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
    meaning = declared.help + _bounds(kind, hint)
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
    return "" if value is None or value is False or value in ([], ()) else str(value)


def _bounds(kind, hint) -> str:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f" One of {', '.join(each.value for each in kind)}."
    if typing.get_origin(kind) is typing.Literal:
        return f" One of {', '.join(map(str, typing.get_args(kind)))}."
    low, high = (getattr(hint.__metadata__[0], bound, None) for bound in ("min", "max"))
    limits = [f"at least {low:g}"] * bool(low) + [f"at most {high:g}"] * (high is not None)
    return f" {' and '.join(limits).capitalize()}." if limits else ""


def synopsis(name: str, parameters: list[Parameter], required: bool = True) -> str:
    """Write how a command is called: its arguments, the options it cannot do without, and a place for the others."""
    words = [bold(name)]
    words += [italic(each.value) + " ..." * each.repeated for each in parameters if _positional(each)]
    words += [_form(each, each.names[-1]) for each in parameters if each.required and not _positional(each)]
    return " ".join([*words, f"[{italic('OPTIONS')}]"])


def _positional(parameter: Parameter) -> bool:
    return not parameter.names[0].startswith("-")


def _form(parameter: Parameter, name: str) -> str:
    return bold(name) + (f" {italic(parameter.value)}" if parameter.value else "")


def describe(parameter: Parameter, tables: dict[str, dict[str, str]]) -> list[str]:
    """Write one argument or option; a list of names in its help becomes a reference to the section of that list."""
    if _positional(parameter):
        return entry(italic(parameter.value) + " ..." * parameter.repeated, parameter.help)
    term = ", ".join(_form(parameter, name) for name in (*parameter.names, *parameter.opposite))
    meaning = parameter.help
    for title, table in tables.items():
        meaning = meaning.replace(joined(table), f"see {title} below")
    meaning = meaning[0].upper() + meaning[1:] if meaning.startswith("see ") else meaning
    notes = [f"Default: {parameter.default}."] if parameter.default else []
    notes += ["Must be given."] if parameter.required else []
    return entry(term, " ".join([meaning, *notes, *(["May be repeated."] if parameter.repeated else [])]))


HELP = Parameter(("-h", "--help"), (), "", "Show the help and exit.", "", False, False)


# ---- pages -----------------------------------------------------------------------------------------------------------


def joined(table: dict[str, str]) -> str:
    """Return a table as the help of an option shows it."""
    return "; ".join(f"{name}: {line}" for name, line in table.items())


def tables_of(parameters: list[Parameter]) -> dict[str, dict[str, str]]:
    """Return the description tables that the help of these parameters lists, by the title of their section."""
    from soundssl import datasets, models, objectives, triplets

    every = {
        "OBJECTIVES": objectives.OBJECTIVES,
        "ENCODERS": models.ENCODERS,
        "SAMPLERS": triplets.SAMPLERS,
        "DATASETS": datasets.DATASETS,
        "SEPARATORS": getattr(models, "SEPARATORS", {}),
    }
    return {k: table for k, table in every.items() if table and any(joined(table) in each.help for each in parameters)}


def listing(title: str, table: dict[str, str]) -> list[str]:
    """Write a description table as a section; objectives with what they need and their options."""
    lines = []
    for name, line in table.items():
        lines += entry(bold(name), f"{line[0].upper()}{line[1:]}.")
        lines += _objective(name) if title == "OBJECTIVES" else []
    return section(title, *lines)


def _objective(name: str) -> list[str]:
    from soundssl import objectives

    module = objectives.load(name)
    types = typing.get_type_hints(module.Options)
    lines = [".RS", ".PP", prose(f"Needs {' and '.join(module.NEEDS)}. Options, each given as --set NAME=VALUE:")]
    for field in objectives.describe(name):
        meaning = field.metadata["help"]
        choices = typing.get_args(types[field.name]) if typing.get_origin(types[field.name]) is typing.Literal else ()
        if any(str(choice) not in meaning for choice in choices):
            meaning = f"{meaning}: {', '.join(map(str, choices))}"
        term = f"{bold(field.name)}={escape(str(field.default))}"
        lines += entry(term, f"{meaning[0].upper()}{meaning[1:]}.")
    return [*lines, *entry(f"{bold('weight')}=1.0", "Factor of this loss in its stage."), ".RE"]


def files_of(name: str, parameters: list[Parameter]) -> list[str]:
    """Write which kinds of file a command reads and writes, by its parameters and by the makers in the schemas."""
    from soundssl.files.schema import KINDS

    asked = {each.names[-1].lstrip("-").lower().replace("init", "model") for each in parameters}
    made = [kind for kind, about in KINDS.items() if re.search(rf"soundssl {name}\b", about.maker)]
    made += ["model"] if name == "train" else []
    known = [*KINDS, "model"]
    read = [kind for kind in known if kind in asked and kind not in made or (kind == "model" and kind in asked)]
    lines = [f"Reads {', '.join(read)}."] * bool(read) + [f"Writes {', '.join(made)}."] * bool(made)
    lines += ["An output is written as OUTPUT.partial and renamed when it is whole."] * bool(made)
    return [".PP", prose(" ".join([*lines, "The kinds are described in"])), ".BR soundssl\\-files (5)."]


def exit_status() -> list[str]:
    """Write the exit statuses as the docstring of `soundssl.commands` names them."""
    listed = inspect.cleandoc(commands.__doc__ or "").split("\n\n")[1]
    statuses = [re.fullmatch(r"([\d and]+?) ([a-z].*)", part) for part in " ".join(listed.split()).rstrip(".").split("; ")]
    lines = [entry(bold(found[1]), f"{found[2][0].upper()}{found[2][1:]}.") for found in statuses if found]
    return section("EXIT STATUS", *(line for group in lines for line in group))


def see_also(name: str, names: list[str]) -> list[str]:
    """Name the other pages."""
    pages = [f"{bold(each)}(1)" for each in ["soundssl", *(f"soundssl-{one}" for one in names)] if each != name]
    return section("SEE ALSO", ",\n".join([*pages, f"{bold('soundssl-files')}(5)"]))


def _opening(name: str, text: Text) -> list[str]:
    summary = text.summary[0].lower() + text.summary[1:].rstrip(".")
    return section("NAME", f"{escape(name)} \\- {escape(summary)}")


def command_page(name: str, command, names: list[str]) -> list[str]:
    """Write the page of a command without subcommands."""
    text, parameters = read_docstring(command.callback.__doc__), parameters_of(command)
    tables = tables_of(parameters)
    positional = [line for each in parameters if _positional(each) for line in describe(each, tables)]
    options = [line for each in [*parameters, HELP] if not _positional(each) for line in describe(each, tables)]
    return [
        *_opening(f"soundssl-{name}", text),
        *section("SYNOPSIS", synopsis(f"soundssl {name}", parameters)),
        *section("DESCRIPTION", *paragraphs([text.summary, *text.paragraphs])),
        *section("ARGUMENTS", *positional),
        *section("OPTIONS", *options),
        *(line for title, table in tables.items() for line in listing(title, table)),
        *(curriculum() if name == "train" else []),
        *section("FILES", *files_of(name, parameters)),
        *exit_status(),
        *section("EXAMPLES", *verbatim(text.examples)),
        *see_also(f"soundssl-{name}", names),
    ]


def curriculum() -> list[str]:
    """Write the keys of a curriculum with their defaults, as TOML."""
    from soundssl import curriculum as curricula

    whole, stage = curricula.Curriculum().as_dict(), curricula.Stage()
    rows = [f"{key} = {_toml(value)}" for key, value in whole.items() if key != "stage"]
    rows += ["", "[[stage]]", *(f"{key} = {_toml(value)}" for key, value in vars(stage).items() if key != "objective")]
    rows += ["", "[stage.objective.triplet]", "weight = 1.0"]
    text = "A file for --curriculum is TOML: keys of the encoder, then one stage after another, each with the options "
    text += "of one objective or of several. What is left out has these values:"
    return section("CURRICULUM", ".PP", prose(text), ".PP", ".in +4n", ".EX", *map(escape, rows), ".EE", ".in")


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def group_page(name: str, group, names: list[str]) -> list[str]:
    """Write the page of a command with subcommands: what all of them take once, then a section each."""
    parts = {each: (read_docstring(one.callback.__doc__), parameters_of(one)) for each, one in group.commands.items()}
    shared = [each for each in next(iter(parts.values()))[1] if all(each in theirs for _, theirs in parts.values())]
    calls = [synopsis(f"soundssl {name} {each}", theirs) for each, (_, theirs) in parts.items()]
    lines = []
    for each, (text, theirs) in parts.items():
        own = [line for one in theirs if one not in shared for line in describe(one, {})]
        lines += section(each, *paragraphs([text.summary, *text.paragraphs]), *own)
    return [
        *_opening(f"soundssl-{name}", Text(group.help, [], [])),
        *section("SYNOPSIS", "\n.br\n".join(calls)),
        *section("DESCRIPTION", *paragraphs([group.help, "What every subcommand takes comes first, then each of them."])),
        *section("ARGUMENTS", *(line for each in shared if _positional(each) for line in describe(each, {}))),
        *section("OPTIONS", *(line for each in [*shared, HELP] if not _positional(each) for line in describe(each, {}))),
        *lines,
        *section("FILES", *files_of(name, shared)),
        *exit_status(),
        *section("EXAMPLES", *verbatim([line for text, _ in parts.values() for line in text.examples])),
        *see_also(f"soundssl-{name}", names),
    ]


def overview(root, names: list[str]) -> list[str]:
    """Write the page of the program: the commands in pipeline order under their headings."""
    text, lines = read_docstring(root.callback.__doc__), []
    for heading, members in commands.COMMANDS.items():
        lines += [f'.SS "{escape(heading)}"']
        for name in members:
            lines += entry(f"{bold(f'soundssl-{name}')}(1)", summary_of(root.commands[name]))
    options = [line for each in [*parameters_of(root), HELP] for line in describe(each, {})]
    environment = [line for name, meaning in ENVIRONMENT.items() for line in entry(bold(name), meaning)]
    return [
        *_opening("soundssl", text),
        *section("SYNOPSIS", f"{bold('soundssl')} {italic('COMMAND')} [{italic('ARGUMENTS')}] [{italic('OPTIONS')}]"),
        *section("DESCRIPTION", *paragraphs([text.summary, *text.paragraphs])),
        *verbatim(text.examples),
        *section("COMMANDS", *lines),
        *section("OPTIONS", *options),
        *exit_status(),
        *section("ENVIRONMENT", *environment),
        *see_also("soundssl", names),
    ]


def summary_of(command) -> str:
    """Return the first sentence of a command's description."""
    return read_docstring(command.help or command.callback.__doc__).summary


def main(folder: Path) -> None:
    """Write all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    from soundssl.commands import manual_files

    root = typer.main.get_command(commands.app)
    names = [name for members in commands.COMMANDS.values() for name in members]
    made = {"soundssl.1": page("soundssl", 1, overview(root, names))}
    for name in names:
        command = root.commands[name]
        body = (group_page if hasattr(command, "commands") else command_page)(name, command, names)
        made[f"soundssl-{name}.1"] = page(f"soundssl-{name}", 1, body)
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]))

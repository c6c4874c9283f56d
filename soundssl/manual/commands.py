"""A page a command and the overview, from docstrings, annotations and exit statuses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import cast

import typer
from typer.core import TyperCommand, TyperGroup

from soundssl import commands
from soundssl.files.schema import KINDS
from soundssl.manual import lists
from soundssl.manual.parameters import Parameter, Text, is_argument, parameters_of, read_docstring
from soundssl.manual.roff import bold, entry, escape, italic, page, paragraphs, prose, section, verbatim

ENVIRONMENT = {
    "SOUNDSSL_DEBUG": "Set to anything, an error shows its traceback instead of one line, and values on a GPU are "
    "checked too, for which it waits at every step.",
    "NO_COLOR": "Set to anything, tables and progress have no colours on a terminal.",
    "OMP_NUM_THREADS": "Compute threads, where --threads does not say.",
    "RANK, WORLD_SIZE, LOCAL_RANK": "Set by torchrun; train and cluster then work on all its processes together.",
}
HELP = Parameter(("-h", "--help"), (), "", "Show the help and exit.", "", False, False)
# What commands write besides the kinds whose schema names them as the maker.
WRITTEN = {"train": ["model"], "separate": ["features"], "evaluate": ["scores"]}


def command_pages() -> dict[str, str]:
    """Return the pages of all commands and of the program by their file names."""
    root = typer.main.get_group(commands.application())
    made = {"soundssl.1": page("soundssl", 1, overview(root))}
    for name in names():
        command = root.commands[name]
        if isinstance(command, TyperGroup):
            body = group_page(name, command)
        else:
            body = command_page(name, cast(TyperCommand, command))
        made[f"soundssl-{name}.1"] = page(f"soundssl-{name}", 1, body)
    return made


def names() -> list[str]:
    """Return the commands in pipeline order."""
    return [name for members in commands.COMMANDS.values() for name in members]


def command_page(name: str, command: TyperCommand) -> list[str]:
    """Write the page of a command without subcommands."""
    text, parameters = read_docstring(command.callback.__doc__), parameters_of(command)
    tables = lists.tables_of(parameters)
    return [
        *opening(f"soundssl-{name}", text),
        *section("SYNOPSIS", synopsis(f"soundssl {name}", parameters)),
        *section("DESCRIPTION", *paragraphs([text.summary, *text.paragraphs])),
        *sections_of(parameters, tables),
        *(line for title, table in tables.items() for line in lists.listing(title, table)),
        *(lists.curricula() if name == "train" else []),
        *section("FILES", *files_of(name, parameters)),
        *exit_status(),
        *section("EXAMPLES", *verbatim(text.examples)),
        *see_also(f"soundssl-{name}"),
    ]


def group_page(name: str, group: TyperGroup) -> list[str]:
    """Write the page of a command with subcommands: what all of them take once, then a section each."""
    parts = {each: (read_docstring(one.callback.__doc__), parameters_of(one)) for each, one in group.commands.items()}
    shared = [each for each in next(iter(parts.values()))[1] if all(each in theirs for _, theirs in parts.values())]
    calls = [synopsis(f"soundssl {name} {each}", theirs) for each, (_, theirs) in parts.items()]
    lines = []
    for each, (text, theirs) in parts.items():
        own = [line for one in theirs if one not in shared for line in describe(one, {})]
        lines += section(each, *paragraphs([text.summary, *text.paragraphs]), *own)
    summary = group.help or ""
    return [
        *opening(f"soundssl-{name}", Text(summary, [], [])),
        *section("SYNOPSIS", "\n.br\n".join(calls)),
        *section("DESCRIPTION", *paragraphs([summary, "What every subcommand takes comes first, then each of them."])),
        *sections_of(shared, {}),
        *lines,
        *section("FILES", *files_of(name, shared)),
        *exit_status(),
        *section("EXAMPLES", *verbatim([line for text, _ in parts.values() for line in text.examples])),
        *see_also(f"soundssl-{name}"),
    ]


def overview(root: TyperGroup) -> list[str]:
    """Write the page of the program: the commands in pipeline order under their headings."""
    text, lines = read_docstring(root.callback.__doc__), []
    for heading, members in commands.COMMANDS.items():
        lines += [f'.SS "{escape(heading)}"']
        for name in members:
            command = root.commands[name]
            summary = read_docstring(command.help or command.callback.__doc__).summary
            lines += entry(f"{bold(f'soundssl-{name}')}(1)", summary)
    options = [line for each in [*parameters_of(root), HELP] for line in describe(each, {})]
    environment = [line for name, meaning in ENVIRONMENT.items() for line in entry(bold(name), meaning)]
    return [
        *opening("soundssl", text),
        *section("SYNOPSIS", f"{bold('soundssl')} {italic('COMMAND')} [{italic('ARGUMENTS')}] [{italic('OPTIONS')}]"),
        *section("DESCRIPTION", *paragraphs([text.summary, *text.paragraphs])),
        *verbatim(text.examples),
        *section("COMMANDS", *lines),
        *section("OPTIONS", *options),
        *exit_status(),
        *section("ENVIRONMENT", *environment),
        *see_also("soundssl"),
    ]


def opening(name: str, text: Text) -> list[str]:
    """Write the section that names a page, as whatis and apropos read it."""
    summary = text.summary[0].lower() + text.summary[1:].rstrip(".")
    return section("NAME", f"{escape(name)} \\- {escape(summary)}")


def synopsis(name: str, parameters: list[Parameter]) -> str:
    """Write how a command is called: its arguments, the options it cannot do without, and a place for the others."""
    words = [bold(name)]
    words += [italic(each.value) + " ..." * each.repeated for each in parameters if is_argument(each)]
    words += [_form(each, each.names[-1]) for each in parameters if each.required and not is_argument(each)]
    return " ".join([*words, f"[{italic('OPTIONS')}]"])


def _form(parameter: Parameter, name: str) -> str:
    return bold(name) + (f" {italic(parameter.value)}" if parameter.value else "")


def sections_of(parameters: list[Parameter], tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Write the sections of arguments and of options."""
    positional = [line for each in parameters if is_argument(each) for line in describe(each, tables)]
    options = [line for each in [*parameters, HELP] if not is_argument(each) for line in describe(each, tables)]
    return [*section("ARGUMENTS", *positional), *section("OPTIONS", *options)]


def describe(parameter: Parameter, tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Write one argument or option; a list of names in its help becomes a reference to the section of that list."""
    if is_argument(parameter):
        return entry(italic(parameter.value) + " ..." * parameter.repeated, parameter.help)
    term = ", ".join(_form(parameter, name) for name in (*parameter.names, *parameter.opposite))
    meaning = parameter.help
    for title, table in tables.items():
        meaning = meaning.replace(lists.joined(table), f"see {title} below")
        meaning = meaning.replace(lists.pointer(title), f"see {title} below")
    meaning = meaning[0].upper() + meaning[1:] if meaning.startswith("see ") else meaning
    notes = [f"Default: {parameter.default}."] if parameter.default else []
    notes += ["Must be given."] if parameter.required else []
    return entry(term, " ".join([meaning, *notes, *(["May be repeated."] if parameter.repeated else [])]))


def files_of(name: str, parameters: list[Parameter]) -> list[str]:
    """Write which kinds of file a command reads and writes, by its parameters and by the makers in the schemas."""
    asked = {each.names[-1].lstrip("-").lower().replace("init", "model") for each in parameters}
    made = [kind for kind, about in KINDS.items() if re.search(rf"soundssl {name}\b", about.maker)]
    made += WRITTEN.get(name, [])
    read = [kind for kind in [*KINDS, "model"] if kind in asked and (kind not in made or kind == "model")]
    lines = [f"Reads {', '.join(read)}."] * bool(read) + [f"Writes {', '.join(made)}."] * bool(made)
    lines += ["An output is written beside its place and renamed when it is whole."] * bool(made)
    return [".PP", prose(" ".join([*lines, "The kinds are described in"])), ".BR soundssl\\-files (5)."]


def exit_status() -> list[str]:
    """Write the exit statuses as the docstring of `soundssl.commands` names them."""
    listed = inspect.cleandoc(commands.__doc__ or "").split("\n\n")[1]
    statuses = [
        re.fullmatch(r"(\d+(?: and \d+)*) (.*)", part) for part in " ".join(listed.split()).rstrip(".").split("; ")
    ]
    lines = [entry(bold(found[1]), f"{found[2][0].upper()}{found[2][1:]}.") for found in statuses if found]
    return section("EXIT STATUS", *(line for group in lines for line in group))


def see_also(name: str) -> list[str]:
    """Name the other pages."""
    every = {"soundssl": 1, **{f"soundssl-{each}": 1 for each in names()}, "soundssl-files": 5}
    return section("SEE ALSO", ",\n".join(f"{bold(each)}({number})" for each, number in every.items() if each != name))

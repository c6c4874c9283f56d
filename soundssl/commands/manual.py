"""Manual pages, made from the commands themselves: `python -m soundssl.commands.manual man/` writes them.

What a page says stands where the command is: name, description and examples in its docstring, options in its
annotations, lists of names in the description tables, files in the schemas, exit statuses in `soundssl.commands`. The
pages carry a version and no date, so that they change only where the command line does.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from pathlib import Path
from typing import Any

import typer

from soundssl import commands
from soundssl.commands.parameters import Parameter, Text, is_argument, parameters_of, read_docstring
from soundssl.commands.roff import bold, entry, escape, italic, page, paragraphs, prose, section, verbatim

ENVIRONMENT = {
    "SOUNDSSL_DEBUG": "Set to anything, an error shows its traceback instead of one line.",
    "NO_COLOR": "Set to anything, help is plain text also on a terminal.",
    "OMP_NUM_THREADS": "Compute threads, where --threads does not say.",
    "RANK, WORLD_SIZE, LOCAL_RANK": "Set by torchrun; train and cluster then work on all its processes together.",
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
    "P": "files joined",
    "I": "images",
    "bands": "mel bands",
    "height": "pixels",
    "width": "pixels",
}


def synopsis(name: str, parameters: list[Parameter]) -> str:
    """Write how a command is called: its arguments, the options it cannot do without, and a place for the others."""
    words = [bold(name)]
    words += [italic(each.value) + " ..." * each.repeated for each in parameters if is_argument(each)]
    words += [_form(each, each.names[-1]) for each in parameters if each.required and not is_argument(each)]
    return " ".join([*words, f"[{italic('OPTIONS')}]"])


def _form(parameter: Parameter, name: str) -> str:
    return bold(name) + (f" {italic(parameter.value)}" if parameter.value else "")


def describe(parameter: Parameter, tables: dict[str, dict[str, str]]) -> list[str]:
    """Write one argument or option; a list of names in its help becomes a reference to the section of that list."""
    if is_argument(parameter):
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


FORMAT = [
    "Five kinds of HDF5 file hold everything between recordings and scores; any HDF5 reader opens them. Tables are "
    "columns: datasets of equal length. Strings are UTF-8; bytes of a file name that are not are written as %XX. Times "
    "are seconds. Rows are counted from 0. A file is written under another name and renamed when it is whole.",
    "Types are f4 (floating point of 4 bytes), i8 (signed integer of 8 bytes), u1 (unsigned) and so on, and str. "
    "Shapes are written with these sizes, which are the same throughout a file:",
]
MODEL = [
    "A model is a safetensors file: loading one runs no code. Tensors are named encoder.*, image.* and "
    "head.OBJECTIVE.*. Its metadata hold the attributes above, with kind = model, and config: JSON of the encoder, "
    "the front end and the stages it was trained by. Made by soundssl train.",
    "Beside OUTPUT, train writes OUTPUT.metrics.jsonl, a line of JSON every ten steps, and while it runs "
    "OUTPUT.resume, the state from which the same command goes on, and OUTPUT.lock, by which a second run is refused.",
]
SCORES = [
    "soundssl evaluate writes lines of JSON, one a metric and class: evaluation, metric, class (null for a figure over "
    "all classes), value, low and high (bounds of the 95 % interval, null where there is none), chance (what random "
    "scores would get), count (what the value averages), input, and where they apply split and recovery.",
]


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
    needs = f"Needs {' and '.join(module.NEEDS)}. " if module.NEEDS else ""
    lines = [".RS", ".PP", prose(f"{needs}Options, each given as --set NAME=VALUE:")]
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
    made += {"train": ["model"], "separate": ["features"], "evaluate": ["scores"]}.get(name, [])
    known = [*KINDS, "model"]
    read = [kind for kind in known if kind in asked and (kind not in made or kind == "model")]
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


def see_also(name: str, names: list[str]) -> list[str]:
    """Name the other pages."""
    every = {"soundssl": 1, **{f"soundssl-{each}": 1 for each in names}, "soundssl-files": 5}
    return section("SEE ALSO", ",\n".join(f"{bold(each)}({number})" for each, number in every.items() if each != name))


def _opening(name: str, text: Text) -> list[str]:
    summary = text.summary[0].lower() + text.summary[1:].rstrip(".")
    return section("NAME", f"{escape(name)} \\- {escape(summary)}")


def command_page(name: str, command, names: list[str]) -> list[str]:
    """Write the page of a command without subcommands."""
    text, parameters = read_docstring(command.callback.__doc__), parameters_of(command)
    tables = tables_of(parameters)
    positional = [line for each in parameters if is_argument(each) for line in describe(each, tables)]
    options = [line for each in [*parameters, HELP] if not is_argument(each) for line in describe(each, tables)]
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
        *section(
            "DESCRIPTION", *paragraphs([group.help, "What every subcommand takes comes first, then each of them."])
        ),
        *section("ARGUMENTS", *(line for each in shared if is_argument(each) for line in describe(each, {}))),
        *section(
            "OPTIONS", *(line for each in [*shared, HELP] if not is_argument(each) for line in describe(each, {}))
        ),
        *lines,
        *section("FILES", *files_of(name, shared)),
        *exit_status(),
        *section("EXAMPLES", *verbatim([line for text, _ in parts.values() for line in text.examples])),
        *see_also(f"soundssl-{name}", names),
    ]


def headings() -> dict[str, dict[str, Any]]:
    """Return the headings in pipeline order, with their commands by name."""
    return typing.cast(dict[str, dict[str, Any]], commands.COMMANDS)


def overview(root, names: list[str]) -> list[str]:
    """Write the page of the program: the commands in pipeline order under their headings."""
    text, lines = read_docstring(root.callback.__doc__), []
    for heading, members in headings().items():
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
    root: Any = typer.main.get_command(commands.app)
    names = [name for members in headings().values() for name in members]
    made = {"soundssl.1": page("soundssl", 1, overview(root, names))}
    for name in names:
        command = root.commands[name]
        body = (group_page if hasattr(command, "commands") else command_page)(name, command, names)
        made[f"soundssl-{name}.1"] = page(f"soundssl-{name}", 1, body)
    made["soundssl-files.5"] = page("soundssl-files", 5, files_page(names))
    return made


def files_page(names: list[str]) -> list[str]:
    """Write the page of the file formats from the schemas."""
    from soundssl.files.schema import KINDS, SHARED_ATTRIBUTES

    shared = [line for name, meaning in SHARED_ATTRIBUTES.items() for line in entry(bold(name), meaning)]
    sizes = [line for name, meaning in SIZES.items() for line in entry(italic(name), meaning)]
    return [
        *section("NAME", "soundssl\\-files \\- the files that soundssl reads and writes"),
        *section("DESCRIPTION", *paragraphs(FORMAT), *sizes),
        *section("ATTRIBUTES OF EVERY FILE", *shared),
        *(line for name, kind in KINDS.items() for line in _kind(name, kind)),
        *section("MODEL", *paragraphs(MODEL)),
        *section("SCORES", *paragraphs(SCORES)),
        *see_also("soundssl-files", names),
    ]


def _kind(name: str, kind) -> list[str]:
    about = f"{kind.summary[0].upper()}{kind.summary[1:]}. Made by {kind.maker}. Schema {kind.version}."
    lines = [".PP", prose(about), '.SS "Datasets"']
    for column, what in kind.columns.items():
        types, shape = (each.replace("|", " or ") for each in (what.types, what.shape))
        term = f"{bold(column)}  {escape(types)} {italic(shape)}" + ("  (optional)" if what.optional else "")
        lines += entry(term, what.meaning)
    attributes = [line for key, meaning in kind.attributes.items() for line in entry(bold(key), meaning)]
    return section(name, *lines, *(['.SS "Attributes"', *attributes] if attributes else []))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "man"))

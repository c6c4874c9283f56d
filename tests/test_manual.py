"""The manual in man/ is what the commands say of themselves now, whole, and renders without a warning."""

import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from soundssl import manual
from soundssl.commands import COMMANDS, application
from soundssl.files.schema import KINDS
from soundssl.manual.files import NOTES, SIZES
from soundssl.manual.parameters import Parameter, parameters_of, read_docstring
from soundssl.manual.roff import escape, prose
from soundssl.objectives import OBJECTIVES, describe

FOLDER = Path(__file__).parents[1] / "man"
ROOT = typer.main.get_command(application())


def leaves() -> dict[str, object]:
    """Return every command that does something, by the words that call it."""
    found = {}
    for name, command in ROOT.commands.items():
        for below, one in getattr(command, "commands", {"": command}).items():
            found[f"{name} {below}".strip()] = one
    return found


COMMAND = leaves()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """Write the manual afresh."""
    folder = tmp_path_factory.mktemp("man")
    manual.write(folder)
    return folder


def test_committed_pages_are_those_made_now(pages):
    made, committed = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (pages, FOLDER))
    renew = "run: python -m soundssl.manual man/"
    assert sorted(made) == sorted(committed), renew
    for name, page in made.items():
        assert committed[name] == page, f"man/{name} is out of date; {renew}"


def test_a_command_line_writes_them(tmp_path, pages, monkeypatch):
    monkeypatch.setattr("sys.argv", ["soundssl.manual", str(tmp_path / "new")])
    runpy.run_module("soundssl.manual", run_name="__main__")
    made = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert made == {path.name: path.read_bytes() for path in pages.iterdir()}


def test_every_command_has_a_page_and_stands_in_the_overview(pages):
    overview = (pages / "soundssl.1").read_text()
    for heading, members in COMMANDS.items():
        assert escape(heading) in overview
        for name in members:
            assert (pages / f"soundssl-{name}.1").exists()
            assert escape(f"soundssl-{name}") in overview


@pytest.mark.parametrize("name", COMMAND)
def test_every_option_is_on_the_page_with_a_line_of_help(pages, name):
    page = (pages / f"soundssl-{name.split()[0]}.1").read_text()
    for parameter in parameters_of(COMMAND[name]):
        assert parameter.help.strip().endswith("."), f"{name} {parameter.names[-1]} has no sentence of help"
        for word in (*parameter.names, *parameter.opposite):
            assert escape(word) in page


def test_every_option_of_the_program_has_help():
    assert all(parameter.help.endswith(".") for parameter in parameters_of(ROOT))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_and_its_options_are_on_the_page_of_train(pages, name):
    page = (pages / "soundssl-train.1").read_text()
    assert escape(OBJECTIVES[name][1:]) in page
    for option in describe(name):
        assert option.metadata["help"]
        assert f"\\fB{escape(option.name)}\\fR={escape(str(option.default))}" in page


def command_lines(line: str) -> list[list[str]]:
    """Return the words after each `soundssl` in a shell line, up to a pipe or a redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>;<&")
    lexer.whitespace_split = True
    calls, open_call = [], None
    for word in lexer:
        if word == "soundssl":
            open_call = []
            calls.append(open_call)
        elif set(word) <= set("|>;<&"):
            open_call = None
        elif open_call is not None:
            open_call.append(word)
    return calls


@pytest.mark.parametrize("name", ["", *COMMAND])
def test_examples_parse(name):
    text = read_docstring((COMMAND[name] if name else ROOT).callback.__doc__)
    assert text.examples, f"the docstring of {name} ends without Examples:"
    for line in text.examples:
        shown = []
        for words in command_lines(line):
            command = ROOT
            while hasattr(command, "commands"):
                command = command.commands[words.pop(0)]
            shown.append(command)
            command.make_context("soundssl", words)  # raises for an unknown option or a value of the wrong type
        assert not name or COMMAND[name] in shown, f"{line} does not show {name}"


def test_sizes_in_the_schemas_are_explained():
    shapes = " ".join(column.shape for kind in KINDS.values() for column in kind.columns.values())
    assert set(re.findall(r"[A-Za-z]+", shapes)) <= set(SIZES)


def test_notes_on_files_name_columns_that_there_are(pages):
    for kind, notes in NOTES.items():
        for title, texts in notes.items():
            assert f'.SS "{title}"' in (pages / "soundssl-files.5").read_text().replace("\\-", "-")
            for word in re.findall(r"\b(?:clip|event|segment|window)/[a-z_]+", " ".join(texts)):
                assert word in KINDS[kind].columns, f"{title}: {kind} have no {word}"


def test_pages_carry_no_date_and_only_ascii(pages):
    for path in pages.iterdir():
        text = path.read_text()
        assert text.isascii()
        assert re.search(r'^\.TH "\S+" [15] "" "soundssl \d', text, re.MULTILINE)
        assert not re.search(r"\b20\d\d\\-\d\d", text)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_pages_render_without_a_warning(pages):
    for path in sorted(pages.iterdir()):
        result = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", path], capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, ""), path.name


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize(
    "line", [r"C:\new", "find -name '*.mp4' -print0", ".start", "'quoted'", "a ~ `b` ^c", '"x" … é']
)
def test_text_comes_through_roff_as_it_was(line):
    page = f".TH X 1\n.nh\n.SH A\n.PP\n{prose(line)}\n"
    shown = subprocess.run(["groff", "-man", "-Tutf8", "-P-cbou"], input=page, capture_output=True, text=True).stdout
    assert line in shown


def test_annotations_give_choices_bounds_and_defaults():
    by_name = {parameter.names[-1]: parameter for parameter in parameters_of(COMMAND["embed"])}
    assert by_name["--batch-size"] == Parameter(
        ("--batch-size",), (), "N", "Windows in one batch. At least 1.", "256", *(False,) * 2
    )
    assert by_name["--hop"].help.startswith("Seconds between windows. At least 0.01. Default: that of the front end")
    assert by_name["FEATURES"].required and not by_name["--model"].required and by_name["--model"].value == "FILE"
    assert by_name["FEATURES"].help == "Features file written by featurize; or embeddings files, to join them."
    images = {each.names[-1]: each for each in parameters_of(COMMAND["featurize"])}["--images"]
    assert (images.opposite, images.value, images.default) == (("--no-images",), "", "--images")

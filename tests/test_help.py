"""Laws of --help in a terminal of 80 columns: no line is longer, no paragraph ragged, and flags have no type."""

import itertools
import os
import pty
import re
import subprocess
import sys

import pytest

from soundssl.commands import COMMANDS, main

WIDTH = 80  # columns of a terminal as it opens
LINES = [[]]
for _members in COMMANDS.values():
    for _name, _command in _members.items():
        LINES += [[_name], *([_name, each.name] for each in getattr(_command, "registered_commands", ()))]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def help_of(words, capsys) -> str:
    """Return what a command says of itself."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert not end.value.code
    return capsys.readouterr().out


def lacks(text: str) -> list[str]:
    """Return the lines of a help that are too long, break a paragraph before its width, or give a flag a type."""
    lines = text.splitlines()
    found = [line for line in lines if len(line) > WIDTH or re.search(r"<bool>|BOOLEAN", line)]
    prose = lines[: min(lines.index(heading) for heading in ("Arguments:", "Options:") if heading in lines)]
    for line, following in itertools.pairwise(prose):
        indent = len(following) - len(following.lstrip())
        together = line.strip() and following.strip() and indent == len(line) - len(line.lstrip())
        if together and len(f"{line.rstrip()} {following.split()[0]}") <= WIDTH - 2:  # the margin of click
            found.append(line)
    return found


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(words) or "soundssl")
def test_help_fits_eighty_columns_and_fills_them(words, capsys):
    assert lacks(help_of(words, capsys)) == []


def test_faults_of_a_help_are_found():
    assert lacks("Usage\n\n  A line that ends\n  early.\n\nOptions:\n  --force  Do it.\n") == ["  A line that ends"]
    assert lacks("Usage\n\nOptions:\n  --force <bool>  Do it.\n") == ["  --force <bool>  Do it."]
    assert len(lacks("Usage\n\nOptions:\n  --much  " + "word " * 20)) == 1


def test_help_on_a_terminal_is_that_of_a_pipe(capsys):
    terminal, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    line = [sys.executable, "-m", "soundssl", "embed", "--help"]
    with subprocess.Popen(line, stdout=end, env=environment) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                block = os.read(terminal, 65536)
            except OSError:  # Linux says so at the end
                break
            if not block:
                break
            shown += block
    os.close(terminal)
    assert process.returncode == 0
    assert shown.decode().replace("\r", "") == help_of(["embed"], capsys)


def test_help_of_train_names_where_nets_are_described(capsys):
    text = help_of(["train"], capsys)
    assert "--list" in text and "--describe" in text and "resnet18" not in text
    assert len(text.splitlines()) < 120


def test_measuring_comes_before_looking(capsys):
    text = help_of([], capsys)
    assert text.index("Measure:") < text.index("Look:")

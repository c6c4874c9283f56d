"""The README keeps its word: every room is in its tree, links lead somewhere, what it says in Python is Python."""

import ast
import re
from pathlib import Path

import pytest

from soundssl import __version__

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
# Modules that move into rooms of the tree and are not there yet. Names are only ever taken out.


def tree() -> dict[str, str]:
    """Return the line of every room that the README names."""
    body = README.split("## The tree\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^ {4}(\S+) +(\S.*)$", body, re.MULTILINE))


def test_every_room_is_in_the_tree():
    rooms = {path.name + "/" * path.is_dir() for path in (ROOT / "soundssl").iterdir() if path.name[0] not in "_."}
    assert rooms - set(tree()) == set()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_local_link_leads_somewhere(name):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text("utf-8"))
    assert links and all((ROOT / link).exists() for link in links)


def test_what_it_says_in_python_is_python():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks and all(ast.parse(block) for block in blocks)


def test_the_citation_is_of_this_version():
    assert re.search(rf"^version: {re.escape(__version__)}$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)

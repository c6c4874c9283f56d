"""Who may import what: the rooms of the house, held by a walk over every module's syntax tree.

A row of ROOMS says what the modules of a room may import of soundssl (names with `*` for whatever lies below), of other
packages, and of other packages within functions only. So what stands in one row alone has one place: h5py and
safetensors in files, soundfile, PyAV and soxr in media, matplotlib in pictures, typer and rich in commands.
"""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

HOUSE = Path(__file__).parents[1]
PACKAGE = HOUSE / "soundssl"


class Room(NamedTuple):
    """Say what a room may import: of soundssl, of other packages, of other packages inside functions."""

    own: str
    others: str = ""
    within: str = ""


ROOMS = {
    "__init__": Room(""),
    "__main__": Room("commands"),
    "progress": Room(""),
    # floor 0
    "ops": Room("ops*", "torch numpy", "scipy sklearn faiss triton"),
    # ground
    "files": Room("files*", "h5py safetensors numpy"),
    "media": Room("media*", "soundfile av soxr numpy"),
    "device": Room("", "torch numpy"),
    "pictures": Room("", "numpy", "matplotlib"),
    "workers": Room(""),
    # floor 1
    "datasets": Room("", "numpy"),
    "samplers": Room(""),
    "triplets": Room("samplers", "numpy"),
    "tables": Room(""),
    "detection": Room("detection* tables", "numpy", "pyarrow"),
    "labelling": Room("", "numpy"),
    "sheets": Room("", "numpy"),
    "views": Room("objectives files* ops*", "torch numpy"),
    "models": Room("models* ops*", "torch numpy", "timm torchvision torchaudio"),
    # floor 2
    "objectives": Room("objectives views models* ops* files* device", "torch numpy"),
    "evaluations": Room("evaluations evaluations.tagging ops*", "torch numpy", "scipy sklearn"),
    # floor 3
    "curriculum": Room("objectives models", "numpy"),
    "training": Room("curriculum objectives* models* ops* files* device", "torch numpy"),
    # floor 4
    "commands": Room("*", "typer", "rich torch numpy"),
}
# Modules that others read for a table of descriptions; a list of names must cost no import.
LIGHT = {"models", "objectives", "evaluations", "commands.options", "files.schema", "datasets", "samplers"}
MEANINGLESS = {"utils", "helpers", "common", "base", "core", "manager", "misc"}
LONGEST = 450  # lines a file


class Import(NamedTuple):
    """Hold one imported module and whether the import runs as soon as its module is loaded."""

    name: str
    line: int
    at_once: bool


def name_of(path: Path) -> str:
    """Return the dotted name below soundssl: `files.schema`, `models` for its `__init__`."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST, at_once: bool = True) -> Iterator[Import]:
    """Yield what a module imports; what only a type checker reads counts as inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (Import(f"{base}.{alias.name}", node.lineno, at_once) for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            yield Import("torch.distributed", node.lineno, at_once)
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        deferred |= isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        yield from imports(node, at_once and not deferred)


def trespasses(module: str, source: str) -> list[str]:
    """Return what a module does that its room does not allow, a line each."""
    tree, found = ast.parse(source), []
    room = ROOMS[module.split(".")[0]]
    for name, line, at_once in imports(tree):
        package, _, rest = name.partition(".")
        if package == "soundssl":
            rest = rest if rest in MODULES else rest.rpartition(".")[0]
            allowed = not rest or any(fnmatchcase(rest, pattern) for pattern in room.own.split())
        else:
            others = room.others.split() + ([] if at_once else room.within.split())
            allowed = package in others or package in sys.stdlib_module_names
            allowed &= not (name.startswith("torch.distributed") and module != "device")
            allowed &= not (at_once and module in LIGHT and package in ("torch", "numpy"))
        if not allowed:
            found.append(f"{module}:{line} may not import {name}" + " outside functions" * at_once)
    if not module.startswith("commands"):
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        found += [f"{module}:{node.lineno} may not print" for node in calls if ast.unparse(node.func) == "print"]
    return found


def test_every_room_has_a_place_in_the_table():
    unknown = {module.split(".")[0] for module in MODULES} - set(ROOMS)
    assert not unknown, f"say in ROOMS what {sorted(unknown)} may import"


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_what_their_room_may(module):
    assert trespasses(module, MODULES[module].read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ops.metrics", "from soundssl import files"),
        ("ops.metrics", "import scipy.special"),
        ("files.reading", "import torch"),
        ("media.sound", "from soundssl.files import text"),
        ("models.plain", "import timm"),
        ("models.plain", "from soundssl import device"),
        ("objectives.triplet", "def f():\n    from soundssl.objectives import triplet"),
        ("objectives.triplet", "from soundssl import training"),
        ("evaluations.knn", "from soundssl.evaluations import retrieval"),
        ("evaluations.knn", "import soundssl.files.reading"),
        ("training", "import torch\ntorch.distributed.barrier()"),
        ("training", "from torch import distributed"),
        ("training", "class A:\n    import rich"),
        ("training", "print(1)"),
        ("datasets", "if True:\n    import numpy"),
        ("triplets", "def f():\n    import torch"),
        ("curriculum", "from soundssl.objectives import triplet"),
        ("commands.train", "import numpy as np"),
        ("commands.train", "try:\n    import h5py\nexcept ImportError: pass"),
        ("commands.train", "def f():\n    import h5py"),
        ("workers", "from . import files"),
    ],
)
def test_the_walk_finds_a_trespass(module, source):
    assert len(trespasses(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ops.metrics", "def f():\n    from scipy.special import ndtri"),
        ("commands.train", "def f():\n    import torch\n    print(torch)"),
        ("evaluations.knn", "from soundssl.evaluations import row\nfrom soundssl.ops import metrics"),
        ("pictures", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from matplotlib.axes import Axes"),
        ("device", "import torch.distributed\nfrom soundssl import SoundsslError"),
    ],
)
def test_the_walk_lets_pass_what_may(module, source):
    assert trespasses(module, source) == []


def test_names_say_what_is_inside():
    assert not {part for module in MODULES for part in module.split(".")} & MEANINGLESS


@pytest.mark.parametrize("folder", ["soundssl", "tests", "examples"])
def test_no_file_is_longer_than_a_sitting(folder):
    lengths = {str(path): len(path.read_text("utf-8").splitlines()) for path in (HOUSE / folder).rglob("*.py")}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Yield the public functions, classes and methods without a docstring; methods of another's interface need none."""
    if not ast.get_docstring(tree):
        yield "the module"
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else []
        for each in [node, *inner]:
            named = isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if named and not each.name.startswith("_") and not ast.get_docstring(each):
                yield f"{each.name}, line {each.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_documented(module):
    assert list(undocumented(ast.parse(MODULES[module].read_text("utf-8")))) == []

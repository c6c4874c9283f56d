"""Who may import what: the rooms of the house, held by a walk over every module's syntax tree.

A row of ROOMS says what the modules of a room, or one module of it, may import of soundssl (names with `*` for what
lies below), of other packages, and of other packages within functions only. So what stands in one row alone has one
place: h5py and safetensors in files, soundfile, PyAV and soxr in media, matplotlib in reports, typer and rich in
commands.

Below the commands nothing prints, exits or reads the command line, and imports stand at the top. Bodies of commands are
short.
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
    "__init__": Room("*"),  # lazily; see FACE
    "__main__": Room("commands"),
    "progress": Room(""),
    "dependencies": Room(""),
    # floor 0
    "ops": Room("ops* dependencies", "torch numpy scipy", "faiss triton"),
    # ground
    "files": Room("files* dependencies tables", "h5py safetensors filelock numpy", "pyarrow"),
    "media": Room("media*", "soundfile av soxr numpy"),
    "device": Room("", "torch numpy"),
    # floor 1
    "datasets": Room("datasets* tables"),
    "labels": Room("labels* datasets.ontology datasets.shards files* ops* tables", "numpy"),
    "samplers": Room(""),
    "triplets": Room("samplers", "numpy"),
    "tables": Room(""),
    "presets": Room(""),
    "models": Room("models* ops* dependencies", "torch numpy", "timm torchvision torchaudio"),
    # floor 2
    "objectives": Room(
        "objectives objectives.clock objectives.coincidence objectives.mixit objectives.pairs labels* models* ops* "
        "files* device",
        "torch numpy",
    ),
    "evaluations": Room("evaluations evaluations.table evaluations.tagging ops*", "torch numpy scipy"),
    "evaluations.reading": Room("evaluations.table labels* files ops.groups progress", "numpy"),
    # floor 3
    "extraction": Room("extraction* datasets* labels files* media* ops* device progress", "torch numpy"),
    "clustering": Room(
        "clustering* reports* evaluations* curriculum training* objectives* models* labels files* media* ops* device "
        "progress",
        "torch numpy",
    ),
    "labelling": Room("labelling* evaluations* labels files* media* ops* tables progress", "numpy"),
    "labelling.review": Room("labelling* detection.events detection.formats* files tables", "numpy"),
    "separation": Room(
        "separation* extraction* evaluations* datasets reports* models* labels files* media* ops* device progress",
        "torch numpy",
    ),
    "detection": Room(
        "detection* tables dependencies evaluations labels labels.scores datasets datasets.ontology extraction "
        "embedding model files* media* ops* progress",
        "torch numpy",
        "pandas pyarrow sed_eval sed_scores_eval",
    ),
    "reports": Room("reports* ops* dependencies progress", "numpy", "matplotlib"),
    "curriculum": Room("objectives models presets", "numpy"),
    # floor 4
    "model": Room("models* objectives* labels files* media* ops* device progress", "torch numpy"),
    "weights": Room("models* files", "torch numpy"),
    "training": Room(
        "training* curriculum weights evaluations* labels* objectives* models* ops* files* device progress",
        "torch numpy",
    ),
    "training.curves": Room("files dependencies", "", "tensorboard torch"),
    "embedding": Room("model models.released weights progress files*", "torch numpy"),
    "shifts": Room("model progress files* evaluations* ops* reports*", "numpy"),
    "hear": Room("model progress files* media ops*", "torch numpy"),
    "export": Room("model files* ops* dependencies", "torch numpy", "onnx onnxscript"),
    "picture_scores": Room("models.image_classifier weights files* device progress", "torch numpy"),
    "coincidence": Room("objectives.coincidence models* ops* files* device progress", "torch numpy"),
    "search": Room("model progress tables files* media* ops*", "numpy", "pyarrow"),
    # floor 5
    "commands": Room("*", "typer", "rich torch numpy"),
    # floor 6
    "manual": Room("*", "typer"),
}
FACE = "__init__"  # `import soundssl` costs nothing: what it gives is imported when it is asked for
ABOVE = {"__init__", "__main__", "commands", "manual"}  # what lies above the library, or before it
# Packages imported where they are used: extras, and what only some nets need.
OPTIONAL = {
    "faiss",
    "matplotlib",
    "onnx",
    "onnxscript",
    "pandas",
    "pyarrow",
    "sed_eval",
    "sed_scores_eval",
    "tensorboard",
    "timm",
    "torchaudio",
    "torchvision",
    "triton",
}
SLOW = {
    "ops.spectrogram": "scipy",
    "training.curves": "torch",
}  # takes long to load, and only the processes that compute need it
# Rooms whose processes are their own, to end and to speak for.
OWN_PROCESSES = {"extraction.pool", "files.probe"}
# Modules that others read for a table of descriptions; a list of names must cost no import.
LIGHT = {"models", "objectives", "evaluations", "commands.options", "files.schema", "datasets", "samplers"}
MEANINGLESS = {"utils", "helpers", "common", "base", "core", "manager", "misc"}
LONGEST = 450  # lines a file
LONGEST_BODY = 40  # lines of a function in commands/, without signature and docstring

# What the move out of commands/ has not reached yet. Rows are only ever taken out.


class Import(NamedTuple):
    """Hold one imported module, and when: as its importer is loaded, called, or checked by mypy; or only used."""

    name: str
    line: int
    when: str = "loaded"

    @property
    def at_once(self) -> bool:
        """Whether the import runs as soon as its module is loaded."""
        return self.when == "loaded"

    @property
    def package(self) -> str:
        """What is installed under this name."""
        return self.name.partition(".")[0]


def name_of(path: Path) -> str:
    """Return the dotted name below soundssl: `files.schema`, `models` for its `__init__`."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST, when: str = "loaded") -> Iterator[Import]:
    """Yield what a module imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (Import(f"{base}.{alias.name}", node.lineno, when) for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            yield Import("torch.distributed", node.lineno, "used" if when == "called" else when)
        below = when
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            below = "checked"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and when == "loaded":
            below = "called"
        yield from imports(node, below)


def trespasses(module: str, source: str) -> list[str]:
    """Return what a module imports that its room does not allow, a line each."""
    found = []
    room = ROOMS.get(module) or ROOMS[module.split(".")[0]]
    for each in imports(ast.parse(source)):
        if each.package == "soundssl":
            rest = each.name.partition(".")[2]
            rest = rest if rest in MODULES else rest.rpartition(".")[0]
            allowed = not rest or any(fnmatchcase(rest, pattern) for pattern in room.own.split())
            allowed &= not (each.at_once and module == FACE)
        else:
            others = room.others.split() + ([] if each.at_once else room.within.split())
            allowed = each.package in others or each.package in sys.stdlib_module_names
            allowed &= not (each.name.startswith("torch.distributed") and module != "device")
            allowed &= not (each.at_once and module in LIGHT and each.package in ("torch", "numpy"))
        if not allowed:
            found.append(f"{module}:{each.line} may not import {each.name}" + " outside functions" * each.at_once)
    return found


def late(module: str, source: str) -> list[str]:
    """Return the imports within functions that belong at the top of a library's module, a line each.

    A table of names finds its own modules when one is asked for, so that listing the names costs no import.
    """
    found = []
    for each in imports(ast.parse(source)):
        own = module in LIGHT and each.name.startswith(f"soundssl.{module}.")
        if each.when == "called" and not (each.package in OPTIONAL or own or SLOW.get(module) == each.package):
            found.append(f"{module}:{each.line} imports {each.name} within a function")
    return found


SPEAKS = {"print", "input", "exit", "quit", "SystemExit", "sys.argv", "sys.exit", "sys.stdin", "sys.stdout"}
SPEAKS |= {"sys.stderr", "os._exit", *(f"sys.__{name}__" for name in ("stdin", "stdout", "stderr"))}


def speaks(tree: ast.AST) -> Iterator[str]:
    """Yield where a module prints, exits, or reads the command line or standard input; catching an exit is none."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in SPEAKS:
            yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom) and node.module in ("sys", "os"):
            yield from (f"line {node.lineno}: {a.name}" for a in node.names if f"{node.module}.{a.name}" in SPEAKS)
        elif isinstance(node, ast.ExceptHandler):
            yield from (line for each in node.body for line in speaks(ast.Module([each], [])))
        else:
            yield from speaks(node)


def bodies(tree: ast.AST, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield every function with the lines of its body, from the first statement after the docstring to the last."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield f"{path}{node.name}", body[-1].end_lineno - body[0].lineno + 1 if body else 0
        inside = f"{path}{node.name}." if isinstance(node, ast.FunctionDef | ast.ClassDef) else path
        yield from bodies(node, inside)


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
        ("ops.metrics", "import sklearn"),
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
        ("datasets", "if True:\n    import numpy"),
        ("triplets", "def f():\n    import torch"),
        ("curriculum", "from soundssl.objectives import triplet"),
        ("commands.train", "import numpy as np"),
        ("commands.train", "try:\n    import h5py\nexcept ImportError: pass"),
        ("commands.train", "def f():\n    import h5py"),
        ("__init__", "from soundssl import model"),
        ("clustering.fit", "from soundssl import commands"),
        ("extraction.decode", "import rich"),
        ("reports.pictures", "import matplotlib"),
        ("extraction.pool", "from soundssl.commands import terminal"),
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
        (
            "reports.pictures",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from matplotlib.axes import Axes",
        ),
        ("device", "import torch.distributed\nfrom soundssl import SoundsslError"),
        ("__init__", "def __getattr__(name):\n    from soundssl import model"),
        ("manual.lists", "from soundssl import commands, objectives"),
    ],
)
def test_the_walk_lets_pass_what_may(module, source):
    assert trespasses(module, source) == []


LIBRARY = [module for module in MODULES if module.split(".")[0] not in ABOVE]


@pytest.mark.parametrize("module", LIBRARY)
def test_libraries_import_at_their_top(module):
    assert late(module, MODULES[module].read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("training", "def f():\n    import json", 1),
        ("training", "class A:\n    def f(self):\n        from soundssl import device", 1),
        ("ops.kmeans", "f = lambda: [__import__]\ndef g():\n    import faiss", 0),
        ("models.resnet", "def f():\n    from timm.models.resnet import ResNet", 0),
        ("models", "def f():\n    from soundssl.models import plain", 0),
        ("models", "def f():\n    from soundssl import ops", 1),
        ("files.reading", "if TYPE_CHECKING:\n    from soundssl.files import features\nimport json", 0),
        ("files.reading", "def f():\n    if TYPE_CHECKING:\n        import json", 0),
    ],
)
def test_the_walk_finds_late_imports(module, source, count):
    assert len(late(module, source)) == count


@pytest.mark.parametrize("module", [each for each in LIBRARY if each not in OWN_PROCESSES])
def test_libraries_neither_print_nor_exit_nor_read_the_command_line(module):
    assert list(speaks(ast.parse(MODULES[module].read_text("utf-8")))) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("print(1)", 1),
        ("def f():\n    raise SystemExit(3)", 1),
        ("import sys\nsys.exit()", 1),
        ("import sys\nx = sys.argv[1:]", 1),
        ("from sys import argv, platform", 1),
        ("sys.stdout.write('')\nsys.stdin.read()", 2),
        ("f(file=sys.stderr)", 1),
        ("handler = print", 1),
        ("try:\n    f()\nexcept (KeyboardInterrupt, SystemExit):\n    g()", 0),
        ("try:\n    f()\nexcept SystemExit:\n    raise SystemExit(1)", 1),
        ("self.print(1)\nos.path.exists(sys.platform)", 0),
    ],
)
def test_the_walk_hears_who_speaks(source, count):
    assert len(list(speaks(ast.parse(source)))) == count


@pytest.mark.parametrize("module", [module for module in MODULES if module.split(".")[0] in ("commands", "manual")])
def test_bodies_of_commands_are_short(module):
    lengths = {f"{module}.{name}": lines for name, lines in bodies(ast.parse(MODULES[module].read_text("utf-8")))}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_BODY} == {}


def test_a_body_is_counted_without_signature_and_docstring():
    source = 'def f(\n    a,\n):\n    """Say.\n\n    More.\n    """\n    a = 1\n\n    return a\n'
    assert dict(bodies(ast.parse(source))) == {"f": 3}
    assert dict(bodies(ast.parse("class A:\n    def f(self):\n        def g():\n            return 1\n"))) == {
        "A.f": 2,
        "A.f.g": 1,
    }


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

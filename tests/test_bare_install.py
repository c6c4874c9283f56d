"""What is installed without extras is enough for the program: all that only extras bring is hidden from it."""

import csv
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, synthesise
from packaging.requirements import Requirement

from soundssl.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Runs each command line, one a line of standard input, in a process that cannot import what it is told to hide.
BARE = """
import sys
hidden = set(sys.argv[1].split(","))
class Hide:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Hide, sys.meta_path)
from soundssl.commands import main
for line in sys.stdin.read().splitlines():
    sys.argv[1:] = line.split("\\t")
    try:
        main(sys.argv[1:])
    except SystemExit as ended:
        if ended.code:
            sys.exit(f"status {ended.code} of {line}")
"""


def canonical(name: str) -> str:
    """Return the name of a distribution as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(lines: list[str]) -> set[str]:
    """Return the distributions that requirements bring here, with what these require in turn, extras left out."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        each = waiting.pop()
        wanted = each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *each.extras))
        if not wanted or canonical(each.name) in found:
            continue
        found.add(canonical(each.name))
        try:
            below = importlib.metadata.requires(each.name) or []
        except importlib.metadata.PackageNotFoundError:  # of another system or Python
            continue
        waiting += [one for one in map(Requirement, below) if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def hidden() -> list[str]:
    """Return the modules that are installed here and would not be without extras."""
    ours = required(PROJECT["dependencies"]) | {"soundssl"}
    return sorted(
        module
        for module, names in importlib.metadata.packages_distributions().items()
        if not ours & set(map(canonical, names))
    )


@pytest.fixture(scope="module")
def bare():
    """Give a function that runs command lines one after the other in a process without extras."""

    def run(*lines: list[object], cwd: Path | None = None) -> subprocess.CompletedProcess:
        typed = "\n".join("\t".join(map(str, line)) for line in lines)
        return subprocess.run(
            [sys.executable, "-c", BARE, ",".join(hidden())],
            input=typed,
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            timeout=120,
        )

    return run


def test_extras_are_hidden_and_what_is_required_is_not():
    away = set(hidden())
    assert {"faiss", "matplotlib", "pytest"} <= away
    assert not {"torch", "numpy", "h5py", "soundfile", "av", "soxr", "safetensors", "typer", "rich"} & away
    assert not {module for module in away if module.startswith("soundssl")}


def test_a_hidden_module_is_missed():
    program = BARE.replace("from soundssl.commands import main", "import faiss")
    done = subprocess.run([sys.executable, "-c", program, "faiss"], input="", capture_output=True, text=True)
    assert done.returncode and "No module named 'faiss'" in done.stderr


def test_every_command_has_its_help(bare):
    names = [name for members in COMMANDS.values() for name in members]
    done = bare(["--help"], *([name, "--help"] for name in names))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: soundssl") == 1 + len(names)


def test_from_sound_to_scores(bare, tmp_path):
    (tmp_path / "media").mkdir()
    generator = np.random.default_rng(0)
    rows = [(f"{name}-{i}.wav", name, i % 2) for name in ("tone", "clicks") for i in range(4)]
    for file, name, _ in rows:
        soundfile.write(tmp_path / "media" / file, synthesise(name, generator, 2.0), RATE)
    with open(tmp_path / "table.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "class", "split"), *rows])
    done = bare(
        ["featurize", "--dataset", "csv", "table.csv", "--root", "media", "-o", "f.h5", "--labels", "l.h5"],
        ["sample-triplets", "f.h5", "--count", 20, "-o", "t.h5"],
        ["train", "f.h5", "--triplets", "t.h5", "--steps", 2, "--batch-size", 4, "-o", "m.safetensors"],
        ["embed", "f.h5", "-m", "m.safetensors", "-o", "e.h5"],
        ["cluster", "e.h5", "--k", 2, "--steps", 5, "-o", "c.h5"],
        ["label-clusters", "c.h5", "--labels", "l.h5", "--budget", 2, "-o", "n.h5"],
        ["evaluate", "retrieval", "e.h5", "--labels", "l.h5", "-o", "scores.jsonl"],
        ["info", "c.h5", "--verify"],
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert {"f.h5", "l.h5", "t.h5", "m.safetensors", "e.h5", "c.h5", "n.h5", "scores.jsonl"} <= {
        path.name for path in tmp_path.iterdir()
    }

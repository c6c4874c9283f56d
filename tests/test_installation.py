"""Installation: what is imported is declared, nothing is held back, and no system is needed for what others lack."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import soundfile

HOUSE = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
SOURCES = sorted((HOUSE / "soundssl").rglob("*.py"))
DISTRIBUTIONS = {"faiss": "faiss-cpu", "torchvision": "timm"}  # whose module has another name, or that bring it

# What Windows has not, and macOS has only in part: modules, and names in modules.
FOREIGN_MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
FOREIGN_NAMES = {
    "os": "fchmod fork killpg posix_fadvise pread preadv pwrite sched_getaffinity sched_setaffinity setsid "
    "O_CLOEXEC O_DIRECTORY O_NOFOLLOW",
    "signal": "pthread_sigmask SIGALRM SIGHUP SIGPIPE SIG_BLOCK SIG_SETMASK SIG_UNBLOCK",
    "time": "clock_gettime tzset",
}


def names(requirements: list[str]) -> set[str]:
    """Return the distributions that requirements name."""
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def imported(at_once: bool | None = None) -> dict[str, set[str]]:
    """Return which modules import each top-level package; only those imported `at_once`, or only the others."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        first = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and at_once in (None, id(node) in first):
                modules = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                for module in modules:
                    found.setdefault(module.partition(".")[0], set()).add(path.name)
    return found


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    others = set(imported()) - set(sys.stdlib_module_names) - {"soundssl", ""}
    declared = names(PROJECT["dependencies"]).union(*(names(EXTRAS[extra]) for extra in set(EXTRAS) - {"test"}))
    assert {DISTRIBUTIONS.get(name, name) for name in others} == declared


def test_extras_are_imported_by_no_module_at_once():
    extras = {"matplotlib", "faiss", "pyarrow", "timm", "torchvision", "torchaudio"}
    assert not extras & set(imported(at_once=True))


def test_every_requirement_has_a_lower_bound_and_no_upper_one():
    for requirement in [*PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]:
        assert re.fullmatch(r"[\w-]+>=\d+(\.\d+)*", requirement), requirement


def test_the_tests_can_be_run_from_their_extra():
    assert names(EXTRAS["plot"]) | names(EXTRAS["faiss"]) | names(EXTRAS["parquet"]) <= names(EXTRAS["test"])


def test_no_module_imports_at_once_what_only_some_systems_have():
    assert not set(FOREIGN_MODULES) & set(imported(at_once=True))


# A process that has lost what other systems lack, once the libraries are there, which see to themselves.
ELSEWHERE = """
import importlib, json, multiprocessing.resource_tracker, os, pkgutil, signal, sys, time
import av, filelock, h5py, numpy, rich.progress, safetensors.numpy, scipy.signal, soundfile, soxr, torch, typer
import torch.utils.data
multiprocessing.resource_tracker._HAVE_SIGMASK = False
modules, names, commands = map(json.loads, sys.argv[1:])
sys.modules.update(dict.fromkeys(modules))
for module, lacking in names.items():
    for name in lacking.split():
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
import soundssl
for module in pkgutil.walk_packages(soundssl.__path__, "soundssl."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from soundssl.commands import main
for words in commands:
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise
    assert not hasattr(os, "pwrite") and not hasattr(signal, "pthread_sigmask")
print("done")
"""


def elsewhere(commands: list[list]) -> subprocess.CompletedProcess:
    """Import every module and run commands in a process as if on another system."""
    words = [FOREIGN_MODULES, FOREIGN_NAMES, [list(map(str, command)) for command in commands]]
    command = [sys.executable, "-c", ELSEWHERE, *map(json.dumps, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_every_module_is_imported_and_the_pipeline_runs_where_posix_is_not(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "media").mkdir()
    for number in range(4):
        soundfile.write(tmp_path / "media" / f"{number}.wav", generator.normal(0, 0.1, 32000), 16000)
    features, model, vectors = (tmp_path / name for name in ("f.h5", "m.safetensors", "e.h5"))
    run = elsewhere(
        [
            ["featurize", tmp_path / "media", "-o", features, "-j", 2],
            ["train", features, "--objective", "contrastive", "--steps", 2, "--batch-size", 4, "-o", model],
            ["embed", features, "-m", model, "-o", vectors],
            ["cluster", vectors, "--k", 2, "--steps", 2, "-o", tmp_path / "c.h5"],
            ["info", tmp_path / "c.h5"],
        ]
    )
    assert run.returncode == 0 and run.stdout.endswith("done\n"), run.stderr
    outputs = {"f.h5", "m.safetensors", "m.safetensors.metrics.jsonl", "e.h5", "c.h5", "c.h5.metrics.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == {"media", *outputs}

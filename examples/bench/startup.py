"""Time the help of every command, in a process of its own, against the import of torch alone.

Run: python examples/bench/startup.py
"""

import os
import subprocess
import sys
import time

import timing

from soundssl.commands import COMMANDS


def command_lines() -> list[str]:
    """Return the words that ask for help: of the program, of each command and of each subcommand."""
    found = [""]
    for members in COMMANDS.values():
        for name, command in members.items():
            found += [name, *(f"{name} {below.name}" for below in getattr(command, "registered_commands", ()))]
    return [f"{words} --help".strip() for words in found]


def milliseconds(words: list[str]) -> float:
    """Time one process of this interpreter; CalledProcessError where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    return 1e3 * (time.perf_counter() - start)


def measure(small: bool) -> list[dict]:
    """Time all in turn; milliseconds a process, median over repeats."""
    lines, repeats = (command_lines()[:2], 1) if small else (command_lines(), 7)
    processes = {line: ["-m", "soundssl", *line.split()] for line in lines}
    processes["torch"] = ["-c", "import torch"]
    times: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(repeats + 1):
        for name, words in processes.items():
            times[name].append(milliseconds(words))
    taken = {name: each[1:] for name, each in times.items()}  # the first round fills the disk's cache
    theirs = taken.pop("torch")
    return [timing.row(f"soundssl {words}", ours, "import torch", theirs) for words, ours in taken.items()]


if __name__ == "__main__":
    timing.say(measure(small=False))

"""Kill every command that writes at random moments: the same command ends in the same bytes; and let two write at once.

Run: python examples/bench/kills.py --kills 100

Each command is killed until it ends; after every kill its output is not there, or whole. Then two runs of it write one
output at once: each ends, or refuses in words, and the file is whole. featurize alone is killed harder by chaos.py.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from soundssl import commands

LEARNT = ("--device", "cpu", "--precision", "float32", "--threads", "1")


def write_world(folder: Path) -> dict[str, tuple]:
    """Write what the commands read, and return their words by the name of their output."""
    folder.mkdir(parents=True)
    generator, media = np.random.default_rng(0), folder / "media"
    media.mkdir()
    rows = ["path,class,split"]
    for i in range(8):
        soundfile.write(media / f"{i}.wav", generator.normal(0, 0.1, 16000 * 4), 16000)
        rows.append(f"{i}.wav,{('dog', 'cat')[i % 2]},{i % 4}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    features, labels, few = folder / "f.h5", folder / "l.h5", ("--steps", 6, "--batch-size", 4, "--size", 8)
    made = {
        "f.h5": ("featurize", "--dataset", "csv", folder / "table.csv", "--root", media, "--labels", labels, "-j", 1),
        "t.h5": ("sample-triplets", features, "--count", 2000),
        "m.safetensors": ("train", features, "--triplets", folder / "t.h5", *few, "--checkpoint-every", 0, *LEARNT),
        "r.safetensors": ("train", features, "--labels", labels, "--objective", "classification", *few, *LEARNT),
        "e.h5": ("embed", features, "-m", folder / "m.safetensors", "--hop", 0.1, "--batch-size", 16, *LEARNT),
        "e.npy": ("embed", features, "-m", folder / "m.safetensors", "--hop", 0.1, *LEARNT),
        "c.h5": ("cluster", folder / "e.h5", "--k", 4, "--steps", 40, "--checkpoint-every", 0, *LEARNT),
        "n.h5": ("label-clusters", folder / "c.h5", "--budget", 4, "--answers", labels),
        "d.csv": ("detect", features, "-m", folder / "r.safetensors", *LEARNT),
    }
    for name, words in made.items():
        if status := wait(start(words, folder / name)):
            raise SystemExit(f"{name} was not made: status {status}")
    return made


def start(words: tuple, output: Path) -> int:
    """Run a command in a process that is ready at once, and of its own group; return its number."""
    if child := os.fork():
        return child
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    told = () if words[0] == "detect" else ("--no-provenance",)
    status: object = 1
    with contextlib.suppress(Exception):
        try:
            commands.main([str(word) for word in (*words, *told, "-q", "-o", output)])
        except SystemExit as end:
            status = end.code or 0
    os._exit(status if isinstance(status, int) else 1)


def wait(child: int, until: float = float("inf")) -> int | None:
    """Return the status of a process, None where it has not ended by then."""
    while True:
        done, code = os.waitpid(child, os.WNOHANG if until < float("inf") else 0)
        if done:
            return os.waitstatus_to_exitcode(code)
        if time.monotonic() > until:
            return None
        time.sleep(0.001)


def kill(words: tuple, output: Path, wanted: bytes, length: float, chance: random.Random) -> int:
    """Kill a command until it ends, and return how often; raise AssertionError for another end than `wanted`."""
    killed = 0
    while True:
        child = start(words, output)
        status = wait(child, time.monotonic() + chance.uniform(0, 1.2 * length))
        if status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
            wait(child)
            killed += 1
            assert not output.exists() or output.read_bytes() == wanted, f"{output.name} is torn after kill {killed}"
            continue
        assert status == 0, f"{output.name} ended with status {status} after {killed} kills"
        assert output.read_bytes() == wanted, f"{output.name} ended in other bytes after {killed} kills"
        return killed


def race(words: tuple, output: Path, wanted: bytes) -> int:
    """Let two runs write one output; return how many ended well. Raises AssertionError for a torn file."""
    both = [start(words, output) for _ in range(2)]
    ends = [wait(child) for child in both]
    assert set(ends) <= {0, 1} and 0 in ends, f"{output.name} by two: status {ends}"
    assert output.read_bytes() == wanted, f"{output.name} by two is neither's"
    return ends.count(0)


def main() -> None:
    """Kill as often as asked, over all commands in turn; then let two write at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, killed, histories = random.Random(options.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        made = write_world(Path(folder) / "world")
        place = Path(folder) / "again"
        place.mkdir()
        wanted, length = {}, {}
        for name, words in made.items():
            begun = time.monotonic()
            assert wait(start(_elsewhere(words, place), place / name)) == 0
            wanted[name], length[name] = (place / name).read_bytes(), time.monotonic() - begun
        while killed < options.kills:
            for name, words in made.items():
                (place / name).unlink()
                killed += kill(_elsewhere(words, place), place / name, wanted[name], length[name], chance)
                histories += 1
        left = {path.name for path in place.iterdir()} - set(made) - {"l.h5"}
        assert all(name.endswith((".metrics.jsonl", ".lock")) for name in left), f"left: {sorted(left)}"
        print(f"{killed} kills in {histories} histories of {len(made)} commands: every one ended in the same bytes")
        well = []
        for name, words in made.items():
            (place / name).unlink()
            well.append(race(_elsewhere(words, place), place / name, wanted[name]))
        print(
            f"two runs of each of {len(made)} commands at once: {sum(well)} ended, {len(well) * 2 - sum(well)} refused"
        )


def _elsewhere(words: tuple, place: Path) -> tuple:
    """Return the words of a command with what it writes beside its output in another folder."""
    return tuple(place / word.name if words[i - 1] == "--labels" and words[0] == "featurize" else word
                 for i, word in enumerate(words))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

"""Kill featurize at random moments, again and again: the same command ends in the same bytes, and no file is torn.

Run: python examples/bench/chaos.py --kills 100

Every history begins with an output of half of the files, goes on with --update on all of them, some damaged in the
middle, and is killed (its workers too, or left orphaned) until it ends. After every kill the output is either the old
one, whole, or the new one, whole.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from soundssl import files


def write_media(folder: Path, count: int, seconds: float, generator: np.random.Generator) -> list[Path]:
    """Write recordings of noise as WAV, FLAC and Ogg; every seventh is damaged in the middle."""
    folder.mkdir(parents=True)
    paths = []
    for i in range(count):
        path = folder / f"{i:03}.{('wav', 'flac', 'ogg')[i % 3]}"
        soundfile.write(path, generator.normal(0, 0.1, round(44100 * seconds)), 44100)
        if i % 7 == 3:
            data = bytearray(path.read_bytes())
            middle = len(data) // 2
            data[middle : middle + 500] = generator.bytes(500)
            path.write_bytes(data)
        paths.append(path)
    return paths


def command(media: Path, output: Path) -> list[str]:
    """Return the command line, the same every time."""
    words = ["featurize", media, "-o", output, "--update", "--no-provenance", "--allow-skipped", "-j", "2", "-q"]
    return [sys.executable, "-m", "soundssl", *map(str, words)]


def run(media: Path, output: Path) -> float:
    """Run to the end; return its seconds."""
    begun = time.perf_counter()
    subprocess.run(command(media, output), check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def kill(media: Path, output: Path, after: float, group: bool) -> bool:
    """Start a run, kill it after so many seconds, with its workers if `group`; return whether it had ended before."""
    process = subprocess.Popen(command(media, output), start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        return False
    if process.returncode:
        raise SystemExit(f"the command failed with status {process.returncode}")
    return True


def chaos(folder: Path, kills: int, count: int, seconds: float, seed: int) -> tuple[int, int]:
    """Kill runs until there were so many kills; return kills and histories. Raises AssertionError for a difference."""
    generator, chance = np.random.default_rng(seed), random.Random(seed)
    paths = write_media(folder / "media", count, seconds, generator)
    half = folder / "half"
    half.mkdir()
    for path in paths[: count // 2]:
        shutil.move(path, half)
    output, other = folder / "features.h5", folder / "other.h5"
    shutil.move(folder / "media", folder / "rest")
    shutil.move(half, folder / "media")
    run(folder / "media", output)
    old = output.read_bytes()
    for path in (folder / "rest").iterdir():
        shutil.move(path, folder / "media")
    length = run(folder / "media", other)
    new = other.read_bytes()
    killed = histories = 0
    while killed < kills:
        output.write_bytes(old)
        while not kill(folder / "media", output, chance.uniform(0, 1.2 * length), chance.random() < 0.5):
            killed += 1
            here = output.read_bytes()
            assert here in (old, new), f"after kill {killed} the output is neither the old nor the new one"
            files.Features(output)
            if killed == kills:
                run(folder / "media", output)
                break
        histories += 1
        assert output.read_bytes() == new, f"history {histories} ended in other bytes"
        left = {path.name for path in folder.iterdir()} - {"features.h5", "media", "other.h5", "rest"}
        assert not left, f"history {histories} left {', '.join(sorted(left))}"
    return killed, histories


def main() -> None:
    """Kill as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed, histories = chaos(Path(folder), options.kills, options.files, options.seconds, options.seed)
    print(f"{killed} kills in {histories} histories: every one ended in the same bytes, and no file was torn")


if __name__ == "__main__":
    main()

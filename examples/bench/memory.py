"""Measure the memory of featurize: a day at 96 kHz in one file, and many small files; RssAnon of all its processes.

Run: python examples/bench/memory.py day      (a sparse file of 16 GB; a few minutes)
     python examples/bench/memory.py small 100000
"""

import argparse
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 96000  # Hz
BOUND = 1e9  # bytes, of all processes together


def write_day(path: Path, hours: float) -> None:
    """Write silence as a sparse RF64 file of 16 bits, with a second of noise at its beginning, middle and end."""
    samples = round(hours * 3600 * RATE)
    head = b"RF64" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + b"ds64"
    head += struct.pack("<IQQQI", 28, 2 * samples + 72, 2 * samples, samples, 0)
    head += b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16) + b"data" + struct.pack("<I", 0xFFFFFFFF)
    noise = (np.random.default_rng(0).normal(0, 0.1, RATE) * 32767).astype("<i2").tobytes()
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + 2 * samples)
        for first in (0, samples // 2, samples - RATE):
            file.seek(len(head) + 2 * first)
            file.write(noise)


def write_small(folder: Path, count: int) -> None:
    """Write one second of noise, a thousand links to it in each folder: a file system bounds the links to a file."""
    sound = np.random.default_rng(0).normal(0, 0.1, 16000)
    for i in range(count):
        place = folder / f"{i // 1000:04}"
        if i % 1000 == 0:
            place.mkdir(parents=True)
            soundfile.write(place / f"{i:06}.flac", sound, 16000)
        else:
            os.link(place / f"{i - i % 1000:06}.flac", place / f"{i:06}.flac")


def anonymous(pid: int) -> int:
    """Return the bytes of anonymous memory of a process and all below it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return 0
    own = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon")), 0)
    return own + sum(anonymous(int(child)) for child in children)


def measure(words: list[str]) -> tuple[int, float]:
    """Run featurize; return its peak memory in bytes and its seconds."""
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, "-m", "soundssl", "featurize", *words])
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak, time.perf_counter() - begun


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("day", "small"))
    parser.add_argument("count", nargs="?", type=float, help="hours, or files; default 24 or 100,000")
    parser.add_argument("-j", "--jobs", default="2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        media, output = Path(folder) / "media", Path(folder) / "features.h5"
        if options.what == "day":
            media.mkdir()
            write_day(media / "day.wav", options.count or 24)
        else:
            write_small(media, int(options.count or 100_000))
        peak, seconds = measure([str(media), "-o", str(output), "-j", options.jobs, "-q"])
        size = output.stat().st_size >> 20
        print(f"{options.what}: peak {peak / 1e6:.0f} MB of anonymous memory, {seconds:.0f} s, output {size} MB")
    if peak > BOUND:
        raise SystemExit(f"more than {BOUND / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

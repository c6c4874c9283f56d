"""Measure the memory of featurize, of cluster and of labels top: RssAnon of all their processes.

Run: python examples/bench/memory.py day      (24 hours at 96 kHz, a sparse file of 16 GB; a few minutes)
     python examples/bench/memory.py small    (100,000 files)
     python examples/bench/memory.py cluster  (a thousand clusters of 20 GB of embeddings, which the disk must hold)
     python examples/bench/memory.py labels   (machine labels of 20,000 clips, 11,000 classes each; a minute)
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from soundssl import files

RATE = 96000  # Hz
BOUND = {"day": 1e9, "small": 1e9, "cluster": 2e9, "labels": 1e9}  # bytes, of all processes together
COUNT = {"day": 24, "small": 100_000, "cluster": 20, "labels": 20_000}  # hours, files, gigabytes, clips
CLIP = 500  # windows of a clip
CLASSES = 11_000  # of the vocabulary of MM-Videos, about


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


def write_embeddings(path: Path, gigabytes: float) -> None:
    """Write embeddings of 128 float32 dimensions: a thousand clips of noise, again and again."""
    rows = round(gigabytes * 1e9 / 512) // CLIP * CLIP
    noise = np.random.default_rng(0).normal(0, 1, (1000 * CLIP, 128)).astype("f4")
    write_rows(path, rows, CLIP, noise, {"layer": "embedding", "class": "[]"})


def write_scores(path: Path, clips: int) -> None:
    """Write probabilities of thousands of classes, a row a clip: a thousand clips of noise, again and again."""
    noise = np.random.default_rng(0).random((1000, CLASSES), np.float32)
    names = json.dumps([f"class {i}" for i in range(CLASSES)])
    write_rows(path, clips, 1, noise, {"layer": "probabilities", "class": names})


def write_rows(path: Path, rows: int, each: int, noise: np.ndarray, about: dict[str, str]) -> None:
    """Write an embeddings file whose clips have `each` windows, of the same noise again and again."""
    keys = [f"{i:07}" for i in range(rows // each)]
    attributes = {"hop": 0.96, "window": 0.96, "features": "", "model": "", **about}
    with files.create(path, "embeddings", inputs=[], made_from="", attributes=attributes) as sink:
        sink.reserve("embedding", (rows, noise.shape[1]), "f4")
        for first in range(0, rows, len(noise)):
            sink.fill("embedding", first, noise[: rows - first])
        sink.write("window/clip", np.repeat(np.arange(len(keys), dtype="i4"), each))
        sink.write("window/start", np.tile(np.arange(each) * 0.96, len(keys)))
        for name, values in (("key", keys), ("recording", keys), ("split", [""] * len(keys)), ("source", keys)):
            sink.write(f"clip/{name}", values)
        sink.write("clip/start", np.zeros(len(keys)))


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
    """Run a command; return its peak memory in bytes and its seconds."""
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, "-m", "soundssl", *words])
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak, time.perf_counter() - begun


def main() -> None:
    """Measure one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(COUNT))
    parser.add_argument("count", nargs="?", type=float, help=f"hours, files, gigabytes or clips; default {COUNT}")
    parser.add_argument("-j", "--jobs", default="2", help="workers of featurize")
    options = parser.parse_args()
    count = options.count or COUNT[options.what]
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "source", Path(folder) / "output.h5"
        words = ["featurize", str(source), "-j", options.jobs, "-q"]
        if options.what == "day":
            source.mkdir()
            write_day(source / "day.wav", count)
        elif options.what == "small":
            write_small(source, int(count))
        elif options.what == "labels":
            write_scores(source, int(count))
            words = ["labels", "top", str(source), "--top", "10", "--mean", "3", "-q"]
        else:
            write_embeddings(source, count)
            words = ["cluster", str(source), "--k", "1000", "--steps", "300"]
        peak, seconds = measure([*words, "-o", str(output)])
        size = output.stat().st_size >> 20
        print(f"{options.what}: peak {peak / 1e6:.0f} MB of anonymous memory, {seconds:.0f} s, output {size} MB")
    if peak > BOUND[options.what]:
        raise SystemExit(f"more than {BOUND[options.what] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

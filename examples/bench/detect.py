"""Measure detect on a long recording: its memory, its speed beside featurize and embed, and whether kills change it.

Run: python examples/bench/detect.py               (24 hours, a FLAC of 1.6 GB; hours on two cores)
     python examples/bench/detect.py --hours 1     (the short form, minutes)

Peak memory is RssAnon of all its processes. The peer is featurize, then embed, on the same file at the same hop. Then
the command is killed again and again, until a run ends: the table is the same, byte for byte.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from memory import measure

RATE = 16000  # Hz
MINUTE = 60 * RATE  # samples written at a time
HOP = "0.48"  # seconds
BOUND = 1e9  # bytes of all processes together
SLOWEST = 0.8  # of the speed of the peer
CLASSES = {"low": 400.0, "high": 3000.0}  # Hz of a tone


def sound(generator: np.random.Generator, pitch: float, seconds: float) -> np.ndarray:
    """Return a tone in noise. Shape: `[samples]`."""
    time_ = np.arange(round(seconds * RATE)) / RATE
    return 0.3 * np.sin(2 * np.pi * pitch * time_) + generator.normal(0, 0.02, len(time_))


def write_recording(path: Path, hours: float, generator: np.random.Generator) -> None:
    """Write noise with two seconds of a tone in every minute."""
    with soundfile.SoundFile(path, "w", RATE, 1, format="FLAC") as file:
        for minute in range(round(hours * 60)):
            block = generator.normal(0, 0.02, MINUTE)
            first = int(generator.integers(0, MINUTE - 2 * RATE))
            block[first : first + 2 * RATE] = sound(generator, list(CLASSES.values())[minute % 2], 2.0)
            file.write(block)


def soundssl(*words: object) -> list[str]:
    """Return the words of a command line."""
    return [str(word) for word in (*words, "-q")]


def train(folder: Path, generator: np.random.Generator, encoder: str) -> Path:
    """Train a recogniser of the tones; return its path."""
    rows = []
    (folder / "clips").mkdir()
    for name, pitch in CLASSES.items():
        for number in range(8):
            path = folder / "clips" / f"{name}-{number}.wav"
            soundfile.write(path, sound(generator, pitch, 3.0), RATE)
            rows.append((path.name, name, "train"))
    with open(folder / "clips.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "class", "split"), *rows])
    features, labels, model = (folder / name for name in ("clips.h5", "labels.h5", "recogniser.safetensors"))
    given = ("--dataset", "csv", folder / "clips.csv", "--root", folder / "clips", "-o", features, "--labels", labels)
    measure(soundssl("featurize", *given))
    learn = ("--objective", "classification", "--encoder", encoder, "--steps", 20, "--batch-size", 16)
    measure(soundssl("train", features, "--labels", labels, *learn, "-o", model))
    return model


def kill(words: list[str], after: float) -> bool:
    """Start a command, kill it and its workers after so many seconds; return whether it had ended before."""
    process = subprocess.Popen([sys.executable, "-m", "soundssl", *words], start_new_session=True)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    if process.returncode:
        raise SystemExit(f"detect failed with status {process.returncode}")
    return True


def main() -> None:
    """Measure, and fail where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0, help="length of the recording")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="workers of featurize and of detect")
    parser.add_argument("--kills", type=int, default=3, help="kills before a run is left to end")
    parser.add_argument("--encoder", default="plain", help="net of the recogniser")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator, draw = np.random.default_rng(options.seed), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording, jobs = folder / "day.flac", ("-j", options.jobs)
        write_recording(recording, options.hours, generator)
        model = train(folder, generator, options.encoder)
        features, vectors = folder / "features.h5", folder / "scores.h5"
        _, made = measure(soundssl("featurize", recording, *jobs, "--no-images", "-o", features))
        embed = soundssl("embed", features, "-m", model, "--layer", "probabilities", "--hop", HOP, "-o", vectors)
        _, embedded = measure(embed)
        table, again = folder / "detections.csv", folder / "again.csv"
        detect = ("detect", recording, "-m", model, "--hop", HOP, *jobs, "-o")
        peak, seconds = measure(soundssl(*detect, table))
        speed = (made + embedded) / seconds
        print(f"detect, {options.hours:g} hours: peak {peak / 1e6:.0f} MB, {seconds:.0f} s; featurize {made:.0f} s and "
              f"embed {embedded:.0f} s: {speed:.2f} of their speed", flush=True)  # fmt: skip
        kills = 0
        while not kill(soundssl(*detect, again), draw.uniform(0.1, 0.9) * seconds if kills < options.kills else 1e9):
            kills += 1
        same = table.read_bytes() == again.read_bytes()
        print(
            f"killed {kills} times, the table {'is the same' if same else 'differs'}; {len(table.read_bytes())} bytes"
        )
    if peak > BOUND or speed < SLOWEST or not same:
        raise SystemExit("a bound is broken")


if __name__ == "__main__":
    main()

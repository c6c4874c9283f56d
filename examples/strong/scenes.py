"""Scenes of known events: sounds of ESC-10 mixed into coloured noise, with a table of what is heard when.

    python scenes.py ESC WORK [--train 400] [--test 150] [--seed 0]

A scene lasts 10 s and has 0 to 4 events of other classes or the same, 0 to 20 dB above the noise. Scenes to train on
take sounds of the folds 1 to 4, those to test of fold 5. Writes WORK/scenes/*.wav and WORK/scenes.csv, for
`featurize --dataset csv`: a row an event, and for a scene without any a row without one.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import soundfile

from soundssl import datasets, media

RATE = 16000
SECONDS = 10.0
MOST = 4  # events in a scene
LONGEST, SHORTEST = 3.0, 0.4  # seconds of an event
RATIO = (0.0, 20.0)  # dB of an event above the noise
NOISE = 0.01  # root mean square
FLOOR = 30.0  # dB below the loudest tenth of a second, under which a clip is silent


def main() -> None:
    """Write the scenes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("esc", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--test", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    clips = datasets.load("esc50", options.esc)
    (options.work / "scenes").mkdir(parents=True, exist_ok=True)
    rows = []
    for split, count in (("train", options.train), ("test", options.test)):
        own = [clip for clip in clips if (clip.split == "5") == (split == "test")]
        sounds = [(clip.classes[0], active(clip.path)) for clip in own]
        for number in range(count):
            generator = np.random.default_rng([options.seed, split == "test", number])
            scene, events = mix(sounds, generator)
            name = f"{split}-{number:04}.wav"
            soundfile.write(options.work / "scenes" / name, scene, RATE, subtype="PCM_16")
            rows += [{"path": name, "split": split, **event} for event in events or [{}]]
    with (options.work / "scenes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "split", "onset", "offset", "class"])
        writer.writeheader()
        writer.writerows(rows)


def active(path: Path) -> np.ndarray:
    """Return the sound of a clip from where it is first heard to where it is last heard."""
    sound = np.concatenate(list(media.read_audio(path, RATE)))
    block = RATE // 10
    power = np.square(sound[: len(sound) // block * block].reshape(-1, block)).mean(1)
    heard = np.flatnonzero(power > power.max() * 10 ** (-FLOOR / 10))
    return sound[heard[0] * block : (heard[-1] + 1) * block]


def mix(sounds: list[tuple[str, np.ndarray]], generator: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """Return a scene and its events."""
    length = round(SECONDS * RATE)
    spectrum = np.fft.rfft(generator.normal(size=length))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20) ** (-generator.uniform(0, 1))  # white to brown
    scene = np.fft.irfft(spectrum, length)
    scene *= NOISE / np.sqrt(np.square(scene).mean())
    events = []
    for _ in range(generator.integers(0, MOST + 1)):
        name, sound = sounds[generator.integers(len(sounds))]
        longest = min(len(sound), round(LONGEST * RATE))
        size = int(generator.integers(min(round(SHORTEST * RATE), longest), longest + 1))
        first = int(generator.integers(0, len(sound) - size + 1))
        event = sound[first : first + size] * np.minimum(1, np.minimum(np.arange(size), np.arange(size)[::-1]) / 80)
        level = np.sqrt(np.square(event).mean())
        if level < 1e-6:
            continue  # a pause of that clip
        at = int(generator.integers(0, length - size + 1))
        scene[at : at + size] += event * (NOISE / level * 10 ** (generator.uniform(*RATIO) / 20))
        events.append({"onset": round(at / RATE, 6), "offset": round((at + size) / RATE, 6), "class": name})
    return np.clip(scene, -1, 1).astype(np.float32), events


if __name__ == "__main__":
    main()

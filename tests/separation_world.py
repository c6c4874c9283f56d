"""A toy world of separation: recordings of low tones and of high ones, which a spectrogram mask takes apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soundssl.files import Spool, Store, create
from soundssl.ops.spectrogram import WAVEFORM

RATE = WAVEFORM.sample_rate
CLIPS, SECONDS = 8, 1.5
ATTRIBUTES = {**WAVEFORM.attributes(), "resampler": "none", "image_rate": 0.0}


def tone(number: int, generator: np.random.Generator, seconds: float = SECONDS) -> np.ndarray:
    """Return a swelling tone with an overtone: low where the number is even, high where it is odd."""
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = generator.uniform(200, 400) * (1, 10)[number % 2]
    swell = 1 + 0.5 * np.sin(2 * np.pi * generator.uniform(1, 3) * t + generator.uniform(0, 6))
    return (0.1 * swell * (np.sin(2 * np.pi * pitch * t) + 0.5 * np.sin(3 * np.pi * pitch * t))).astype(np.float32)


def picture(number: int, generator: np.random.Generator, side: int = 32) -> np.ndarray:
    """Return a dark picture with a thing: a red square where the number is even, blue stripes where it is odd."""
    made = generator.integers(0, 60, (side, side, 3), np.uint8)
    y, x = generator.integers(0, side // 2, 2)
    thing = made[y : y + side // 2, x : x + side // 2]
    thing[...] = (250, 20, 20) if number % 2 == 0 else np.where(np.arange(side // 2)[:, None] % 4 < 2, (20, 20, 250), 0)
    return made


def write_waves(
    path: Path, seed: int = 0, clips: int = CLIPS, seconds: float = SECONDS, pictures: bool = False
) -> Path:
    """Write a waveform file: clip i is low for even i, high for odd i; the last quarter of them is split `test`.

    With `pictures` there is one a second.
    """
    generator = np.random.default_rng(seed)
    about = {"image_rate": 1.0, "image_size": 32} if pictures else {}
    store = Store(path, {**ATTRIBUTES, **about}, "f4", "toy")
    spool = Spool(store.folder, "worker-0", "f4")
    for i in range(clips):
        spool.start()
        spool.add_frames(tone(i, generator, seconds))
        if pictures:
            spool.add_images(np.stack([picture(i, generator) for _ in range(int(np.ceil(seconds)))]))
        about = {"recording": f"r{i}", "split": "test" if i >= clips * 3 // 4 else "train", "source": f"{i}.wav"}
        store.add({"key": f"clip-{i:02}", **about, "start": 0.0, **spool.finish()})
    store.lay_out(list(store.done), [], (32, 32), None)
    return path


def write_classes(path: Path, clips: int = CLIPS) -> Path:
    """Write the labels file of the toy waves: low and high."""
    with create(path, "labels", inputs=[], made_from="toy", attributes={}) as sink:
        sink.write("label", np.eye(2, dtype="i1")[np.arange(clips) % 2])
        sink.write("segment/key", [f"clip-{i:02}" for i in range(clips)])
        sink.write("segment/start", np.zeros(clips))
        sink.write("segment/end", np.full(clips, np.inf))
        sink.write("class", ["low", "high"])
    return path

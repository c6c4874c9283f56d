"""The toy set of the tests, synthesised: 24 recordings of four classes, two of them videos, and their features."""

from __future__ import annotations

import csv
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before torch is loaded: the runs of one test do not fight for cores

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in the background of a shell; what tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import av  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
from program import Outcome, run  # noqa: E402

from soundssl.dependencies import DependencyError  # noqa: E402


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip a test whose net is built on a package that does not load here, with the line that a user would read.

    Where the package loads, the line is wrong, and the test fails by it. test_dependencies says where all of them must.
    """
    try:
        return (yield)
    except DependencyError as error:
        if loads(error.package):
            raise
        pytest.skip(str(error))


@functools.cache
def loads(package: str) -> bool:
    """Return whether a package loads, asked of a process in which nothing failed before; torch stands before it."""
    return not subprocess.run([sys.executable, "-c", f"import torch, {package}"], capture_output=True).returncode


RATE = 16000  # Hz
CLASSES = ("tone", "chirp", "clicks", "noise")
SECONDS = 3.0
FORMATS = (".wav", ".flac", ".ogg")
VIDEOS = {("tone", 5): "libx264", ("clicks", 5): "mpeg4"}  # (class, number): codec of the picture


class Toy(NamedTuple):
    """Hold the toy set: the `folder` of media, its `table`, and the `features` and `labels` made of them."""

    folder: Path
    table: Path
    features: Path
    labels: Path


def synthesise(name: str, generator: np.random.Generator, seconds: float = SECONDS) -> np.ndarray:
    """Return a sound of one of CLASSES at 16 kHz, with pitch, rate or level drawn at random."""
    t = np.arange(round(seconds * RATE)) / RATE
    if name == "tone":
        sound = np.sin(2 * np.pi * generator.uniform(300, 600) * t)
    elif name == "chirp":
        low, high = generator.uniform(800, 1000), generator.uniform(4000, 5000)
        sound = np.sin(2 * np.pi * (low * (t % 0.5) + (high - low) * (t % 0.5) ** 2))
    elif name == "clicks":
        sound = np.where((t * generator.uniform(6, 9)) % 1 < 0.01, 1.0, 0.0) * generator.choice([-1, 1], len(t))
    else:
        sound = generator.normal(0, 0.4, len(t))
    return (0.3 * sound + generator.normal(0, 0.003, len(t))).astype(np.float32)


def write_video(
    path: Path,
    sound: np.ndarray | None,
    rate: int = RATE,
    *,
    sound_codec: str = "aac",
    codec: str | None = "mpeg4",
    delay: float = 0.0,
    levels: Callable[[float], int] = lambda seconds: 10 + 20 * int(seconds),
    pictures: float | None = None,
    fmt: str | None = None,
) -> None:
    """Write sound [samples] or [channels, samples], `delay` seconds late, and a 64x48 picture as bright as `levels`."""
    channels = None if sound is None else np.atleast_2d(sound)
    with av.open(str(path), "w", format=fmt) as container:
        video = container.add_stream(codec, rate=10) if codec else None
        if video:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        layout = "mono" if channels is None or len(channels) == 1 else "stereo"
        audio = container.add_stream(sound_codec, rate=rate, layout=layout) if channels is not None else None
        container.start_encoding()
        if video:
            length = pictures or delay + channels.shape[1] / rate
            for i in range(round(length * 10)):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), levels(i / 10), np.uint8), format="rgb24")
                frame.pts = i
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio:
            step = audio.codec_context.frame_size or 1024
            form = av.AudioResampler(format=audio.format, layout=audio.layout, rate=rate)
            for first in range(0, channels.shape[1], step):
                part = np.ascontiguousarray(channels[:, first : first + step], np.float32)
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
                frame.sample_rate, frame.pts = rate, first + round(delay * rate)
                for shaped in form.resample(frame):
                    container.mux(audio.encode(shaped))
            container.mux(audio.encode())


@pytest.fixture(scope="session")
def soundssl() -> Callable[..., Outcome]:
    """Give a function that runs the command line in a process of its own and returns status, stdout and stderr."""
    return run


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Toy:
    """Synthesise the toy set and run featurize on it, once."""
    folder = tmp_path_factory.mktemp("toy")
    media, table = folder / "media", folder / "toy.csv"
    media.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for name in CLASSES:
        for number in range(6):
            sound, codec = synthesise(name, generator), VIDEOS.get((name, number))
            path = media / f"{name}-{number}{'.mp4' if codec else FORMATS[number % 3]}"
            if codec:
                write_video(path, sound, codec=codec)
            else:
                soundfile.write(path, sound, RATE)
            rows.append((path.name, name, number % 3 + 1))
    with open(table, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "class", "split"), *rows])
    toy = Toy(media, table, folder / "toy.features.h5", folder / "toy.labels.h5")
    done = run("featurize", "--dataset", "csv", table, "--root", media, "-o", toy.features, "--labels", toy.labels)
    assert (done.status, done.stdout) == (0, ""), done.stderr
    return toy


# Root passes over permissions by two capabilities, which a process gets when it is started unless they are dropped.
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
if os.geteuid() == 0:
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "soundssl", *sys.argv[1:]])
"""


def unprivileged(*words: object) -> subprocess.CompletedProcess:
    """Run the command line in a process that permissions hold for, also where the tests are run by root."""
    return subprocess.run([sys.executable, "-c", WITHOUT_PRIVILEGES, *map(str, words)], capture_output=True, text=True)

"""Write a small corpus of synthetic videos with sound: ten classes, each with its own physics and its own picture.

The corpus stands in for a folder of unlabelled videos where none is at hand: nothing is downloaded, and the same seed
gives the same sound. What separates the classes is how a sound is made: plucked, struck, whistled, fired, voiced. What
separates two recordings of one class is what separates real ones: the tune, the tempo, the microphone, the room, the
level, and the noise behind it. Part of that drifts while a recording runs, so that two moments of one recording teach
what does not matter. Labels go to a table beside the videos, for evaluation only.

    python examples/synthesise.py work --recordings 24 --seconds 12 --seed 0
"""

import argparse
import csv
import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import synthetic_pictures as pictures
import synthetic_sounds as sounds

RECIPE = 1  # part of the stamp in each file: raise it when a sound or a picture changes

Array = np.ndarray


class Kind(NamedTuple):
    """Pair what is heard of a class with what is seen."""

    sound: sounds.Sound
    shape: pictures.Shape


CLASSES = {
    "string": Kind(sounds.string, pictures.vibrating_line),
    "bell": Kind(sounds.bell, pictures.swinging_disk),
    "bird": Kind(sounds.bird, pictures.flapping_wings),
    "cricket": Kind(sounds.cricket, pictures.rubbing_stripes),
    "drops": Kind(sounds.drops, pictures.spreading_rings),
    "engine": Kind(sounds.engine, pictures.turning_wheel),
    "knocks": Kind(sounds.knocks, pictures.falling_block),
    "siren": Kind(sounds.siren, pictures.turning_beam),
    "babble": Kind(sounds.babble, pictures.speaking_face),
    "frog": Kind(sounds.frog, pictures.swelling_throat),
}


class Job(NamedTuple):
    """Say which recording to make, and where."""

    path: Path
    kind: str
    index: int
    seconds: float
    seed: int

    def stamp(self) -> str:
        """Return what tells this recording from any other; it stands in the file, not naming the class."""
        text = f"{RECIPE} {self.kind} {self.index} {self.seconds:g} {self.seed}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished(job: Job) -> bool:
    """Say whether the file already holds this very recording."""
    try:
        with av.open(str(job.path)) as container:
            return container.metadata.get("comment") == job.stamp()
    except (OSError, av.FFmpegError):
        return False


def write_media(path: Path, comment: str, frames: Iterator[Array], frame_rate: int, sound: Array, rate: int) -> None:
    """Encode frames (u1) and sound (f4 [channels, samples]) into one MP4, under a temporary name until it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    with av.open(str(partial), "w", format="mp4") as container:
        container.metadata["comment"] = comment
        h264 = "libx264" in av.codecs_available
        options = {"preset": "ultrafast", "crf": "24"} if h264 else {"qscale": "4"}
        video = container.add_stream("libx264" if h264 else "mpeg4", rate=frame_rate, options=options)
        video.width, video.height, video.pix_fmt, video.thread_count = pictures.WIDTH, pictures.HEIGHT, "yuv420p", 1
        layout = "mono" if len(sound) == 1 else "stereo"
        audio = container.add_stream("aac", rate=rate, layout=layout, options={"aac_coder": "fast"})
        audio.bit_rate = 64_000 * len(sound)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, frame_rate)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32), format="fltp", layout=layout)
        block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
        container.mux(audio.encode(block))
        container.mux(audio.encode())
    os.replace(partial, path)


def waveforms(job: Job) -> tuple[Array, Array, int]:
    """Return the dry sound, the recorded sound [channels, samples] and its sample rate.

    The sound is made at half the sample rate, which is above all that a front end to 7.5 kHz looks at, and doubled.
    """
    generator = np.random.default_rng([job.seed, list(CLASSES).index(job.kind), job.index])
    rate = int(generator.choice([44100, 48000]))
    dry, mixed = sounds.record(CLASSES[job.kind].sound, generator, job.seconds, rate // 2)
    doubled = 2 * np.fft.irfft(np.fft.rfft(mixed), 2 * len(mixed))
    sides = [doubled]
    if generator.uniform() < 0.4:  # stereo: a second microphone, a little later and weaker
        sides.append(generator.uniform(0.5, 1) * np.roll(doubled, generator.integers(1, 20)))
    return dry, np.clip(np.stack(sides), -1, 1), rate


def make(job: Job) -> bool:
    """Make one recording unless it is there; return whether it was made."""
    if finished(job):
        return False
    dry, sound, rate = waveforms(job)
    generator = np.random.default_rng([job.seed, list(CLASSES).index(job.kind), job.index, 1])
    frame_rate = int(generator.integers(10, 13))
    level = pictures.loudness(dry, round(job.seconds * frame_rate))
    write_media(
        job.path,
        job.stamp(),
        pictures.film(CLASSES[job.kind].shape, generator, level, frame_rate),
        frame_rate,
        sound,
        rate,
    )
    return True


def plan(folder: Path, recordings: int, seconds: float, seed: int) -> list[Job]:
    """List what to make, in the order of the file names, which tell nothing of the class."""
    wanted = [(kind, index) for kind in CLASSES for index in range(recordings)]
    order = np.random.default_rng(seed).permutation(len(wanted))
    digits = max(4, len(str(len(wanted))))
    names = (folder / f"recording-{number:0{digits}}.mp4" for number in range(1, len(wanted) + 1))
    return [Job(name, *wanted[which], seconds, seed) for name, which in zip(names, order, strict=True)]


def write_labels(path: Path, jobs: list[Job], recordings: int) -> None:
    """Write the table of classes; two thirds of each class are for training and the rest for testing."""
    training = -(-2 * recordings // 3)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["path", "class", "split"])
        table.writerows([job.path.name, job.kind, "train" if job.index < training else "test"] for job in jobs)
    os.replace(partial, path)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def positive(kind: type) -> Callable[[str], float]:
    """Return a reader of option values that refuses what is not above zero."""

    def read(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value

    return read


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and make the corpus; what is already there is kept."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder to write to: videos/*.mp4 and labels.csv")
    parser.add_argument("--recordings", type=positive(int), default=24, help="recordings per class (%(default)s)")
    parser.add_argument("--seconds", type=positive(float), default=12.0, help="length of a recording (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (%(default)s)")
    options = parser.parse_args(arguments)
    videos = options.out / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    jobs = plan(videos, options.recordings, options.seconds, options.seed)
    strange = sorted(set(videos.glob("*.mp4")) - {job.path for job in jobs})
    if strange:
        parser.error(f"{strange[0]} is not of this corpus: give another folder, or remove it")
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processors(), len(jobs))) as pool:
        made = sum(pool.imap_unordered(make, jobs, chunksize=4))
    write_labels(options.out / "labels.csv", jobs, options.recordings)
    print(f"{options.out}: {made} recordings made, {len(jobs) - made} already there, {len(CLASSES)} classes")


if __name__ == "__main__":
    main()

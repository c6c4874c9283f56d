"""Write short videos of four kinds of sound, half of them with a moving thing that makes it, half with a scene alone.

The sounds are those of a folder in the layout of ESC-50 (ESC-10 has all four kinds), or made as `synthesise.py` does
where no folder is named. What is seen of a kind is a shape that moves as loud as the sound is; a video without it shows
a backdrop only, so that its sound is off screen. A table says of every video its kind and whether its sound is on
screen: for scores, never for training.

    python examples/onscreen/videos.py work --esc /data/ESC-10 --clips 24
"""

import argparse
import csv
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import synthesise
import synthetic_pictures as pictures
import synthetic_sounds as sounds

from soundssl import datasets, media

RATE, FRAME_RATE = 16000, 8  # Hz, pictures a second
KINDS = {  # of ESC-10: what it looks like, and the sound that stands in for it
    "dog_bark": (pictures.speaking_face, sounds.frog),
    "clock_tick": (pictures.turning_wheel, sounds.knocks),
    "chainsaw": (pictures.rubbing_stripes, sounds.engine),
    "rooster": (pictures.flapping_wings, sounds.siren),
}
ON_SCREEN = "on-screen"  # class of the videos whose sound is seen
TEST = 4  # every fourth recording of a kind is for testing


def nothing(x: np.ndarray, y: np.ndarray, time: float, loudness: float) -> np.ndarray:
    """Show nothing that moves."""
    return np.zeros(x.shape, bool)


def recorded(folder: Path, kind: str, first: int, count: int, seconds: float) -> Iterator[np.ndarray]:
    """Yield sounds of a kind out of a collection, at equal level. Shape: [samples]."""
    of_kind = [clip for clip in datasets.load("esc50", folder) if clip.classes == (kind,)]
    if len(of_kind) < first + count:
        raise SystemExit(f"{folder} has {len(of_kind)} clips of {kind}; take fewer --clips, or begin earlier")
    for clip in sorted(of_kind, key=lambda clip: clip.key)[first : first + count]:
        yield levelled(np.concatenate(list(media.read_audio(clip.path, RATE)))[: round(seconds * RATE)])


def made(kind: str, first: int, count: int, seconds: float, seed: int) -> Iterator[np.ndarray]:
    """Yield synthetic sounds of a kind, at equal level. Shape: [samples]."""
    for index in range(first, first + count):
        generator = np.random.default_rng([seed, list(KINDS).index(kind), index])
        yield levelled(sounds.record(KINDS[kind][1], generator, seconds, RATE)[0])


def levelled(sound: np.ndarray) -> np.ndarray:
    """Return a sound of root mean square 0.1 and at most 1."""
    return np.clip(0.1 * sound / max(1e-6, float(np.sqrt(np.mean(sound**2)))), -1, 1).astype(np.float32)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; write the videos and their table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder to write to: videos/*.mp4 and labels.csv")
    parser.add_argument("--esc", type=Path, help="folder of ESC-10 or ESC-50; without it the sounds are synthesised")
    parser.add_argument("--clips", type=int, default=24, help="videos of each kind (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="recordings of each kind to pass over (%(default)s)")
    parser.add_argument("--takes", type=int, default=1, help="videos of each recording, with scenes of their own")
    parser.add_argument("--kinds-only", action="store_true", help="leave out of the table whether a sound is seen")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a video (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is drawn (%(default)s)")
    options = parser.parse_args(arguments)
    folder = options.out / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (kind, (shape, _)) in enumerate(KINDS.items()):
        heard = (
            recorded(options.esc, kind, options.first, options.clips, options.seconds)
            if options.esc
            else made(kind, options.first, options.clips, options.seconds, options.seed)
        )
        for index, sound in enumerate(heard, options.first):
            level = pictures.loudness(sound, round(len(sound) / RATE * FRAME_RATE))
            for take in range(options.takes):
                generator = np.random.default_rng([options.seed, number, index, 1, take])
                seen = (index // TEST + index + number + take) % 2 == 0  # of the training and of the test videos half
                name = hashlib.sha256(f"{kind} {index} {take} {options.seed}".encode()).hexdigest()[:12] + ".mp4"
                film = pictures.film(shape if seen else nothing, generator, level, FRAME_RATE)
                synthesise.write_media(folder / name, "", film, FRAME_RATE, sound[None], RATE)
                split = "test" if index % TEST == TEST - 1 else "train"
                told = f"{kind};{ON_SCREEN}" if seen and not options.kinds_only else kind
                rows.append([name, told, split, f"{kind}-{index}"])
    with open(options.out / "labels.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([["path", "class", "split", "recording"], *sorted(rows)])
    print(f"{folder}: {len(rows)} videos of {len(KINDS)} kinds")


if __name__ == "__main__":
    main()

"""Mix pairs of clips of different classes and of the same fold: WAV files, and a table with the classes of both.

python mixtures.py /data/ESC-10 work/mixtures work/mixtures.csv --count 800
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from soundssl import SoundsslError, datasets, files, media, tables

RATE = 16000  # Hz, that of the default front end


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, write the mixtures and their table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("collection", type=Path, help="folder in the layout of ESC-50")
    parser.add_argument("folder", type=Path, help="folder for the mixtures")
    parser.add_argument("table", type=Path, help="table to write")
    parser.add_argument("--count", type=int, default=800, help="mixtures in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        rows = mix(options.collection, options.folder, options.count, options.seed)
        with files.replace(options.table) as partial:
            partial.write_text("".join(map(tables.row_text, [("path", "class", "split"), *rows])), "utf-8")
    except (SoundsslError, OSError) as error:
        print(f"mixtures.py: {error}", file=sys.stderr)
        return 1
    return 0


def mix(collection: Path, folder: Path, count: int, seed: int) -> list[tuple[str, str, str]]:
    """Write mixtures at equal energy; return path, classes and split of each."""
    generator = np.random.default_rng([seed])
    clips = [clip for clip in datasets.load("esc50", collection) if clip.classes]
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    while len(rows) < count:
        one, other = (clips[i] for i in generator.choice(len(clips), 2, replace=False))
        if one.split != other.split or one.classes == other.classes:
            continue
        sounds = [sound(clip.path) for clip in (one, other)]
        length = min(map(len, sounds))
        both = np.mean([each[:length] / (1e-6 + np.sqrt(np.mean(each**2))) for each in sounds], axis=0)
        name = f"{len(rows):05}.wav"
        media.write_audio(folder / name, RATE, [(0.5 * both / (1e-6 + np.abs(both).max())).astype(np.float32)])
        rows.append((f"{folder.name}/{name}", f"{one.classes[0]};{other.classes[0]}", one.split))
    return rows


def sound(path: Path) -> np.ndarray:
    """Return the samples of a file, mixed to one channel."""
    return np.concatenate([np.empty(0, np.float32), *media.read_audio(path, RATE)])


if __name__ == "__main__":
    sys.exit(main())

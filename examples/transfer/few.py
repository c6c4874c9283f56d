"""Keep the labels of a few clips of each class, of some splits, drawn by a seed.

python few.py labels.h5 features.h5 few.h5 --count 4 --splits 1 2 3 4 --seed 0
"""

import argparse
from pathlib import Path

import numpy as np

from soundssl import files


def draw(label: np.ndarray, allowed: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the rows of up to `count` allowed segments of each class. Shape: label [segments, classes], allowed bool.

    >>> draw(np.array([[1, 0], [1, 0], [0, 1], [1, 0]]), np.array([True, True, True, False]), 2, 0).tolist()
    [0, 1, 2]
    """
    generator, chosen = np.random.default_rng(seed), set()
    for column in range(label.shape[1]):
        having = np.flatnonzero(allowed & (label[:, column] == 1))
        chosen |= set(generator.choice(having, min(count, len(having)), replace=False).tolist())
    return np.array(sorted(chosen), np.int64)


def main() -> None:
    """Write a labels file of the clips that were drawn."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("labels", "features", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--splits", nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    known, clips = files.Labels(given.labels), files.Features(given.features).clips
    split = dict(zip(clips.key.astype(str).tolist(), clips.split.astype(str).tolist(), strict=True))
    allowed = np.array([split.get(key) in given.splits for key in known.key.astype(str).tolist()])
    rows = draw(known.label[:], allowed, given.count, given.seed)
    made_from = files.digest("few", str(known.attributes["uuid"]), given.count, given.splits, given.seed)
    inputs = [files.identity("labels", known.path, known.attributes)]
    with files.create(given.output, "labels", inputs=inputs, made_from=made_from, attributes={}) as sink:
        sink.write("label", known.label[:][rows])
        sink.write("segment/key", known.key[rows].astype(str).tolist())
        sink.write("segment/start", known.start[rows])
        sink.write("segment/end", known.end[rows])
        sink.write("class", known.classes)


if __name__ == "__main__":
    main()

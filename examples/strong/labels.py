"""What the trainings and the scores are told of the scenes: weak and strong labels mixed, and explicit negatives.

    python labels.py WORK/labels.h5 WORK [--share 0.1] [--seed 0]

Writes WORK/mixed.h5, in which a share of the scenes to train on keep their events and the others say only which classes
they have, and WORK/rated.h5: spans of 0.96 s of the scenes to test in which a class is present, or was rated absent:
spans of a scene that has it elsewhere, and as many of scenes without it (after Hershey et al. 2021).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from soundssl import files, labels
from soundssl.labels import labelset

SPAN = 0.96  # seconds
SPANS = 10  # of a scene


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    given, generator = labels.of_file(options.labels), np.random.default_rng(options.seed)
    write(options.work / "mixed.h5", mixed(given, options.share, generator))
    write(options.work / "rated.h5", rated(given, generator))


def mixed(given: labels.LabelSet, share: float, generator: np.random.Generator) -> labels.LabelSet:
    """Return labels whose events are those of a share of the scenes to train on, and of all others."""
    train = np.flatnonzero(given.split == "train")
    strong = given.split != "train"
    strong[generator.choice(train, round(share * len(train)), replace=False)] = True
    kept = strong[given.events["segment"]]
    return replace(given, events={name: values[kept] for name, values in given.events.items()})


def rated(given: labels.LabelSet, generator: np.random.Generator) -> labels.LabelSet:
    """Return the spans of the scenes to test with what is present, and explicit negatives."""
    test = given.rows(given.split == "test")
    clip, start = np.repeat(np.arange(len(test)), SPANS), np.tile(np.arange(SPANS) * SPAN, len(test))
    heard = labels.targets(test, test.key, clip, start, start + SPAN)
    elsewhere = (test.label[clip] == 1) & (heard == 0)
    label = np.where(heard == 1, 1, np.where(elsewhere, 0, -1)).astype(np.int8)
    for column in range(label.shape[1]):
        without = np.flatnonzero(test.label[clip, column] == 0)
        label[generator.choice(without, min(len(without), int(elsewhere[:, column].sum())), replace=False), column] = 0
    said = (label >= 0).any(1)
    return labels.LabelSet(
        label[said], test.classes, test.key[clip[said]], start[said], start[said] + SPAN, split=test.split[clip[said]]
    )


def write(path: Path, made: labels.LabelSet) -> None:
    """Write a labels file."""
    with files.create(path, "labels", inputs=[], made_from=files.digest(path.name), attributes={}) as sink:
        labelset.write(sink, made)


if __name__ == "__main__":
    main()

"""Time the labels of a batch of windows among 100,000 segments against a loop over the segments.

Run with one thread: OMP_NUM_THREADS=1 python examples/bench/labels.py
"""

from functools import partial

import numpy as np
import timing

from soundssl.labels import Index, Segments

CLASSES = 50


def peer(said: Segments, row: dict[str, int], clip: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Look up every segment in its turn, the windows of its clip at a stroke."""
    found = np.full((len(clip), said.label.shape[1]), -1, np.int8)
    order = np.argsort(clip, kind="stable")
    bounds = np.searchsorted(clip[order], np.arange(len(row) + 1))
    for key, start, end, label in zip(*said, strict=True):
        windows = order[bounds[row[key]] : bounds[row[key] + 1]]
        windows = windows[(centre[windows] >= start) & (centre[windows] < end)]
        found[windows] = np.maximum(found[windows], label)
    return found


def measure(small: bool) -> list[dict]:
    """Join 64 windows of 10 s clips with segments of about a second; milliseconds a batch, of ours once indexed."""
    segments, clips, repeats = (2000, 200, 2) if small else (100_000, 10_000, 5)
    generator = np.random.default_rng(0)
    keys = [f"{clip:06}.wav" for clip in range(clips)]
    key, start = np.array(keys, object)[generator.integers(0, clips, segments)], generator.uniform(0, 9, segments)
    label = generator.integers(-1, 2, (segments, CLASSES)).astype("i1")
    said = Segments(key, start, start + generator.exponential(1.0, segments), label)
    clip, centre = generator.integers(0, clips, 64), generator.uniform(0, 10, 64)
    index, row = Index(said, keys), {name: place for place, name in enumerate(keys)}
    if not np.array_equal(index.of_windows(clip, centre), peer(said, row, clip, centre)):
        raise ValueError("the labels of ours and of the loop differ")
    ours = timing.interleave({"ours": partial(index.of_windows, clip, centre)}, repeats, rounds=100)["ours"]
    theirs = timing.interleave({"peer": partial(peer, said, row, clip, centre)}, repeats)["peer"]
    claim = f"labels of 64 windows among {segments:,} segments, per batch"
    return [timing.row(claim, ours, "a loop over the segments", theirs)]


if __name__ == "__main__":
    timing.say(measure(small=False))

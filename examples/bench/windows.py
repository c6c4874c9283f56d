"""Time shuffled windows out of a features file against a memory-mapped NPY file of windows.

Run with one thread: OMP_NUM_THREADS=1 python examples/bench/windows.py
"""

import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import timing
import toy


def measure(small: bool) -> list[dict]:
    """Read 0.96 s windows at random frames, 256 at a time, from a warm cache; milliseconds a thousand windows."""
    clips, batches, repeats = (20, 4, 2) if small else (600, 80, 7)
    with tempfile.TemporaryDirectory() as folder:
        features = toy.write_features(Path(folder) / "bench.features.h5", clips, 1000)
        path = Path(folder) / "windows.npy"
        np.save(path, np.asarray(features.frames[: clips * 960]).reshape(-1, 96, 64))
        windows = np.load(path, mmap_mode="r")
        generator = np.random.default_rng(1)
        first = generator.integers(0, len(features.frames) - 96, (batches, 256))
        rows = generator.integers(0, len(windows), (batches, 256))
        some = int(first[0][0])
        assert np.array_equal(features.frames.gather(first[0][:1], 96)[0], features.frames[some : some + 96])
        reads = {"ours": (lambda i: features.frames.gather(i, 96), first), "peer": (windows.__getitem__, rows)}

        def read_all(name: str) -> None:
            read, index = reads[name]
            for batch in index:
                read(batch)

        times = timing.interleave({name: partial(read_all, name) for name in reads}, repeats)
    ours, theirs = ([taken / (batches * 0.256) for taken in times[name]] for name in ("ours", "peer"))
    claim = f"shuffled windows from a features file ({1e6 / median(ours):,.0f} windows/s and core), per thousand"
    return [timing.row(claim, ours, "NPY memory map of windows", theirs)]


if __name__ == "__main__":
    timing.say(measure(small=False))

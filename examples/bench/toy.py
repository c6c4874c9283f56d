"""Make features of random frames for the benches: sizes of real ones, contents of no matter."""

from pathlib import Path

import numpy as np

from soundssl import files, triplets
from soundssl.ops.spectrogram import FrontEnd


def write_features(path: Path, clips: int, frames: int) -> files.Features:
    """Write clips of equal length, each its own recording, and open the file."""
    generator = np.random.default_rng(0)
    attributes = {**FrontEnd().attributes(), "resampler": "none", "image_rate": 0.0}
    keys = [f"{clip:06}" for clip in range(clips)]
    with files.create(path, "features", inputs=[], made_from="bench", attributes=attributes) as sink:
        sink.write("frames", generator.normal(-2, 1.5, (clips * frames, 64)).astype("f2"))
        sink.write("mean", np.full(64, -2, "f4"))
        sink.write("deviation", np.full(64, 1.5, "f4"))
        sink.write("clip/offset", np.arange(clips + 1) * frames)
        for name in ("key", "recording", "source"):
            sink.write(f"clip/{name}", keys)
        sink.write("clip/split", [""] * clips)
        sink.write("clip/start", np.zeros(clips))
        for name, dtype in (("parent", "i4"), ("track", "i1"), ("processor", "i1")):
            sink.write(f"clip/{name}", np.full(clips, -1, dtype))
        sink.write("clip/level", np.zeros(clips, "f4"))
        sink.write("skipped/path", [])
        sink.write("skipped/reason", [])
    return files.Features(path)


def write_triplets(path: Path, features: files.Features, count: int) -> files.Triplets:
    """Draw joint triplets, write them and open the file."""
    layout = triplets.Layout(features.offset, features.clips.recording_number(), 96)
    attributes = {
        **{"features": features.attributes["uuid"], "window_frames": 96, "noise": 0.5, "seed": 0},
        **{"samplers": "[]", "classes": "[]"},
    }
    with files.create(path, "triplets", inputs=[], made_from="bench", attributes=attributes) as sink:
        for name, column in triplets.sample("joint", layout, count, triplets.Options(), 0).items():
            sink.write(name, column)
    return files.Triplets(path)

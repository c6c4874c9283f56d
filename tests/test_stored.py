"""Files written by every version of the schemas are read for ever: tests/stored holds one of each, and what is in it.

A name is KIND-SCHEMA-VARIANT. When a schema rises, `python tests/test_stored.py` writes the files of the new version
beside the old ones, which it never touches. What is in a file is a formula, so that the values say themselves.
"""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import builder
import numpy as np
import pytest

from soundssl import files
from soundssl.commands import main
from soundssl.files.schema import KINDS
from soundssl.ops.spectrogram import WAVEFORM

STORED = Path(__file__).parent / "stored"
MADE = {"channel": "mix", "clip": 0.0, "short": "skip", "truncated": "keep", "image_size": 0, "resampler": "soxr HQ"}
UUID = "00000000-0000-4000-8000-000000000001"


def ramp(first: int, rows: int) -> np.ndarray:
    """Return frames [rows, 64] whose number t holds t + band / 64, which float16 holds exactly."""
    return np.arange(first, first + rows)[:, None] + np.arange(64) / 64


def pictures(first: int, count: int) -> np.ndarray:
    """Return images [count, 3, 3, 3] whose bytes count on."""
    return (np.arange(first * 27, (first + count) * 27) % 256).astype("u1").reshape(-1, 3, 3, 3)


# ---- what is written, by kind and variant; a recipe writes a file of the newest version


def write_logmel(path: Path) -> None:
    measured = {"peak": [0.5, 1.0], "clipped": [0, 3], "truncated": [0, 1]}
    if "clip/error" in KINDS["features"].columns:
        measured["error"] = [0.0, 0.0009765625]
    about = {"recording": ["tape", "tape"], "split": ["train", "test"], "start": [0.0, 2.5], "made_from": ["x", "y"]}
    clips = {"a/ü.wav": ramp(0, 4), "b.wav": ramp(4, 6)}
    builder.features(path, clips, skipped={"c.wav": "empty file"}, attributes=MADE, **about, **measured)


def write_more(path: Path) -> None:
    measured = {"peak": [0.25], "clipped": [0], "truncated": [0]}
    clips = {"d.wav": ramp(20, 3)}
    builder.features(path, clips, attributes=MADE, split=["train"], **measured)


def write_joined(path: Path) -> None:
    parts = [path.with_name(path.name.replace("joined", name)) for name in ("logmel", "more")]
    with pytest.raises(SystemExit) as ended:
        main(["featurize", *map(str, parts), "-o", str(path), "--no-provenance", "-q"])
    assert not ended.value.code


def write_waveform(path: Path) -> None:
    clips = {"a.wav": np.arange(5) / 1024, "b.wav": -np.arange(7) / 1024}
    builder.features(path, clips, dtype="f4", attributes={**WAVEFORM.attributes(), **MADE}, split=["1", "2"])


def write_images(path: Path) -> None:
    clips = {"a.mp4": ramp(0, 4), "b.wav": ramp(4, 2), "c.mp4": ramp(6, 3)}
    seen = [pictures(0, 2), pictures(2, 0), pictures(2, 1)]
    builder.features(path, clips, pictures=seen, attributes={**MADE, "image_size": 3, "image_rate": 1.0})


def write_tracks(path: Path) -> None:
    clips = {"a.wav": ramp(0, 3), "a.wav#0.0": ramp(3, 3), "a.wav#0.1": ramp(6, 3), "a.wav#1.0": ramp(9, 3)}
    about = {"recording": ["a.wav"] * 4, "source": ["a.wav"] * 4, "parent": [-1, 0, 0, 0], "track": [-1, 0, 1, 0]}
    about |= {"processor": [-1, 0, 0, 1], "level": [0.0, -1.5, -60.0, -3.0], "silent": [0, 0, 1, 0]}
    made = {"processors": f'[{{"file": "m.safetensors", "uuid": "{UUID}"}}]', "silence": -40.0}
    builder.features(path, clips, attributes={**MADE, **made}, **about)


def write_weak(path: Path) -> None:
    label = [[1, 0, -1], [0, 1, 1]]
    segments = builder.whole(["a/ü.wav", "b.wav"])
    builder.labels(path, segments, ["dog", "cat", "rain, hail"], label, split=["train", "test"], origin=[0, 0])


def write_strong(path: Path) -> None:
    segments = [("a.wav", 0.0, 0.96), ("a.wav", 0.48, 1.44), ("b.wav", 0.0, np.inf)]
    events = [(0, 0, 0.25, 0.5), (2, 1, 1.0, np.inf)]
    about = {"questions": 2, "order": "diverse", "ask": "central", "spread": 0.5, "random": False, "split": ""}
    weight, origin = [1.0, 0.75, 0.5], [0, 1, 1]
    label = [[1, 0], [1, -1], [-1, 1]]
    builder.labels(path, segments, ["dog", "cat"], label, events=events, weight=weight, origin=origin, attributes=about)


def write_triplets(path: Path) -> None:
    draws = {"sampler": [3, 4], "class": [-1, 1], "seed": [7, 2**63], "shift": [[0, 0], [-5, 10]], "mixed": [-1, 30]}
    about = {"samplers": '["noise", "translation", "mixing", "proximity", "supervised"]', "classes": '["dog", "cat"]'}
    builder.triplets(path, UUID, [0, 96], [10, 106], [200, 2**40], gain=[0.0, 0.25], attributes=about, **draws)


def write_vectors(path: Path) -> None:
    rows = (np.arange(12).reshape(4, 3) / 8).astype("f4")
    about = {"features": UUID, "model": UUID, "hop": 0.48}
    named = {"keys": ["a.wav", "b.wav"], "recording": ["tape", "tape"], "split": ["train", "test"]}
    builder.embeddings(path, rows, clip=[0, 0, 0, 1], start=[0, 0.48, 0.96, 0], attributes=about, **named)


def write_probabilities(path: Path) -> None:
    rows = np.array([[0.25, 0.75], [1.0, 0.0]], "f2")
    about = {"layer": "probabilities", "class": '["dog", "cat"]', "features": UUID, "model": UUID}
    builder.embeddings(path, rows, keys=["a.wav", "b.wav"], attributes=about)


def write_clusters(path: Path) -> None:
    mean = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    about = {"context": 5.0, "conditional_entropy": 0.125, "marginal_entropy": 0.5}
    found = {"confidence": [1.0, 0.5, 0.25], "similarity": [0.5, 0.25, 1.0], "weight": mean * 2}
    named = {"keys": ["a.wav", "b.wav"], "split": ["train", "test"]}
    builder.clusters(path, [0, 1, 1], mean, clip=[0, 0, 1], start=[0.0, 0.96, 0.0], attributes=about, **named, **found)


def write_matrix(path: Path) -> None:
    about = {"method": "kmeans", "metric": "euclidean"}
    builder.clusters(path, [1, 0, 1], np.eye(2), similarity=[-0.5, -0.25, 0.0], attributes=about)


# ---- what is read, whatever version wrote it


def read_logmel(path: Path) -> None:
    found = files.Features(path)
    assert np.array_equal(found.frames[:], ramp(0, 10)) and list(found.offset) == [0, 4, 10]
    assert list(found.clips.key) == list(found.clips.source) == ["a/ü.wav", "b.wav"]
    assert list(found.clips.recording) == ["tape", "tape"] and list(found.clips.split) == ["train", "test"]
    assert list(found.clips.start) == [0.0, 2.5] and list(found.clips.made_from) == ["x", "y"]
    assert found.recorded.all() and found.images is None and (found.window, found.bands) == (96, 64)
    assert np.allclose(found.mean, 4.5 + np.arange(64) / 64) and np.allclose(found.deviation, np.arange(10.0).std())
    windows = next(iter(found.windows(3, 2, 100)))
    assert list(windows.clip) == [0, 1, 1] and np.allclose(windows.start, [0, 0, 0.02])
    assert np.array_equal(windows.frames[2], ramp(6, 3))
    assert files.skipped(path) == [{"path": "c.wav", "reason": "empty file"}]
    counts = {"clips": 2, "skipped": 1, "clipped": 1, "truncated": 1, "silent": 0}
    assert counts.items() <= files.inspect(path).items()
    front_end = found.front_end()
    assert (front_end["window_function"], front_end["fmax"], front_end["floor"]) == ("hann, periodic", 7500.0, 0.01)


def read_more(path: Path) -> None:
    found = files.Features(path)
    assert np.array_equal(found.frames[:], ramp(20, 3)) and found.clips.made_from is None
    assert files.skipped(path) == []


def read_joined(path: Path) -> None:
    found = files.Features(path)
    assert np.array_equal(found.frames[:], np.concatenate([ramp(0, 10), ramp(20, 3)]))
    assert list(found.offset) == [0, 4, 10, 13] and list(found.clips.key) == ["a/ü.wav", "b.wav", "d.wav"]
    assert np.array_equal(found.frames.gather(np.array([2, 8, 10]), 3)[1], np.concatenate([ramp(8, 2), ramp(20, 1)]))
    assert np.allclose(found.mean, (45 + 63) / 13 + np.arange(64) / 64)


def read_waveform(path: Path) -> None:
    found = files.Features(path)
    assert found.waveform and found.frames.dtype == np.float32 and found.frames.shape == (12,)
    assert np.array_equal(found.frames[:], np.concatenate([np.arange(5), -np.arange(7)]) / 1024)
    assert (found.window, found.bands) == (15600, 1) and found.attributes["sample_rate"] == 16000
    assert list(found.clips.split) == ["1", "2"]


def read_images(path: Path) -> None:
    found = files.Features(path)
    assert np.array_equal(found.images[:], pictures(0, 3)) and list(found.image_offset) == [0, 2, 2, 3]
    assert len(found.images_of(1)) == 0 and np.array_equal(found.images_of(2), pictures(2, 1))
    assert np.array_equal(found.frames[6:], ramp(6, 3)) and found.attributes["image_rate"] == 1.0


def read_tracks(path: Path) -> None:
    found = files.Features(path)
    assert list(found.tracks.parent) == [-1, 0, 0, 0] and list(found.tracks.track) == [-1, 0, 1, 0]
    assert list(found.tracks.processor) == [-1, 0, 0, 1] and list(found.tracks.level) == [0.0, -1.5, -60.0, -3.0]
    assert list(found.tracks.silent) == [False, False, True, False] and list(found.recorded) == [True] + [False] * 3
    assert list(found.clips.key)[1:] == ["a.wav#0.0", "a.wav#0.1", "a.wav#1.0"]
    assert np.array_equal(found.frames[:], ramp(0, 12))


def read_weak(path: Path) -> None:
    found = files.Labels(path)
    assert found.label.tolist() == [[1, 0, -1], [0, 1, 1]] and found.classes == ["dog", "cat", "rain, hail"]
    assert list(found.key) == ["a/ü.wav", "b.wav"] and list(found.split) == ["train", "test"]
    assert list(found.start) == [0, 0] and np.isinf(found.end).all()
    assert list(found.weight) == [1, 1] and list(found.origin) == [0, 0]


def read_strong(path: Path) -> None:
    found = files.Labels(path)
    assert found.label.tolist() == [[1, 0], [1, -1], [-1, 1]] and found.classes == ["dog", "cat"]
    assert list(found.key) == ["a.wav", "a.wav", "b.wav"] and found.split is None
    assert list(found.start) == [0.0, 0.48, 0.0] and list(found.end) == [0.96, 1.44, np.inf]
    assert list(found.weight) == [1.0, 0.75, 0.5] and list(found.origin) == [0, 1, 1]
    assert (found.attributes["questions"], found.attributes["ask"]) == (2, "central")
    with files.reading.open_checked(path, ["labels"]) as file:
        assert [list(file[f"event/{name}"]) for name in ("segment", "class")] == [[0, 2], [0, 1]]
        assert [list(file[f"event/{name}"]) for name in ("onset", "offset")] == [[0.25, 1.0], [0.5, np.inf]]


def read_triplets(path: Path) -> None:
    found = files.Triplets(path)
    expected = {
        "anchor": [0, 96],
        "positive": [10, 106],
        "negative": [200, 2**40],
        "sampler": [3, 4],
        "class": [-1, 1],
        "seed": [7, 2**63],
        "shift": [[0, 0], [-5, 10]],
        "mixed": [-1, 30],
        "gain": [0.0, 0.25],
    }
    assert {name: found.columns[name].tolist() for name in expected} == expected and len(found) == 2
    assert found.classes == ["dog", "cat"]
    assert (found.attributes["features"], found.attributes["window_frames"]) == (UUID, 96)


def read_vectors(path: Path) -> None:
    found = files.Embeddings(path)
    assert found.embedding.dtype == np.float32 and np.array_equal(found.embedding[:].ravel(), np.arange(12) / 8)
    assert list(found.clip) == [0, 0, 0, 1] and list(found.start) == [0, 0.48, 0.96, 0]
    assert list(found.clips.key) == ["a.wav", "b.wav"] and list(found.clips.split) == ["train", "test"]
    assert list(found.clips.recording) == ["tape", "tape"]
    assert (found.attributes["layer"], found.attributes["hop"], found.attributes["window"]) == ("embedding", 0.48, 0.96)


def read_probabilities(path: Path) -> None:
    found = files.Embeddings(path)
    assert found.embedding.dtype == np.float16 and found.embedding[:].tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert (found.attributes["layer"], found.attributes["class"]) == ("probabilities", '["dog", "cat"]')


def read_clusters(path: Path) -> None:
    found = files.Clusters(path)
    assert list(found.cluster) == [0, 1, 1] and list(found.size) == [1, 2, 0]
    assert list(found.confidence) == [1.0, 0.5, 0.25] and list(found.similarity) == [0.5, 0.25, 1.0]
    assert found.mean[:].tolist() == [[1, 0], [0, 1], [0, 0]] and found.weight[:].tolist() == [[2, 0], [0, 2], [0, 0]]
    assert list(found.clip) == [0, 0, 1] and list(found.start) == [0.0, 0.96, 0.0]
    assert list(found.clips.key) == ["a.wav", "b.wav"] and list(found.clips.split) == ["train", "test"]
    about = ("method", "metric", "scale", "context", "used")
    assert [found.attributes[name] for name in about] == ["entropy", "cosine", 20.0, 5.0, 2]


def read_matrix(path: Path) -> None:
    found = files.Clusters(path)
    assert list(found.cluster) == [1, 0, 1] and list(found.similarity) == [-0.5, -0.25, 0.0]
    assert found.clip is None and found.start is None and found.clips is None
    assert (found.attributes["method"], found.attributes["metric"]) == ("kmeans", "euclidean")


FILES: dict[str, dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]]] = {
    "features": {
        "logmel": (write_logmel, read_logmel),
        "more": (write_more, read_more),
        "joined": (write_joined, read_joined),
        "waveform": (write_waveform, read_waveform),
        "images": (write_images, read_images),
        "tracks": (write_tracks, read_tracks),
    },
    "labels": {"weak": (write_weak, read_weak), "strong": (write_strong, read_strong)},
    "triplets": {"plain": (write_triplets, read_triplets)},
    "embeddings": {
        "vectors": (write_vectors, read_vectors),
        "probabilities": (write_probabilities, read_probabilities),
    },
    "clusters": {"windows": (write_clusters, read_clusters), "matrix": (write_matrix, read_matrix)},
}


def name_of(kind: str, variant: str, version: int | None = None) -> str:
    """Return the name of a stored file, of the newest version where none is said."""
    return f"{kind}-{version or KINDS[kind].version}-{variant}.h5"


def write_missing(folder: Path) -> list[str]:
    """Write the files of the newest versions that are not there yet; return their names."""
    written = []
    for kind, variants in FILES.items():
        for variant, (write, _) in variants.items():
            path = folder / name_of(kind, variant)
            if not path.exists():
                write(path)
                written.append(path.name)
    return written


def read(path: Path) -> None:
    """Assert what is in a file, and that it is sound."""
    kind, variant = re.fullmatch(r"(\w+)-\d+-(\w+)\.h5", path.name).groups()
    assert files.kind_of(path) == kind and files.made_from(path)
    FILES[kind][variant][1](path)
    assert files.verify(path) == []


EVERY = [
    name_of(kind, variant, version)
    for kind, variants in FILES.items()
    for version in range(1, KINDS[kind].version + 1)
    for variant in variants
]


@pytest.mark.parametrize("name", EVERY)
def test_files_of_every_version_are_read(name):
    assert (STORED / name).exists(), f"{name} is missing; run: python tests/test_stored.py"
    read(STORED / name)


def test_every_stored_file_is_read():
    assert sorted(path.name for path in STORED.glob("*.h5")) == sorted(EVERY)
    assert set(FILES) == set(KINDS)


def test_a_new_version_is_written_beside_the_old(tmp_path):
    shutil.copy(STORED / name_of("labels", "weak", 1), tmp_path / name_of("labels", "weak"))
    before = (tmp_path / name_of("labels", "weak")).read_bytes()
    written = write_missing(tmp_path)
    assert name_of("labels", "strong") in written and name_of("labels", "weak") not in written
    for kind, variants in FILES.items():
        for variant in variants:
            read(tmp_path / name_of(kind, variant))
    assert (tmp_path / name_of("labels", "weak")).read_bytes() == before and write_missing(tmp_path) == []


if __name__ == "__main__":
    print(*write_missing(STORED), file=sys.stderr)

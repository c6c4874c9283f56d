"""Mutate files of every kind that soundssl reads, and read them: each ends in a result or in one line.

Run: python examples/bench/fuzz.py --count 20000

A worker reads a mutated file in a process of its own, within 4 GB and 20 seconds. A traceback, a crash, a hang, an
output with numbers that are not finite, and a file written elsewhere than at the output are faults, and their seeds are
printed: --seed N --count 1 makes one again, --keep FOLDER keeps its file.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import soundfile

from soundssl import SoundsslError, clustering, curriculum, extraction, files, media, model
from soundssl.datasets import lists
from soundssl.labelling import sheets
from soundssl.ops.spectrogram import PRESETS, log_mel

MEMORY, SECONDS = 4 << 30, 20.0  # that reading one file may take, beside what the program itself takes
FRONT = {**PRESETS["vggish"].attributes(), "resampler": "none", "image_rate": 0.0}
EXPECTED = (SoundsslError, ValueError, OSError, MemoryError, ImportError)  # what commands turn into one line


# --- what is mutated ---


def write_files(folder: Path) -> list[Path]:
    """Write a small file of every kind."""
    generator = np.random.default_rng(0)
    sound = generator.normal(0, 0.1, 12000)
    for ending in ("wav", "flac", "ogg", "mp3", "aiff", "w64"):
        with contextlib.suppress(soundfile.LibsndfileError, ValueError):  # a codec that is not built in
            soundfile.write(folder / f"sound.{ending}", sound, 8000)
    keys = [f"clip-{i}" for i in range(4)]
    _features(folder / "features.h5", keys, generator)
    _embeddings(folder / "embeddings.h5", keys, generator)
    rows = clustering.read_rows(folder / "embeddings.h5")
    centres = clustering.Centres(np.eye(3, 4, dtype="f4"))
    about = clustering.attributes(rows, centres)
    with files.create(
        folder / "clusters.h5", "clusters", inputs=[], made_from="", attributes=about, command="x"
    ) as sink:
        clustering.write(sink, rows, centres)
    with files.create(folder / "labels.h5", "labels", inputs=[], made_from="", attributes={}, command="x") as sink:
        sink.write("label", np.eye(4, 2, dtype="i1"))
        sink.write("segment/key", keys)
        sink.write("segment/start", np.zeros(4))
        sink.write("segment/end", np.full(4, np.inf))
        sink.write("class", ["a", "b"])
    np.save(folder / "matrix.npy", generator.normal(0, 1, (20, 4)).astype("f4"))
    tensors = {"encoder.a": np.ones((3, 3), "f4"), "head.clustering.head.weight": np.eye(3, 4, dtype="f4")}
    config = {"encoder": "plain", "size": 4, "bands": 64, "frames": 96, "norm": "batch", "unit_length": True}
    config |= {"front_end": {name: FRONT[name] for name in files.features.FRONT_END}}
    config |= {"heads": {"clustering": {"scale": 20.0}}}
    files.write_model(folder / "model.safetensors", tensors, config, inputs=[], made_from="", command="x")
    (folder / "plan.toml").write_text(
        'encoder = "plain"\nsize = 16\n[[stage]]\nsteps = 3\nobjective = { triplet = {} }\n'
    )
    (folder / "table.csv").write_text('path,class,split\na.wav,dog,1\nb.wav,"cat, small",2\nsound.wav,dog,1\n')
    (folder / "sheet.csv").write_text(
        "cluster,clip,file,start,end,class\n1,clip-0,a.wav,0.0,0.96,dog\n2,clip-1,b.wav,1,2,\n"
    )
    (folder / "scores.jsonl").write_text(json.dumps({"metric": "mAP", "class": None, "value": 0.5}) + "\n")
    (folder / "files.list").write_text("sound.wav\nsound.flac,0,0.5\n\n")
    return sorted(folder.iterdir())


def _features(path: Path, keys: list[str], generator: np.random.Generator) -> None:
    with files.create(path, "features", inputs=[], made_from="", attributes=FRONT, command="x") as sink:
        sink.write("frames", generator.normal(0, 1, (800, 64)).astype("f2"))
        sink.write("clip/offset", np.arange(5) * 200)
        for name in ("key", "recording", "split", "source"):
            sink.write(f"clip/{name}", keys)
        for name, kind in (("parent", "i4"), ("track", "i1"), ("processor", "i1")):
            sink.write(f"clip/{name}", np.full(4, -1, kind))
        sink.write("clip/start", np.zeros(4))
        sink.write("clip/level", np.zeros(4, "f4"))
        for name in ("path", "reason"):
            sink.write(f"skipped/{name}", ["x"])
        sink.write("mean", np.zeros(64, "f4"))
        sink.write("deviation", np.ones(64, "f4"))


def _embeddings(path: Path, keys: list[str], generator: np.random.Generator) -> None:
    about = {"layer": "embedding", "hop": 0.96, "window": 0.96, "class": "[]", "features": "", "model": ""}
    with files.create(path, "embeddings", inputs=[], made_from="", attributes=about, command="x") as sink:
        sink.write("embedding", generator.normal(0, 1, (40, 4)).astype("f4"))
        sink.write("window/clip", (np.arange(40) // 10).astype("i4"))
        sink.write("window/start", np.arange(40) % 10 * 0.96)
        for name in ("key", "recording", "split", "source"):
            sink.write(f"clip/{name}", keys)
        sink.write("clip/start", np.zeros(4))


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with flips, holes, copies, cuts or numbers at the ends of their range in them."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = (
            min(int(chance.expovariate(3 / max(1, len(found)))), max(0, len(found) - 1)) if chance.random() < 0.5 else 0
        )
        at = at or chance.randrange(max(1, len(found)))  # often near the beginning, where heads are
        way = chance.randrange(6)
        if way == 0 and found:
            found[at % len(found)] ^= 1 << chance.randrange(8)
        elif way == 1:
            found[at : at + chance.choice((1, 4, 8))] = chance.randbytes(chance.choice((1, 4, 8)))
        elif way == 2:
            del found[at : at + chance.choice((1, 2, 8, 100, len(found)))]
        elif way == 3:
            found[at:at] = found[chance.randrange(len(found) + 1) :][: chance.choice((1, 8, 64, 1000))]
        elif way == 4:
            found[at : at + 4] = chance.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xc0\x7f"))
        else:
            found[at : at + 8] = chance.choice((bytes(8), b"\xff" * 8, b"-1", b"1e999", b"nan", b'"', b"\n", b"\0"))
    return bytes(found)


# --- what reads them ---


def read(path: Path, output: Path) -> None:
    """Read a file as the commands do, and write what comes of it to `output`; raise what they turn into a line."""
    READERS[path.suffix if path.suffix in READERS else ".wav"](path, output)


def _read_media(path: Path, output: Path) -> None:
    blocks = [log_mel(block, PRESETS["vggish"]) for block in media.read_audio(path, 16000, keep_truncated=True)]
    if not all(np.isfinite(block).all() for block in blocks):
        raise AssertionError("frames that are not finite")


def _read_hdf5(path: Path, output: Path) -> None:
    kind = files.kind_of(path)
    files.inspect(path), files.chain(path), files.skipped(path), files.made_from(path)
    if kind == "features":
        source = files.Features(path)
        for windows in source.windows(source.window, source.window_hop, 64):
            windows.frames.sum()
        files.join("features", [path], output, copy=True)
    elif kind == "embeddings":
        files.join("embeddings", [path], output, copy=True)
        _cluster(path, clustering.Centres(np.eye(3, 4, dtype="f4")), output)
    elif kind == "clusters":
        _cluster(path.with_name("whole.h5"), clustering.read_centres(path), output)
    else:
        files.Labels(path)


def _cluster(rows: Path, centres: clustering.Centres, output: Path) -> None:
    found = clustering.read_rows(rows)
    about = clustering.attributes(found, centres)
    with files.create(output, "clusters", inputs=[], made_from="", attributes=about) as sink:
        clustering.write(sink, found, centres)
    json.dumps(clustering.largest(output), allow_nan=False)


def _read_matrix(path: Path, output: Path) -> None:
    _cluster(path, clustering.Centres(np.eye(3, 4, dtype="f4")), output)


def _read_model(path: Path, output: Path) -> None:
    files.inspect(path), files.model_made_from(path)
    model.load_model(path, "cpu", "float32").front_end  # noqa: B018 (worked out when it is asked for)
    centres = clustering.read_centres(path)
    _cluster(path.with_name("whole.h5"), centres, output)


def _read_table(path: Path, output: Path) -> None:
    if path.name == "table.csv":
        extraction.collect([path], "csv")
    else:
        sheets.read(path.read_bytes(), path.name)


READERS: dict[str, Callable[[Path, Path], None]] = {
    ".wav": _read_media,
    ".h5": _read_hdf5,
    ".npy": _read_matrix,
    ".safetensors": _read_model,
    ".toml": lambda path, output: curriculum.from_toml(path) and None,
    ".csv": _read_table,
    ".jsonl": lambda path, output: files.read_scores(path) and None,
    ".list": lambda path, output: lists.read(path.read_bytes()) and None,
}


# --- the loop ---


def fault(path: Path, output: Path) -> str:
    """Return what is wrong with reading a file, in a process of its own; empty where nothing is."""
    before = {each.name: each.stat().st_mtime_ns for each in path.parent.iterdir()}
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.setsid()  # and its workers, to be ended with it
        _child(path, output, writing)
    os.close(writing)
    begun, status = time.monotonic(), None
    while status is None and time.monotonic() - begun < SECONDS:
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
        time.sleep(0 if status is not None else 0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    if status is None:
        return f"no end within {SECONDS:g} s"
    if os.WIFSIGNALED(status):
        return f"ended by signal {os.WTERMSIG(status)}"
    after = {each.name for each in path.parent.iterdir() if before.get(each.name) != each.stat().st_mtime_ns}
    if elsewhere := {name for name in after if not name.startswith(output.name)}:
        return f"wrote {', '.join(sorted(elsewhere))}"
    return said


def _child(path: Path, output: Path, writing: int) -> None:
    """Read a file, say what nobody expects through a pipe, and end."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)
    os.write(writing, attempt(path, output).encode()[-4000:])
    os._exit(0)


def attempt(path: Path, output: Path) -> str:
    """Read a file and return what nobody expects of it: a traceback, or numbers that are not finite; else nothing."""
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    try:
        with silent[0], silent[1], warnings.catch_warnings(action="ignore"):
            read(path, output)
    except EXPECTED:
        return ""
    except BaseException:
        return traceback.format_exc()
    return _not_finite(output)


def _not_finite(output: Path) -> str:
    """Return which numbers of an output are not finite, empty where all are."""
    if not output.is_file():
        return ""
    with h5py.File(output, "r", locking=False) as file:
        found: list[str] = []

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and not np.isfinite(item[()]).all():
                found.append(name)

        file.visititems(visit)
    return f"{', '.join(found)} of the output are not finite" if found else ""


def fuzz(folder: Path, count: int, seed: int, keep: Path | None = None, until: float = float("inf")) -> list[str]:
    """Mutate and read so many files, until a time; return the faults, each with its seed."""
    whole, work = folder / "whole", folder / "work"
    for each in (whole, work):
        each.mkdir(parents=True, exist_ok=True)
    sources = write_files(whole)
    shutil.copy(whole / "embeddings.h5", work / "whole.h5")
    faults, done = [], collections.Counter[str]()
    for number in range(seed, seed + count):
        if time.monotonic() > until:
            break
        chance = random.Random(number)
        source = sources[number % len(sources)]
        path, output = work / source.name, work / f"output-{source.stem}.h5"
        path.write_bytes(mutate(source.read_bytes(), chance))
        done[source.name] += 1
        if said := fault(path, output):
            faults.append(f"seed {number}, {source.name}: {said}")
            if keep:
                keep.mkdir(exist_ok=True)
                shutil.copy(path, keep / f"{number}-{source.name}")
        path.unlink()
        for left in work.glob("output-*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    print(f"{sum(done.values())} mutated files, seeds {seed} to {seed + sum(done.values()) - 1}: {len(faults)} faults")
    return faults


def main() -> None:
    """Mutate as many files as asked, and fail where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no other file is begun")
    parser.add_argument("--keep", type=Path, help="folder for the files that were faults")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        until = time.monotonic() + 60 * options.minutes
        faults = fuzz(Path(folder), options.count, options.seed, options.keep, until)
    print("\n".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

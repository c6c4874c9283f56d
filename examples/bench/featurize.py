"""Time featurize against its floor (bare decoding and soxr HQ), librosa, and resampy with VGGish's numpy front end.

Run: python examples/bench/featurize.py ESC-10/audio [--clips 400] [--formats wav,ogg] [--copies FOLDER]
--copies keeps the copies in the other formats, for the next run. PEERS names a Python that has librosa and resampy,
where this one has not; what is missing is left out.

CPU time of whole processes, all formats and all sides in turn, threads pinned. Before each run that is counted the same
program runs on one clip, for its libraries, and the files are read: the system may have dropped from memory what lay
idle since the round before. And memory is touched and let go, for the pages: where a virtual machine gives free pages
back to its host, touching one again takes ten times what it takes on a machine of one's own.
Start-up is subtracted on every side: of a run on all clips goes a run on one of them, so ours pays for its worker
processes and its one writer too. --times N gives every clip N times, under as many names: start-up varies by more than
a hundred clips take.

--workers N compares by the clock one worker process with so many instead, start-up subtracted likewise; they need as
many free processors.
"""

import argparse
import itertools
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

BALLAST = 1 << 29  # bytes touched before a run: more than any side takes anew
FORMATS = ("wav", "flac", "mp3", "ogg", "m4a")
PINNED = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}

FLOOR = """
import sys, numpy as np, soxr
def floor(name):
    if name.endswith("m4a"):
        import av
        with av.open(name) as container:
            stream = container.streams.audio[0]
            rate, sound = stream.rate, np.concatenate([f.to_ndarray() for f in container.decode(stream)], 1).mean(0)
    else:
        import soundfile
        sound, rate = soundfile.read(name, dtype="float32")
    return soxr.resample(sound if sound.ndim == 1 else sound.mean(1), rate, 16000, quality="HQ")
for name in sys.argv[1:]:
    floor(name)
"""
LIBROSA = """
import sys, numpy as np, librosa
for name in sys.argv[1:]:
    sound, rate = librosa.load(name, sr=16000)
    mel = librosa.feature.melspectrogram(y=sound, sr=rate, n_fft=512, win_length=400, hop_length=160, n_mels=64)
    np.log(mel + 0.01)
"""
RESAMPY = """
import sys, numpy as np, resampy, soundfile
mel = lambda f: 1127 * np.log1p(f / 700)
bins, edges = mel(np.arange(257) * 31.25), np.linspace(mel(125.0), mel(7500.0), 66)
low, centre, high = edges[:-2], edges[1:-1], edges[2:]
matrix = np.maximum(0, np.minimum((bins[:, None] - low) / (centre - low), (high - bins[:, None]) / (high - centre)))
window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
for name in sys.argv[1:]:
    sound, rate = soundfile.read(name)
    sound = resampy.resample(sound, rate, 16000) if rate != 16000 else sound
    frames = np.lib.stride_tricks.sliding_window_view(sound, 400)[::160]
    np.log(np.abs(np.fft.rfft(frames * window, 512)) @ matrix + 0.01)
"""


def write_formats(sources: list[Path], folder: Path, times: int = 1) -> dict[str, list[Path]]:
    """Write each clip in every format, if it is not there, under so many names; return the paths by format."""
    import av

    found: dict[str, list[Path]] = {name: [] for name in FORMATS}
    for i, source in enumerate(sources):
        sound, rate = soundfile.read(source, dtype="float32")
        for name in FORMATS:
            path = folder / name / f"{i:03}.{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            found[name].append(path)
            if path.exists():
                continue
            if name == "ogg":
                path.write_bytes(source.read_bytes())
            elif name != "m4a":
                soundfile.write(path, sound, rate)
            else:
                with av.open(str(path), "w", format="mp4") as container:
                    stream = container.add_stream("aac", rate=rate, layout="mono")
                    stream.bit_rate = 128_000
                    for first in range(0, len(sound), 1024):
                        frame = av.AudioFrame.from_ndarray(sound[None, first : first + 1024], "fltp", "mono")
                        frame.sample_rate, frame.pts = rate, first
                        container.mux(stream.encode(frame))
                    container.mux(stream.encode())
    for name, paths in found.items():
        for path, number in itertools.product(list(paths), range(1, times)):
            other = path.with_name(f"{path.stem}-{number}.{name}")
            paths.append(other)
            if not other.exists():
                os.link(path, other)
    return found


def timed(words: list[str], stdin: str = "") -> tuple[float, float]:
    """Return the CPU seconds of a process and all its own, and the seconds by the clock."""
    with mmap.mmap(-1, BALLAST) as ballast:
        for page in range(0, BALLAST, mmap.PAGESIZE):
            ballast[page] = 1
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, input=stdin.encode(), check=True, stdout=subprocess.DEVNULL, env={**os.environ, **PINNED})
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended - begun


def run(paths: list[Path], folder: Path, jobs: int = 1) -> tuple[float, float]:
    """Run the command on files; return its CPU seconds and those by the clock."""
    words = ["featurize", "-", "-o", str(folder / "f.h5"), "--force", "-q", "-j", str(jobs)]
    return timed([sys.executable, "-m", "soundssl", *words], "\n".join(map(str, paths)))


def sides(folder: Path) -> dict:
    """Return the function of each side: CPU seconds for a list of paths."""
    peers = os.environ.get("PEERS", sys.executable)
    found = {
        "ours": lambda paths: run(paths, folder)[0],
        "floor": lambda paths: timed([sys.executable, "-c", FLOOR, *map(str, paths)])[0],
    }
    for name, program in (("librosa", LIBROSA), ("resampy", RESAMPY)):
        probe = subprocess.run([peers, "-c", f"import {name}, soundfile"], capture_output=True)
        if probe.returncode == 0:
            found[name] = lambda paths, program=program: timed([peers, "-c", program, *map(str, paths)])[0]
    return found


def read(paths: list[Path]) -> None:
    """Read files, so that the system holds them in memory."""
    for path in paths:
        path.read_bytes()


def compare(
    sources: list[Path], repeats: int, only: Sequence[str] = FORMATS, copies: Path | None = None, times: int = 1
) -> list[dict]:
    """Time all sides on the formats in turn; milliseconds a clip, medians over repeats of all and of one clip."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        formats, every = write_formats(sources, copies or folder, times), sides(folder)
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for repeat in range(repeats):
            for form, (side, work) in itertools.product(only, every.items()):
                if (side == "resampy" and repeat) or (form == "m4a" and side in ("librosa", "resampy")):
                    continue  # one repeat of the slow one; the others cannot read AAC
                paths = formats[form]
                some = paths[: max(2, min(40, len(paths) // 10))] if side == "resampy" else paths
                work(paths[:1])
                read(some)
                found.setdefault((form, side), []).append(
                    (work(some) / (len(some) - 1), work(paths[:1]) / (len(some) - 1))
                )
    taken = {
        key: 1e3 * (median(every for every, _ in pairs) - median(one for _, one in pairs))
        for key, pairs in found.items()
    }
    return [
        {
            "claim": f"featurize, {form}, CPU a clip of {soundfile.info(sources[0]).duration:.0f} s",
            **{"ours_ms": taken[form, "ours"], "peer": side, "peer_ms": theirs, "ratio": theirs / taken[form, "ours"]},
        }
        for (form, side), theirs in taken.items()
        if side != "ours"
    ]


def compare_workers(
    sources: list[Path], repeats: int, only: Sequence[str], copies: Path | None, times: int, jobs: int
) -> list[dict]:
    """Time one worker and several in turn by the clock; milliseconds a clip, medians over repeats."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        formats = write_formats(sources, copies or folder, times)
        for form in only:
            paths = formats[form]
            found: dict[tuple[int, bool], list[float]] = {}
            for _ in range(repeats):
                for count in (1, jobs):
                    run(paths[:jobs], folder, count)
                    read(paths)
                    for whole in (True, False):  # a clip for each worker: all of them start in both
                        found.setdefault((count, whole), []).append(
                            run(paths if whole else paths[:jobs], folder, count)[1]
                        )
            scale = 1e3 / (len(paths) - jobs)
            one, several = (scale * (median(found[count, True]) - median(found[count, False])) for count in (1, jobs))
            claim = f"featurize, {form}, {jobs} workers, clock a clip"
            rows.append({"claim": claim, "ours_ms": several, "peer": "one", "peer_ms": one, "ratio": one / several})
    return rows


def measure(small: bool) -> list[dict]:
    """Compare on synthetic clips, for the table of all benches."""
    with tempfile.TemporaryDirectory() as folder:
        sources = [Path(folder) / f"{i}.ogg" for i in range(3 if small else 40)]
        for i, path in enumerate(sources):
            sound = np.random.default_rng(i).normal(0, 0.1, 44100 * (1 if small else 5))
            soundfile.write(path, np.convolve(sound, np.hanning(9) / 4, "same"), 44100)
        return compare(sources, 1 if small else 5)


def main() -> None:
    """Compare on the clips of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--formats", default=",".join(FORMATS), help="some of them; the rest is another run's")
    parser.add_argument("--copies", type=Path, help="folder of the copies in other formats; default: made anew")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    sources = sorted(options.folder.glob("*.ogg"))[: options.clips]
    how = sources, options.repeats, options.formats.split(","), options.copies, options.times
    rows = compare(*how) if options.workers == 1 else compare_workers(*how, options.workers)
    for row in rows:
        print("{claim}: {ours_ms:.2f} ms; {peer}: {peer_ms:.2f} ms; {ratio:.2f} times".format(**row))
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

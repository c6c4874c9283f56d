"""Time featurize on many small files, and on the same with one in a thousand broken.

Run: python examples/bench/corrupt.py 4000 --repeats 3
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from memory import write_small

SHARE = 1000  # files for one that is broken
BOUND = 1.05  # times the time of sound files alone


def break_some(folder: Path) -> int:
    """Put an empty file, a text, a header without data, or noise in the place of one file in a thousand."""
    every = sorted(folder.rglob("*.flac"))
    broken = (b"", b"not a sound\n" * 100, every[0].read_bytes()[:60], bytes(range(256)) * 40)
    files = every[SHARE // 2 :: SHARE]
    for number, path in enumerate(files):
        path.unlink()  # a link; the others stay
        path.write_bytes(broken[number % len(broken)])
    return len(files)


def seconds(media: Path, output: Path, jobs: str) -> tuple[float, float]:
    """Return the processor seconds and the seconds by the clock of one run."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = ["featurize", str(media), "-o", str(output), "-j", jobs, "-q", "--force"]
    status = subprocess.run([sys.executable, "-m", "soundssl", *words], stderr=subprocess.DEVNULL).returncode
    if status not in (0, 3):  # 3: some were skipped
        raise SystemExit(f"featurize ended with {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.perf_counter() - begun


def main() -> None:
    """Measure in turn, and compare the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, default=4000, help="files")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-j", "--jobs", default="1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds = {name: Path(folder) / name for name in ("whole", "broken")}
        for media in kinds.values():
            write_small(media, options.count)
        count = break_some(kinds["broken"])
        found: dict[str, list] = {name: [] for name in kinds}
        for _ in range(options.repeats):
            for name, media in kinds.items():
                found[name].append(seconds(media, Path(folder) / f"{name}.h5", options.jobs))
    spent, clock = ({name: median(each[i] for each in runs) for name, runs in found.items()} for i in (0, 1))
    print(
        f"{count} of {options.count} files broken: {spent['broken'] / spent['whole']:.3f} times the processor time "
        f"({spent['whole']:.1f} s), {clock['broken'] / clock['whole']:.3f} times the clock's ({clock['whole']:.1f} s)"
    )
    if spent["broken"] > BOUND * spent["whole"]:
        raise SystemExit(f"more than {BOUND} times")


if __name__ == "__main__":
    main()

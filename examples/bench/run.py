"""Run every bench and print one table: what was timed, against what, and how many times as fast; JSON beside it.

Every claim of speed in this repository is a row here, measured in one run, interleaved with its peer, one thread each.
`make -C examples/bench` runs it; `--small` takes tiny sizes, to see that all of it still works. With DEVICE=cuda what
can be on a GPU is, and the rest is left out.
"""

import argparse
import importlib
import json
from pathlib import Path

import timing

BENCHES = (
    "startup",
    "featurize",
    "windows",
    "labels",
    "retrieval",
    "neighbors",
    "training",
    "pairs",
    "entropy",
    "ranks",
    "changes",
    "separation",
)
ON_CARD = ("training", "pairs", "entropy", "changes", "separation")


def main() -> None:
    """Run the benches named, or all."""
    usual = ON_CARD if timing.DEVICE.type == "cuda" else BENCHES
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=usual, help=f"of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("-o", "--output", type=Path, help="write the rows as JSON")
    options = parser.parse_args()
    rows: list[dict] = []
    for name in options.names:
        found = importlib.import_module(name).measure(options.small)
        rows += found
        timing.say(found)
        if options.output:
            options.output.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

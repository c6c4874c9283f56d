"""Run every bench and print one table: what was timed, against what, and how many times as fast; JSON beside it.

Every claim of speed in this repository is a row here, measured in one run, interleaved with its peer, one thread each.
`make -C examples/bench` runs it; `--small` takes tiny sizes, to see that all of it still works.
"""

import argparse
import importlib
import json
from pathlib import Path

BENCHES = (
    "startup",
    "featurize",
    "windows",
    "retrieval",
    "neighbors",
    "training",
    "pairs",
    "entropy",
    "changes",
    "separation",
)


def main() -> None:
    """Run the benches named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=BENCHES, help=f"of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("-o", "--output", type=Path, help="write the rows as JSON")
    options = parser.parse_args()
    rows = [row for name in options.names for row in importlib.import_module(name).measure(options.small)]
    width = max(len(row["claim"]) for row in rows)
    for row in rows:
        times = f"{row['ours_ms']:10.3f} ms   {row['peer']}: {row['peer_ms']:.3f} ms"
        floor = f"   {row['share_of_floor']:.0%} of the speed of {row['floor']}" if "floor" in row else ""
        print(f"{row['claim']:<{width}} {times}   {row['ratio']:.2f} times{floor}")
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""Run every bench and print one table: what was timed, against what, and how many times as fast; JSON beside it.

Every claim of speed in this repository is a row here, measured in one run, interleaved with its peer, one thread each.
`make -C examples/bench` runs it; `--small` takes tiny sizes, to see that all of it still works.
"""

import argparse
import importlib
import json
from pathlib import Path

CLAIM = 60  # characters of a claim in the table, at least
BENCHES = (
    "startup",
    "featurize",
    "windows",
    "retrieval",
    "neighbors",
    "training",
    "pairs",
    "entropy",
    "ranks",
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
    rows: list[dict] = []
    for name in options.names:
        found = importlib.import_module(name).measure(options.small)
        rows += found
        print("\n".join(map(line, found)), flush=True)
        if options.output:
            options.output.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def line(row: dict) -> str:
    """Say in one line what was measured."""
    words = [f"{row['claim']:<{CLAIM}} {figure(row, 'ours')}   {row['peer']}: {figure(row, 'peer')}"]
    words.append(f"{row['ratio']:.2f} times")
    if "floor" in row:
        words.append(f"{row['share_of_floor']:.0%} of the speed of {row['floor']}")
    if "memory_ratio" in row:
        words.append(f"{row['ours_added_mb']:.0f} MB, not {row['peer_added_mb']:.0f}")
    return "   ".join(words)


def figure(row: dict, side: str) -> str:
    """Return the milliseconds of a side, with the distance between the quartiles where it is known."""
    spread = f" ± {row[f'{side}_spread_ms']:.3g}" if f"{side}_spread_ms" in row else ""
    return f"{row[f'{side}_ms']:.3f}{spread} ms"


if __name__ == "__main__":
    main()

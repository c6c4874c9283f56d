"""The rows of both recognisers as a table: means over the seeds, with the interval of each seed.

python table.py WORK
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

COLUMNS = {
    "frame d' (explicit negatives)": ("rated", "frame_dprime"),
    "weak mAP": ("events", "weak_mAP"),
    "segment F1": ("events", "segment_F1"),
    "segment F1, smoothed": ("smoothed", "segment_F1"),
    "event F1": ("events", "event_F1"),
    "event F1, smoothed": ("smoothed", "event_F1"),
}


def main() -> None:
    """Print the table in Markdown."""
    work = Path(sys.argv[1])
    print("| labels | seed | " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * (len(COLUMNS) + 2))
    for row in (row for row in ("weak", "mixed") if (work / row).is_dir()):
        values: dict[str, list[float]] = {}
        for folder in sorted((work / row).iterdir()):
            cells = []
            for name, (file, metric) in COLUMNS.items():
                found = score(folder / f"{file}.jsonl", metric)
                cells.append("" if found is None else cell(found))
                if found is not None:
                    values.setdefault(name, []).append(found["value"])
            print(f"| {row} | {folder.name} | " + " | ".join(cells) + " |")
        means = [f"{sum(values[name]) / len(values[name]):.3f}" if name in values else "" for name in COLUMNS]
        print(f"| {row} | mean | " + " | ".join(means) + " |")


def score(path: Path, metric: str) -> dict | None:
    """Return the overall row of a metric, None where there is none."""
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return next((row for row in rows if row["metric"] == metric and row["class"] is None), None)


def cell(row: dict) -> str:
    """Return a value with its interval, where it has one."""
    interval = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['value']:.3f}{interval}"


if __name__ == "__main__":
    main()

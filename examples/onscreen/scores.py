"""Set the scores of on-screen models side by side, and say how well coincidence finds the videos that show their sound.

python examples/onscreen/scores.py work/exact/0.jsonl work/exact/1.jsonl --coincidence c.jsonl --labels labels.csv
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from soundssl.ops import metrics

COLUMNS = ("si_snr_improvement", "auc", "suppression", "suppression_on_off", "si_snr_improvement_oracle")


def lines(path: Path) -> list[dict]:
    """Return the rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def cell(row: dict) -> str:
    """Return a figure with its interval, where there is one."""
    interval = "" if row["low"] is None else f" ({row['low']:.2f} … {row['high']:.2f})"
    return f"{row['value']:.2f}{interval}"


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scores", type=Path, nargs="+", help="score files LOSS/SEED.jsonl of evaluate onscreen")
    parser.add_argument("--coincidence", type=Path, required=True, help="what evaluate coincidence wrote")
    parser.add_argument("--labels", type=Path, required=True, help="table of the videos")
    options = parser.parse_args(arguments)
    print("| loss, seed | " + " | ".join(COLUMNS) + " |\n|---" + "|---" * len(COLUMNS) + "|")
    first = {row["metric"]: row for row in lines(options.scores[0])}
    print("| half the mixture | " + " | ".join(f"{first[name]['chance']:.2f}" for name in COLUMNS) + " |")
    for path in options.scores:
        found = {row["metric"]: row for row in lines(path)}
        print(f"| {path.parent.name}, {path.stem} | " + " | ".join(cell(found[name]) for name in COLUMNS) + " |")
    with open(options.labels, newline="", encoding="utf-8") as stream:
        seen = {row["path"]: "on-screen" in row["class"].split(";") for row in csv.DictReader(stream)}
    known = [row for row in lines(options.coincidence) if row["key"] in seen]
    score = np.array([row["probability"] for row in known])
    label = np.array([seen[row["key"]] for row in known])
    share = label[score >= np.median(score)].mean()
    auc = metrics.roc_auc(score, label)
    print(f"\nCoincidence: videos that show their sound against those that do not, AUC {auc:.2f}")
    print(f"Of the better half of the videos by coincidence {share:.0%} show their sound; of all {label.mean():.0%}")


if __name__ == "__main__":
    main()

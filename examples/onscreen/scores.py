"""Set the scores of on-screen models side by side, and say how well coincidence finds the videos that show their sound.

    python examples/onscreen/scores.py work/exact/0.jsonl work/exact/1.jsonl --coincidence c.jsonl --kept clips.txt \\
        --labels labels.csv -o scores.txt
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import sections

from soundssl.ops import metrics

COLUMNS = {  # metric: heading
    "si_snr_improvement": "on-screen, dB better",
    "auc": "on or off, AUC",
    "suppression": "off-screen suppressed, dB",
    "suppression_on_off": "the same where something is on screen",
    "si_snr_improvement_oracle": "best choice of tracks, dB better",
}


def lines(path: Path) -> list[dict]:
    """Return the rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def cell(row: dict) -> str:
    """Return a figure with its interval, where there is one."""
    interval = "" if row["low"] is None else f" ({row['low']:.2f} … {row['high']:.2f})"
    return f"{row['value']:.2f}{interval}"


def table(scores: list[Path]) -> list[str]:
    """Return the table in Markdown: half the mixture, then the models."""
    first = {row["metric"]: row for row in lines(scores[0])}
    made = ["| loss, seed | " + " | ".join(COLUMNS.values()) + " |", "|---" + "|---" * len(COLUMNS) + "|"]
    made.append("| half the mixture | " + " | ".join(f"{first[name]['chance']:.2f}" for name in COLUMNS) + " |")
    for path in scores:
        found = {row["metric"]: row for row in lines(path)}
        made.append(f"| {path.parent.name}, {path.stem} | " + " | ".join(cell(found[name]) for name in COLUMNS) + " |")
    return made


def of_coincidence(rows: list[dict], kept: set[str], labels: Path) -> list[str]:
    """Return what the filter by coincidence is worth, on test videos and of those that it kept."""
    with open(labels, newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    seen = {row["path"]: "on-screen" in row["class"].split(";") for row in table}
    test = {row["path"] for row in table if row["split"] == "test"}
    known = [row for row in rows if row["key"] in test]
    auc = metrics.roc_auc(np.array([row["probability"] for row in known]), np.array([seen[r["key"]] for r in known]))
    share, of_all = np.mean([seen[key] for key in kept]), np.mean(list(seen.values()))
    return [
        f"Coincidence tells test videos that show their sound from those that do not with an AUC of {auc:.2f}. Of the",
        f"{len(kept)} training videos that it kept {share:.0%} show their sound; of all {of_all:.0%}.",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; write the table, and put it into the file of results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scores", type=Path, nargs="+", help="score files LOSS/SEED.jsonl of evaluate onscreen")
    parser.add_argument("--coincidence", type=Path, required=True, help="what evaluate coincidence wrote")
    parser.add_argument("--kept", type=Path, required=True, help="the list of evaluate coincidence --at-least")
    parser.add_argument("--labels", type=Path, required=True, help="table of the videos")
    parser.add_argument("--command", default="", help="what made all this")
    parser.add_argument("--results", type=Path, help="file of results to put the table into")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    kept = set(options.kept.read_text("utf-8").split())
    made = "\n".join([*table(options.scores), "", *of_coincidence(lines(options.coincidence), kept, options.labels)])
    told = "\n".join(sections.circumstances(options.command))
    text = f"## On-screen sounds: ESC-10 behind moving shapes, learnt without labels\n\n{told}\n\n{made}\n"
    options.output.write_text(text, "utf-8")
    if options.results:
        sections.put(options.results, "onscreen", text)
    print(made)


if __name__ == "__main__":
    main()

"""Tell what recognisers trained on budgets of questions are worth, as in table 3 of Jansen et al. 2020.

Random labels train a network from scratch, labels of clusters go on from the embedding that was learnt without labels.

    python trained.py work/trained --labels labels.h5 --questions 10 40 --seeds 0 1 2 -o trained.md
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sections
from budgets import NORMAL, TITLES

from soundssl import SoundsslError, files

METRICS = {"mAP": "clip mAP", "dprime": "d'", "top1": "accuracy"}
WAYS = {"random": "from scratch", "paper": "fine-tuned", "best": "fine-tuned"}


def values(folder: Path, seeds: Sequence[str], metric: str) -> np.ndarray:
    """Return a metric over all classes of the recognisers of all seeds in a folder."""
    found = []
    for seed in seeds:
        lines = files.read_scores(folder / seed / "tagging.jsonl")
        found.append(next(line["value"] for line in lines if line["metric"] == metric and line["class"] is None))
    return np.array(found)


def quality(folder: Path, seeds: Sequence[str], truth: files.Labels) -> tuple[float, float]:
    """Return the windows labelled and the share of them labelled rightly, means over seeds; each clip has one class."""
    known = dict(zip(truth.key, truth.label.argmax(1), strict=True))
    count, right = [], []
    for seed in seeds:
        given = files.Labels(folder / seed / "labels.h5")
        number = np.array([truth.classes.index(name) for name in given.classes])
        count.append(len(given.key))
        right.append(np.mean(number[given.label.argmax(1)] == np.array([known[key] for key in given.key])))
    return float(np.mean(count)), float(np.mean(right))


def markdown(run: Path, labels: files.Labels, questions: Sequence[str], seeds: Sequence[str]) -> str:
    """Return the table: a line for each number of questions and way, with means and 95 % intervals over seeds."""
    lines = [["questions", "labels of", "recogniser", *METRICS.values(), "windows labelled", "precision"]]
    lines.append(["---"] * len(lines[0]))
    for asked in questions:
        for way, start in WAYS.items():
            folder = run / asked / way
            cells = [asked, TITLES[way], start]
            for metric in METRICS:
                found = values(folder, seeds, metric)
                reach = NORMAL * found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else 0.0
                cells.append(f"{found.mean():.3f} ± {reach:.3f}")
            count, right = quality(folder, seeds, labels)
            lines.append([*cells, f"{count:.0f}", f"{right:.2f}"])
    return sections.rows(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of QUESTIONS/WAY/SEED/tagging.jsonl")
    parser.add_argument("--labels", type=Path, required=True, help="labels file that answered")
    parser.add_argument("--questions", nargs="+", required=True, help="numbers of questions")
    parser.add_argument("--seeds", nargs="+", required=True, help="seeds to average over")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the table alone")
    parser.add_argument("--results", type=Path, help="file of sections to put the table into")
    parser.add_argument("--section", default="trained", help="name of the section")
    parser.add_argument("--title", default="Recognisers trained on budgets of questions", help="heading of the section")
    parser.add_argument("--command", default="trained.py", help="command line to state there")
    options = parser.parse_args(arguments)
    try:
        table = markdown(options.run, files.Labels(options.labels), options.questions, options.seeds)
    except (SoundsslError, OSError) as error:
        print(f"trained.py: {error}", file=sys.stderr)
        return 1
    notes = [f"Means and 95 % intervals over the seeds {', '.join(options.seeds)}."]
    sections.publish(table, options, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())

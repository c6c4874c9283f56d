"""Write the scores of many runs as a table like those of Jansen et al., and put it into a file of results.

A row is a way of learning; its recovery is the share it covers of the way from log-mel to the supervised topline,
(score - log-mel) / (supervised - log-mel), taken seed by seed. Of the file of results only the section of this name is
replaced.

    python table.py work/150-steps --folds 5 --seeds 0 1 2 --rows log-mel joint supervised -o table.md
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sections

from soundssl import SoundsslError, files

BASELINE, TOPLINE = "log-mel", "supervised"
COLUMNS = {  # evaluation: its metric, its heading, whether a recovery stands beside it
    "retrieval": ("mAP", "QbE mAP", True),
    "knn": ("accuracy", "kNN accuracy", False),
    "shallow": ("mAP", "1x512 mAP", True),
    "light": ("mAP", "1x512 mAP, 20 clips a class", True),
}
TITLES = {
    "log-mel": "log-mel (baseline, b)",
    "untrained": "untrained network",
    "noise": "Gaussian noise",
    "translation": "time/frequency translation",
    "mixing": "example mixing",
    "proximity": "temporal proximity (c)",
    "joint": "joint",
    "coincidence": "coincidence of sounds (e)",
    "augmented": "coincidence of sounds, windows mixed and shifted",
    "categories": "and categories (k, of sound alone)",
    "correspondence": "audio-visual correspondence (d)",
    "video": "coincidence of sound and picture (f)",
    "video-vgg": "f with a VGG net for pictures (g)",
    "video-random": "f with random negatives (h)",
    "video-short": "f within a second (i)",
    "both": "f, then with sounds too (j)",
    "video-categories": "j, then with categories (k)",
    "supervised": "supervised triplets (topline, a)",
}


def score(path: Path, metric: str) -> tuple[float, float]:
    """Return the overall value of a metric in a score file, and its chance."""
    for line in files.read_scores(path):
        if line["metric"] == metric and line["class"] is None:
            return line["value"], line["chance"]
    raise SoundsslError(f"{path} has no overall {metric}")


def collect(
    run: Path, rows: Sequence[str], tasks: Sequence[str], folds: Sequence[str], seeds: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Return scores and chances by row and evaluation, means over folds. Shape: each [seeds, 2]."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for row in rows:
        found[row] = {}
        for task in tasks:
            metric = COLUMNS[task][0]
            cells = [
                [score(run / fold / row / seed / f"{task}.scores.jsonl", metric) for seed in seeds] for fold in folds
            ]
            found[row][task] = np.mean(cells, axis=0)
    return found


def recovery(value: np.ndarray, baseline: np.ndarray, topline: np.ndarray) -> np.ndarray:
    """Return the share of the way from baseline to topline; nan where the two are equal.

    >>> recovery(np.array([0.562]), np.array([0.423]), np.array([0.790])).round(3).tolist()
    [0.379]
    """
    span = topline - baseline
    return np.divide(value - baseline, span, out=np.full(len(value), np.nan), where=span != 0)


def spread(values: np.ndarray, percent: bool = False) -> str:
    """Write the mean over seeds, and the standard deviation where there is more than one.

    >>> spread(np.array([0.5, 0.6])), spread(np.array([0.379]), percent=True)
    ('0.550 ± 0.071', '38 %')
    """
    if not np.isfinite(values).all():
        return "–"
    scale, digits, unit = (100, 0, " %") if percent else (1, 3, "")
    deviation = f" ± {scale * values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * values.mean():.{digits}f}{deviation}{unit}"


def markdown(found: dict[str, dict[str, np.ndarray]]) -> str:
    """Return the table; the last line is chance."""
    columns = {task: COLUMNS[task] for task in found[BASELINE]}
    heads = ["representation"]
    for _, title, recovered in columns.values():
        heads += [title, "recovery"] if recovered else [title]
    lines = [heads, ["---"] * len(heads)]
    for row, tasks in found.items():
        cells = [TITLES.get(row, row)]
        for task, (_, _, recovered) in columns.items():
            value = tasks[task][:, 0]
            cells.append(spread(value))
            if recovered:
                ends = [found[end][task][:, 0] for end in (BASELINE, TOPLINE)]
                cells.append(spread(recovery(value, *ends), percent=True) if row not in (BASELINE, TOPLINE) else "")
        lines.append(cells)
    chance = ["chance"]
    for task, (_, _, recovered) in columns.items():
        chance += [f"{found[BASELINE][task][:, 1].mean():.3f}", *([""] if recovered else [])]
    return sections.rows([*lines, chance])


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of FOLD/ROW/SEED/EVALUATION.scores.jsonl")
    parser.add_argument(
        "--folds", nargs="+", required=True, help="folds that were held out, or whatever folders lie below"
    )
    parser.add_argument("--seeds", nargs="+", required=True, help="seeds to average over")
    parser.add_argument("--rows", nargs="+", default=list(TITLES), help="rows in their order")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS), help="evaluations to show")
    parser.add_argument("--title", default="Results", help="heading of the section")
    parser.add_argument("--section", default="table", help="name of the section")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the table alone")
    parser.add_argument("--results", type=Path, help="file of sections to put the table into")
    parser.add_argument("--command", help="command line to state there")
    options = parser.parse_args(arguments)
    if missing := {BASELINE, TOPLINE} - set(options.rows):
        parser.error(f"the recovery needs the row {missing.pop()}")
    try:
        table = markdown(collect(options.run, options.rows, options.columns, options.folds, options.seeds))
    except (SoundsslError, OSError) as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 1
    options.command = options.command or "table.py"
    notes = [
        "Training saw the other recordings, without labels but for the topline.",
        f"Mean ± standard deviation over the seeds {', '.join(options.seeds)}; recovery is",
        "(score - log-mel) / (supervised - log-mel), seed by seed.",
    ]
    sections.publish(table, options, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Write the results of `make -C examples/esc10` as a table like that of Jansen et al. 2018, into RESULTS.md.

A row is a way of drawing triplets; its recovery is the share it covers of the way from log-mel to the supervised
topline, (score - log-mel) / (supervised - log-mel), taken seed by seed. Of RESULTS.md only the section between this
table's markers is replaced.

    python table.py work/150-steps --folds 5 --seeds 0 1 2 --rows log-mel joint supervised -o table.md
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import soundssl
from soundssl import SoundsslError, files

BASELINE, TOPLINE = "log-mel", "supervised"
COLUMNS = {  # evaluation: its metric, its heading, whether a recovery stands beside it
    "retrieval": ("mAP", "QbE mAP", True),
    "knn": ("accuracy", "kNN accuracy", False),
    "shallow": ("mAP", "1x512 mAP", True),
    "light": ("mAP", "1x512 mAP, 20 clips a class", True),
}
TITLES = {
    "log-mel": "log-mel (baseline)",
    "untrained": "untrained network",
    "noise": "Gaussian noise",
    "translation": "time/frequency translation",
    "mixing": "example mixing",
    "proximity": "temporal proximity",
    "joint": "joint",
    "supervised": "supervised triplets (topline)",
}
HEADER = (
    "# Results of our own runs\n\nA section is written by the command it names, and replaced when that is run again.\n"
)


def score(path: Path, metric: str) -> tuple[float, float]:
    """Return the overall value of a metric in a score file, and its chance."""
    for line in files.read_scores(path):
        if line["metric"] == metric and line["class"] is None:
            return line["value"], line["chance"]
    raise SoundsslError(f"{path} has no overall {metric}")


def collect(
    run: Path, rows: Sequence[str], folds: Sequence[str], seeds: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Return scores and chances by row and evaluation, means over folds. Shape: each [seeds, 2]."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for row in rows:
        found[row] = {}
        for task, (metric, _, _) in COLUMNS.items():
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
    heads = ["representation"]
    for _, title, recovered in COLUMNS.values():
        heads += [title, "recovery"] if recovered else [title]
    lines = [heads, ["---"] * len(heads)]
    for row, tasks in found.items():
        cells = [TITLES.get(row, row)]
        for task, (_, _, recovered) in COLUMNS.items():
            value = tasks[task][:, 0]
            cells.append(spread(value))
            if recovered:
                ends = [found[end][task][:, 0] for end in (BASELINE, TOPLINE)]
                cells.append(spread(recovery(value, *ends), percent=True) if row not in (BASELINE, TOPLINE) else "")
        lines.append(cells)
    chance = ["chance"]
    for task, (_, _, recovered) in COLUMNS.items():
        chance += [f"{found[BASELINE][task][:, 1].mean():.3f}", *([""] if recovered else [])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*lines, chance]) + "\n"


def commit() -> str:
    """Return the commit that this file lies in, with a mark where the tree differs from it."""
    words = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def section(table: str, options: argparse.Namespace) -> str:
    """Return the section of RESULTS.md: what was run, when and where, then the table."""
    import torch

    folds = ", ".join(options.folds)
    held_out = f"folds {folds}, each held out in turn" if len(options.folds) > 1 else f"fold {folds} held out"
    lines = [
        f"## ESC-10, {held_out}: samplers of Jansen et al. 2018",
        "",
        f"{datetime.date.today().isoformat()}, commit {commit()}, soundssl {soundssl.__version__},",
        f"torch {torch.__version__}, {platform.machine()} with {os.cpu_count()} processors.",
        f"Command: `{options.command or 'table.py'}`.",
        "Training saw the other folds, without labels but for the topline.",
        f"Mean ± standard deviation over the seeds {', '.join(options.seeds)}; recovery is",
        "(score - log-mel) / (supervised - log-mel), seed by seed.",
    ]
    return "\n".join(lines) + "\n\n" + table


def put(path: Path, name: str, text: str) -> None:
    """Replace the section of that name in a file of sections, or append it."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text("utf-8") if path.exists() else HEADER
    if begin in old and end in old:
        before, after = old[: old.index(begin)], old[old.index(end) + len(end) :].lstrip("\n")
        after = "\n" + after if after else ""
    else:
        before, after = old.rstrip("\n") + "\n\n", ""
    with files.replace(path) as partial:
        partial.write_text(f"{before}{begin}\n{text}{end}\n{after}", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of FOLD/ROW/SEED/EVALUATION.scores.jsonl")
    parser.add_argument("--folds", nargs="+", required=True, help="folds that were held out")
    parser.add_argument("--seeds", nargs="+", required=True, help="seeds to average over")
    parser.add_argument("--rows", nargs="+", default=list(TITLES), help="rows in their order")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the table alone")
    parser.add_argument("--results", type=Path, help="file of sections to put the table into")
    parser.add_argument("--command", help="command line to state there")
    options = parser.parse_args(arguments)
    if missing := {BASELINE, TOPLINE} - set(options.rows):
        parser.error(f"the recovery needs the row {missing.pop()}")
    try:
        table = markdown(collect(options.run, options.rows, options.folds, options.seeds))
    except (SoundsslError, OSError) as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 1
    if options.results:
        put(options.results, f"esc10-{'-'.join(options.folds)}", section(table, options))
    with files.replace(options.output) as partial:
        partial.write_text(table, "utf-8")
    print(table, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

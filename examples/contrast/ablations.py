"""Write the results of a group of rows of `make -C examples/contrast` as a table, into RESULTS.md.

A cell is the mean over seeds with its 95 % interval (Student's t over the seeds, each the mean over folds); beside it
stands the gain over log-mel, seed by seed.

    python ablations.py views work/300-steps --folds 5 --seeds 0 1 2 --rows log-mel crops mixback -o table.md
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from soundssl import SoundsslError, files

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
import sections
import table

BASELINE = "log-mel"
COLUMNS = {  # evaluation: its metric, its heading
    "retrieval": ("mAP", "QbE mAP"),
    "knn": ("accuracy", "5-NN accuracy"),
    "linear": ("balanced_accuracy", "linear, balanced accuracy"),
}
GROUPS = {
    "views": "views of Fonseca et al. 2021",
    "augmentations": "augmentations of Fonseca et al. 2021, on mix-back",
    "separated": "mixtures and their tracks",
    "processors": "tracks of a separator at four ages",
}
TITLES = {
    "log-mel": "log-mel (baseline)",
    "same": "one window twice",
    "crops": "two windows of a clip",
    "mixback-raw": "mix-back without adjusting energies",
    "mixback": "mix-back; crop, compression, noise",
    "none": "no augmentation",
    "time": "time shift",
    "band": "frequency shift",
    "crop": "random resized crop",
    "reversal": "time reversal",
    "compression": "compression",
    "masks": "SpecAugment",
    "noise": "Gaussian noise",
    "blur": "blur",
    "crop-masks": "crop and SpecAugment",
    "mixture": "mixture and mixture, similarity",
    "track": "mixture and track, similarity (SM)",
    "coincidence": "mixture and track, coincidence (CP)",
    "joint": "mixture and track, SM + CP",
    "earliest": "tracks of the first checkpoint",
    "early": "of the second",
    "late": "of the third",
    "latest": "of the last",
}


def collect(run: Path, row: str, folds: Sequence[str], seeds: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the values of a row by evaluation, one a seed, means over folds."""
    return {
        task: np.array(
            [
                np.mean([table.score(run / fold / row / seed / f"{task}.scores.jsonl", metric)[0] for fold in folds])
                for seed in seeds
            ]
        )
        for task, (metric, _) in COLUMNS.items()
    }


def interval(values: np.ndarray) -> str:
    """Write a mean with its 95 % interval, where there are several values.

    >>> interval(np.array([0.5, 0.6, 0.7])), interval(np.array([0.5]))
    ('0.600 (0.352 … 0.848)', '0.500')
    """
    if len(values) < 2:
        return f"{values.mean():.3f}"
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ({values.mean() - half:.3f} … {values.mean() + half:.3f})"


def markdown(found: dict[str, dict[str, np.ndarray]]) -> str:
    """Return the table: a row each, its scores and their gains over log-mel."""
    heads = ["views", *(head for _, title in COLUMNS.values() for head in (title, "gain"))]
    lines = [heads, ["---"] * len(heads)]
    for row, tasks in found.items():
        cells = [TITLES.get(row, row)]
        for task in COLUMNS:
            gain = (tasks[task] - found[BASELINE][task]).mean()
            cells += [interval(tasks[task]), "" if row == BASELINE else f"{gain:+.3f}"]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def section(text: str, options: argparse.Namespace) -> str:
    """Return the section of RESULTS.md: what was run, when and where, then the table."""
    lines = [
        f"## ESC-10, held out {', '.join(options.folds)}: {GROUPS[options.group]}",
        "",
        *sections.circumstances(options.command or "ablations.py"),
        "Training heard the other folds, without labels; the linear layer and the neighbours know theirs.",
        f"Mean and 95 % interval over the seeds {', '.join(options.seeds)}; gains are over log-mel.",
    ]
    return "\n".join(lines) + "\n\n" + text


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("group", choices=GROUPS, help="which rows these are")
    parser.add_argument("run", type=Path, help="folder of FOLD/ROW/SEED/EVALUATION.scores.jsonl")
    parser.add_argument("--folds", nargs="+", required=True, help="folds that were held out")
    parser.add_argument("--seeds", nargs="+", required=True, help="seeds to average over")
    parser.add_argument("--rows", nargs="+", required=True, help="rows in their order, log-mel among them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the table alone")
    parser.add_argument("--results", type=Path, help="file of sections to put the table into")
    parser.add_argument("--command", help="command line to state there")
    options = parser.parse_args(arguments)
    if BASELINE not in options.rows:
        parser.error(f"the gains need the row {BASELINE}")
    try:
        text = markdown({row: collect(options.run, row, options.folds, options.seeds) for row in options.rows})
    except (SoundsslError, OSError) as error:
        print(f"ablations.py: {error}", file=sys.stderr)
        return 1
    if options.results:
        sections.put(options.results, f"contrast-{options.group}-{'-'.join(options.folds)}", section(text, options))
    with files.replace(options.output) as partial:
        partial.write_text(text, "utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

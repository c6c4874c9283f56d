"""Write the scores of many runs as a table, each with its interval over runs, and put it into a file of results.

A run lies in RUN/FOLD/ROW/SEED/, its scores in TASK.scores.jsonl. The value of a row is the mean over folds and seeds,
its 95 % interval Student's over seeds, of their means over folds; or of one seed over folds.

    python comparison.py work/100-steps --folds 5 --seeds 0 1 2 --rows max aps --columns tagging:top1:accuracy \\
        --title "Shifts" --section shift -o table.md
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sections
from scipy import stats
from table import score


def values(run: Path, row: str, task: str, metric: str, folds: Sequence[str], seeds: Sequence[str]) -> np.ndarray:
    """Return a score for each seed, the mean over folds; of one seed for each fold. Shape: [seeds or folds]."""
    cells = [[score(run / fold / row / seed / f"{task}.scores.jsonl", metric)[0] for fold in folds] for seed in seeds]
    return np.array(cells[0]) if len(seeds) == 1 else np.mean(cells, axis=1)


def cell(found: np.ndarray) -> str:
    """Return mean and half the width of the 95 % interval.

    >>> cell(np.array([0.5, 0.5, 0.5])), cell(np.array([0.25]))
    ('0.500 ± 0.000', '0.250')
    """
    if len(found) < 2:
        return f"{found.mean():.3f}"
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return f"{found.mean():.3f} ± {half:.3f}"


def table(run: Path, rows: Sequence[str], columns: Sequence[str], folds: Sequence[str], seeds: Sequence[str]) -> str:
    """Return the table in Markdown; a column is task:metric:heading."""
    parts = [column.split(":", 2) for column in columns]
    lines = ["| | " + " | ".join(heading for _, _, heading in parts) + " |", "|---|" + "---|" * len(parts)]
    for row in rows:
        cells = [cell(values(run, row, task, metric, folds, seeds)) for task, metric, _ in parts]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the table, and put it into the file of results under its section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    for name in ("folds", "seeds", "rows", "columns"):
        parser.add_argument(f"--{name}", nargs="+", required=True)
    for name in ("title", "section", "command", "note"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--results", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    made = table(given.run, given.rows, given.columns, given.folds, given.seeds)
    told = "\n".join(sections.circumstances(given.command))
    text = f"## {given.title}\n\n{told}\n\n{made}\n\n{given.note}\n".replace("\n\n\n", "\n")
    given.output.write_text(text, "utf-8")
    if given.results:
        sections.put(given.results, given.section, text)
    print(made)


if __name__ == "__main__":
    main()

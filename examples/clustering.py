"""Set soundssl cluster beside k-means by faiss: V-measure and time, and what each choice of the default contributes.

The data are a labelled mixture of 100,000 points, 500 classes of sizes as 1 to 1/500 about directions drawn at random,
or with --embeddings and --labels the windows of a collection, each with the class of its clip.

    python clustering.py -o mixture.md
    python clustering.py --embeddings embeddings.h5 --labels labels.h5 --split 1,2,3,4 -o real.md
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sections

from soundssl import SoundsslError, files
from soundssl.evaluations import clusters as agreement
from soundssl.labels import Index

VARIANTS = {
    "k-means, faiss": ["--method", "kmeans"],
    "as published: scale 60, random centres": ["--preset", "paper"],
    "centres from data points": ["--preset", "steady", "--scale", "60"],
    "and the scale rises from 6 (rising)": ["--preset", "rising"],
    "or a scale of 20 at most (steady, the default)": ["--preset", "steady"],
    "steady, gamma 1": ["--gamma", "1"],
    "steady, running average 0.9": ["--momentum", "0.9"],
}
CLASSES, POINTS, SIZE, NOISE = 500, 100_000, 128, 1.8  # of the mixture; noise as a multiple of the centres' length


def mixture(points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points of length one about the directions of classes, and their classes; class i has a share as 1/i."""
    generator = np.random.default_rng(seed)
    centre = generator.standard_normal((CLASSES, SIZE)).astype(np.float32)
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    share = 1 / np.arange(1, CLASSES + 1)
    label = generator.choice(CLASSES, points, p=share / share.sum())
    rows = centre[label] + NOISE / SIZE**0.5 * generator.standard_normal((points, SIZE)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), label


def truth(embeddings: Path, labels: Path, splits: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of every window by its clip, and which windows are of the chosen splits."""
    source, known = files.Embeddings(embeddings), files.Labels(labels)
    label = Index(known, source.clips.key).of_clips().argmax(1)[source.clip]
    chosen = source.clips.in_splits(splits.split(",") if splits else None, embeddings)[source.clip]
    return label, chosen


def measure(rows: Path, words: Sequence[str], clusters: int, seed: int, output: Path) -> tuple[np.ndarray, float]:
    """Cluster; return the cluster of every row and the processor time it took in seconds."""
    start = time.process_time()
    sections.tool("cluster", rows, "--k", clusters, "--seed", seed, *words, "-q", "--force", "-o", output)
    return files.Clusters(output).cluster, time.process_time() - start


def markdown(found: dict[str, dict[int, np.ndarray]]) -> str:
    """Return the table: V-measure, mean over seeds, and processor seconds, for every number of clusters."""
    sizes = list(next(iter(found.values())))
    lines = [["", *(f"K = {size}" for size in sizes)], ["---"] * (1 + len(sizes))]
    for name, cells in found.items():
        lines.append([name, *(f"{cells[size][:, 0].mean():.3f} ({cells[size][:, 1].mean():.1f} s)" for size in sizes)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def run(options: argparse.Namespace) -> dict[str, dict[int, np.ndarray]]:
    """Return V-measure and seconds by variant and number of clusters. Shape: each [seeds, 2]."""
    found: dict[str, dict[int, list]] = {name: {size: [] for size in options.clusters} for name in VARIANTS}
    extra = ["--split", options.split] if options.split else []
    with tempfile.TemporaryDirectory() as folder:
        rows = options.embeddings or Path(folder) / "mixture.npy"
        for seed in options.seeds:
            if options.embeddings:
                label, chosen = truth(rows, options.labels, options.split)
            else:
                points, label = mixture(options.points, seed)
                chosen = np.ones(len(label), bool)
                np.save(rows, points)
            for name, words in VARIANTS.items():
                for size in options.clusters:
                    cluster, seconds = measure(rows, [*words, *extra], size, seed, Path(folder) / "clusters.h5")
                    table = agreement.contingency(cluster[chosen], label[chosen], np.ones(int(chosen.sum())))
                    found[name][size].append((agreement.v_measure(table)[0], seconds))
                    print(f"clustering.py: {name}, K = {size}, {found[name][size][-1][0]:.3f}", file=sys.stderr)
    return {name: {size: np.array(values) for size, values in cells.items()} for name, cells in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--embeddings", type=Path, help="embeddings file; without it the mixture")
    parser.add_argument("--labels", type=Path, help="labels file of its clips, one class each")
    parser.add_argument("--split", help="splits to learn on and to score, with commas")
    parser.add_argument("--points", type=int, default=POINTS, help="points of the mixture")
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 50, 200, 1000], help="numbers of clusters")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to average over")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the table")
    parser.add_argument("--results", type=Path, help="file of sections to put the table into")
    parser.add_argument("--section", default="clustering", help="name of the section")
    parser.add_argument("--title", default="cluster beside k-means", help="heading of the section")
    parser.add_argument("--command", default="clustering.py", help="command line to state there")
    options = parser.parse_args(arguments)
    if bool(options.embeddings) != bool(options.labels):
        parser.error("--embeddings and --labels go together")
    try:
        table = markdown(run(options))
    except (SoundsslError, OSError) as error:
        print(f"clustering.py: {error}", file=sys.stderr)
        return 1
    if options.results:
        words = [f"## {options.title}", "", *sections.circumstances(options.command)]
        words += ["V-measure, mean over seeds, and processor seconds of the whole command."]
        sections.put(options.results, options.section, "\n".join(words) + "\n\n" + table)
    with files.replace(options.output) as partial:
        partial.write_text(table, "utf-8")
    print(table, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

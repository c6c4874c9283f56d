"""Measure what wrong, missing and unbalanced labels cost, and what helps: three experiments on any labelled folds.

    python label_errors.py noisy --features f.h5 --labels l.h5 --held 5 --work work -o table.md

noisy    40 % of the training labels wrong, and again with half of the noise from outside the vocabulary
missing  40 % of the training labels gone: flags of a teacher at several shares
balance  a skewed training set: exponents of the sampler, scored on a flat and on a skewed held-out set

Every step is a soundssl command, and is not done again where its output stands. Intervals are of 95 %, by bootstrap
over the clips held out, of the mean over seeds.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sections

from soundssl import SoundsslError, files
from soundssl.evaluations import reading
from soundssl.ops import metrics

REPLICATES = 1000  # of the bootstrap
WRONG = 0.4  # share of training labels that are wrong, or missing
KINDS = {"in the vocabulary": 0.0, "half from outside": 0.5}  # share of the wrong ones that come from outside
INSIDE = 6  # classes of the vocabulary where half of the noise comes from outside
SHARES = (0, 1, 2, 5, 10)  # percent of the implicit negatives that are flagged
EXPONENTS = (0.0, 0.5, 1.0)  # of the balanced sampler
SKEW = 1.2  # the i-th class has 1 / i^SKEW of the clips of the first
PUBLISHED = "robust=lq", "q=0.7"
METHODS = {
    "cross-entropy": (),
    "L_q": PUBLISHED,
    "bootstrapping, soft": ("robust=soft", "beta=0.3"),
    "discard": (*PUBLISHED, "discard=percentile", "discard_q=0.5"),
    "prune": PUBLISHED,
    "mixup": ("mixup=0.1",),
}


class Setting(NamedTuple):
    """Hold what all runs share: files, which splits learn and which are held out, and how long a training is."""

    features: Path
    labels: Path
    work: Path
    learn: str
    held: str
    steps: int
    batch: int
    seeds: Sequence[int]
    percentile: float
    threads: int


def train(
    setting: Setting, folder: Path, labels: Path, seed: int, steps: int, *more: object, split: str | None = None
) -> Path:
    """Train a recogniser on labels; return the probabilities of the clips held out, or of another split."""
    folder.mkdir(parents=True, exist_ok=True)
    model, out = folder / "model.safetensors", folder / "probabilities.h5"
    common = ["--threads", setting.threads, "-q"]
    sections.tool(
        "train", setting.features, "--labels", labels, "--split", setting.learn, "--objective", "classification",
        "--steps", steps, "--batch-size", setting.batch, "--seed", seed, *more, *common, "-o", model,
    )  # fmt: skip
    sections.tool("embed", setting.features, "-m", model, "--layer", "probabilities", "--split",
                  split or setting.held, *common, "-o", out)  # fmt: skip
    return out


def settings_of(pairs: Sequence[str]) -> list[str]:
    """Return options of an objective as words of a command line."""
    return [word for pair in pairs for word in ("--set", pair)]


def scores(probabilities: Path, labels: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return clip scores and labels of the clips held out. Shape: `[clips, classes]` twice."""
    table = reading.read_scores(probabilities, files.Labels(labels), split.split(","))
    return table.clip_means(), table.label


def mean_of(found: Sequence[tuple[np.ndarray, np.ndarray]], metric: Callable[[np.ndarray, np.ndarray], float]) -> str:
    """Return the mean over seeds of a metric of (score, label), with its interval.

    In a replicate a clip is there several times; for mAP it weighs so, for ties would flatter it.
    """
    weight = metrics.multiplicities(len(found[0][1]), REPLICATES, np.random.default_rng([0]))
    if metric is mean_average_precision:
        drawn = np.array([metrics.mean_average_precision_replicates(*one, weight) for one in found])
    else:
        rows = [np.repeat(np.arange(len(one)), one) for one in weight]
        drawn = np.array([[metric(score[some], label[some]) for some in rows] for score, label in found])
    low, high = np.nanquantile(drawn.mean(axis=0), [0.025, 0.975])
    return f"{np.mean([metric(*one) for one in found]):.3f} ({low:.3f} … {high:.3f})"


def accuracy(score: np.ndarray, label: np.ndarray) -> float:
    """Return the share of clips whose highest score is a class of theirs."""
    return float((label[np.arange(len(label)), score.argmax(1)] == 1).mean())


def mean_average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """Return the mean over classes that have both kinds of clips."""
    return metrics.per_class(score, label).mean


def noisy(setting: Setting) -> Iterator[list[str]]:
    """Compare methods of robust training on wrong labels of both kinds."""
    classes = files.Labels(setting.labels).classes
    yield ["noise", "method", "clip accuracy", "chance"]
    for kind, outside in KINDS.items():
        words = ["--outside", outside, "--vocabulary", ",".join(classes[:INSIDE])] if outside else []
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in METHODS}
        for seed in setting.seeds:
            folder = setting.work / kind.replace(" ", "-") / str(seed)
            folder.mkdir(parents=True, exist_ok=True)
            labels = folder / "noisy.labels.h5"
            sections.tool("labels", "noise", setting.labels, "--wrong", WRONG, *words, "--split", setting.learn,
                          "--seed", seed, "-q", "-o", labels)  # fmt: skip
            for name, pairs in METHODS.items():
                out = robustly(setting, folder / name.replace(", ", "-"), labels, seed, name, pairs)
                found[name].append(scores(out, labels, setting.held))
        for name, some in found.items():
            yield [kind, name, mean_of(some, accuracy), f"{1 / some[0][1].shape[1]:.3f}"]


def robustly(setting: Setting, folder: Path, labels: Path, seed: int, name: str, pairs: Sequence[str]) -> Path:
    """Train by a method; discarding and pruning begin half way, and all methods have as many steps."""
    half = setting.steps // 2
    if name == "prune":
        first = train(setting, folder / "first", labels, seed, half, *settings_of(pairs), split=setting.learn)
        pruned = folder / "pruned.labels.h5"
        sections.tool("labels", "prune", labels, "--scores", first, "--percentile", setting.percentile, "--split",
                      setting.learn, "-q", "-o", pruned)  # fmt: skip
        model = folder / "first" / "model.safetensors"
        rest = setting.steps - half
        return train(setting, folder, pruned, seed, rest, "--init", model, *settings_of(pairs))
    if name == "discard":
        clips = len(files.Labels(labels).key)
        epoch = half * setting.batch // max(1, clips)
        pairs = [*pairs, f"discard_at={setting.percentile:.1f}", f"discard_from={epoch}"]
    return train(setting, folder, labels, seed, setting.steps, *settings_of(pairs))


def missing(setting: Setting) -> Iterator[list[str]]:
    """Flag shares of the implicit negatives by a teacher's scores, and train students."""
    yield ["flagged", "mAP", "lwlrap", "flags that are right", "chance"]
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {share: [] for share in SHARES}
    right: dict[int, list[float]] = {share: [] for share in SHARES}
    gone = []
    for seed in setting.seeds:
        folder = setting.work / "missing" / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        labels = folder / "missing.labels.h5"
        sections.tool("labels", "noise", setting.labels, "--missing", WRONG, "--split", setting.learn, "--seed", seed,
                      "-q", "-o", labels)  # fmt: skip
        teacher = train(setting, folder / "0", labels, seed, setting.steps, "--set", "loss=bce",
                        split=f"{setting.learn},{setting.held}")  # fmt: skip
        given = files.Labels(labels)
        learnt = np.isin(given.split.astype(str), setting.learn.split(","))
        implicit = (given.label == 0) & learnt[:, None]
        gone.append(float((given.truth[implicit] == 1).mean()))
        for share in SHARES:
            out = teacher
            if share:
                flagged = folder / f"{share}.labels.h5"
                sections.tool("labels", "flag", labels, "--scores", teacher, "--share", share, "--split", setting.learn,
                              "-q", "-o", flagged)  # fmt: skip
                out = train(setting, folder / str(share), flagged, seed, setting.steps, "--set", "loss=bce")
                known = files.Labels(flagged)
                unknown = known.label == -1
                right[share] += [float((known.truth[unknown] == 1).mean())] if unknown.any() else []
            found[share].append(scores(out, setting.labels, setting.held))
    for share, some in found.items():
        precise = f"{np.mean(right[share]):.3f}" if right[share] else ""
        values = [mean_of(some, metric) for metric in (mean_average_precision, metrics.lwlrap)]
        yield [f"{share} %", *values, precise, f"{np.mean(gone):.3f}"]
    label = found[0][0][1]
    yield ["trivial: scores at random", f"{chance_of(label):.3f}", f"{metrics.lwlrap_chance(label):.3f}", "", ""]


def chance_of(label: np.ndarray) -> float:
    """Return the mAP of scores at random."""
    positives = (label == 1).sum(0)
    return float(np.mean([metrics.average_precision_chance(int(count), len(label)) for count in positives if count]))


def balance(setting: Setting) -> Iterator[list[str]]:
    """Train on a skewed draw with several exponents; score on a flat and on a skewed set of the same clips."""
    sets = {"flat": setting.labels, "skewed": setting.work / "held.labels.h5"}
    setting.work.mkdir(parents=True, exist_ok=True)
    sections.tool(
        "labels", "sample", setting.labels, "--skew", SKEW, "--split", setting.held, "-q", "-o", sets["skewed"]
    )
    yield ["exponent", *(f"{metric}, {name}" for name in sets for metric in ("mAP", "accuracy"))]
    for exponent in EXPONENTS:
        outs = []
        for seed in setting.seeds:
            folder = setting.work / "balance" / str(seed)
            folder.mkdir(parents=True, exist_ok=True)
            labels = folder / "skewed.labels.h5"
            sections.tool("labels", "sample", setting.labels, "--skew", SKEW, "--split", setting.learn, "--seed", seed,
                          "-q", "-o", labels)  # fmt: skip
            outs.append(train(setting, folder / f"{exponent:g}", labels, seed, setting.steps, "--set",
                              f"balance={exponent}"))  # fmt: skip
        some = {name: [scores(out, labels, setting.held) for out in outs] for name, labels in sets.items()}
        yield [f"{exponent:g}", *(mean_of(some[name], metric) for name in sets
                                  for metric in (mean_average_precision, accuracy))]  # fmt: skip
    trivial = [(chance_of(y), y.sum(0).max() / len(y)) for y in (some[name][0][1] for name in sets)]
    yield ["trivial: at random, the largest class", *(f"{value:.3f}" for pair in trivial for value in pair)]


EXPERIMENTS = {"noisy": noisy, "missing": missing, "balance": balance}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run an experiment, and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--features", type=Path, required=True, help="features file")
    parser.add_argument("--labels", type=Path, required=True, help="labels file, right and with splits")
    parser.add_argument("--held", required=True, help="splits held out, separated by commas")
    parser.add_argument("--work", type=Path, required=True, help="folder for what the steps write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300, help="steps of a training")
    parser.add_argument("--batch", type=int, default=64, help="examples of a step")
    parser.add_argument("--percentile", type=float, default=75.0, help="of losses: what is above is discarded, pruned")
    parser.add_argument("--threads", type=int, default=0, help="compute threads; 0: all")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the table alone")
    parser.add_argument("--results", type=Path, help="file of sections to put the table into")
    parser.add_argument("--section", default="label-errors", help="name of the section")
    parser.add_argument("--title", default="Errors of labels", help="heading of the section")
    parser.add_argument("--command", default="label_errors.py", help="command line to state there")
    options = parser.parse_args(arguments)
    try:
        splits = sorted({str(split) for split in files.Labels(options.labels).split} - {"", *options.held.split(",")})
        setting = Setting(
            options.features, options.labels, options.work, ",".join(splits), options.held, options.steps,
            options.batch, options.seeds, options.percentile, options.threads,
        )  # fmt: skip
        lines = list(EXPERIMENTS[options.experiment](setting))
    except (SoundsslError, OSError) as error:
        print(f"label_errors.py: {error}", file=sys.stderr)
        return 1
    lines.insert(1, ["---"] * len(lines[0]))
    notes = [f"{options.steps} steps of {options.batch}, percentile {options.percentile:g}; means over the seeds "
             f"{', '.join(map(str, options.seeds))}, intervals of 95 % over the clips held out."]  # fmt: skip
    sections.publish(sections.rows(lines), options, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())

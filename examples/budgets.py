"""Compare what a budget of questions buys: names for clusters, or names for windows drawn at random.

A sceptic's comparison. The embedding is fixed, and whatever way the labels were got, the same linear classifier learns
from them and is scored on the same clips, so that nothing but the labels differs. `paper` asks about a random member of
each cluster and gives its label to all members (Jansen et al. 2020); `best` is the default of our tools, with three
clusters a question; `random` labels windows drawn at random and no others. With --skew class i of an order drawn
anew keeps a share 1/i^skew of its training clips, as natural collections do.

    python budgets.py work/*.embeddings.h5 --labels work/labels.h5 --train train --test test -o work/budgets.jsonl
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sections
from scipy.special import stdtrit

from soundssl import SoundsslError, files, labelling
from soundssl.evaluations import clusters as agreement
from soundssl.evaluations import tagging
from soundssl.labels import Index
from soundssl.reports import pictures


class Way(NamedTuple):
    """Say how many clusters a question, over which context (seconds), and how to ask (preset of label-clusters)."""

    clusters: int
    context: float
    preset: str


WAYS = {"paper": Way(1, 0.0, "paper"), "best": Way(3, 5.0, "best")}
TITLES = {
    "random": "windows drawn at random",
    "paper": "clusters, the paper's way",
    "best": "clusters, our best way",
    "complete": "all labels",
}
PENALTY = 1.0  # inverse weight of the squared weights in the logistic regression, scikit-learn's default


class Part(NamedTuple):
    """Hold windows: `embedding` [windows, size], `clip` and `label` [windows], the number of its class."""

    embedding: np.ndarray
    clip: np.ndarray
    label: np.ndarray


class Data(NamedTuple):
    """Hold an embeddings file, its windows to learn from and to score, and the classes."""

    source: files.Embeddings
    rows: np.ndarray
    train: Part
    test: Part
    classes: list[str]


# ---- the data


def skewed(label: np.ndarray, clips: np.ndarray, power: float, generator: np.random.Generator) -> np.ndarray:
    """Return the clips that are left where class i of a random order keeps a share 1/i^power, one clip at the least.

    >>> label = np.repeat([0, 1], 8)
    >>> np.bincount(label[skewed(label, np.arange(16), 2.0, np.random.default_rng(0))]).tolist()
    [8, 2]
    """
    kept = []
    for place, name in enumerate(generator.permutation(np.unique(label[clips]))):
        own = clips[label[clips] == name]
        kept.append(generator.choice(own, max(1, round(len(own) / (place + 1) ** power)), replace=False))
    return np.sort(np.concatenate(kept))


def read(path: Path, labels: files.Labels, train: list[str], test: list[str], power: float, seed: int) -> Data:
    """Read an embeddings file and divide its windows; the seed draws the skew."""
    source = files.Embeddings(path)
    of_clips = Index(labels, source.clips.key).of_clips()
    if ((of_clips == 1).sum(1) != 1).any():
        raise SoundsslError(f"{labels.path} does not give every clip one class; this comparison needs that")
    label = of_clips.argmax(1)
    learnt = np.flatnonzero(source.clips.in_splits(train, path))
    if power:
        learnt = skewed(label, learnt, power, np.random.default_rng([seed, 1]))
    embedding = np.asarray(source.embedding[0 : len(source.clip)], np.float32)
    parts = []
    for clips in (learnt, np.flatnonzero(source.clips.in_splits(test, path))):
        rows = np.flatnonzero(np.isin(source.clip, clips))
        parts.append((rows, Part(embedding[rows], source.clip[rows], label[source.clip[rows]])))
    (rows, learning), (_, scored) = parts
    mean, deviation = learning.embedding.mean(0), learning.embedding.std(0) + 1e-6  # of all windows: no label is needed
    learning, scored = (each._replace(embedding=(each.embedding - mean) / deviation) for each in (learning, scored))
    return Data(source, rows, learning, scored, labels.classes)


def write_rows(path: Path, data: Data) -> None:
    """Write the windows to learn from as an embeddings file of their own."""
    source, clips = data.source, data.source.clips
    attributes = {name: source.attributes[name] for name in ("layer", "hop", "window", "class", "features", "model")}
    with files.create(path, "embeddings", inputs=[], made_from="", attributes=attributes) as sink:
        sink.write("embedding", np.asarray(source.embedding[0 : len(source.clip)])[data.rows])
        sink.write("window/clip", source.clip[data.rows].astype("i4"))
        sink.write("window/start", source.start[data.rows])
        for name in ("key", "recording", "source", "split", "start"):
            sink.write(f"clip/{name}", getattr(clips, name))


# ---- labels, and what they are worth


def clusters(rows: Path, count: int, seed: int, context: float, steps: int | None) -> files.Clusters:
    """Run soundssl cluster on some rows."""
    output = rows.with_name("clusters.h5")
    words = ["--k", count, "--seed", seed, "--starts", 1, "--context", context]  # nine groupings a run
    words += [] if steps is None else ["--steps", steps]
    sections.tool("cluster", rows, *words, "-q", "--force", "-o", output)
    return files.Clusters(output)


def spread(found: files.Clusters, label: np.ndarray, budget: int, preset: str, seed: int) -> tuple[np.ndarray, ...]:
    """Ask about the members that a preset picks; return the windows labelled, their labels and their weights."""
    plan, generator = labelling.PRESETS[preset], np.random.default_rng(seed)
    chosen = labelling.order(found.cluster, plan.order, generator, found.mean[:], budget)
    asked = labelling.ask(found.cluster, chosen, plan.ask, found.similarity, found.confidence, generator)[:budget]
    rows, of = labelling.spread(found.cluster, asked, found.similarity, plan.spread)
    weight = np.where(rows == asked[of], 1.0, np.clip(found.confidence[rows], 1e-3, 1))
    return rows, label[asked][of], weight


def learn(data: Data, rows: np.ndarray, label: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Fit the linear classifier to labelled windows; return accuracy and mAP of the clips to score.

    A class that no label names has the score 0. Where all labels are one, nothing is learnt and all clips score alike.
    """
    from sklearn.linear_model import LogisticRegression

    score = np.zeros((len(data.test.label), len(data.classes)))
    if len(np.unique(label)) > 1:
        network = LogisticRegression(C=PENALTY, max_iter=500).fit(data.train.embedding[rows], label, weight)
        score[:, network.classes_] = network.predict_proba(data.test.embedding)
    elif len(label):
        score[:, label[0]] = 1.0
    clips, clip = np.unique(data.test.clip, return_inverse=True)
    total = np.zeros((len(clips), len(data.classes)))
    np.add.at(total, clip, score)
    truth = np.zeros_like(total, dtype=np.int8)
    truth[clip, data.test.label] = 1
    found = tagging.scores_of(total / np.bincount(clip)[:, None], truth)
    return {"accuracy": found["top1"], "mAP": found["mAP"]}


def quality(data: Data, rows: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Return the windows labelled, precision and recall pooled over classes, and how many classes have a label."""
    right = int((label == data.train.label[rows]).sum())
    return {
        "labelled": len(rows),
        "precision": right / max(1, len(rows)),
        "recall": right / len(data.train.label),
        "classes": len(np.unique(label)),
    }


def rows_of(data: Data, budgets: Sequence[int], steps: int | None, seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a line for each way and budget; random labels also at budgets between, to tell how many equal another."""
    truth, ones = data.train.label, np.ones(len(data.train.label))
    yield {"way": "complete", "budget": len(truth), **learn(data, np.arange(len(truth)), truth, ones)}
    drawn = labelling.draw(len(truth), np.random.default_rng(seed))
    for budget in between(budgets, len(truth)):
        rows = drawn[:budget]
        line = {"way": "random", "budget": budget, **learn(data, rows, truth[rows], ones[:budget])}
        yield {**line, **quality(data, rows, truth[rows])}
    stem = folder / "rows.embeddings.h5"
    write_rows(stem, data)
    for budget in (each for each in budgets if each <= len(truth)):
        for name, way in WAYS.items():
            found = clusters(stem, min(way.clusters * budget, max(budget, len(truth) // 2)), seed, way.context, steps)
            rows, label, weight = spread(found, truth, budget, way.preset, seed)
            v = agreement.v_measure(agreement.contingency(found.cluster, truth, np.ones(len(truth))))[0]
            figures = {**learn(data, rows, label, weight), **quality(data, rows, label)}
            yield {"way": name, "budget": budget, **figures, "v_measure": v, "active": int((found.size > 0).sum())}


def between(budgets: Sequence[int], most: int) -> list[int]:
    """Return budgets, and more between and beyond them, for the curve of random labels.

    >>> between([10, 20], 100)
    [5, 7, 10, 14, 20, 28, 30, 40, 57, 60, 80]
    """
    steps = {round(min(budgets) / 2 * 2 ** (step / 2)) for step in range(40)}
    steps |= {times * budget for budget in budgets for times in (1, 2, 3)}  # what the clusters are held against
    return sorted(step for step in steps if step <= min(most, 4 * max(budgets)))


# ---- the report


def mean(lines: list[dict[str, Any]], way: str, budget: int, metric: str) -> tuple[float, float, float]:
    """Return the mean of a metric over runs, and the ends of its 95 % interval, by Student's t."""
    values = np.array([line[metric] for line in lines if (line["way"], line["budget"]) == (way, budget)])
    count = len(values)
    reach = stdtrit(count - 1, 0.975) * values.std(ddof=1) / count**0.5 if count > 1 else 0.0
    low, high = values.mean() - reach, values.mean() + reach
    if metric in ("accuracy", "mAP"):
        low, high = max(0.0, low), min(1.0, high)
    return float(values.mean()), float(low), float(high)


def equal(lines: list[dict[str, Any]], value: float, metric: str) -> str:
    """Return how many random labels reach a value, on the curve of their means made to rise, or between what ends."""
    budgets = sorted({line["budget"] for line in lines if line["way"] == "random"})
    curve = np.maximum.accumulate([mean(lines, "random", budget, metric)[0] for budget in budgets])
    if value <= curve[0]:
        return f"< {budgets[0]}"
    if value > curve[-1]:
        return f"> {budgets[-1]}"
    place = int(np.searchsorted(curve, value))
    share = (value - curve[place - 1]) / (curve[place] - curve[place - 1])
    return f"{np.exp(np.log(budgets[place - 1]) + share * np.log(budgets[place] / budgets[place - 1])):.0f}"


def markdown(lines: list[dict[str, Any]], budgets: Sequence[int], metric: str) -> str:
    """Return the table: a line for each budget and way."""
    heads = ["questions", "way", metric, "95 % interval", "random labels that reach it", "windows labelled"]
    heads += ["precision", "recall", "classes", "V-measure"]
    table = [heads, ["---"] * len(heads)]
    for budget in budgets:
        for way in ("random", *WAYS):
            if not any((line["way"], line["budget"]) == (way, budget) for line in lines):
                continue
            value, low, high = mean(lines, way, budget, metric)
            cells = [str(budget), TITLES[way], f"{value:.3f}", f"{low:.3f} to {high:.3f}"]
            cells.append("" if way == "random" else equal(lines, value, metric))
            cells.append(f"{mean(lines, way, budget, 'labelled')[0]:.0f}")
            cells += [f"{mean(lines, way, budget, name)[0]:.2f}" for name in ("precision", "recall")]
            cells.append(f"{mean(lines, way, budget, 'classes')[0]:.1f}")
            cells.append(f"{mean(lines, way, budget, 'v_measure')[0]:.2f}" if way in WAYS else "")
            table.append(cells)
    complete = next(line["budget"] for line in lines if line["way"] == "complete")
    value, low, high = mean(lines, "complete", complete, metric)
    table.append(["all", TITLES["complete"], f"{value:.3f}", f"{low:.3f} to {high:.3f}", *[""] * 6])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n"


def draw(path: Path, lines: list[dict[str, Any]], budgets: Sequence[int], metric: str, title: str) -> None:
    """Draw a curve with its interval for each way, over the questions asked, and a line at all labels."""
    curves = []
    for way in ("random", *WAYS):
        given = sorted({line["budget"] for line in lines if line["way"] == way} & set(budgets))
        curves.append((TITLES[way], given, [mean(lines, way, each, metric) for each in given]))
    complete = next(line["budget"] for line in lines if line["way"] == "complete")
    top = (f"all {complete} windows labelled", mean(lines, "complete", complete, metric)[0])
    runs = sum(line["way"] == "complete" for line in lines)
    title = f"{title}\n(means of {runs} runs and their 95 % intervals)" if runs > 1 else title
    pictures.curves(path, curves, title, "questions answered", f"clip {metric}", top)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare on every embedding with every seed, which also draws the skew; a run in the file is not made again."""
    journal = options.output.with_name(options.output.name + ".partial")
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()] if journal.exists() else []
    labels = files.Labels(options.labels)
    for path in options.embeddings:
        for seed in options.seeds:
            key = {"embedding": path.as_posix(), "seed": seed, "skew": options.skew}
            if any(key.items() <= line.items() for line in lines):
                continue
            data = read(path, labels, options.train.split(","), options.test.split(","), options.skew, seed)
            with tempfile.TemporaryDirectory() as folder:
                new = [{**key, **line} for line in rows_of(data, options.budgets, options.steps, seed, Path(folder))]
            lines += new
            with open(journal, "a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(line) + "\n" for line in new)
            print(f"budgets.py: {path.name}, seed {seed}", file=sys.stderr)
    journal.replace(options.output)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, then write lines, table and picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("embeddings", type=Path, nargs="+", help="embeddings files, one a trained encoder")
    parser.add_argument("--labels", type=Path, required=True, help="labels file that answers and scores")
    parser.add_argument("--train", required=True, help="splits to ask about, with commas")
    parser.add_argument("--test", required=True, help="splits to score, with commas")
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 20, 40, 80, 160], help="numbers of questions")
    parser.add_argument("--steps", type=int, help="steps of a clustering, in place of its default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of all that is drawn")
    parser.add_argument("--skew", type=float, default=0.0, help="power of the skew; 0: none")
    parser.add_argument("--metric", default="accuracy", choices=("accuracy", "mAP"), help="what table and picture show")
    parser.add_argument("--title", default="What a budget of questions buys", help="of the picture")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON lines to write")
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    parser.add_argument("--results", type=Path, help="file of sections to put the table into")
    parser.add_argument("--section", default="budgets", help="name of the section there")
    parser.add_argument("--command", default="budgets.py", help="command line to state there")
    options = parser.parse_args(arguments)
    try:
        lines = run(options)
        if options.picture:
            draw(options.picture, lines, options.budgets, options.metric, options.title)
    except (SoundsslError, OSError) as error:
        print(f"budgets.py: {error}", file=sys.stderr)
        return 1
    table = markdown(lines, options.budgets, options.metric)
    if options.results:
        runs = len(options.embeddings) * len(options.seeds)
        words = [f"## {options.title}", "", *sections.circumstances(options.command)]
        words += [f"Means over {runs} runs: {len(options.embeddings)} encoders, {len(options.seeds)} draws of each."]
        sections.put(options.results, options.section, "\n".join(words) + "\n\n" + table)
    print(table, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

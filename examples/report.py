"""Print the tables of the quick start and draw its picture: what is learnt stage by stage, and what ten names buy.

Reads what `make -C examples` left in a folder and writes report.txt, report.json and report.png there. With --least it
fails unless coincidence gained that much retrieval mAP (query by example, Jansen et al. 2018) over log-mel.

    python examples/report.py work --least 0.15
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from soundssl import SoundsslError, files
from soundssl.evaluations.reading import clip_means
from soundssl.labels import Index
from soundssl.reports import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

ROWS = {  # with their letters in table 1 of Jansen et al. 2020
    "log-mel": "log-mel, no network (b)",
    "untrained": "untrained network",
    "contrast": "contrast of two crops, sound alone",
    "coincidence": "sound and picture (f)",
    "both": "and sound with sound (j)",
    "categories": "and categories (k)",
    "supervised": "triplets with labels (a)",
}
TAGGERS = {
    "random": "windows drawn at random, trained from scratch",
    "consolidated": "one member of each cluster, fine-tuned",
}
GAINING = "both"  # the row whose gain over log-mel is checked
SIDES = {"log-mel": "log-mel", "categories": "learnt without labels"}  # what the picture sets side by side
SHORT = {"random": "drawn at random,\nfrom scratch", "consolidated": "of clusters,\nfine-tuned"}  # on the picture
SHOWN = 400  # frames of a clip in the picture: 4 s
NEIGHBOURS = 3  # on each side
SEED = 0  # of the map


class Clips(NamedTuple):
    """Hold the test clips of one representation. `vector` [clips, size], unit length; the rest [clips]."""

    key: np.ndarray
    recording: np.ndarray
    name: np.ndarray
    vector: np.ndarray


# ---- the tables


def overall(path: Path, metric: str) -> dict[str, Any]:
    """Return the line of a score file that holds a metric over all classes."""
    return next(line for line in files.read_scores(path) if line["metric"] == metric and line["class"] is None)


def scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Return retrieval mAP of every row and mAP of every recogniser; the ends of the scale get their recoveries."""
    rows = {row: overall(folder / f"{row}.retrieval.jsonl", "mAP") for row in ROWS}
    rows["log-mel"]["recovery"], rows["supervised"]["recovery"] = 0.0, 1.0
    taggers = {}
    for name in TAGGERS:
        taggers[name] = {metric: overall(folder / f"{name}.tagging.jsonl", metric) for metric in ("mAP", "top1")}
        taggers[name]["questions"] = int(files.Labels(folder / f"{name}.labels.h5").attributes["questions"])
    gain = rows[GAINING]["value"] - rows["log-mel"]["value"]
    ratio = taggers["consolidated"]["mAP"]["value"] / taggers["random"]["mAP"]["value"]
    return {"gain": gain, "ratio": ratio, "rows": rows, "recognisers": taggers}


def aligned(lines: list[list[str]]) -> str:
    """Return cells in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the scores as two aligned tables, chance in the last line of each."""
    rows, taggers = found["rows"], found["recognisers"]
    lines = [["embedding", "retrieval mAP", "95 % interval", "recovery"]]
    for row, title in ROWS.items():
        one = rows[row]
        lines.append([title, f"{one['value']:.3f}", f"{one['low']:.3f} … {one['high']:.3f}", f"{one['recovery']:.0%}"])
    lines.append(["chance", f"{rows['log-mel']['chance']:.3f}", "", ""])
    below = [["recogniser, from labels of", "questions", "clip mAP", "accuracy"]]
    for name, title in TAGGERS.items():
        one = taggers[name]
        below.append([title, str(one["questions"]), f"{one['mAP']['value']:.3f}", f"{one['top1']['value']:.3f}"])
    chance = taggers["random"]
    below.append(["chance", "", f"{chance['mAP']['chance']:.3f}", f"{chance['top1']['chance']:.3f}"])
    return f"{aligned(lines)}\n\n{aligned(below)}"


# ---- the picture


def test_clips(path: Path, labels: files.Labels) -> Clips:
    """Return the clips of the test split, each as the mean of its windows, in the order of their keys."""
    source = files.Features(path) if files.kind_of(path) == "features" else files.Embeddings(path)
    chosen = source.clips.in_splits(["test"], path)
    vector, clip = clip_means(source, chosen)
    order = np.argsort(source.clips.key[clip].astype(str))
    clip, vector = clip[order], vector[order]
    label = Index(labels, source.clips.key[clip]).of_clips()
    names = np.array(labels.classes)[label.argmax(1)]
    return Clips(
        source.clips.key[clip], source.clips.recording[clip], names, vector / np.linalg.norm(vector, axis=1)[:, None]
    )


def nearest(clips: Clips, row: int) -> np.ndarray:
    """Return the rows of the clips nearest to one by their angle, out of other recordings only."""
    similarity = clips.vector @ clips.vector[row]
    similarity[clips.recording == clips.recording[row]] = -np.inf
    return np.argsort(-similarity, kind="stable")[:NEIGHBOURS]


def flat(vectors: np.ndarray) -> np.ndarray:
    """Lay vectors out in the plane, close ones close together. Shape: [clips, size] to [clips, 2]."""
    from sklearn.manifold import TSNE

    perplexity = min(12.0, (len(vectors) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(vectors)


def loudest(features: files.Features, key: str) -> np.ndarray:
    """Return the seconds of a clip that hold most level. Shape: [frames, bands]."""
    row = int(np.flatnonzero(features.clips.key == key)[0])
    frames = np.asarray(features.frames[features.offset[row] : features.offset[row + 1]], np.float32)
    level = np.cumsum(np.concatenate([[0.0], frames.mean(1, dtype=np.float64)]))
    shown = min(SHOWN, len(frames))
    first = int(np.argmax(level[shown:] - level[:-shown]))
    return frames[first : first + shown]


def draw_scores(figure: "Figure", found: dict[str, Any]) -> None:
    """Draw the retrieval mAP of every embedding, and beside it what the questions give a recogniser."""
    rows, taggers = found["rows"], found["recognisers"]
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.75, 1]})
    values = [
        pictures.Score(title, *(rows[row][name] for name in ("value", "low", "high"))) for row, title in ROWS.items()
    ]
    pictures.scores(left, values, "retrieval mAP of embeddings, 95 % intervals", rows["log-mel"]["chance"])
    below = [pictures.Score(title, taggers[name]["mAP"]["value"]) for name, title in SHORT.items()]
    asked = taggers["random"]["questions"]
    title = f"recognisers from {asked} labels:\nclip mAP"
    pictures.scores(right, below, title, taggers["random"]["mAP"]["chance"])
    for axes in (left, right):
        axes.set_xlim(0, 1.12)


def draw_maps(figure: "Figure", sides: dict[str, Clips]) -> None:
    """Draw the clips of each side as a map, with one legend below."""
    figure.suptitle(
        "Recordings held out, laid out by t-SNE: near ones lie near each other.",
        x=0.004,
        ha="left",
        fontsize=11,
        color=pictures.GREY,
    )
    panels = figure.subplots(1, len(sides))
    for axes, (row, clips) in zip(panels, sides.items(), strict=True):
        pictures.scatter(axes, flat(clips.vector), clips.name)
        axes.margins(0.06)
        axes.spines[:].set(visible=True, color=pictures.PALE)
        axes.set_title(SIDES[row], loc="left", fontsize=13, weight="bold")
    handles, names = panels[0].get_legend_handles_labels()
    columns = math.ceil(len(names) / math.ceil(len(names) / 10))
    look = {"frameon": False, "fontsize": 11, "handletextpad": 0.1, "columnspacing": 1}
    legend = figure.legend(handles, names, loc="outside lower center", ncols=columns, **look)
    for handle in filter(None, legend.legend_handles):
        handle.set(sizes=[55], alpha=1)


def draw_neighbours(figure: "Figure", features: files.Features, sides: dict[str, Clips]) -> None:
    """Draw for each class the first of its test clips, and the clips that each side finds nearest to it."""
    first = next(iter(sides.values()))
    queries = [int(np.flatnonzero(first.name == name)[0]) for name in np.unique(first.name)]
    ratios = [1.0, *([0.02, *[1.0] * NEIGHBOURS] * len(sides))]  # a narrow column of nothing sets the sides apart
    panels = figure.subplots(
        len(queries), len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios, "wspace": 0.03, "hspace": 0.05}
    )
    for axes in panels.flat:
        axes.axis("off")
    scale = pictures.Scale.of(features.front_end())
    for number, (line, query) in enumerate(zip(panels, queries, strict=True), start=1):
        show(line[0], loudest(features, first.key[query]), pictures.INK)
        line[0].annotate(
            first.name[query], (-0.2, 0.5), xycoords="axes fraction", ha="right", va="center", fontsize=11.5
        )
        for side, clips in enumerate(sides.values()):
            for place, row in enumerate(nearest(clips, query)):
                border = pictures.SAME if clips.name[row] == clips.name[query] else pictures.OTHER
                show(line[2 + side * (NEIGHBOURS + 1) + place], loudest(features, clips.key[row]), border)
        label(line, features.bands, scale, number == len(panels))
    figure.suptitle(
        "The first recording held out of each class, and those nearest to it: green where of one class, red where not. "
        "Frequency in kHz over seconds.",
        x=0.004, ha="left", fontsize=11, color=pictures.GREY,
    )  # fmt: skip
    head(panels[0, 0], "query").set_in_layout(True)  # narrow, so that it makes room for all headings
    for side, row in enumerate(sides):
        head(panels[0, 2 + side * (NEIGHBOURS + 1)], f"nearest: {SIDES[row]}")


def label(line: np.ndarray, bands: int, scale: pictures.Scale, last: bool) -> None:
    """Write kilohertz beside the first spectrogram of a line, and seconds below those of the last line."""
    shown = [axes for axes in line if axes.images]
    for axes in shown:
        frames = axes.images[0].get_array().shape[1]
        pictures.timed(axes, frames, bands, scale)
        if axes is not shown[0]:
            axes.set_yticks([])
        if not last:
            axes.set_xticks([])


def show(axes: "Axes", frames: np.ndarray, border: str) -> None:
    """Draw one spectrogram in its border."""
    axes.axis("on")
    pictures.spectrogram(axes, frames, "", border)


def head(axes: "Axes", text: str) -> "Annotation":
    """Write a heading above a column, as wide as it likes."""
    return axes.annotate(
        text, (0, 1.18), xycoords="axes fraction", va="bottom", fontsize=12, weight="bold", in_layout=False
    )


def draw(folder: Path, found: dict[str, Any]) -> None:
    """Draw scores, maps and neighbours of the recordings held out into report.png."""
    features, labels = files.Features(folder / "features.h5"), files.Labels(folder / "labels.h5")
    names = {row: "features.h5" if row == "log-mel" else f"{row}.embeddings.h5" for row in SIDES}
    sides = {row: test_clips(folder / name, labels) for row, name in names.items()}
    held = sides["log-mel"]
    rows, recordings = len(np.unique(held.name)), len(np.unique(features.clips.recording))
    below = 0.6 + 0.74 * rows
    with pictures.canvas(folder / "report.png", 11, 9.3 + below) as figure:
        title, scored, above, under = figure.subfigures(4, 1, height_ratios=[0.7, 3.4, 5.2, below])
        title.text(0.004, 0.5, "What is learnt from unlabelled videos", fontsize=17, weight="bold", va="center")
        title.text(
            0.996, 0.5, f"{recordings} recordings, {len(np.unique(held.recording))} of them held out and scored",
            color=pictures.GREY, fontsize=11, va="center", ha="right",
        )  # fmt: skip
        draw_scores(scored, found)
        draw_maps(above, sides)
        draw_neighbours(under, features, sides)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, write the report, and return 1 where the gain is too small."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of features, embeddings and scores")
    parser.add_argument("--least", type=float, metavar="MAP", help="fail where the gain over log-mel is smaller")
    options = parser.parse_args(arguments)
    try:
        found = scores(options.folder)
        draw(options.folder, found)
    except (SoundsslError, ValueError, OSError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 1
    gain = found["gain"]
    text = (
        f"{table(found)}\n\nCoincidence gains {gain:+.3f} retrieval mAP over log-mel; the same number of questions, "
        f"asked about clusters, gives {found['ratio']:.2f} times the mAP.\n"
    )
    for name, content in (
        ("report.txt", text),
        ("report.json", json.dumps(found, indent=1) + "\n"),
    ):
        with files.replace(options.folder / name) as partial:
            partial.write_text(content, "utf-8")
    print(f"\n{text}\nThe tables: {options.folder}/report.txt, the picture: {options.folder}/report.png")
    if options.least is not None and gain < options.least:
        print(
            f"report.py: the gain over log-mel is {gain:+.3f} mAP, at least {options.least:+.2f} is expected",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

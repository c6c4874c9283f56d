"""Plots of what an embedding has learnt: retrieved neighbours as spectrograms, a map of clips, scores, clusters.

Every picture is a PNG at 120 dots per inch, written under a temporary name and moved into place. The colours of classes
are those of Okabe and Ito (2008) with some of Tol's muted set, which stay apart under the common deficiencies of colour
vision; the markers alternate, so that no class is told by its colour alone.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from soundssl.dependencies import needed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 120  # per inch
INK, GREY, PALE = "#222222", "#6b6b6b", "#e4e4e4"
SAME, OTHER = "#1b9e57", "#c9304f"  # of different lightness too, for readers who do not see red and green apart
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#882255", "#999933", "#000000", "#aa4499")
MARKERS = "o^"  # neighbours in the palette differ in marker as well
MOST_LETTERS = 110  # of what is in a cluster
MOST_CLASSES = len(PALETTE) * len(MARKERS)
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
}


class Score(NamedTuple):
    """Name a score with its value and the ends of its interval (nan: not known)."""

    name: str
    value: float
    low: float = float("nan")
    high: float = float("nan")


@contextlib.contextmanager
def canvas(path: str | os.PathLike[str], width: float, height: float) -> Iterator["Figure"]:
    """Yield an empty figure of a size in inches, and write it as PNG when the body succeeds.

    The figure has a canvas of its own, so matplotlib's global state and the caller's backend stay as they are. Whoever
    reads the path sees the old file or the whole new one. Raises DependencyError without matplotlib.
    """
    with needed("a picture", "matplotlib", "pip install 'soundssl[plot]'"):
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    final = Path(path)
    partial = final.with_name(final.name + ".partial")
    try:
        with rc_context(STYLE):
            figure = Figure(figsize=(width, height), dpi=DOTS, layout="constrained", facecolor="white")
            FigureCanvasAgg(figure)
            yield figure
            figure.savefig(partial, format="png", dpi=DOTS)
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def frameless(axes: "Axes") -> None:
    """Leave of the axes only what carries data."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=GREY)


def spectrogram(
    axes: "Axes", frames: np.ndarray, title: str, border: str, limits: tuple[float, float] | None = None
) -> None:
    """Plot log-mel frames [frames, bands], low bands below, scaled to `limits` or their own range, in a border."""
    low, high = limits or np.quantile(frames, [0.02, 0.998])
    axes.imshow(np.asarray(frames, np.float32).T, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8, color=INK, pad=3)
    axes.spines[:].set_color(border)
    axes.spines[:].set_linewidth(2.5)


def neighbours(
    path: str | os.PathLike[str],
    queries: Sequence[np.ndarray],
    neighbours: Sequence[Sequence[np.ndarray]],
    names: Sequence[Sequence[str]],
    classes: Sequence[Sequence[str]] | None = None,
) -> None:
    """Plot each query at the left of its row and its nearest neighbours, nearest first, at the right.

    A row of `names`, and of `classes`, has one entry for the query and one for each neighbour. With classes the border
    of a neighbour is green if it has the class of the query and red if not.

    Shape: queries [rows][frames, bands]; neighbours [rows][columns][frames, bands]; names [rows][1 + columns].
    """
    rows = [[query, *near] for query, near in zip(queries, neighbours, strict=True)]
    if not rows:
        raise ValueError("neighbours needs at least one query, got 0")
    for given in (names, classes or names):
        if [len(row) for row in given] != [len(row) for row in rows]:
            raise ValueError(
                f"need {[len(row) for row in rows]} names or classes a row, got {[len(row) for row in given]}"
            )
    columns = max(map(len, rows))
    with canvas(path, 0.4 + 1.55 * columns, 0.3 + 1.25 * len(rows)) as figure:
        panels = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"wspace": 0.08})
        for axes in panels.flat:
            axes.axis("off")
        for i, row in enumerate(rows):
            for j, frames in enumerate(row):
                border = GREY if j else INK
                if classes and j:
                    border = SAME if classes[i][j] == classes[i][0] else OTHER
                panels[i, j].axis("on")
                spectrogram(panels[i, j], frames, names[i][j], border)
        panels[0, 0].annotate("query", (0, 1.3), xycoords="axes fraction", weight="bold")
        if columns > 1:
            panels[0, 1].annotate("nearest first", (0, 1.3), xycoords="axes fraction", weight="bold")


def separations(
    path: str | os.PathLike[str], rows: Sequence[Sequence[np.ndarray]], names: Sequence[Sequence[str]]
) -> None:
    """Plot each mixture at the left of its row, its sources and its tracks at the right, in the mixture's range.

    So a track in which nothing is stays dark. Shape: rows [mixtures][1 + sources + tracks][frames, bands], and as many
    names. Raises ValueError where there are none, or not as many.
    """
    if not rows or [len(row) for row in rows] != [len(row) for row in names]:
        raise ValueError(f"need names for {[len(row) for row in rows]} pictures a row, got {[len(n) for n in names]}")
    columns = max(map(len, rows))
    with canvas(path, 0.4 + 1.55 * columns, 0.2 + 1.25 * len(rows)) as figure:
        panels = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"wspace": 0.08})
        for axes in panels.flat:
            axes.axis("off")
        for i, row in enumerate(rows):
            low, high = np.quantile(row[0], [0.02, 0.998])
            for j, frames in enumerate(row):
                panels[i, j].axis("on")
                border = INK if j == 0 else SAME if names[i][j].startswith("source") else GREY
                spectrogram(panels[i, j], frames, names[i][j], border, (float(low), float(high)))


def attention(
    path: str | os.PathLike[str], images: np.ndarray, maps: np.ndarray, names: Sequence[str], limit: int = 8
) -> None:
    """Plot where the tracks of a recording look: a row a track, with its name; the pictures from left to right.

    What a track looks at is bright, all else dark; a row is scaled by its own largest value. At most `limit` pictures,
    evenly spaced. Shape: images [pictures, height, width, 3] uint8, maps [tracks, pictures, h, w], and a name a track.
    Raises ValueError where they do not fit.
    """
    if maps.ndim != 4 or maps.shape[:2] != (len(names), len(images)) or not maps.size:
        raise ValueError(f"need a map a picture and track, got {list(maps.shape)} for {list(images.shape)}")
    shown = np.unique(np.linspace(0, len(images) - 1, min(limit, len(images))).round().astype(int))
    height, width = images.shape[1:3]
    down, along = np.arange(height) * maps.shape[2] // height, np.arange(width) * maps.shape[3] // width
    with canvas(path, 0.6 + 1.5 * len(shown), 0.2 + 1.6 * len(names)) as figure:
        panels = figure.subplots(len(names), len(shown), squeeze=False)
        for row, (name, looks) in enumerate(zip(names, maps, strict=True)):
            for axes, number in zip(panels[row], shown, strict=True):
                light = looks[number][np.ix_(down, along)] / max(float(looks.max()), np.finfo(np.float32).tiny)
                axes.imshow((images[number] * (0.2 + 0.8 * light[:, :, None])).astype(np.uint8))
                frameless(axes)
                axes.set_xticks([])
                axes.set_yticks([])
            panels[row, 0].set_title(name, fontsize=8, color=INK, pad=3, loc="left")


def scatter(axes: "Axes", points: np.ndarray, classes: Sequence[str]) -> None:
    """Scatter points of a plane, a colour and marker for each class in the order of their names, on bare axes.

    The markers carry their class as label, for a legend. Shape and errors as for `embedding_map`.
    """
    points, label = np.asarray(points, float), np.asarray(classes, str)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(label):
        raise ValueError(f"need points [n, 2] and n classes, got {list(points.shape)} and {len(label)}")
    present = np.unique(label)
    if len(present) > MOST_CLASSES:
        raise ValueError(f"at most {MOST_CLASSES} classes can be told apart by colour, got {len(present)}")
    frameless(axes)
    axes.set(xticks=[], yticks=[])
    size = float(np.clip(9000 / max(1, len(points)), 6, 45))  # square points: many clips, small dots
    for number, name in enumerate(present):
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[(number + number // len(PALETTE)) % len(MARKERS)]
        x, y = points[label == name].T
        dots = axes.scatter(x, y, s=size, c=colour, marker=marker, alpha=0.85, label=name)
        dots.set(linewidths=0.4, edgecolors="white")


def embedding_map(path: str | os.PathLike[str], points: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Scatter points of a plane, coloured by class, with a legend in the order of the classes' names.

    Shape: points [clips, 2]; classes [clips]. Raises ValueError past 20 classes, which no palette keeps apart.
    """
    with canvas(path, 7, 5) as figure:
        axes = figure.subplots()
        scatter(axes, points, classes)
        axes.set_title(title, loc="left", fontsize=12, weight="bold", pad=10)
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9.5)
        for handle in filter(None, legend.legend_handles):
            handle.set(sizes=[45], alpha=1)


def curves(
    path: str | os.PathLike[str],
    lines: Sequence[tuple[str, Sequence[float], Sequence[tuple[float, float, float]]]],
    title: str,
    over: str,
    what: str,
    top: tuple[str, float] | None = None,
) -> None:
    """Plot named curves over a logarithmic axis, each with its band of uncertainty, and a line at what is the most.

    A line is (name, places, values), a value (middle, low, high); `over` and `what` name the axes, `top` (name, value)
    the line. Raises ValueError without a point to plot, or where a line's places and values differ in number.
    """
    if not any(places for _, places, _ in lines):
        raise ValueError("curves needs at least one point, got 0")
    for name, places, values in lines:
        if len(places) != len(values):
            raise ValueError(f"{name} has {len(places)} places and {len(values)} values")
    with canvas(path, 7, 4.6) as figure:
        axes = figure.subplots()
        frameless(axes)
        axes.set_xscale("log")
        for number, (name, places, values) in enumerate(lines):
            middle, low, high = np.array(values, float).reshape(-1, 3).T
            colour = PALETTE[number % len(PALETTE)]
            axes.plot(places, middle, color=colour, marker=MARKERS[number % len(MARKERS)], markersize=5, label=name)
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        if top:
            axes.axhline(top[1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(f"{top[0]}: {top[1]:.3f}", (0, top[1]), (4, 4), xycoords=("axes fraction", "data"),
                          textcoords="offset points", color=GREY)  # fmt: skip
        ticks = sorted({place for _, places, _ in lines for place in places})
        axes.set_xticks(ticks, [f"{place:g}" for place in ticks])
        axes.minorticks_off()
        axes.set_xlabel(over, color=GREY)
        axes.set_ylabel(what, color=GREY)
        axes.yaxis.grid(color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(title, loc="left", fontsize=12, weight="bold", pad=10)
        axes.legend(frameon=False, loc="lower right", fontsize=9.5)


def clusters(
    path: str | os.PathLike[str],
    sizes: np.ndarray,
    share: np.ndarray,
    edges: np.ndarray,
    largest: Sequence[tuple[str, str, Sequence[np.ndarray]]],
) -> None:
    """Plot sizes of clusters by rank, how sure windows are of their cluster, and what the largest clusters sound like.

    Of a cluster the windows nearest to its mean are shown as spectrograms, or named where their sound is not there.

    Shape: sizes `[active]`, the largest first; share `[bins]` of the windows with a confidence between edges
    `[bins + 1]`; largest: (name and size, what is in it in words, spectrograms `[frames, bands]`). Raises ValueError
    without a cluster.
    """
    if not len(sizes):
        raise ValueError("clusters needs at least one cluster with windows, got 0")
    row_height = 0.8 if any(len(frames) for _, _, frames in largest) else 0.26  # inches
    below = 0.3 + row_height * len(largest)
    with canvas(path, 9, 3.1 + below) as figure:
        top, bottom = figure.subfigures(2, 1, height_ratios=[3.2, below], squeeze=False)[:, 0]
        ranks, confidences = top.subplots(1, 2)
        for axes, over, what in ((ranks, "rank", "windows"), (confidences, "confidence", "share of windows")):
            frameless(axes)
            axes.set_xlabel(over, color=GREY)
            axes.set_ylabel(what, color=GREY)
            axes.yaxis.grid(color=PALE, linewidth=0.8)
            axes.set_axisbelow(True)
        ranks.loglog(np.arange(1, len(sizes) + 1), sizes, color=PALETTE[0], marker="o", markersize=3, linewidth=1)
        ranks.set_title(f"{len(sizes)} active clusters by size", loc="left", weight="bold")
        confidences.bar(edges[:-1], share, np.diff(edges), align="edge", color=PALETTE[0], edgecolor="white")
        confidences.set_title("how sure windows are", loc="left", weight="bold")
        for row, (name, inside, frames) in enumerate(largest):
            place = 1 - (row + 0.5) / len(largest)
            bottom.text(0.02, place, name, va="center", weight="bold")
            if not len(frames):
                shown = inside if len(inside) <= MOST_LETTERS else inside[: MOST_LETTERS - 1] + "…"
                bottom.text(0.18, place, shown, va="center", color=GREY)
            for column, each in enumerate(frames):
                height = 0.84 / len(largest)
                axes = bottom.add_axes((0.18 + 0.162 * column, place - height / 2, 0.152, height))
                spectrogram(axes, each, "", GREY)


def bars(
    path: str | os.PathLike[str], rows: Sequence[Score | tuple], title: str = "", chance: float | None = None
) -> None:
    """Plot named scores as bars from the top downwards, each with its interval where it has one, and a line at chance.

    A row is (name, value) or (name, value, low, high).
    """
    scores = [Score(*row) for row in rows]
    if not scores:
        raise ValueError("bars needs at least one row, got 0")
    place, value = np.arange(len(scores)), np.array([score.value for score in scores], float)
    interval = np.array([[score.low, score.high] for score in scores], float)
    known = ~np.isnan(interval).any(axis=1)
    with canvas(path, 7, 0.9 + 0.42 * len(scores)) as figure:
        axes = figure.subplots()
        frameless(axes)
        axes.barh(place, value, height=0.62, color=PALETTE[0])
        reach = np.abs(interval.T - value)[:, known]
        axes.errorbar(value[known], place[known], xerr=reach, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
        ends = np.where(known, np.fmax(interval[:, 1], value), value)
        for row, score in enumerate(scores):
            text = f"{score.value:.3f}"
            axes.annotate(text, (max(ends[row], 0), row), (6, 0), textcoords="offset points", va="center")
        if chance is not None:
            axes.axvline(chance, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate("chance", (chance, -0.6), (3, 0), textcoords="offset points", color=GREY, fontsize=8)
        axes.set_yticks(place, [score.name for score in scores], color=INK)
        axes.set_ylim(len(scores) - 0.5, -0.8)
        axes.margins(x=0.12)
        axes.xaxis.grid(color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(title, loc="left", fontsize=12, weight="bold", pad=8)

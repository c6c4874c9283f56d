"""Plots of what an embedding has learnt: retrieved neighbours as spectrograms, a map of clips, scores, clusters.

Every picture is a PNG at 120 dots per inch, written under a temporary name and moved into place. The colours of classes
are those of Okabe and Ito (2008) with some of Tol's muted set, which stay apart under the common deficiencies of colour
vision; the markers alternate, so that no class is told by its colour alone.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from soundssl.dependencies import needed
from soundssl.ops.spectrogram import hertz_to_mel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 120  # per inch
INK, GREY, PALE = "#222222", "#6b6b6b", "#e4e4e4"
SAME, OTHER = "#1b9e57", "#c9304f"  # of different lightness too, for readers who do not see red and green apart
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#882255", "#999933", "#000000", "#aa4499")
MARKERS = "o^"  # neighbours in the palette differ in marker as well
ASIDE = 1.04  # factor by which one curve is moved beside the next
MOST_LETTERS = 110  # of what is in a cluster
MOST_OF_A_TITLE = 30  # letters of the name of a spectrogram
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


class Category(NamedTuple):
    """Say what one cluster holds: its name, and its windows in words or as spectrograms, each with its title.

    Shape: frames `[windows][frames, bands]`, low bands first.
    """

    name: str
    words: str
    frames: Sequence[np.ndarray] = ()
    titles: Sequence[str] = ()


class Scale(NamedTuple):
    """Say what the frames of a spectrogram are: seconds from one to the next, and hertz from band to band.

    The centres of the bands lie evenly between `fmin` and `fmax` (hertz) on the mel scale `mel`, neither of them one.
    """

    hop: float
    fmin: float
    fmax: float
    mel: str

    @classmethod
    def of(cls, front_end: Mapping[str, Any]) -> "Scale":
        """Return the scale of a front end, as a features file states it."""
        hop = float(front_end["hop_length"]) / float(front_end["sample_rate"])
        return cls(hop, float(front_end["fmin"]), float(front_end["fmax"]), str(front_end["mel_scale"]))

    def band(self, hertz: np.ndarray, bands: int) -> np.ndarray:
        """Return where frequencies lie among so many bands, 0 at the centre of the lowest."""
        mel = hertz_to_mel(np.concatenate([[self.fmin, self.fmax], np.atleast_1d(hertz)]), self.mel)
        return (mel[2:] - mel[0]) / (mel[1] - mel[0]) * (bands + 1) - 1

    def words(self, frames: int) -> str:
        """Say what a picture of so many frames shows."""
        return f"{frames * self.hop:.3g} s, {self.fmin / 1000:.3g} to {self.fmax / 1000:.3g} kHz"


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


def timed(axes: "Axes", frames: int, bands: int, scale: Scale) -> None:
    """Write seconds below a spectrogram and kilohertz at its left."""
    length = frames * scale.hop
    step = next((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30) if length / step <= 5), 60)
    seconds = np.arange(0, length + step / 100, step)
    octaves = 125.0 * 2.0 ** np.arange(0, 11)
    octaves = octaves[(octaves >= scale.fmin) & (octaves <= scale.fmax)][::-2][::-1]
    axes.set_xticks(seconds / scale.hop - 0.5, [f"{each:g}" for each in seconds])
    axes.set_yticks(scale.band(octaves, bands), [f"{each / 1000:g}" for each in octaves])
    axes.tick_params(length=2, labelsize=6.5, colors=GREY, pad=1.5)


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
    """Plot named curves over a logarithmic axis, each value with its interval, and a line at what is the most.

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
            beside = np.array(places, float) * ASIDE ** (number - (len(lines) - 1) / 2)  # so that none hides another
            axes.errorbar(
                beside, middle, [np.maximum(middle - low, 0), np.maximum(high - middle, 0)], color=colour,
                marker=MARKERS[number % len(MARKERS)], markersize=5, elinewidth=1.2, capsize=3, label=name,
            )  # fmt: skip
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


def shifts(path: str | os.PathLike[str], lines: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> None:
    """Plot the probability of a class against the shift of the input, a line (name, shifts, probabilities) each.

    Raises ValueError without a line, or for more than can be told apart.
    """
    if not 0 < len(lines) <= MOST_CLASSES:
        raise ValueError(f"shifts needs 1 to {MOST_CLASSES} lines, got {len(lines)}")
    with canvas(path, 8, 4.6) as figure:
        axes = figure.subplots()
        frameless(axes)
        for number, (name, places, values) in enumerate(lines):
            colour, dashes = PALETTE[number // 2 % len(PALETTE)], ("solid", (0, (3, 2)))[number % 2]
            axes.plot(places, values, color=colour, linestyle=dashes, linewidth=1.4, label=name[:MOST_LETTERS])
        axes.set(ylim=(-0.02, 1.02))
        axes.set_xlabel("shift, frames or bands", color=GREY)
        axes.set_ylabel("probability", color=GREY)
        axes.yaxis.grid(color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title("Probability of the highest class", loc="left", fontsize=12, weight="bold", pad=10)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)


def clusters(
    path: str | os.PathLike[str],
    sizes: np.ndarray,
    share: np.ndarray,
    edges: np.ndarray,
    largest: Sequence[Category],
    scale: Scale | None = None,
) -> None:
    """Plot sizes of clusters by rank, how sure windows are of their cluster, and what the largest clusters sound like.

    Of a cluster the windows nearest to its mean are shown as spectrograms, or named where their sound is not there.
    `scale` says what the spectrograms are.

    Shape: sizes `[active]`, the largest first; share `[bins]` of the windows with a confidence between edges
    `[bins + 1]`. Raises ValueError without a cluster.
    """
    if not len(sizes):
        raise ValueError("clusters needs at least one cluster with windows, got 0")
    row_height = 1.05 if any(each.frames for each in largest) else 0.26  # inches
    below = 0.6 + row_height * len(largest)
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
        _plain_ticks(ranks, len(sizes), float(sizes[-1]), float(sizes[0]))
        ranks.set_title(f"{len(sizes)} active clusters by size", loc="left", weight="bold")
        confidences.bar(edges[:-1], share, np.diff(edges), align="edge", color=PALETTE[0], edgecolor="white")
        confidences.set_title("how sure windows are", loc="left", weight="bold")
        head = 0.4 / below  # of the lower half, for its title
        bottom.text(0.02, 1 - head / 2, _says(largest, scale), va="center", weight="bold")
        for row, category in enumerate(largest):
            place = (1 - head) * (1 - (row + 0.5) / len(largest))
            bottom.text(0.02, place, category.name, va="center")
            if not category.frames:
                shown = (
                    category.words if len(category.words) <= MOST_LETTERS else category.words[: MOST_LETTERS - 1] + "…"
                )
                bottom.text(0.18, place, shown, va="center", color=GREY)
            for column, (title, frames) in enumerate(zip(category.titles, category.frames, strict=True)):
                height = (1 - head) * 0.62 / len(largest)
                axes = bottom.add_axes((0.18 + 0.162 * column, place - height / 2, 0.152, height))
                spectrogram(
                    axes, frames, title if len(title) <= MOST_OF_A_TITLE else f"…{title[1 - MOST_OF_A_TITLE :]}", GREY
                )
                axes.title.set_fontsize(6.5)


def _plain_ticks(axes: "Axes", ranks: int, low: float, high: float) -> None:
    """Write 1, 2, 5 and their tens along logarithmic axes, in digits."""
    marks = np.array([digit * 10.0**power for power in range(10) for digit in (1, 2, 5)])
    for place, least, most in ((axes.set_xticks, 1.0, float(ranks)), (axes.set_yticks, low, high)):
        shown = marks[(marks >= least) & (marks <= most)] if most > 2 * least else np.array([most])
        place(shown, [f"{mark:,.0f}" for mark in shown])
    axes.minorticks_off()


def _says(largest: Sequence[Category], scale: Scale | None) -> str:
    """Return the title of what the largest clusters sound like."""
    text = f"the {len(largest)} largest clusters, and the windows nearest to the mean of each"
    shown = next((each.frames[0] for each in largest if each.frames), None)
    return f"{text}: {scale.words(len(shown))}" if scale and shown is not None else text


def bars(
    path: str | os.PathLike[str], rows: Sequence[Score | tuple], title: str = "", chance: float | None = None
) -> None:
    """Plot named scores as bars from the top downwards, each with its interval where it has one, and a line at chance.

    A row is (name, value) or (name, value, low, high).
    """
    if not rows:
        raise ValueError("bars needs at least one row, got 0")
    with canvas(path, 7, 0.9 + 0.42 * len(rows)) as figure:
        scores(figure.subplots(), rows, title, chance)


def scores(axes: "Axes", rows: Sequence[Score | tuple], title: str = "", chance: float | None = None) -> None:
    """Plot named scores on axes, as `bars` does."""
    named = [Score(*row) for row in rows]
    place, value = np.arange(len(named)), np.array([score.value for score in named], float)
    interval = np.array([[score.low, score.high] for score in named], float)
    known = ~np.isnan(interval).any(axis=1)
    frameless(axes)
    axes.barh(place, value, height=0.62, color=PALETTE[0])
    reach = np.abs(interval.T - value)[:, known]
    axes.errorbar(value[known], place[known], xerr=reach, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
    ends = np.where(known, np.fmax(interval[:, 1], value), value)
    for row, score in enumerate(named):
        text = f"{score.value:.3f}"
        axes.annotate(text, (max(ends[row], 0), row), (6, 0), textcoords="offset points", va="center")
    if chance is not None:
        axes.axvline(chance, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate("chance", (chance, -0.6), (3, 0), textcoords="offset points", color=GREY, fontsize=8)
    axes.set_yticks(place, [score.name for score in named], color=INK)
    axes.set_ylim(len(named) - 0.5, -0.8)
    axes.margins(x=0.12)
    axes.xaxis.grid(color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=12, weight="bold", pad=8)

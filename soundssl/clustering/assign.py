"""Assignment: every row to the most probable, or nearest, of given centres, block by block."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from soundssl import device, files
from soundssl.clustering.rows import LARGEST, Rows, read_rows
from soundssl.clustering.summary import Summary
from soundssl.device import Accelerator
from soundssl.ops import assignment, entropy, kmeans, neighbors
from soundssl.progress import SILENT, Progress

SAMPLE = 1 << 17  # rows that the entropies in the file are taken of, evenly spaced, at most
BATCH = 1024  # rows whose entropies are taken at a time

Chooser = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray | None]]


@dataclass
class Centres:
    """Hold centres `[K, d]` and how they choose: by the cosine times `scale`, or by the distance."""

    weight: np.ndarray
    method: str = "entropy"
    metric: str = "cosine"
    scale: float = 60.0
    context: float = 0.0  # seconds over which the rows it is for are averaged

    def check(self, rows: Rows, name: str = "the clustering") -> None:
        """Raise FormatError where embeddings have another size than the centres, which messages call `name`."""
        if self.weight.shape[1] != rows.size:
            raise files.FormatError(
                f"{rows.name} has embeddings of {rows.size} numbers, {name} has clusters of {self.weight.shape[1]}; "
                f"embed with the same model"
            )

    def chooser(self, accelerator: Accelerator) -> Chooser:
        """Return a function from rows to cluster and confidence, and by distance similarity, all numpy arrays `[n]`."""
        if self.metric == "euclidean":

            def choose_nearest(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
                cluster, similarity = kmeans.nearest(rows, self.weight)
                return cluster, np.ones(len(rows), np.float32), similarity

            return choose_nearest
        weight = torch.from_numpy(self.weight).to(accelerator.device)
        assigner = assignment.Assigner(weight, self.scale, accelerator.dtype)

        def choose_probable(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
            found = assigner(torch.from_numpy(rows).to(accelerator.device))
            return found.cluster.cpu().numpy(), found.confidence.cpu().numpy(), None

        return choose_probable


def read_centres(path: str | os.PathLike) -> Centres:
    """Return the centres of a clusters file, or of a model that holds a clustering head.

    Raises Missing and FormatError.
    """
    centres = _stored_centres(path)
    if not (np.abs(centres.weight) <= LARGEST).all() or not math.isfinite(centres.scale):  # NaN is not less
        raise files.FormatError(f"{files.text(path)} is damaged: its centres are not finite; make it again")
    return centres


def _stored_centres(path: str | os.PathLike) -> Centres:
    if files.kind_of(path) is not None:
        found = files.Clusters(path)
        facts = found.attributes
        weight, context = np.array(found.weight[:], np.float32), float(facts.get("context", 0.0))
        return Centres(weight, facts["method"], facts["metric"], float(facts["scale"]), context)
    model = files.read_model(path)
    name = "head.clustering.head.weight"
    if name not in model.tensors:
        raise files.FormatError(
            f"{files.text(path)} holds no clustering head; train one with --objective clustering, or name a clusters "
            f"file"
        )
    try:
        return Centres(model.tensors[name], scale=float(model.config["heads"]["clustering"]["scale"]))
    except (KeyError, TypeError, ValueError):
        raise files.FormatError(
            f"{files.text(path)} is damaged: it does not say the scale of its clustering head; make it again"
        ) from None


class Store(Protocol):
    """Take columns, whole or filled from their first row to their last; `files.create` yields one on disk."""

    @property
    def reserved(self) -> Any:
        """The columns that are filled, by name."""

    def write(self, name: str, values: Any) -> None:
        """Write a whole column."""

    def reserve(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        """Make room for a column."""

    def fill(self, name: str, row: int, values: np.ndarray) -> int:
        """Write values from `row` on; return the next row."""


class Memory:
    """Take columns and keep them as arrays."""

    def __init__(self) -> None:
        self.reserved: dict[str, np.ndarray] = {}

    def write(self, name: str, values: Any) -> None:
        """Keep a whole column."""
        self.reserved[name] = np.asarray(values)

    def reserve(self, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Make room for a column."""
        self.reserved[name] = np.empty(shape, dtype)
        return self.reserved[name]

    def fill(self, name: str, row: int, values: np.ndarray) -> int:
        """Write values from `row` on; return the next row."""
        self.reserved[name][row : row + len(values)] = values
        return row + len(values)


@dataclass
class Assignment:
    """Hold what became of rows: `cluster`, `confidence` and `similarity` `[n]`, and the summary.

    The similarity is the cosine to the mean of the cluster's rows, each of length one; for centres that choose by
    distance minus its square. Arrays, or HDF5 datasets where the columns are written to a file.
    """

    cluster: Any
    confidence: Any
    similarity: Any
    summary: Summary


def assign(
    rows: Rows | np.ndarray | str | os.PathLike,
    centres: Centres,
    accelerator: Accelerator | None = None,
    store: Store | None = None,
    progress: Progress = SILENT,
) -> Assignment:
    """Assign every row to one of the centres, and say what came of it.

    Columns go to `store`, by default arrays: `cluster`, `confidence`, `similarity`, `mean`, `size`, `weight`. Those of
    an embeddings file are averaged over the context of the centres first; `Rows` are taken as they are. The entropies
    in the summary are those of all rows, or of evenly spaced ones where there are many.

    Raises what `read_rows` does, FormatError where sizes differ, and SoundsslError for a row that is not finite.
    """
    if not isinstance(rows, Rows):
        rows = read_rows(rows)
        rows = rows.averaged(centres.context if rows.file else 0.0)
    store, accelerator = store or Memory(), accelerator or device.choose()
    centres.check(rows)
    with progress.track("assign", len(rows), "windows") as advance:
        summary = _choose(rows, centres, accelerator, store, advance)
    store.write("mean", summary.mean)
    if centres.metric == "cosine":
        with progress.track("compare", len(rows), "windows") as advance:
            _compare(rows, summary.mean, store, advance)
    with progress.track("entropies", len(evenly_spaced(rows)), "windows") as advance:
        summary.conditional, summary.marginal = _entropies(rows, centres, accelerator, summary.size, advance)
    store.write("size", summary.size)
    store.write("weight", centres.weight)
    columns = store.reserved
    return Assignment(columns["cluster"], columns["confidence"], columns["similarity"], summary)


def write(
    store: Store, rows: Rows, centres: Centres, accelerator: Accelerator | None = None, progress: Progress = SILENT
) -> Summary:
    """Assign every row and write the columns of a clusters file; raise what `assign` does."""
    summary = assign(rows, centres, accelerator, store, progress).summary
    if rows.file:
        store.write("window/clip", rows.file.clip)
        store.write("window/start", rows.file.start)
        for name in ("key", "recording", "split", "source", "start"):
            store.write(f"clip/{name}", getattr(rows.file.clips, name))
    return summary


def attributes(rows: Rows, centres: Centres) -> dict[str, Any]:
    """Return what a clusters file says of its centres and windows, before its rows are assigned."""
    return {
        "method": centres.method,
        "metric": centres.metric,
        "scale": centres.scale,
        "context": centres.context,
        "window": float(rows.file.attributes["window"]) if rows.file else 0.0,
    }


def _choose(rows: Rows, centres: Centres, accelerator: Accelerator, store: Store, advance: Callable) -> Summary:
    """Write cluster and confidence of every row, and by distance the similarity; return sizes and mean rows."""
    choose = centres.chooser(accelerator)
    for name, dtype in (("cluster", "i4"), ("confidence", "f2"), ("similarity", "f4")):
        store.reserve(name, (len(rows),), dtype)
    summary = Summary(np.zeros(len(centres.weight), np.int64), method=centres.method)
    total = np.zeros(centres.weight.shape, np.float32)
    for first, block in rows.blocks():
        cluster, confidence, similarity = choose(block)
        store.fill("cluster", first, cluster)
        store.fill("confidence", first, confidence)
        if similarity is not None:
            store.fill("similarity", first, similarity)
        summary.size += np.bincount(cluster, minlength=len(summary.size))
        summary.doubtful += int((confidence < 0.5).sum())
        _add(total, cluster, neighbors.unit(block))
        advance(len(block))
    summary.mean = neighbors.unit(total)
    return summary


def _compare(rows: Rows, mean: np.ndarray, store: Store, advance: Callable) -> None:
    """Write the similarity of every row: its cosine to the mean of its cluster's rows.

    A centre that was learnt to tell clusters apart need not lie in the middle of its own.
    """
    for first, block in rows.blocks():
        own = mean[store.reserved["cluster"][first : first + len(block)]]
        store.fill("similarity", first, np.einsum("nd,nd->n", neighbors.unit(block), own))
        advance(len(block))


def nearness(rows: np.ndarray, cluster: np.ndarray) -> float:
    """Return the mean cosine of rows to the mean of their cluster. Shape: rows `[n, d]`, cluster `[n]`."""
    units, total = neighbors.unit(rows), np.zeros((int(cluster.max()) + 1, rows.shape[1]), np.float32)
    _add(total, cluster, units)
    return float(np.einsum("nd,nd->n", units, neighbors.unit(total)[cluster]).mean())


def _add(total: np.ndarray, cluster: np.ndarray, rows: np.ndarray) -> None:
    """Add each row to the total of its cluster."""
    order = np.argsort(cluster, kind="stable")
    own, first = np.unique(cluster[order], return_index=True)
    total[own] += np.add.reduceat(rows[order], first, axis=0)


def evenly_spaced(rows: Rows) -> np.ndarray:
    """Return the numbers of all rows, or of evenly spaced ones where there are many."""
    return np.arange(0, len(rows), -(-len(rows) // SAMPLE))


def _entropies(
    rows: Rows, centres: Centres, accelerator: Accelerator, size: np.ndarray, advance: Callable
) -> tuple[float, float]:
    """Return the mean entropy of the sampled rows and the entropy of their mean, in nats."""
    if centres.metric == "euclidean":  # each row is in one cluster for certain
        share = size[size > 0] / size.sum()
        return 0.0, float(-(share * np.log(share)).sum())
    weight = torch.from_numpy(centres.weight).to(accelerator.device)
    chosen = evenly_spaced(rows)
    average, total, marginal = torch.zeros(len(weight), device=weight.device), 0.0, 0.0
    for first in range(0, len(chosen), BATCH):
        block = torch.from_numpy(np.array(rows[chosen[first : first + BATCH]], np.float32)).to(weight.device)
        done = first / (first + len(block))  # the mean of all rows so far, as a running average
        with torch.no_grad():
            found = entropy.entropies(
                block, weight, centres.scale, 1.0, accelerator.dtype, average=average, momentum=done
            )
        total += float(found.conditional) * len(block)
        marginal = float(found.marginal)
        advance(len(block))
    return total / len(chosen), marginal

"""Where `cluster` reads rows and how it assigns them: block by block, so that a file may be larger than memory."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from soundssl import SoundsslError

BLOCK = 1 << 14  # rows read and assigned at a time
SAMPLE = 1 << 17  # rows that the entropies in the file are taken of, evenly spaced, at most
COLLAPSED = 0.95  # share of one cluster from which it is said to have swallowed the others
NEAR = 1e-6  # seconds by which times may miss one another through rounding
UNDECIDED = 0.9  # share of the greatest conditional entropy from which nothing counts as assigned


@dataclass
class Source:
    """Hold a matrix of embeddings `[n, d]`, read by slice or by rising row numbers, and what its file says of rows.

    With a context, a row is the mean of the rows whose windows start at most half of it before or after, in its clip.
    """

    path: Path
    matrix: Any
    identity: dict[str, str]
    file: Any = None
    rows: Any = None
    context: float = 0.0  # seconds

    @property
    def size(self) -> int:
        """Numbers in an embedding."""
        return int(self.matrix.shape[1])

    def __len__(self) -> int:
        return len(self.matrix) if self.rows is None else len(self.rows)

    def __getitem__(self, rows):
        if not self.context:
            return self.matrix[rows if self.rows is None else self.rows[rows]]
        if self.rows is not None:
            rows = self.rows[rows]
        elif isinstance(rows, slice):
            rows = range(len(self))[rows]
        return _means(self.matrix, *self._around(rows))

    def _around(self, rows):
        """Return the first and the end of the range of rows about each of some rows, stepping outwards."""
        import numpy as np

        rows = np.asarray(rows)
        clip, start, ends = self.file.clip, self.file.start, []
        for step, last in ((-1, 0), (1, len(clip) - 1)):
            at, going = rows.copy(), rows != last
            while going.any():
                next_one, own = at[going] + step, rows[going]
                near = (clip[next_one] == clip[own]) & (abs(start[next_one] - start[own]) <= self.context / 2 + NEAR)
                at[going] += np.where(near, step, 0)
                going[going] = near & (at[going] != last)
            ends.append(at)
        return ends[0], ends[1] + 1

    def choose(self, splits: list[str] | None) -> Source:
        """Return the rows of the clips of these splits."""
        import numpy as np

        if not splits:
            return self
        if self.file is None:
            raise SoundsslError(f"{self.path} is a bare matrix and has no splits; leave out --split")
        chosen = self.file.clips.in_splits(splits, self.path)[self.file.clip]
        return replace(self, rows=np.flatnonzero(chosen))

    def averaged(self, seconds: float) -> Source:
        """Return the rows averaged over windows of their clip that lie within so many seconds, half of them each way.

        Raises SoundsslError for a bare matrix, and for windows that do not lie clip by clip, in rising order.
        """
        import numpy as np

        if not seconds:
            return self
        if self.file is None:
            raise SoundsslError(f"{self.path} is a bare matrix, without clips and times; leave out --context")
        clip, start = self.file.clip, self.file.start
        for first in range(0, len(clip), BLOCK):
            block = slice(first, first + BLOCK + 1)
            rising, same = np.diff(clip[block]), np.diff(start[block])[np.diff(clip[block]) == 0]
            if (rising < 0).any() or (same < 0).any():
                raise SoundsslError(f"the windows of {self.path} are not in the order of their clips; give --context 0")
        return replace(self, context=seconds)

    def sample(self, count: int, seed: int):
        """Return rows drawn at random, in rising order, as float32."""
        import numpy as np

        drawn = np.random.default_rng(seed).choice(len(self), min(count, len(self)), replace=False)
        return np.asarray(self[np.sort(drawn)], np.float32)


def _means(matrix, low, high):
    """Return the means of ranges of rows, as float32, reading each row once. Shape: low, high `[n]` to `[n, d]`."""
    import numpy as np

    count = high - low
    first = np.cumsum(count) - count
    wanted, place = np.unique(np.repeat(low - first, count) + np.arange(count.sum()), return_inverse=True)
    rows = np.asarray(matrix[wanted], np.float32)[place]
    return np.add.reduceat(rows, first, axis=0) / count[:, None].astype(np.float32)


@contextlib.contextmanager
def read(path: Path) -> Iterator[Source]:
    """Yield an embeddings file, an NPY matrix, or for `-` the matrix on standard input, spooled to a temporary file."""
    from soundssl import files

    with contextlib.ExitStack() as stack:
        if str(path) == "-":
            spool = Path(stack.enter_context(tempfile.NamedTemporaryFile(suffix=".npy")).name)
            if (begin := sys.stdin.buffer.read(6)) != b"\x93NUMPY":
                raise files.FormatError(
                    "standard input is not an NPY matrix; write one with soundssl embed -o -" if begin
                    else "standard input is empty; pipe an NPY matrix into it"
                )  # fmt: skip
            with open(spool, "wb") as file:
                file.write(begin)
                shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
            source = _matrix(spool, path)
        elif files.kind_of(path) is None:
            source = _matrix(path, path)
        else:
            opened = files.Embeddings(path)
            source = Source(path, opened.embedding, files.identity("embeddings", path, opened.attributes), opened)
        if not len(source) or not source.size:
            raise SoundsslError(f"{files.text(path)} holds no embedding; there is nothing to cluster")
        yield source


def _matrix(path: Path, called: Path) -> Source:
    from soundssl import files

    with open(files.require(path), "rb") as file:
        begin = file.read(6)
        if begin != b"\x93NUMPY":
            raise files.FormatError(
                f"{files.text(called)} is not an embeddings file; make embeddings with soundssl embed"
            )
        content = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    name = "standard input" if str(called) == "-" else files.text(called.name)
    return Source(called, files.read_matrix(path), {"role": "embeddings", "file": name, "uuid": content})


@dataclass
class Head:
    """Hold centres `[K, d]` and how they choose: by the cosine times `scale`, or by the distance."""

    weight: Any
    method: str = "entropy"
    metric: str = "cosine"
    scale: float = 60.0
    context: float = 0.0  # seconds over which the rows it is for are averaged

    def check(self, source: Source, path: Path) -> None:
        """Raise FormatError where embeddings have another size than the centres."""
        from soundssl import files

        if self.weight.shape[1] != source.size:
            raise files.FormatError(
                f"{files.text(source.path)} has embeddings of {source.size} numbers, {files.text(path)} has clusters "
                f"of {self.weight.shape[1]}; embed with the same model"
            )

    def chooser(self, accelerator) -> Callable:
        """Return a function from rows to cluster and confidence, and by distance similarity, all numpy arrays `[n]`."""
        import numpy as np
        import torch

        from soundssl.ops import assignment, kmeans

        if self.metric == "euclidean":

            def choose_nearest(rows):
                cluster, similarity = kmeans.nearest(rows, self.weight)
                return cluster, np.ones(len(rows), np.float32), similarity

            return choose_nearest
        weight = torch.from_numpy(self.weight).to(accelerator.device)
        assign_rows = assignment.Assigner(weight, self.scale, accelerator.dtype)

        def choose_probable(rows):
            found = assign_rows(torch.from_numpy(rows).to(accelerator.device))
            return found.cluster.cpu().numpy(), found.confidence.cpu().numpy(), None

        return choose_probable


def head_of(path: Path) -> Head:
    """Read the centres of a clusters file, or of a model that holds a clustering head."""
    import numpy as np

    from soundssl import files

    if files.kind_of(path) is not None:
        found = files.Clusters(path)
        facts = found.attributes
        centres, context = np.array(found.weight[:], np.float32), float(facts.get("context", 0.0))
        return Head(centres, facts["method"], facts["metric"], float(facts["scale"]), context)
    model = files.read_model(path)
    weight = model.tensors.get("head.clustering.head.weight")
    if weight is None:
        raise files.FormatError(
            f"{files.text(path)} holds no clustering head; train one with --objective clustering, or name a clusters "
            f"file"
        )
    return Head(weight, scale=float(model.config["heads"]["clustering"]["scale"]))


@dataclass
class Tally:
    """Hold what is said of an assignment: windows and mean of each cluster, confidences, both entropies in nats."""

    size: Any
    mean: Any = None
    doubtful: int = 0
    conditional: float = 0.0
    marginal: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return the figures by name; quantiles are those of clusters in use."""
        import numpy as np

        used, total = self.size[self.size > 0], int(self.size.sum())
        share = used / total
        low, median, high = np.quantile(used, [0.1, 0.5, 0.9])
        return {
            **self.facts,
            "windows": total,
            "clusters": len(self.size),
            "active": len(used),
            "effective": float(np.exp(-(share * np.log(share)).sum())),
            "conditional_entropy": self.conditional,
            "marginal_entropy": self.marginal,
            "largest_share": float(share.max()),
            "size_10%": float(low),
            "size_median": float(median),
            "size_90%": float(high),
            "size_largest": int(used.max()),
            "doubtful_share": self.doubtful / total,
        }

    def trouble(self) -> str | None:
        """Name a collapse and what to do about it, None where there is none."""
        import numpy as np

        clusters, share = len(self.size), float(self.size.max() / self.size.sum())
        if share >= COLLAPSED and self.size.sum() > 1:
            return (
                f"collapse: {share:.1%} of the windows are in one of {clusters} clusters; raise --gamma or "
                f"--batch-size, lower --learning-rate, and see whether the embeddings differ at all"
            )
        if self.conditional >= UNDECIDED * np.log(clusters):
            return (
                f"collapse: nothing is assigned, the conditional entropy {self.conditional:.2f} is near that of a "
                f"blind choice, {np.log(clusters):.2f}; raise --scale or --steps, or lower --gamma"
            )
        return None


def assign(source: Source, head: Head, accelerator, sink, advance: Callable) -> Tally:
    """Write cluster and confidence of every row, block by block, and the mean rows; return the tally.

    By distance also the similarity. By cosine it is for `compare` to write.
    """
    import numpy as np

    choose = head.chooser(accelerator)
    for name, dtype in (("cluster", "i4"), ("confidence", "f2"), ("similarity", "f4")):
        sink.reserve(name, (len(source),), dtype)
    tally, total = Tally(np.zeros(len(head.weight), np.int64)), np.zeros(head.weight.shape, np.float32)
    for first, rows in _blocks(source):
        cluster, confidence, similarity = choose(rows)
        sink.fill("cluster", first, cluster)
        sink.fill("confidence", first, confidence)
        if similarity is not None:
            sink.fill("similarity", first, similarity)
        tally.size += np.bincount(cluster, minlength=len(tally.size))
        tally.doubtful += int((confidence < 0.5).sum())
        _add(total, cluster, _unit(rows))
        advance(len(rows))
    tally.mean = _unit(total)
    sink.write("mean", tally.mean)
    return tally


def compare(source: Source, mean, sink, advance: Callable) -> None:
    """Write the similarity of every row: its cosine to the mean of its cluster's rows, each of length one.

    A centre that was learnt to tell clusters apart need not lie in the middle of its own.
    """
    import numpy as np

    for first, rows in _blocks(source):
        own = mean[sink.reserved["cluster"][first : first + len(rows)]]
        sink.fill("similarity", first, np.einsum("nd,nd->n", _unit(rows), own))
        advance(len(rows))


def nearness(rows, cluster) -> float:
    """Return the mean cosine of rows to the mean of their cluster. Shape: rows `[n, d]`, cluster `[n]`."""
    import numpy as np

    units, total = _unit(rows), np.zeros((int(cluster.max()) + 1, rows.shape[1]), np.float32)
    _add(total, cluster, units)
    return float(np.einsum("nd,nd->n", units, _unit(total)[cluster]).mean())


def _blocks(source: Source) -> Iterator[tuple[int, Any]]:
    """Yield the rows in blocks, each with the number of its first; raise SoundsslError for a row that is not finite."""
    import numpy as np

    for first in range(0, len(source), BLOCK):
        rows = np.array(source[slice(first, min(first + BLOCK, len(source)))], np.float32)
        if not np.isfinite(rows).all():
            row = first + int(np.flatnonzero(~np.isfinite(rows).all(1))[0])
            raise SoundsslError(f"row {row} of the embeddings is not finite; leave such rows out")
        yield first, rows


def _unit(rows):
    """Return rows scaled to length one; a row of zeros stays."""
    import numpy as np

    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def _add(total, cluster, rows) -> None:
    """Add each row to the total of its cluster."""
    import numpy as np

    order = np.argsort(cluster, kind="stable")
    own, first = np.unique(cluster[order], return_index=True)
    total[own] += np.add.reduceat(rows[order], first, axis=0)


def sampled(source: Source) -> range:
    """Return the rows that entropies are taken of: all, or evenly spaced ones where there are many."""
    return range(0, len(source), -(-len(source) // SAMPLE))


def entropies(source: Source, head: Head, accelerator, size, advance: Callable) -> tuple[float, float]:
    """Return the mean entropy of the sampled rows and the entropy of their mean, in nats."""
    import numpy as np
    import torch

    from soundssl.ops import entropy

    if head.metric == "euclidean":  # each row is in one cluster for certain
        share = size[size > 0] / size.sum()
        return 0.0, float(-(share * np.log(share)).sum())
    weight = torch.from_numpy(head.weight).to(accelerator.device)
    chosen = np.array(sampled(source))
    average, total, marginal = torch.zeros(len(weight), device=weight.device), 0.0, 0.0
    for first in range(0, len(chosen), 1024):
        rows = np.array(source[chosen[first : first + 1024]], np.float32)
        block = torch.from_numpy(rows).to(weight.device)
        done = first / (first + len(rows))  # the mean of all rows so far, as a running average
        with torch.no_grad():
            found = entropy.entropies(block, weight, head.scale, 1.0, accelerator.dtype, average=average, momentum=done)
        total += float(found.conditional) * len(rows)
        marginal = float(found.marginal)
        advance(len(rows))
    return total / len(chosen), marginal

"""What `cluster` says of its clusters at the end: the largest and the windows nearest to them, stability, a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soundssl.commands.assigning import SAMPLE, Head, Source

LARGEST = 10  # clusters whose nearest clips are named
NEAREST = 5  # clips a cluster
BINS = 20  # of confidences in the picture


def largest(path: Path) -> list[dict[str, Any]]:
    """Return the largest clusters of a clusters file, each with the windows nearest to its mean, one a clip.

    A window is named by its clip and second, or by its row where the clusters are those of a bare matrix.
    """
    import numpy as np

    from soundssl import files

    clusters = files.Clusters(path)
    order = np.argsort(-clusters.size, kind="stable")[:LARGEST]
    found = []
    for number in order[clusters.size[order] > 0]:
        rows = np.flatnonzero(clusters.cluster == number)
        rows = rows[np.argsort(-clusters.similarity[rows], kind="stable")]
        if clusters.clip is not None:
            rows = rows[np.sort(np.unique(clusters.clip[rows], return_index=True)[1])]
        near = [_window(clusters, row) for row in rows[:NEAREST].tolist()]
        size = int(clusters.size[number])
        found.append({"cluster": int(number), "windows": size, "share": size / len(clusters.cluster), "nearest": near})
    return found


def _window(clusters, row: int) -> dict[str, Any]:
    from soundssl import files

    similarity = round(float(clusters.similarity[row]), 4)
    if clusters.clip is None:
        return {"row": row, "similarity": similarity}
    key = files.text(str(clusters.clips.key[clusters.clip[row]]))
    return {"clip": key, "start": float(clusters.start[row]), "similarity": similarity}


def table(found: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table of the largest clusters."""
    rows = [
        [str(each["cluster"]), str(each["windows"]), f"{each['share']:.1%}", ", ".join(map(_name, each["nearest"]))]
        for each in found
    ]
    return ["cluster", "windows", "share", "nearest clips"], rows


def _name(window: dict[str, Any]) -> str:
    return f"{window['clip']} at {window['start']:g} s" if "clip" in window else f"row {window['row']}"


def stability(source: Source, one: Head, other: Head, accelerator) -> float:
    """Return how far two sets of centres put the same rows together: the adjusted Rand index, chance 0, equal 1.

    Of rows evenly spaced, where there are many.
    """
    import numpy as np

    from soundssl.commands.assigning import BLOCK
    from soundssl.evaluations import clusters

    chosen = np.arange(0, len(source), -(-len(source) // SAMPLE))
    parts: list[list[Any]] = [[], []]
    choosers = [head.chooser(accelerator) for head in (one, other)]
    for first in range(0, len(chosen), BLOCK):
        rows = np.array(source[chosen[first : first + BLOCK]], np.float32)
        for part, choose in zip(parts, choosers, strict=True):
            part.append(choose(rows)[0])
    return clusters.adjusted_rand(*(np.concatenate(part) for part in parts))


def draw(picture: Path, path: Path, found: list[dict[str, Any]]) -> None:
    """Draw sizes by rank, confidences, and the largest clusters with their nearest clips."""
    import numpy as np

    from soundssl import files, pictures

    clusters = files.Clusters(path)
    count, edges = np.histogram(clusters.confidence, BINS, (0, 1))
    names = [(f"{each['cluster']}: {each['windows']}", ", ".join(map(_name, each["nearest"][:3]))) for each in found]
    pictures.clusters(picture, np.sort(clusters.size[clusters.size > 0])[::-1], count / count.sum(), edges, names)

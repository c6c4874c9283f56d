"""Hierarchy: labels up an ontology, small classes into their parents, and the vocabulary as a tree.

A class stands for the node of its identifier or of its name. Labels of a class are labels of its ancestors too, past
nodes that are not in the vocabulary (Fonseca et al. 2022, FSD50K, hierarchical label propagation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from soundssl.datasets.ontology import Ontology
from soundssl.labels.labelset import BLOCK, LabelSet

Parents = Mapping[str, Sequence[str]] | None


class Propagated(NamedTuple):
    """Hold labels with those of ancestors; how many positives came in, and how many of them were rated absent."""

    labels: LabelSet
    added: int
    contradicted: int


class Merged(NamedTuple):
    """Hold labels with small classes merged, and into which each went; those in nothing had no parent."""

    labels: LabelSet
    into: dict[str, list[str]]


def nodes(labels: LabelSet, ontology: Ontology) -> list[str | None]:
    """Return the node of each class, None for one that the ontology does not know.

    Raises ValueError where it knows none, and for two classes of one node.
    """
    identifiers = labels.identifiers or [""] * len(labels.classes)
    found = [ontology.find(name, one) for name, one in zip(labels.classes, identifiers, strict=True)]
    if not any(found):
        raise ValueError(f"the ontology has none of {len(found)} classes; is it that of these labels?")
    where: dict[str, str] = {}
    for name, node in zip(labels.classes, found, strict=True):
        if node and node in where:
            raise ValueError(f"classes {where[node]!r} and {name!r} are one node, {node}; rename one of them")
        where[node or ""] = name
    return found


def propagate(labels: LabelSet, ontology: Ontology, listed: Parents = None) -> Propagated:
    """Add to every label its ancestors in the vocabulary; what was there stays.

    `listed` are the parents of nodes with several, by default all. An ancestor is rated where a rated label implies it.
    """
    node = nodes(labels, ontology)
    column = {one: i for i, one in enumerate(node) if one}
    edges = [
        (i, [column[one] for one in ontology.ancestors(name, column, listed)]) for i, name in enumerate(node) if name
    ]
    edges = [(i, above) for i, above in edges if above]
    label, rated = labels.label.copy(), None if labels.rated is None else labels.rated.copy()
    explicit, added, contradicted = labels.explicit, 0, 0
    for low in range(0, len(label), BLOCK):
        block = slice(low, low + BLOCK)
        present = np.ascontiguousarray((labels.label[block] == 1).T)
        known = None if rated is None else present & (np.ascontiguousarray(rated[block].T) == 1)
        implied, said = present.copy(), None if known is None else known.copy()
        for i, above in edges:
            for j in above:
                implied[j] |= present[i]
                if said is not None and known is not None:
                    said[j] |= known[i]
        new = (implied & ~present).T
        added += int(new.sum())
        contradicted += int((new & (label[block] == 0) & explicit[block]).sum())
        label[block][new] = 1
        if rated is not None and said is not None:
            rated[block][said.T] = 1
    return Propagated(replace(labels, label=label, rated=rated), added, contradicted)


def merge(labels: LabelSet, ontology: Ontology, least: int, listed: Parents = None) -> Merged:
    """Merge leaves with fewer than `least` positives into their nearest ancestors in the vocabulary till none is left.

    A leaf has no descendant in the vocabulary. One without an ancestor there stays.
    """
    node = nodes(labels, ontology)
    column = {one: i for i, one in enumerate(node) if one}
    above = {one: ontology.above(one, column, listed) for one in column}
    label, rated, truth = (None if one is None else one.copy() for one in (labels.label, labels.rated, labels.truth))
    assert label is not None
    into: dict[str, list[str]] = {}
    while True:
        parents = {parent for ones in above.values() for parent in ones}
        small = [
            one
            for one, ones in above.items()
            if one not in parents and ones and np.count_nonzero(label[:, column[one]] == 1) < least
        ]
        if not small:
            break
        for one in small:
            for parent in above.pop(one):
                i, j = column[one], column[parent]
                if rated is not None:
                    rated[:, j] |= rated[:, i] & (label[:, i] == 1)
                for matrix in (label, truth):
                    if matrix is not None:
                        matrix[matrix[:, i] == 1, j] = 1
                into.setdefault(labels.classes[column[one]], []).append(labels.classes[column[parent]])
    kept = [i for i, name in enumerate(labels.classes) if name not in into]
    merged = replace(labels, label=label, rated=rated, truth=truth, events=_moved(labels, into))
    return Merged(merged.columns(kept), into)


def _moved(labels: LabelSet, into: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray] | None:
    """Return the events, those of a merged class as events of each class that it went into at last."""
    if labels.events is None or not into:
        return labels.events
    number = {name: i for i, name in enumerate(labels.classes)}

    def last(name: str) -> list[str]:
        return [end for one in into[name] for end in last(one)] if name in into else [name]

    ends = [[number[end] for end in dict.fromkeys(last(name))] for name in labels.classes]
    of = labels.events["class"]
    count = np.array([len(each) for each in ends])[of]
    moved = {name: np.repeat(values, count) for name, values in labels.events.items()}
    moved["class"] = np.array([end for one in of for end in ends[one]], np.int64)
    return moved


def tree(labels: LabelSet, ontology: Ontology, listed: Parents = None) -> list[dict[str, Any]]:
    """Return the vocabulary as trees: class, id, positives, and children; a class with several parents below each.

    `own` counts the segments with the class, `below` those with it or a descendant. Classes that the ontology does not
    know are roots, the last ones.
    """
    node = nodes(labels, ontology)
    column = {one: i for i, one in enumerate(node) if one}
    above = {one: ontology.above(one, column, listed) for one in column}
    children: dict[str, list[str]] = {one: [] for one in column}
    for one in column:
        for parent in above[one]:
            children[parent].append(one)
    counts = _counts(
        labels, [[column[each] for each in _down(one, children)] if one else [i] for i, one in enumerate(node)]
    )

    def entry(i: int, below: list[dict[str, Any]]) -> dict[str, Any]:
        identifier = (labels.identifiers or node)[i] or ""
        return {"class": labels.classes[i], "id": identifier, **counts[i], "children": below}

    def grown(one: str) -> dict[str, Any]:
        return entry(column[one], [grown(child) for child in children[one]])

    roots = [grown(one) for one in column if not above[one]]
    return roots + [entry(i, []) for i, one in enumerate(node) if one is None]


def _down(one: str, children: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a node and its descendants, each once."""
    found = [one]
    for each in found:
        found += [child for child in children[each] if child not in found]
    return found


def _counts(labels: LabelSet, below: list[list[int]]) -> list[dict[str, int]]:
    own, joint = np.zeros(len(below), np.int64), np.zeros(len(below), np.int64)
    for low in range(0, len(labels), BLOCK):
        present = np.ascontiguousarray((labels.label[low : low + BLOCK] == 1).T)
        own += present.sum(1)
        joint += [int(present[columns].any(0).sum()) for columns in below]
    return [{"own": int(a), "below": int(b)} for a, b in zip(own, joint, strict=True)]

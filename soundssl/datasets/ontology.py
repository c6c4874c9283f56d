"""Ontologies of sounds, as AudioSet's `ontology.json` has it: a graph in which a node may have several parents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from soundssl import SoundsslError, tables

# What names of one class differ by: "Chicken, rooster", "Chicken_and_rooster".
BETWEEN = re.compile(r"[\s_,]+(?:and[\s_,]+)*")


class OntologyError(SoundsslError):
    """An ontology cannot be read, or does not hold what it is asked for."""

    status = 2


class Ontology:
    """Hold a graph of classes: names and children by identifier, in the order of the file.

    >>> graph = Ontology({"/a": "Animal", "/d": "Dog, hound"}, {"/a": ["/d"]})
    >>> graph.find("dog_and_hound"), graph.parents["/d"]
    ('/d', ['/a'])
    """

    def __init__(self, names: Mapping[str, str], children: Mapping[str, Sequence[str]]) -> None:
        self.names, self.children = dict(names), {one: list(children.get(one, ())) for one in names}
        self.parents: dict[str, list[str]] = {one: [] for one in names}
        for one, below in self.children.items():
            for child in below:
                if child not in self.parents:
                    raise OntologyError(f"{one} has the child {child}, which is no node; take the whole ontology")
                self.parents[child].append(one)
        self._found: dict[str, str | None] = {}
        for one, name in self.names.items():
            plain = _plain(name)
            self._found[plain] = None if plain in self._found else one
        self._check_circles()

    def _check_circles(self) -> None:
        left = {one: len(parents) for one, parents in self.parents.items()}
        free = [one for one, count in left.items() if not count]
        for one in free:
            for child in self.children[one]:
                left[child] -= 1
                if not left[child]:
                    free.append(child)
        if len(free) < len(left):
            circle = next(one for one, count in left.items() if count)
            raise OntologyError(f"{circle} ({self.names[circle]}) is an ancestor of itself; remove one of its edges")

    def find(self, name: str, identifier: str = "") -> str | None:
        """Return the node of a class by its identifier or its name, None where it has none or several."""
        for one in (identifier, name):
            if one in self.names:
                return one
        exact = [one for one, known in self.names.items() if known == name]
        return exact[0] if len(exact) == 1 else self._found.get(_plain(name))

    def above(self, node: str, among: Iterable[str], listed: Mapping[str, Sequence[str]] | None = None) -> list[str]:
        """Return the nearest ancestors of a node `among` others: past nodes that are not.

        `listed` names the parents that a node with several has; by default it has all of them.
        """
        return self._walk(node, set(among), listed, further=False)

    def ancestors(
        self, node: str, among: Iterable[str], listed: Mapping[str, Sequence[str]] | None = None
    ) -> list[str]:
        """Return all ancestors of a node `among` others, the nearest first, as `above` says."""
        return self._walk(node, set(among), listed, further=True)

    def _walk(self, node: str, among: set[str], listed: Mapping[str, Sequence[str]] | None, further: bool) -> list[str]:
        found: list[str] = []
        seen, waiting = {node}, [node]
        for one in waiting:
            parents = self.parents[one]
            if listed is not None and len(parents) > 1:
                parents = [parent for parent in parents if parent in listed.get(one, ())]
            for parent in parents:
                if parent in seen:
                    continue
                seen.add(parent)
                if parent in among:
                    found.append(parent)
                if further or parent not in among:
                    waiting.append(parent)
        return found


def read(path: Path) -> Ontology:
    """Read an ontology in the form of AudioSet's: a list of objects with `id`, `name` and `child_ids`.

    Raises OntologyError for a file that is no JSON, names a node twice, or has a circle.
    """
    try:
        nodes = json.loads(path.read_text("utf-8"))
        pairs = [(node["id"], node["name"], node.get("child_ids", [])) for node in nodes]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fact = f"an entry lacks {error}" if isinstance(error, KeyError) else str(error)
        raise OntologyError(
            f"{path} is not an ontology: {fact}; a list of objects with id, name and child_ids is wanted"
        ) from None
    names = {one: name for one, name, _ in pairs}
    if len(names) < len(pairs):
        double = next(one for i, (one, *_) in enumerate(pairs) if one in [other for other, *_ in pairs[:i]])
        raise OntologyError(f"{path} has two nodes {double}; keep one of them")
    try:
        return Ontology(names, {one: children for one, _, children in pairs})
    except OntologyError as error:
        raise OntologyError(f"{path}: {error}") from None


def read_parents(path: Path, ontology: Ontology) -> dict[str, list[str]]:
    """Read a table with the columns child and parent, names or identifiers: the parents to take of nodes with several.

    Raises TableError for a table without them, and for an edge that the ontology does not have.
    """
    table = tables.read(path.read_bytes(), str(path))
    if missing := [name for name in ("child", "parent") if name not in table.columns]:
        raise tables.TableError(f"{path} line {table.line} has no column {missing[0]}; it needs child and parent")
    listed: dict[str, list[str]] = {}
    for line, cells in table.rows:
        child, parent = (ontology.find(cells[name]) for name in ("child", "parent"))
        if child is None or parent is None or parent not in ontology.parents[child]:
            raise tables.TableError(
                f"{path} line {line}: {cells['parent']!r} is no parent of {cells['child']!r} in the ontology; "
                f"remove the line"
            )
        listed.setdefault(child, []).append(parent)
    return listed


def _plain(name: str) -> str:
    return BETWEEN.sub(" ", name.casefold()).strip()

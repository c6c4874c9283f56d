"""soundssl labels propagate, merge and tree: labels along an ontology."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundssl.commands.labels.remaking import Flags, Given, Made, remake
from soundssl.commands.options import Force, NoClobber, NoProvenance, Quiet
from soundssl.commands.target import Target

if TYPE_CHECKING:
    from soundssl.datasets.ontology import Ontology
    from soundssl.labels import LabelSet

Graph = Annotated[
    Path, typer.Option(help="Ontology in the form of AudioSet's: a JSON list of objects with id, name and child_ids.")
]
Listed = Annotated[
    Path | None,
    typer.Option(
        "--parents",
        help="Table with the columns child and parent: those to take of classes with several. Default: all.",
    ),
]


def propagate(
    labels: Given,
    ontology: Graph,
    listed: Listed = None,
    output: Made = None,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Give every label its ancestors too, as far as they are classes of the labels.

    Classes are found in the ontology by their identifiers, or else by their names, in which spaces, commas and _ are
    one, and `and` is nothing. Ancestors are reached past nodes that are no class. Merge small classes first.

    Example:

    soundssl labels propagate fsd50k.labels.h5 --ontology ontology.json -o propagated.labels.h5
    """

    def make(target: Target, given: LabelSet) -> tuple[LabelSet, str]:
        from soundssl import labels as operations

        done = operations.propagate(given, *_read(ontology, listed))
        if done.contradicted:
            target.terminal.warn(
                f"{done.contradicted} ancestors were rated absent where a descendant is present; they are present now"
            )
        return done.labels, f"{done.added} labels added to {len(given)} segments"

    flags = Flags(force, no_clobber, no_provenance, quiet)
    remake("propagate", labels, output, {"ontology": ontology, "parents": listed}, {}, flags, make)


def merge(
    labels: Given,
    ontology: Graph,
    least: Annotated[int, typer.Option(min=1, help="Segments that a leaf has at least, to stay a class.")],
    listed: Listed = None,
    output: Made = None,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Merge small leaves of the vocabulary into their parents, until none is small.

    Example:

    soundssl labels merge labels.h5 --ontology ontology.json --least 100 -o merged.labels.h5
    """

    def make(target: Target, given: LabelSet) -> tuple[LabelSet, str]:
        from soundssl import labels as operations

        graph, parents = _read(ontology, listed)
        made = operations.merge(given, graph, least, parents)
        for name, parents in made.into.items():
            target.terminal.say(f"{name} into {', '.join(parents)}")
        return made.labels, f"{len(given.classes)} classes, now {len(made.labels.classes)}"

    flags = Flags(force, no_clobber, no_provenance, quiet)
    others = {"ontology": ontology, "parents": listed}
    remake("merge", labels, output, others, {"least": least}, flags, make)


def tree(
    labels: Given,
    ontology: Graph,
    listed: Listed = None,
    below: Annotated[str | None, typer.Option(help="Only this class and what is below it.")] = None,
    depth: Annotated[int, typer.Option(min=0, help="Levels to show; 0: all.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, also to a terminal.")] = False,
) -> None:
    """Show the vocabulary as a tree, each class with its segments, and those of it and all below it.

    Elsewhere than in a terminal it is JSON: class, id, own, below, children.

    Example:

    soundssl labels tree labels.h5 --ontology ontology.json --below Animal --depth 2
    """
    from soundssl import labels as operations

    given = operations.of_file(labels)
    roots = operations.tree(given, *_read(ontology, listed))
    if below is not None:
        roots = _found(roots, below)
        if not roots:
            raise typer.BadParameter(f"no class is called {below!r}", param_hint="--below")
    roots = [_cut(root, depth) for root in roots] if depth else roots
    if json_ or not sys.stdout.isatty():
        print(json.dumps(roots, indent=1))
        return
    for root in roots:
        _print(root, 0)


def _read(ontology: Path, listed: Path | None) -> tuple[Ontology, Any]:
    """Return an ontology, and the parents listed of nodes with several."""
    from soundssl import files
    from soundssl.datasets import ontology as graphs

    graph = graphs.read(files.require(ontology))
    return graph, graphs.read_parents(files.require(listed), graph) if listed else None


def _found(roots: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    for root in roots:
        if name in (root["class"], root["id"]):
            return [root]
        if found := _found(root["children"], name):
            return found
    return []


def _cut(root: dict[str, Any], depth: int) -> dict[str, Any]:
    children = [_cut(child, depth - 1) for child in root["children"]] if depth > 1 else []
    return {**root, "children": children}


def _print(root: dict[str, Any], level: int) -> None:
    counts = str(root["own"]) if root["own"] == root["below"] else f"{root['own']}, {root['below']} with those below"
    print(f"{'  ' * level}{root['class']} ({counts})")
    for child in root["children"]:
        _print(child, level + 1)

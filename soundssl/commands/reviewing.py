"""The part of label-clusters that reviews events: a table to a page of questions, and its answers to labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from soundssl.commands.options import beside
from soundssl.commands.target import Target, aim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soundssl.labelling.page import Group

NAMED = 3  # files without sound that are named


def write_page(target: Target, groups: Sequence[Group], classes: Sequence[str] = ()) -> None:
    """Write a page of questions; say which files gave no sound, and fail where none did."""
    from soundssl import SoundsslError, files
    from soundssl.labelling import page

    name = files.text(target.path)
    made = page.build(groups, classes, title=target.path.stem, progress=target.terminal)
    if made.missing.keys() >= {group.question.file for group in groups}:
        path, reason = next(iter(made.missing.items()))
        raise SoundsslError(
            f"the sound of no question was found ({files.text(path)}: {reason}); run where the recordings of {name} lie"
        )
    for path, reason in list(made.missing.items())[:NAMED]:
        target.terminal.warn(f"{files.text(path)}: {reason}; its questions have no sound")
    if len(made.missing) > NAMED:
        target.terminal.warn(f"{len(made.missing) - NAMED} more recordings were not found, or not read")
    with files.replace(target.path, through=True) as partial:
        partial.write_text(made.html, "utf-8", "surrogateescape")
    target.terminal.say(f"{len(groups)} questions in {name}; open it in a browser, and save the sheet for --answers")


def review_events(
    events: Path, output: Path | None, page: Path | None, answers: Path | None, budget: int | None, seed: int,
    flags: dict[str, Any], others: dict[str, object],
) -> None:  # fmt: skip
    """Write the page that asks about the events of a table, or from its answers a labels file.

    `others` are options, by name, that know no events; BadParameter where one was given.
    """
    from soundssl import files
    from soundssl.labelling import review

    if given := [name for name, value in others.items() if value]:
        raise typer.BadParameter(f"goes with clusters, not with a table of events; leave out --{given[0]}")
    sheet = page or answers
    if sheet is None or (page and answers):
        raise typer.BadParameter("a table of events is reviewed in a page; give --page, or --answers with its sheet")
    inputs = [path for path in (events, answers) if path]
    if page:
        target = aim("label-clusters", page, page, inputs, "HTML", through=True, **flags)
        chosen = review.choose(review.read(events), budget, seed)
        write_page(target, review.groups(chosen), sorted({event.name for event in chosen}))
        return
    target = aim("label-clusters", output, beside(events, "labels"), inputs, **flags)
    found = review.read(events)
    said = review.read_answers(sheet, found)
    made_from = files.digest("labels", [list(event) for event in found], sorted(said.items()))
    if target.stands(made_from):
        return
    with target.create("labels", [], made_from, {"questions": len(said)}) as sink:
        count = review.write(sink, found, said)
    target.finish(f"{count} of {len(found)} events have a label, {len(said) - count} cannot be told")

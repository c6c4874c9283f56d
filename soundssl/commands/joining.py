"""Joining: several features or embeddings files to one, as references to their rows or as a copy."""

from __future__ import annotations

from pathlib import Path

from soundssl.commands import target, terminal


def join(
    kind: str,
    inputs: list[Path],
    output: Path | None,
    copy: bool,
    force: bool,
    no_clobber: bool,
    no_provenance: bool,
    quiet: bool,
) -> None:
    """Join files of a kind; a finished output is touched."""
    import typer

    from soundssl import files

    command = "featurize" if kind == "features" else "embed"
    if output is None:
        raise typer.BadParameter("joined files need a name", param_hint="--output")
    if len(inputs) < 2 and not copy:
        raise typer.BadParameter(f"one {kind} file has nothing to be joined with; --copy copies it", param_hint="FILE")
    files.guard(output, no_clobber)
    files.guard_inputs(output, inputs)
    joined = files.Join(kind, inputs)
    made_from = files.digest(kind, joined.inputs, copy)
    if terminal.done_before(command, output, made_from, force, quiet, False):
        return
    write = joined.copy if copy else joined.refer
    rows = write(output, made_from, target.provenance_of(no_provenance))
    terminal.say(
        command, f"{len(inputs)} files, {rows} clips{'' if copy else '; they must stay where they are'}", quiet
    )

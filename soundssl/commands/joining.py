"""Joining: several features or embeddings files to one, as references to their rows or as a copy."""

from __future__ import annotations

from pathlib import Path

import typer

from soundssl.commands.target import aim


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
    from soundssl import files

    if output is None:
        raise typer.BadParameter("joined files need a name", param_hint="--output")
    if len(inputs) < 2 and not copy:
        raise typer.BadParameter(f"one {kind} file has nothing to be joined with; --copy copies it", param_hint="FILE")
    command = "featurize" if kind == "features" else "embed"
    flags = {"force": force, "no_clobber": no_clobber, "no_provenance": no_provenance, "quiet": quiet}
    target = aim(command, output, output, inputs, **flags)
    joined = files.Join(kind, inputs)
    if target.stands(joined.made_from(copy)):
        return
    clips = joined.write(target.path, copy, target.provenance)
    target.finish(f"{len(inputs)} files, {clips} clips{'' if copy else '; they must stay where they are'}")

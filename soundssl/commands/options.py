"""Option types that several commands share, so that one name means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", help="File to write; without it, STEM.KIND.h5 beside the input, and its path is printed."
    ),
]
Jobs = Annotated[
    int, typer.Option("-j", "--jobs", min=0, help="Worker processes; 0 takes every core this job may use.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything drawn at random.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Number type of products; auto takes bfloat16 where the hardware multiplies it."),
]
Threads = Annotated[int, typer.Option(min=0, help="Compute threads; 0 takes every core this job may use.")]
Split = Annotated[str | None, typer.Option(help="Only clips of these splits or folds, separated by commas.")]
Force = Annotated[bool, typer.Option("--force", help="Do the work again even where the output stands for it already.")]
NoClobber = Annotated[bool, typer.Option("--no-clobber", help="Refuse to replace an existing file.")]
NoProvenance = Annotated[
    bool, typer.Option("--no-provenance", help="Leave out the command line, so that equal runs give equal bytes.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no messages; errors only.")]
Hop = Annotated[float, typer.Option(min=0.01, help="Seconds between windows.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Windows in one batch.")]


def words(text: str | None) -> list[str] | None:
    """Return the comma-separated words of an option, None where it was not given.

    >>> words("1, 2")
    ['1', '2']
    """
    return [word.strip() for word in text.split(",") if word.strip()] if text else None


def beside(source: Path, kind: str, suffix: str = ".h5") -> Path:
    """Return the default output: `STEM.KIND.h5` beside the input; a stem that names the kind of its file loses it.

    >>> beside(Path("a/esc.features.h5"), "embeddings").as_posix()
    'a/esc.embeddings.h5'
    """
    stem = source.name if source.is_dir() else source.stem
    for known in (".features", ".waves", ".separated", ".embeddings", ".triplets", ".clusters", ".labels"):
        stem = stem.removesuffix(known)
    return source.parent / f"{stem}{'.' if kind else ''}{kind}{suffix}"

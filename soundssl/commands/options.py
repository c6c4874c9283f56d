"""Option types that several commands share, so that one name means one thing everywhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from soundssl.commands import arrays
from soundssl.datasets import Shard, lists

Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", help="File to write; without it, STEM.KIND.h5 beside the input, and its path is printed."
    ),
]
Null = Annotated[bool, typer.Option("-0", "--null", help="The list on standard input is separated by NUL bytes.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds that decoding a file may take; 0: no bound.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first input that gives nothing.")]
AllowSkipped = Annotated[
    bool, typer.Option("--allow-skipped", help="Exit with 0 although inputs were skipped, for make.")
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
Hop = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Seconds between windows. Default: that of the front end: 0.96 (vggish), 1 (mm-videos) or 0.5 (others).",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Windows in one batch.")]

Part = Annotated[
    str | None,
    typer.Option(
        metavar="K/N",
        help="Only part K of N, counted from 1, as 3/8; auto takes both from an array job (SLURM, SGE, AWS Batch), "
        "auto/N K alone (PBS, numbered from 1; Kubernetes). The name of an input alone says which part it belongs to.",
    ),
]
Copy = Annotated[bool, typer.Option("--copy", help="Where files are joined: copy their rows, so that it stands alone.")]


def part_of(text: str | None) -> Shard | None:
    """Return the shard that an option `--part` names, None where it was not given; raise BadParameter.

    >>> part_of("3/8")
    Shard(number=3, total=8)
    """
    if text is None:
        return None
    word, _, count = text.partition("/")
    if word == "auto" and (text == "auto" or (count.isdecimal() and int(count))):
        return Shard(*arrays.task(int(count) if count else None))
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise typer.BadParameter(f"{text!r} is not K/N with K from 1 to N, as 3/8", param_hint="--part")
    return Shard(int(number), int(count))


def words(text: str | None) -> list[str] | None:
    """Return the comma-separated words of an option, None where it was not given.

    >>> words("1, 2")
    ['1', '2']
    """
    return [word.strip() for word in text.split(",") if word.strip()] if text else None


# Endings of a stem that name the kind of its file.
KINDS = (".features", ".waves", ".separated", ".embeddings", ".triplets", ".clusters", ".labels", ".detections")


def beside(source: Path, kind: str, suffix: str = ".h5", part: tuple[int, int] | None = None) -> Path:
    """Return the default output: `STEM.KIND.h5` beside the input; a stem that names the kind of its file loses it.

    Of a part it is `STEM.part-3-of-8.KIND.h5`.

    >>> beside(Path("a/esc.features.h5"), "embeddings").as_posix()
    'a/esc.embeddings.h5'
    """
    stem = source.name if source.is_dir() else source.stem
    for known in (
        ".features",
        ".waves",
        ".separated",
        ".embeddings",
        ".triplets",
        ".clusters",
        ".labels",
        ".detections",
    ):
        stem = stem.removesuffix(known)
    stem += "" if part is None else f".part-{part[0]}-of-{part[1]}"
    return source.parent / f"{stem}{'.' if kind else ''}{kind}{suffix}"


def default_output(source: Path, kind: str, part: tuple[int, int] | None = None) -> Path:
    """Return the output beside the first input: `KIND.h5` here for standard input, beside a folder under its name."""
    if str(source) == "-":
        return beside(Path("media"), kind, part=part) if part else Path(f"{kind}.h5")
    return beside(source.resolve() if source.name in ("", "..") else source, kind, part=part)


def listed(inputs: list[Path], null: bool) -> list[Path]:
    """Return the inputs, `-` replaced by the paths on standard input, one a line or, if `null`, ended by NUL bytes.

    Raises Missing for one that was named and is not there, ListError for a list that is none; one of a list that is not
    there is skipped later, and named then.
    """
    from soundssl import files

    found: list[Path] = []
    for path in inputs:
        if str(path) == "-":
            found += lists.read(sys.stdin.buffer.read(), null)
            continue
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise files.Missing(f"{files.text(path)} does not exist; check the path") from None
        except OSError:  # it is there, and will be skipped with its reason
            pass
        found.append(path)
    return found

"""soundssl search: the windows that sound most like an example, as a table or a page to hear and mark them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from soundssl.commands.options import BatchSize, Device, Force, Hop, NoClobber, Precision, Quiet, Threads
from soundssl.commands.reviewing import write_page
from soundssl.commands.target import PIPE, Target, aim, check_ending
from soundssl.commands.terminal import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soundssl.search import Example, Found, Searched

TABLES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def search(
    collection: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Embeddings file; or features file, with the model to hear it through."),
    ],
    like: Annotated[
        list[str],
        typer.Option(
            metavar="CLIP@SECOND",
            help="Example: a media file, or a clip of the file by its key, and the second to hear, as clip.wav@3.2; "
            "without one, the middle. May be given several times: of each window the nearest of them counts.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option("-m", "--model", help="Model of the embeddings; needed for features, and for other media files."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Table to write, .csv, .tsv, .jsonl or .parquet. Default: standard output."
        ),
    ] = None,
    format_: Annotated[
        Literal["csv", "tsv", "jsonl", "parquet"] | None,
        typer.Option("--format", help="Format of the table. Default: by the ending of its name, else csv."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            help="Write this HTML file too, to hear what was found beside the example and mark it; with the sheet that "
            "it saves, label-clusters TABLE --answers makes labels."
        ),
    ] = None,
    of_class: Annotated[
        str, typer.Option("--class", metavar="NAME", help="What the examples are, for the column class and the page.")
    ] = "",
    top: Annotated[int, typer.Option(min=1, help="Windows to find.")] = 20,
    per_recording: Annotated[int, typer.Option(min=0, help="Of a recording at most so many; 0: no bound.")] = 0,
    hop: Hop = None,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    force: Force = False,
    no_clobber: NoClobber = False,
    quiet: Quiet = False,
) -> None:
    """Find the windows that sound most like an example, the best first.

    Every window is compared, by the cosine of its vector and that of the example; the file may be larger than memory. A
    window that overlaps the example or a better one is left out. Similarities are no probabilities, and those of two
    models do not compare.

    Columns: path, start_s, end_s, class, similarity, example.

    Examples:

    soundssl search embeddings.h5 --like recordings/a.wav@3.2

    soundssl search embeddings.h5 --like call.wav@0.5 -m model.safetensors --class curlew -o found.csv --page found.html
    """
    from soundssl import device as hardware
    from soundssl import search as library

    target, sheet, name = _targets(collection, model, output, page, format_, force, no_clobber, quiet)
    with hardware.start(device, precision, threads) as accelerator:
        searched = _searched(collection, model, hop, batch_size, accelerator)
        examples = [searched.example(each) for each in like]
        found = library.search(searched, examples, top, per_recording, target.terminal)
    _write(target, found, examples, name, of_class)
    if sheet:
        _show(sheet, found, examples, of_class)
    best = f", similarity {found[0].similarity:.3f} to {found[-1].similarity:.3f}" if found else ""
    target.terminal.say(f"{len(found)} of {len(searched.clip)} windows{best}")


def _targets(
    collection: Path, model: Path | None, output: Path | None, page: Path | None, name: str | None,
    force: bool, no_clobber: bool, quiet: bool,
) -> tuple[Target, Target | None, str]:  # fmt: skip
    """Return where the table and the page go, and the format of the table; refuse what cannot be, before any work."""
    from soundssl import files

    inputs = [path for path in (collection, model) if path]
    flags = {"force": force, "no_clobber": no_clobber, "quiet": quiet}
    target = aim("search", output or Path(PIPE), Path(PIPE), inputs, through=True, **flags)
    if name is None and not target.piped:
        check_ending(target.path, "CSV", "TSV", "JSON lines", "Parquet")
    name = name or TABLES.get(target.path.suffix.lower(), "csv")
    if name == "parquet":
        if target.piped:
            raise typer.BadParameter("Parquet cannot be sent through a pipe; name a file", param_hint="--output")
        files.require_parquet()
    sheet = aim("search", page, page, [*inputs, target.path], "HTML", through=True, **flags) if page else None
    return target, sheet, name


def _searched(collection: Path, model: Path | None, hop: float | None, batch_size: int, accelerator) -> Searched:
    """Return the windows to search, through the model where there is one."""
    from soundssl import files
    from soundssl.model import Model
    from soundssl.search import Searched

    kind = files.kind_of(collection)
    if kind != "features":
        if hop is not None:
            raise typer.BadParameter("is of features; embeddings have theirs", param_hint="--hop")
        source: files.Embeddings | files.Features = files.Embeddings(collection)
    else:
        if model is None:
            raise typer.BadParameter("Missing option '-m' / '--model': features are searched through a model")
        source = files.Features(collection)
    return Searched(source, Model(files.read_model(model), accelerator) if model else None, hop, batch_size)


def _write(target: Target, found: Sequence[Found], examples: Sequence[Example], name: str, of_class: str) -> None:
    """Write the table: for people where it goes to a terminal."""
    from soundssl import files, search

    if target.piped and sys.stdout.isatty():
        rows = [[each.path, f"{each.start:.2f}", f"{each.end:.2f}", f"{each.similarity:.3f}"] for each in found]
        print_table(["path", "start_s", "end_s", "similarity"], rows)
        return
    content = search.write(found, examples, name, of_class)
    if target.piped:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    with files.replace(target.path, through=True) as partial:
        partial.write_bytes(content)


def _show(sheet: Target, found: Sequence[Found], examples: Sequence[Example], of_class: str) -> None:
    """Write the page: each window that was found, beside its example."""
    from soundssl import SoundsslError
    from soundssl.labelling.page import Group
    from soundssl.labelling.sheets import Question

    if not found:
        raise SoundsslError("nothing was found to show in a page; the file has no other window")
    groups = []
    for each in found:
        like = examples[each.example]
        asked = Question(None, each.path, each.path, round(each.start, 6), round(each.end, 6))
        beside = Question(None, like.path, like.path, like.start, like.end)
        groups.append(Group(asked, [beside], f"similarity {each.similarity:.3f}", of_class or like.name))
    write_page(sheet, groups, [of_class] if of_class else list(dict.fromkeys(each.name for each in examples)))

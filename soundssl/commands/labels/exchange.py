"""soundssl labels import and export: events in the formats of other programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from soundssl.commands.event_files import event_format, event_target
from soundssl.commands.labels.remaking import Given, Made
from soundssl.commands.options import Force, NoClobber, NoProvenance, Quiet, beside
from soundssl.commands.target import Target, aim

if TYPE_CHECKING:
    from soundssl.detection.exchange import Imported

SHOWN = 5  # recordings that are named one by one
Format = Literal["csv", "tsv", "jsonl", "parquet", "raven", "audacity", "label-studio", "aoef", "dcase", "audioset"]
Formatted = Annotated[
    Format | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="csv, tsv, jsonl, parquet, raven, audacity, label-studio, aoef, dcase or audioset. Default: what the "
        "ending of the file says.",
    ),
]


def import_(
    events: Annotated[
        list[Path],
        typer.Argument(help="Files of events; folders are searched through for the endings of the format."),
    ],
    format_: Formatted = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Features file whose clips the labels are to be of, found by key, path or name of a file."),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(help="ontology.json that says the names of classes which the events give by identifier."),
    ] = None,
    output: Made = None,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Make labels of events that were annotated in another program.

    A recording that is annotated is annotated whole: a class without an event is absent there. A label track of
    Audacity and a file that names no recording are of the recording that their own name says, as detect and export
    write it: a.wav.labels.txt of a.wav. Rows of AudioSet's evaluation grid that say PRESENT or NOT_PRESENT become a
    segment each, and say nothing of other classes.

    Without --features keys are the names in the events. With it, an event is cut at the ends of its clip; recordings
    that are no clips are named, and the exit status then is 3.

    Example:

    soundssl labels import tables/ --format raven --features features.h5 -o strong.labels.h5
    """
    from soundssl import files
    from soundssl.labels import labelset

    sources = _sources(events, format_)
    others = [files.require(path) for path in (features, names) if path]
    target = aim(
        "labels import", output, beside(events[0], "labels"), [*others, *(path for path, _ in sources)],
        force=force, no_clobber=no_clobber, no_provenance=no_provenance, quiet=quiet,
    )  # fmt: skip
    own = [] if features is None else [files.identity("features", features, files.attributes_of(features))]
    read = [path for path, _ in sources] + ([] if names is None else [names])
    made_from = files.digest("labels", "import", own, format_, [[path.name, path.read_bytes().hex()] for path in read])
    if target.stands(made_from):
        return
    found = _imported(target, sources, format_, features, names)
    about = {"verb": "import", "options": json.dumps({"format": format_})}
    with target.create("labels", own, made_from, about) as sink:
        labelset.write(sink, found.labels)
    count = 0 if found.labels.events is None else len(found.labels.events["onset"])
    target.finish(f"{count} events of {len(found.labels.classes)} classes, {len(found.labels)} segments")
    if found.unknown:
        raise typer.Exit(3)


def _sources(events: list[Path], name: str | None) -> list[tuple[Path, str]]:
    """Return the files to read, each with the recording that its own name says."""
    from soundssl import files
    from soundssl.detection import formats

    found: list[tuple[Path, str]] = []
    for path in events:
        if not path.is_dir():
            found.append((files.require(path), formats.recording_of(path.name, name)))
            continue
        if name is None:
            raise typer.BadParameter(f"{files.text(path)} is a folder; say what its files are", param_hint="--format")
        ending = formats.FORMATS[name].suffix
        inside = sorted(file for file in path.rglob("*") if file.name.endswith(ending) and file.is_file())
        if not inside:
            raise files.Missing(f"{files.text(path)} has no file *{ending}; give the files themselves")
        found += [(file, formats.recording_of(file.relative_to(path).as_posix(), name)) for file in inside]
    return found


def _imported(
    target: Target, sources: list[tuple[Path, str]], name: str | None, features: Path | None, names: Path | None
) -> Imported:
    from soundssl import files
    from soundssl.datasets import ontology
    from soundssl.detection import exchange

    read = exchange.read(sources, name, None if names is None else ontology.read(names).names)
    clips = None if features is None else exchange.clips_of(files.Features(features))
    if read.ratings:
        found = exchange.of_ratings(read.ratings, clips)
    else:
        found = exchange.to_labels(read.events, read.silent, clips)
    for path in found.unknown[:SHOWN]:
        target.terminal.warn(f"{path} is no clip of the features; it is left out")
    if len(found.unknown) > SHOWN:
        target.terminal.warn(f"{len(found.unknown) - SHOWN} more recordings are no clips of the features")
    if found.shortened or found.beyond:
        target.terminal.warn(
            f"{found.shortened} events go on beyond the end of their recording and end with it; {found.beyond} lie "
            f"beyond it and are left out"
        )
    return found


def export(
    labels: Given,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write, whose ending says the format; a folder, with / at its end, for a file a recording; - "
            "for standard output. Default: STEM.events.csv beside the input.",
        ),
    ] = None,
    format_: Formatted = None,
    features: Annotated[
        Path | None, typer.Option(help="Features file of the clips: where they lie in which file, and how long.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Write labels of whole clips too, as events from start to end.")
    ] = False,
    force: Force = False,
    no_clobber: NoClobber = False,
    quiet: Quiet = False,
) -> None:
    """Write the events of labels for another program.

    Events are those of the labels' event columns; a class that is present in a segment with start and end, and has no
    event there, is an event of that length. Labels of whole clips have no times; they are left out and counted, unless
    --whole. Without --features recordings are named by the keys of the labels.

    Example:

    soundssl labels export strong.labels.h5 --format raven -o tables/
    """
    from soundssl import files
    from soundssl.detection import exchange
    from soundssl.detection import output as writing
    from soundssl.labels import labelset

    inputs = [files.require(path) for path in (labels, features) if path]
    default = beside(labels, "events", ".csv")
    target, folder = event_target("labels export", output, default, inputs, force, no_clobber, quiet)
    name = event_format(target, folder, format_)
    if name == "labels":
        raise typer.BadParameter("labels are what is exported; name a format with --format", param_hint="--output")
    given = labelset.of_file(labels)
    clips = None if features is None else exchange.clips_of(files.Features(features))
    found, left = exchange.of_labels(given, clips, whole)
    recordings = exchange.recordings_of(given, found, clips)
    count = writing.write(sys.stdout.buffer if target.piped else target.path, name, found, recordings, folder=folder)
    if left:
        target.terminal.warn(f"{left} labels of whole clips have no times and are left out; --whole writes them too")
    target.finish(f"{len(found)} events of {len({event.name for event in found})} classes in {count} recordings")

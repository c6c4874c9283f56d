"""soundssl separate: recordings to tracks, whole, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from soundssl.commands.options import (
    AllowSkipped,
    Device,
    Force,
    Jobs,
    NoClobber,
    NoProvenance,
    Null,
    Output,
    Part,
    Precision,
    Quiet,
    Strict,
    Threads,
    Timeout,
    default_output,
    listed,
    part_of,
)
from soundssl.commands.target import aim


def separate(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="One features file of waveforms; or media files, folders (searched through), or - for a list of paths "
            "on standard input."
        ),
    ],
    model: Annotated[
        list[Path],
        typer.Option("-m", "--model", help="Separator written by train --objective mixit; each is a processor."),
    ],
    output: Output = None,
    wav: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write mixtures and tracks as WAV files below this folder too."),
    ] = None,
    length: Annotated[float, typer.Option(min=0.1, help="Seconds separated at a time.")] = 10.0,
    overlap: Annotated[float, typer.Option(min=0.01, help="Seconds by which they overlap at least.")] = 2.0,
    silence: Annotated[
        float, typer.Option(max=0, help="Level in dB re the mixture below which a track is marked silent (inferred).")
    ] = -30.0,
    onscreen: Annotated[
        bool,
        typer.Option(
            "--onscreen",
            help="Keep two tracks alone: what is on screen, and the rest; of a model of --objective onscreen.",
        ),
    ] = False,
    attention: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Draw where the tracks look, in the pictures of the first --length seconds, as PNG below this folder.",
        ),
    ] = None,
    null: Null = False,
    part: Part = None,
    timeout: Timeout = 3600,
    jobs: Jobs = 0,
    strict: Strict = False,
    allow_skipped: AllowSkipped = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Take recordings apart into tracks that sum to them.

    Writes a features file of waveforms: every mixture, and beside it its tracks, each with its parent, its number, the
    processor that made it and its level; featurize turns it into log-mel frames. Recordings may be of any length. With
    several models each recording is separated by all of them, so that training may draw one. A run that was killed goes
    on where it was when the same command is given again. Parts are joined by featurize, as those of any waveforms.

    A model of --objective onscreen looks at the pictures of videos: clip/onscreen says how probably a track is seen.

    Examples:

    soundssl separate videos/ -m onscreen.safetensors --onscreen --wav listen/ -o onscreen.h5

    soundssl separate waves.h5 -m separator.safetensors -o separated.h5

    soundssl separate videos/ -m early.safetensors -m late.safetensors -o separated.h5 --wav listen/

    soundssl separate waves.h5 -m separator.safetensors --part 3/8 -o part-3.h5
    """
    from soundssl import extraction, files, separation
    from soundssl.separation.onscreen import attend

    if overlap > length / 2:
        raise typer.BadParameter(f"{overlap} s is more than half of --length {length} s", param_hint="--overlap")
    _check_folders(wav, attention, model)
    shard = part_of(part)
    flags = {"force": force, "no_clobber": no_clobber, "no_provenance": no_provenance, "quiet": quiet}
    target = aim("separate", output, default_output(inputs[0], "separated", shard), [*inputs, *model], **flags)
    waveforms = extraction.given_waveforms(inputs)
    found = separation.separate(
        inputs if waveforms else extraction.collect(listed(inputs, null), outputs=[target.path]),
        model,
        target.path,
        length=length,
        overlap=overlap,
        silence=silence,
        onscreen=onscreen,
        shard=shard,
        force=force,
        strict=strict,
        jobs=jobs,
        timeout=timeout,
        device=device,
        precision=precision,
        threads=threads,
        progress=target.terminal,
        command=target.provenance,
    )
    target.up_to_date() if found.stood else target.finish(str(found))
    if wav:
        target.terminal.say(f"{separation.export(target.path, wav)} WAV files in {files.text(wav)}")
    if attention:
        count = attend(
            target.path, model[0], attention, seconds=length, device=device, precision=precision, threads=threads,
            progress=target.terminal,
        )  # fmt: skip
        target.terminal.say(f"{count} pictures in {files.text(attention)}")
    if found.skipped and not allow_skipped:
        raise typer.Exit(3)


def _check_folders(wav: Path | None, attention: Path | None, model: list[Path]) -> None:
    """Refuse folders that are files, and pictures of a model that cannot see, before any work."""
    from soundssl import files, separation

    for folder in filter(None, (wav, attention)):
        separation.guard_folder(folder)
    if attention and len(model) > 1:
        raise typer.BadParameter("pictures are of one model; leave out the others", param_hint="--attention")
    if attention and "onscreen" not in files.read_model(model[0]).config.get("heads", {}):
        raise files.FormatError(f"{files.text(model[0])} {separation.NO_CLASSIFIER}")

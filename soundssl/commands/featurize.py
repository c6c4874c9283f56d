"""soundssl featurize: media files to log-mel frames and images, or to waveforms, and waveforms to log-mel frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from soundssl.commands.joining import join
from soundssl.commands.options import (
    AllowSkipped,
    Copy,
    Force,
    Jobs,
    NoClobber,
    NoProvenance,
    Null,
    Output,
    Part,
    Quiet,
    Strict,
    Timeout,
    beside,
    default_output,
    listed,
    part_of,
)
from soundssl.commands.target import aim, check_ending
from soundssl.datasets import DATASETS, Clip

if TYPE_CHECKING:
    from soundssl.ops.spectrogram import FrontEnd


def featurize(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Media files, folders (searched through), or - for a list of paths on standard input; or one features "
            "file of waveforms; or several features files, to join them."
        ),
    ],
    output: Output = None,
    dataset: Annotated[
        str | None, typer.Option(help="Read a collection: " + "; ".join(f"{k}: {v}" for k, v in DATASETS.items()) + ".")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="With --dataset csv: the folder that paths are relative to.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="With --dataset: the labels file to write. Default: beside the output.")
    ] = None,
    null: Null = False,
    representation: Annotated[
        Literal["logmel", "waveform"], typer.Option(help="What to store: log-mel frames, or the waveform.")
    ] = "logmel",
    preset: Annotated[
        Literal["vggish", "mm-videos", "fsd50k", "uclser20", "panns", "fsdnoisy18k", "bird", "bat"],
        typer.Option(
            help="Front end: vggish (64 bands, 10 ms, 16 kHz), mm-videos (Hamming window, 1 s; inferred: FFT, band "
            "edges and offset), uclser20 (96 bands, 22.05 kHz, levelled), fsd50k (as uclser20, natural logarithm, not "
            "levelled; inferred), fsdnoisy18k (44.1 kHz, 40 ms every 20 ms, windows of 2 s; inferred: analysis window "
            "and mel scale), panns (32 kHz, 1,024 samples, decibels, 50 Hz to 14 kHz); ours: bird (32 kHz, 150 Hz to "
            "15 kHz), bat (256 kHz, 10 to 120 kHz, 1 ms). Of a waveform it sets the sample rate, and what --short does."
        ),
    ] = "vggish",
    frame_hop: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds between frames. Default: that of the front end, 0.01.")
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(min=1000, help="Samples a second to resample to. Default: that of the front end.")
    ] = None,
    fmin: Annotated[float | None, typer.Option(min=0, help="Where the lowest band begins, in Hz.")] = None,
    fmax: Annotated[
        float | None, typer.Option(min=1, help="Where the highest band ends, in Hz; at most half the sample rate.")
    ] = None,
    bands: Annotated[int | None, typer.Option(min=1, help="Number of mel bands.")] = None,
    window_length: Annotated[
        float | None, typer.Option(min=0.01, help="Milliseconds that one frame analyses; the FFT follows.")
    ] = None,
    window: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds of a window: what an encoder sees at once.")
    ] = None,
    channel: Annotated[
        str,
        typer.Option(help="mix averages the channels; each makes a clip of each; a number, from 1, takes that one."),
    ] = "mix",
    clip: Annotated[float, typer.Option(min=0, help="Seconds to cut recordings into; 0 leaves them whole.")] = 0,
    short: Annotated[
        Literal["skip", "pad", "tile"] | None,
        typer.Option(
            help="What becomes of a recording too short for one window: skip, pad (silence) or tile (repeat it). "
            "Default: skip; with --preset fsd50k, uclser20 or fsdnoisy18k tile, as their papers do."
        ),
    ] = None,
    truncated: Annotated[
        Literal["keep", "skip"],
        typer.Option(
            help="What becomes of a file that ends before its time: keep what can be decoded, marked; or skip."
        ),
    ] = "keep",
    damaged: Annotated[
        Literal["keep", "skip"],
        typer.Option(
            help="What becomes of a file that is broken in the middle: keep it, with silence for what is lost; or skip."
        ),
    ] = "keep",
    images: Annotated[
        bool, typer.Option(help="Store pictures where there is a video stream, beside log-mel frames and waveforms.")
    ] = True,
    image_rate: Annotated[
        float, typer.Option(min=0.01, max=60, help="Pictures a second: 1, or 3 for visual labels (MM-Videos).")
    ] = 1.0,
    image_size: Annotated[
        int,
        typer.Option(
            min=32,
            help="Pixels of a side of an image, a multiple of 4 (inferred); the whole picture is scaled to a square.",
        ),
    ] = 128,
    store: Annotated[
        Literal["float16", "float32"] | None,
        typer.Option(help="Number type of the stored frames. Default: float16, of waveforms float32."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Decode only what is new or changed; take the rest from the output.")
    ] = False,
    part: Part = None,
    copy: Copy = False,
    timeout: Timeout = 3600,
    jobs: Jobs = 0,
    strict: Strict = False,
    allow_skipped: AllowSkipped = False,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Turn media files into log-mel frames, and video into images.

    Sound is mixed to one channel, resampled to 16 kHz and cut into frames as VGGish does: 64 mel bands every 10 ms.
    What is above the highest band, 7.5 kHz, is not heard; one line says so where much of the sound is. --preset names
    another front end, and options such as --fmax change single numbers of any; what is given wins over the preset. A
    file that cannot be decoded is named with its reason, kept in the output under skipped/, and costs nothing else; the
    exit status then is 3. A run that was killed goes on where it was when the same command is given again.

    With --representation waveform the resampled sound itself is kept, for train --objective mixit or onscreen and for
    separate, with the pictures of videos; such a file, with its tracks if it has any, is an input in turn.

    Given several features files, it joins them: the output refers to their rows, so they must stay where they are, or
    with --copy holds them itself.

    Examples:

    soundssl featurize videos/ -o features.h5

    soundssl featurize --representation waveform videos/ -o waves.h5

    soundssl featurize separated.h5 -o features.h5

    find videos -name '*.mp4' -print0 | soundssl featurize -0 - -o features.h5

    soundssl featurize --dataset esc50 ESC-50/ -o esc50.features.h5 --labels esc50.labels.h5

    soundssl featurize videos/ --part 3/8 -o part-3.h5

    soundssl featurize part-*.h5 -o features.h5
    """
    from soundssl import extraction, files

    _check(inputs, dataset, root, labels, channel, image_size)
    if dataset is None and (copy or len(inputs) > 1) and files.are_features(inputs):
        join("features", inputs, output, copy, force, no_clobber, no_provenance, quiet)
        return
    shard = part_of(part)
    flags = {"force": force, "no_clobber": no_clobber, "no_provenance": no_provenance, "quiet": quiet}
    target = aim("featurize", output, default_output(inputs[0], "features", shard), inputs, **flags)
    numbers = {"sample_rate": sample_rate, "fmin": fmin, "fmax": fmax, "bands": bands, "window": window}
    numbers |= {"window_length": window_length, "frame_hop": frame_hop}
    front_end = _front_end(representation, preset, numbers)
    recipe = extraction.Recipe(
        front_end, images, image_size, channel, clip, short or _short(preset), truncated, damaged, image_rate
    )
    source: Path | dict[str, Clip] = inputs[0]
    table: Path | None = None
    if dataset is not None or not extraction.given_waveforms(inputs):
        table = labels or beside(target.path, "labels")
        source = extraction.collect(listed(inputs, null), dataset, root, [target.path, table])
        table = _table(source, table, labels is not None, target.path, no_clobber)
    made = extraction.featurize(
        source, target.path, recipe, store=store, labels=table, shard=shard, update=update, force=force, strict=strict,
        jobs=jobs, timeout=timeout, progress=target.terminal, command=target.provenance,
    )  # fmt: skip
    target.up_to_date() if made.stood else target.finish(str(made))
    if made.skipped and not allow_skipped:
        raise typer.Exit(3)


def _check(
    inputs: list[Path], dataset: str | None, root: Path | None, labels: Path | None, channel: str, image_size: int
) -> None:
    """Refuse, as usage errors, options and inputs that do not go together."""
    from soundssl.extraction.sources import require_folder

    if dataset is not None and dataset not in DATASETS:
        raise typer.BadParameter(f"choose from {', '.join(DATASETS)}", param_hint="--dataset")
    if dataset is None and labels is not None:
        raise typer.BadParameter("only --dataset knows classes", param_hint="--labels")
    if dataset != "csv" and root is not None:
        raise typer.BadParameter("only --dataset csv has paths that are relative to it", param_hint="--root")
    if root is not None:
        require_folder(root)
    if dataset is not None and len(inputs) != 1:
        raise typer.BadParameter("takes one folder or table", param_hint="--dataset")
    if channel not in ("mix", "each") and not (channel.isdecimal() and int(channel)):
        raise typer.BadParameter(f"{channel!r} is not mix, each, or a number from 1", param_hint="--channel")
    if image_size % 4:
        raise typer.BadParameter(f"{image_size} is not a multiple of 4", param_hint="--image-size")


def _front_end(representation: str, preset: str, numbers: dict[str, Any]) -> FrontEnd:
    """Return the front end of a preset, or waveforms at its rate, with the numbers that were given in place of its."""
    from soundssl.ops import front_ends
    from soundssl.ops.spectrogram import PRESETS, WAVEFORM

    if representation == "logmel":
        return front_ends.changed(PRESETS[preset], **numbers)
    rate = {"sample_rate": numbers["sample_rate"] or PRESETS[preset].sample_rate}
    return front_ends.changed(WAVEFORM, **{**numbers, **rate})


def _short(preset: str) -> str:
    """Return what becomes of short recordings where nobody says."""
    from soundssl.ops.spectrogram import TILING

    return "tile" if preset in TILING else "skip"


def _table(clips: dict[str, Clip], table: Path, asked: bool, output: Path, no_clobber: bool) -> Path | None:
    """Return the labels file to write, None where nothing is said of classes; refuse one that is no place for it."""
    from soundssl import files

    if all(clip.classes is None for clip in clips.values()):
        if asked:
            raise typer.BadParameter("the collection says nothing of classes; leave it out", param_hint="--labels")
        return None
    if table.absolute() == output.absolute():
        raise typer.BadParameter(f"{files.text(table)} is also the features file", param_hint="--labels")
    check_ending(table, "HDF5", option="--labels")
    files.guard(table, no_clobber)
    return table

"""soundssl featurize: media files to log-mel frames and images, or to waveforms, and waveforms to log-mel frames."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from soundssl import SoundsslError, __version__
from soundssl.commands import decoding, target, terminal, waveforms
from soundssl.commands.decoding import IMAGE_SIZE, Recipe, decode, source_digest
from soundssl.commands.joining import join
from soundssl.commands.options import (
    Copy,
    Force,
    Jobs,
    NoClobber,
    NoProvenance,
    Output,
    Part,
    Quiet,
    belongs,
    beside,
    part_of,
)
from soundssl.datasets import DATASETS

STORES = {"float16": "f2", "float32": "f4"}


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
    null: Annotated[
        bool, typer.Option("-0", "--null", help="The list on standard input is separated by NUL bytes.")
    ] = False,
    representation: Annotated[
        Literal["logmel", "waveform"], typer.Option(help="What to store: log-mel frames, or the waveform.")
    ] = "logmel",
    preset: Annotated[
        Literal["vggish", "mm-videos", "fsd50k", "uclser20"],
        typer.Option(
            help="Front end: vggish (64 bands, 10 ms, 16 kHz), mm-videos (Hamming window, 1 s; inferred: FFT, band "
            "edges and offset), uclser20 (96 bands, 22.05 kHz, levelled), fsd50k (as uclser20, natural logarithm, not "
            "levelled; inferred)."
        ),
    ] = "vggish",
    frame_hop: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds between frames. Default: that of the front end, 0.01.")
    ] = None,
    channel: Annotated[
        str,
        typer.Option(help="mix averages the channels; each makes a clip of each; a number, from 1, takes that one."),
    ] = "mix",
    clip: Annotated[float, typer.Option(min=0, help="Seconds to cut recordings into; 0 leaves them whole.")] = 0,
    short: Annotated[
        Literal["skip", "pad"], typer.Option(help="What becomes of a recording too short for one window.")
    ] = "skip",
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
    images: Annotated[bool, typer.Option(help="Store one image a second where there is a video stream.")] = True,
    image_size: Annotated[
        int, typer.Option(min=32, help="Pixels of a side of an image, a multiple of 4 (inferred).")
    ] = IMAGE_SIZE,
    store: Annotated[
        Literal["float16", "float32"] | None,
        typer.Option(help="Number type of the stored frames. Default: float16, of waveforms float32."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Decode only what is new or changed; take the rest from the output.")
    ] = False,
    part: Part = None,
    copy: Copy = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds that one file may take; 0 for no bound.")] = 3600,
    jobs: Jobs = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first input that gives no clip.")] = False,
    allow_skipped: Annotated[
        bool, typer.Option("--allow-skipped", help="Exit with 0 although inputs were skipped, for make.")
    ] = False,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Turn media files into log-mel frames, and video into images.

    Sound is mixed to one channel, resampled to 16 kHz and cut into frames as VGGish does: 64 mel bands every 10 ms. A
    file that cannot be decoded is named with its reason, kept in the output under skipped/, and costs nothing else; the
    exit status then is 3. A run that was killed goes on where it was when the same command is given again.

    With --representation waveform the resampled sound itself is kept, for train --objective mixit and for separate;
    such a file, with its tracks if it has any, is an input in turn.

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
    from soundssl import files
    from soundssl.ops.spectrogram import PRESETS, WAVEFORM

    _check_collection(inputs, dataset, root, labels)
    if dataset is None and (copy or len(inputs) > 1) and _are_features(inputs):
        join("features", inputs, output, copy, force, no_clobber, no_provenance, quiet)
        return
    _check_channel(channel)
    if image_size % 4:
        raise typer.BadParameter(f"{image_size} is not a multiple of 4", param_hint="--image-size")
    piece = part_of(part)
    implied, output = output is None, output or default_output(inputs[0], "features", piece)
    front_end = WAVEFORM if representation == "waveform" else PRESETS[preset]
    if frame_hop is not None and representation == "logmel":
        front_end = replace(front_end, hop_length=max(1, round(frame_hop * front_end.sample_rate)))
    store = store or ("float32" if representation == "waveform" else "float16")
    table = labels or beside(output, "labels")
    if dataset is None and waveforms.given(inputs):
        work = waveforms.work(inputs[0], output, front_end, store, images, no_clobber, piece)
    else:
        clips = _clips(inputs, dataset, root, null, _finished([output, table]))
        _guard(output, table, _labelled(clips), labels is not None, clips, no_clobber)
        work = media_work(
            clips, Recipe(front_end, images, image_size, channel, clip, short, truncated, damaged), store, piece
        )
    guard_part(output, work.attributes.get("part"), force)
    labelled, made_from = _labelled(work.clips), work.made_from
    said = files.digest(made_from, [[key, one.classes] for key, one in work.clips.items()])  # what labels are made from
    if labelled and not force and files.made_from(output) == made_from and files.made_from(table) != said:
        _write_labels(table, work, output, said, no_provenance)
        terminal.say("featurize", f"{files.text(table)} is made again", quiet)
    if terminal.done_before("featurize", output, made_from, force, quiet, implied):
        return

    if force:
        files.Store.begin_afresh(output)
    options = files.digest(work.attributes, store, __version__) if work.sources else made_from
    with contextlib.closing(files.Store(output, work.attributes, STORES[store], options)) as parts:
        if not force:
            _take_over(parts, work, update, quiet)
        prepare = partial(work.prepare, parts.folder, front_end, parts.dtype, images)
        decode("featurize", parts, work.clips, prepare, jobs, timeout, strict, quiet, work.sources)
        skipped = sum("reason" in entry for entry in parts.done.values())
        if skipped == len(work.clips) and not piece:
            parts.discard()
            raise SoundsslError(f"none of {len(work.clips)} inputs gave a clip; nothing was written")
        made = parts.lay_out(
            list(work.clips), work.inputs, work.image_size, target.provenance_of(no_provenance), made_from
        )
    if labelled:
        _write_labels(table, work, output, said, no_provenance)
    terminal.say("featurize", _summary(made, skipped, front_end.frame_rate), quiet)
    terminal.print_path(output, implied)
    if skipped and not allow_skipped:
        raise typer.Exit(3)


def find(inputs: list[Path], null: bool, output: Path, no_clobber: bool) -> dict:
    """Return the clips of media files and folders by key; refuse an output that cannot be written or is an input."""
    clips = _clips(inputs, None, None, null, _finished([output]))
    _guard(output, output, False, False, clips, no_clobber)
    return clips


def media_work(clips: dict, recipe: Recipe, store: str, part: tuple[int, int] | None = None) -> waveforms.Work:
    """Return the work of decoding clips of media files, or of them one part."""
    from soundssl import files

    clips = {key: one for key, one in clips.items() if belongs(key, part)}
    attributes = {**recipe.attributes(), **({"part": f"{part[0]}/{part[1]}"} if part else {})}
    sources = {key: source_digest(one) for key, one in clips.items()}
    made_from = files.digest("features", sorted(sources.values()), attributes, store)
    origin = [{"role": "media", "file": f"{len(clips)} files", "uuid": files.digest(sorted(sources.values()))}]
    return waveforms.Work(
        clips, attributes, made_from, origin, recipe.sides, partial(decoding.prepare, recipe), sources
    )


def _labelled(clips: dict) -> bool:
    return any(clip.classes is not None for clip in clips.values())


def _are_features(inputs: list[Path]) -> bool:
    """Return whether all inputs are features files; raise FormatError where some are."""
    from soundssl import files

    kinds = [path.is_file() and files.kind_of(path) == "features" for path in inputs]
    if any(kinds) and not all(kinds):
        path = inputs[kinds.index(not kinds[0])]
        raise files.FormatError(
            f"{files.text(path)} is {'' if kinds[0] else 'a features file, not media, '}unlike {files.text(inputs[0])}"
            f"{', no features file' if kinds[0] else ''}; give either media or features files to join"
        )
    return all(kinds)


def _check_channel(channel: str) -> None:
    if channel not in ("mix", "each") and not (channel.isdecimal() and int(channel)):
        raise typer.BadParameter(f"{channel!r} is not mix, each, or a number from 1", param_hint="--channel")


def guard_part(output: Path, part: object, force: bool) -> None:
    """Refuse to replace one part by another: jobs of an array that all name one output would lose all but the last."""
    from soundssl import files

    there = files.attributes_of(output).get("part")
    if there is not None and part is not None and there != part and not force:
        raise files.Unusable(
            f"{files.text(output)} holds part {there}, this is part {part}; name an output for each part"
        )


def _take_over(parts, work: waveforms.Work, update: bool, quiet: bool) -> None:
    """Take from an interrupted run, and to `update` from the finished output, what still holds; say what does not."""
    from soundssl import files

    name = files.text(parts.output)
    if parts.forgotten:
        terminal.say("featurize", f"what a run left unfinished is begun again: {', '.join(parts.forgotten)}", quiet)
    parts.keep(work.sources)
    decoding.say_known("featurize", parts, work.clips, quiet)
    if files.made_from(parts.output) is None or files.attributes_of(parts.output).get("kind") != "features":
        return
    if changed := files.differences(parts.output, parts.attributes, parts.dtype):
        terminal.say("featurize", f"{name} is made again: {', '.join(changed)}", quiet)
    elif not update:
        terminal.say("featurize", f"{name} is made again: its inputs have changed; --update takes over the rest", quiet)
    else:
        taken = parts.adopt(work.sources)
        terminal.say("featurize", f"{taken} of {len(work.clips)} inputs are taken over from {name}", quiet)


def _summary(made: list[dict], skipped: int, frame_rate: float) -> str:
    """Say in one line what became of the inputs; what is no error is only counted."""
    hours = sum(clip["count"][0] for clip in made) / frame_rate / 3600
    counts = {
        "silent": sum(clip.get("peak") == 0 for clip in made),
        "clipped": sum(clip.get("clipped", 0) > 0 for clip in made),
        "truncated": sum(clip.get("truncated", 0) for clip in made),
    }
    others = "".join(f", {count} {name}" for name, count in counts.items() if count)
    return f"{len(made)} clips, {hours:.2f} hours, {skipped} inputs skipped{others}"


def default_output(source: Path, kind: str, part: tuple[int, int] | None = None) -> Path:
    """Return the output beside the first input: `KIND.h5` here for standard input, beside a folder under its name."""
    if str(source) == "-":
        return beside(Path("media"), kind, part=part) if part else Path(f"{kind}.h5")
    return beside(source.resolve() if source.name in ("", "..") else source, kind, part=part)


def _check_collection(inputs: list[Path], dataset: str | None, root: Path | None, labels: Path | None) -> None:
    """Refuse, as usage errors, options and inputs that do not go together."""
    if dataset is not None and dataset not in DATASETS:
        raise typer.BadParameter(f"choose from {', '.join(DATASETS)}", param_hint="--dataset")
    if dataset is None and labels is not None:
        raise typer.BadParameter("only --dataset knows classes", param_hint="--labels")
    if dataset != "csv" and root is not None:
        raise typer.BadParameter("only --dataset csv has paths that are relative to it", param_hint="--root")
    if root is not None:
        _require_folder(root)
    if dataset is not None and len(inputs) != 1:
        raise typer.BadParameter("takes one folder or table", param_hint="--dataset")


def _finished(outputs: list[Path]) -> set[str]:
    """Return those outputs that an earlier run wrote: they may lie in a folder of media and are none."""
    from soundssl import files

    return {os.path.abspath(path) for path in outputs if files.made_from(path) is not None}


def _guard(output: Path, table: Path, labelled: bool, asked: bool, clips: dict, no_clobber: bool) -> None:
    """Refuse outputs that cannot be written, or would replace an input, before any work."""
    from soundssl import files

    media = [clip.path for clip in clips.values()]
    files.guard(output, no_clobber)
    files.guard_inputs(output, media)
    if asked and not labelled:
        raise typer.BadParameter("the collection says nothing of classes; leave it out", param_hint="--labels")
    if labelled:
        if os.path.abspath(table) == os.path.abspath(output):
            raise typer.BadParameter(f"{files.text(table)} is also the features file", param_hint="--labels")
        files.guard(table, no_clobber)
        files.guard_inputs(table, media)


def _clips(inputs: list[Path], dataset: str | None, root: Path | None, null: bool, finished: set[str]) -> dict:
    """Return the clips by key, without files that are `finished` outputs; raise for missing paths and doubled keys."""
    from soundssl import datasets, files

    if dataset is not None:
        files.require(inputs[0]) if dataset == "csv" else _require_folder(inputs[0])
        found: Iterable = datasets.load(dataset, inputs[0], root)
    else:
        found = datasets.paths(_listed(inputs, null))
    clips: dict = {}
    for clip in found:
        key = files.text(clip.key)
        if key in clips:
            raise files.Unusable(_doubled(clip, clips[key], key))
        if os.path.abspath(clip.path) not in finished:
            clips[key] = clip
    if not clips:
        raise SoundsslError(f"no media files in {', '.join(files.text(path) for path in inputs)}")
    return clips


def _doubled(clip, other, key: str) -> str:
    from soundssl import files

    if os.path.abspath(clip.path) == os.path.abspath(other.path):
        return f"{key} is named twice; name it once, with all its classes in one row"
    return f"{files.text(clip.path)} and {files.text(other.path)} have the same key {key}; give a folder above both"


def _listed(inputs: list[Path], null: bool) -> list[Path]:
    from soundssl import files

    listed: list[Path] = []
    for path in inputs:
        if str(path) == "-":
            names = sys.stdin.buffer.read().split(b"\0" if null else b"\n")
            listed += [Path(os.fsdecode(name if null else name.rstrip(b"\r"))) for name in names if name.strip()]
        elif not path.exists():
            raise files.Missing(f"{files.text(path)} does not exist; check the path")
        else:
            listed.append(path)
    return listed


def _require_folder(path: Path) -> None:
    from soundssl import files

    if not path.is_dir():
        raise files.Missing(f"{files.text(path)} is not a folder; name the folder of the collection")


def _write_labels(path: Path, work: waveforms.Work, features: Path, made_from: str, no_provenance: bool) -> None:
    """Write the labels of the clips in a features file: whole clips, classes in alphabetical order."""
    import numpy as np

    from soundssl import files

    source = files.Features(features)
    of = {work.sources[key]: clip for key, clip in work.clips.items()}
    here = [of[digest] for digest in source.clips.made_from]
    said = [None if clip.classes is None else [files.text(name) for name in clip.classes] for clip in here]
    classes = sorted({name for names in said for name in names or ()})
    column = {name: i for i, name in enumerate(classes)}
    label = np.zeros((len(here), len(classes)), np.int8)
    for row, names in zip(label, said, strict=True):
        row[:] = -1 if names is None else 0
        row[[column[name] for name in names or ()]] = 1
    inputs = [files.identity("features", features, source.attributes)]
    with files.create(
        path, "labels", inputs=inputs, made_from=made_from, attributes={}, command=target.provenance_of(no_provenance)
    ) as sink:
        sink.write("label", label)
        sink.write("segment/key", list(source.clips.key))
        sink.write("segment/start", np.zeros(len(here)))
        sink.write("segment/end", np.full(len(here), np.inf))
        sink.write("class", classes)
        sink.write("split", list(source.clips.split))
        sink.write("origin", np.zeros(len(here), np.uint8))

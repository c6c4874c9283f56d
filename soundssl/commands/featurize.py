"""soundssl featurize: media files to log-mel frames and images."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from soundssl import SoundsslError
from soundssl.commands import terminal
from soundssl.commands.options import Force, Jobs, NoClobber, NoProvenance, Output, Quiet, beside
from soundssl.datasets import DATASETS

IMAGE_SIZE = (128, 128)  # pixels; inferred: what AudioScope used with the image tower of Jansen et al. 2020
WINDOW = 96  # frames of one window, 0.96 s: what an encoder sees


def featurize(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Media files, folders (searched through), or - for a list of paths on standard input."),
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
    images: Annotated[bool, typer.Option(help="Store one image a second where there is a video stream.")] = True,
    store: Annotated[str, typer.Option(help="Number type of the stored frames: float16 or float32.")] = "float16",
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

    Examples:

    soundssl featurize videos/ -o features.h5

    find videos -name '*.mp4' -print0 | soundssl featurize -0 - -o features.h5

    soundssl featurize --dataset esc50 ESC-50/ -o esc50.features.h5 --labels esc50.labels.h5
    """
    from soundssl import files, media, workers
    from soundssl.ops.spectrogram import PRESETS

    if store not in ("float16", "float32"):
        raise typer.BadParameter("choose float16 or float32", param_hint="--store")
    clips = _clips(inputs, dataset, root, null)
    implied = output is None
    output = output or _default(inputs[0])
    files.guard(output, no_clobber)
    front_end = PRESETS["vggish"]
    options = {**front_end.attributes(), "store": store, "images": images}
    sources = [_source(clip) for clip in clips.values()]
    made_from = files.digest("features", sources, options)
    table = labels or beside(output, "labels")
    complete = table.exists() or not any(clip.classes is not None for clip in clips.values())
    if complete and terminal.done_before("featurize", output, made_from, force, quiet, implied):
        return
    attributes = {**front_end.attributes(), "resampler": media.RESAMPLER, "image_rate": 1.0 if images else 0.0}
    files.Store.begin_afresh(output) if force else None
    partial_store = files.Store(output, attributes, {"float16": "f2", "float32": "f4"}[store], made_from)
    todo = [clip for key, clip in clips.items() if key not in partial_store.done]
    if len(todo) < len(clips):
        terminal.say("featurize", f"going on: {len(clips) - len(todo)} of {len(clips)} inputs were done before", quiet)
    prepare = partial(_prepare, partial_store.folder, front_end, partial_store.dtype, images)
    try:
        with terminal.progress("featurize", len(todo), "files", quiet) as advance:
            seconds = 0.0
            for clip, answer in workers.run(prepare, todo, jobs or workers.cores(), timeout or None):
                if isinstance(answer, workers.WorkerDied):
                    answer = {"key": files.text(clip.key), "path": files.text(clip.path), "reason": str(answer)}
                if "reason" in answer:
                    terminal.say("featurize", f"{answer['path']}: {answer['reason']}; skipped")
                    if strict:
                        raise SoundsslError(
                            f"{answer['path']}: {answer['reason']}; leave out --strict to go on without it"
                        )
                partial_store.add(answer)
                seconds += answer.get("count", [0])[0] / front_end.frame_rate
                advance(1, f"{seconds / 3600:.2f} h of sound")
    except KeyboardInterrupt:
        terminal.say("featurize", "interrupted; the same command goes on from here")
        raise
    skipped = sum("reason" in entry for entry in partial_store.done.values())
    if skipped == len(clips):
        partial_store.discard()
        raise SoundsslError(f"none of {len(clips)} inputs gave a clip; nothing was written")
    provenance = [{"role": "media", "file": f"{len(clips)} files", "uuid": files.digest(sources)}]
    hours = sum(entry.get("count", [0])[0] for entry in partial_store.done.values()) / front_end.frame_rate / 3600
    partial_store.lay_out(list(clips), provenance, IMAGE_SIZE, not no_provenance)
    if any(clip.classes is not None for clip in clips.values()):
        _write_labels(
            table,
            [clips[key] for key in sorted(clips) if "spool" in partial_store.done[key]],
            output,
            made_from,
            no_provenance,
        )
    terminal.say("featurize", f"{len(clips) - skipped} clips, {hours:.2f} hours, {skipped} inputs skipped", quiet)
    terminal.print_path(output, implied)
    if skipped and not allow_skipped:
        raise typer.Exit(3)


def _default(source: Path) -> Path:
    return Path("features.h5") if str(source) == "-" else beside(Path(str(source).rstrip("/")), "features")


def _clips(inputs: list[Path], dataset: str | None, root: Path | None, null: bool) -> dict:
    """Return the clips by key; missing paths and doubled keys are usage errors."""
    from soundssl import datasets, files

    if dataset is not None:
        if len(inputs) != 1:
            raise typer.BadParameter("--dataset takes one folder or table")
        files.require(inputs[0]) if dataset == "csv" else _require_folder(inputs[0])
        found = datasets.load(dataset, inputs[0], root)
    else:
        found = list(datasets.paths(_listed(inputs, null)))
    if not found:
        raise SoundsslError(f"no media files in {', '.join(map(str, inputs))}")
    clips: dict = {}
    for clip in found:
        key = files.text(clip.key)
        if key in clips:
            error = SoundsslError(
                f"{files.text(clip.path)} and {files.text(clips[key].path)} have the same key {key}; give a folder above both"
            )
            error.status = 2
            raise error
        clips[key] = clip
    return clips


def _listed(inputs: list[Path], null: bool) -> list[Path]:
    import os

    from soundssl import files

    listed: list[Path] = []
    for path in inputs:
        if str(path) == "-":
            names = sys.stdin.buffer.read().split(b"\0" if null else b"\n")
            listed += [Path(os.fsdecode(name.rstrip(b"\r") if not null else name)) for name in names if name.strip()]
        elif not path.exists():
            raise files.Missing(f"{files.text(path)} does not exist; check the path")
        else:
            listed.append(path)
    return listed


def _require_folder(path: Path) -> None:
    from soundssl import files

    if not path.is_dir():
        raise files.Missing(f"{files.text(path)} is not a folder; name the folder of the collection")


def _source(clip) -> list:
    """Return what says whether an input is still the same: key, size, time of change, span."""
    try:
        status = clip.path.stat()
        state = [status.st_size, status.st_mtime_ns]
    except OSError:  # it will be skipped, with this as its reason
        state = [None, None]
    return [clip.key, *state, clip.start, clip.end, clip.classes, clip.recording, clip.split]


def _prepare(folder: Path, front_end, dtype: str, images: bool, number: int):
    """Open one worker's spool and return the function that turns a clip into a journal entry."""
    from soundssl import files, media
    from soundssl.ops.spectrogram import LogMel

    spool, log_mel = files.Spool(folder, f"worker-{number}", dtype), LogMel(front_end)

    def work(clip) -> dict:
        spool.start()
        entry = {"key": files.text(clip.key), "path": files.text(clip.path)}
        try:
            for frames in log_mel(media.read_audio(clip.path, front_end.sample_rate, clip.start, clip.end)):
                spool.add_frames(frames)
            if spool.count[0] < WINDOW:
                seconds = spool.count[0] / front_end.frame_rate
                raise media.DecodeError(
                    clip.path, f"too short: {seconds:.2f} s of frames, a window takes {WINDOW / front_end.frame_rate} s"
                )
            for image in media.read_images(clip.path, 1.0, IMAGE_SIZE, clip.start, clip.end) if images else ():
                spool.add_images(image[None])
        except media.DecodeError as error:
            spool.abandon()
            return {**entry, "reason": error.reason}
        except Exception as error:  # a codec may raise anything; the file is named with it and the run goes on
            spool.abandon()
            return {**entry, "reason": f"{type(error).__name__}: {error}"}
        about = {
            "recording": files.text(clip.recording or clip.key),
            "split": clip.split,
            "source": entry.pop("path"),
            "start": clip.start,
        }
        return {**entry, **about, **spool.finish()}

    return work


def _write_labels(path: Path, clips: list, features: Path, made_from: str, no_provenance: bool) -> None:
    """Write the labels file of a collection: whole clips, classes in alphabetical order."""
    import numpy as np

    from soundssl import files

    classes = sorted({name for clip in clips for name in clip.classes or ()})
    column = {name: i for i, name in enumerate(classes)}
    label = np.zeros((len(clips), len(classes)), np.int8)
    for row, clip in zip(label, clips, strict=True):
        row[:] = -1 if clip.classes is None else 0
        row[[column[name] for name in clip.classes or ()]] = 1
    source = files.Features(features)
    inputs = [files.identity("features", features, source.attributes)]
    with files.create(
        path, "labels", inputs=inputs, made_from=made_from, attributes={}, with_provenance=not no_provenance
    ) as sink:
        sink.write("label", label)
        sink.write("segment/key", [files.text(clip.key) for clip in clips])
        sink.write("segment/start", np.zeros(len(clips)))
        sink.write("segment/end", np.full(len(clips), np.inf))
        sink.write("class", classes)
        sink.write("split", [clip.split for clip in clips])
        sink.write("origin", np.zeros(len(clips), np.uint8))

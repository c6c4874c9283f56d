"""soundssl featurize: media files to log-mel frames and images, or to waveforms, and waveforms to log-mel frames."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from soundssl import SoundsslError
from soundssl.commands import terminal, waveforms
from soundssl.commands.options import Force, Jobs, NoClobber, NoProvenance, Output, Quiet, beside
from soundssl.datasets import DATASETS

IMAGE_SIZE = (128, 128)  # pixels; inferred: what AudioScope used with the image tower of Jansen et al. 2020
STORES = {"float16": "f2", "float32": "f4"}
WINDOW = 96  # frames of one window, 0.96 s: what an encoder sees


def featurize(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Media files, folders (searched through), or - for a list of paths on standard input; or one features "
            "file of waveforms."
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
    images: Annotated[bool, typer.Option(help="Store one image a second where there is a video stream.")] = True,
    store: Annotated[
        Literal["float16", "float32"] | None,
        typer.Option(help="Number type of the stored frames. Default: float16, of waveforms float32."),
    ] = None,
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

    Examples:

    soundssl featurize videos/ -o features.h5

    soundssl featurize --representation waveform videos/ -o waves.h5

    soundssl featurize separated.h5 -o features.h5

    find videos -name '*.mp4' -print0 | soundssl featurize -0 - -o features.h5

    soundssl featurize --dataset esc50 ESC-50/ -o esc50.features.h5 --labels esc50.labels.h5
    """
    from soundssl import files

    _check_collection(inputs, dataset, root, labels)
    implied, output = output is None, output or default_output(inputs[0], "features")
    end = front_end(representation)
    store = store or ("float32" if representation == "waveform" else "float16")
    table = labels or beside(output, "labels")
    if dataset is None and waveforms.given(inputs):
        work = waveforms.work(inputs[0], output, end, store, images, no_clobber)
    else:
        clips = _clips(inputs, dataset, root, null, _finished([output, table]))
        _guard(output, table, _labelled(clips), labels is not None, clips, no_clobber)
        work = media_work(clips, end, store, images)
    labelled = _labelled(work.clips)
    if labelled and not force and files.made_from(output) == work.made_from != files.made_from(table):
        _write_labels(table, work.clips, output, work.made_from, no_provenance)
        terminal.say("featurize", f"{files.text(table)} is made again", quiet)
    if terminal.done_before("featurize", output, work.made_from, force, quiet, implied):
        return
    if force:
        files.Store.begin_afresh(output)
    with contextlib.closing(files.Store(output, work.attributes, STORES[store], work.made_from)) as parts:
        prepare = partial(work.prepare, parts.folder, end, parts.dtype, images)
        decode("featurize", parts, work.clips, prepare, jobs, timeout, strict, quiet)
        skipped = sum("reason" in entry for entry in parts.done.values())
        if skipped == len(work.clips):
            parts.discard()
            raise SoundsslError(f"none of {len(work.clips)} inputs gave a clip; nothing was written")
        frames = sum(entry["count"][0] for entry in parts.done.values() if "count" in entry)
        parts.lay_out(list(work.clips), work.inputs, work.image_size, not no_provenance)
    if labelled:
        _write_labels(table, work.clips, output, work.made_from, no_provenance)
    hours = frames / end.frame_rate / 3600
    terminal.say("featurize", f"{len(work.clips) - skipped} clips, {hours:.2f} hours, {skipped} inputs skipped", quiet)
    terminal.print_path(output, implied)
    if skipped and not allow_skipped:
        raise typer.Exit(3)


def front_end(representation: str):
    """Return the front end of a representation: `logmel` or `waveform`."""
    from soundssl.ops.spectrogram import PRESETS, WAVEFORM

    return WAVEFORM if representation == "waveform" else PRESETS["vggish"]


def find(inputs: list[Path], null: bool, output: Path, no_clobber: bool) -> dict:
    """Return the clips of media files and folders by key; refuse an output that cannot be written or is an input."""
    clips = _clips(inputs, None, None, null, _finished([output]))
    _guard(output, output, False, False, clips, no_clobber)
    return clips


def media_work(clips: dict, front_end, store: str, images: bool) -> waveforms.Work:
    """Return the work of decoding clips of media files."""
    from soundssl import files, media

    sources = [_source(clip) for clip in clips.values()]
    made_from = files.digest("features", sources, {**front_end.attributes(), "store": store, "images": images})
    attributes = {**front_end.attributes(), "resampler": media.RESAMPLER, "image_rate": 1.0 if images else 0.0}
    provenance = [{"role": "media", "file": f"{len(clips)} files", "uuid": files.digest(sources)}]
    return waveforms.Work(clips, attributes, made_from, provenance, IMAGE_SIZE, _prepare)


def _labelled(clips: dict) -> bool:
    return any(clip.classes is not None for clip in clips.values())


def decode(command: str, parts, clips: dict, prepare, jobs: int, timeout: float, strict: bool, quiet: bool) -> None:
    """Decode the clips that the journal does not know yet; name those that give none, or raise if `strict`."""
    from soundssl import files, workers

    known = {key for key, entry in parts.done.items() if key in clips and not (strict and "reason" in entry)}
    todo = [clip for key, clip in clips.items() if key not in known]
    if known:
        terminal.say(command, f"going on: {len(known)} of {len(clips)} inputs were done before", quiet)
    try:
        with terminal.progress(command, len(todo), "files", quiet) as advance:
            seconds = 0.0
            for clip, answer in workers.run(prepare, todo, jobs or workers.cores(), timeout or None):
                if isinstance(answer, workers.WorkerDied):
                    answer = {"key": files.text(clip.key), "path": files.text(clip.path), "reason": str(answer)}
                if "reason" in answer:
                    fact = f"{answer['path']}: {answer['reason']}"
                    if strict:
                        raise SoundsslError(f"{fact}; leave out --strict to go on without it")
                    terminal.say(command, f"{fact}; skipped")
                parts.add(answer)
                seconds += answer.get("count", [0])[0] / float(parts.attributes["frame_rate"])
                advance(1, f"{seconds / 3600:.2f} h of sound")
    except (KeyboardInterrupt, SystemExit):  # SIGINT and SIGTERM
        terminal.say(command, "interrupted; the same command goes on from here")
        raise


def default_output(source: Path, kind: str) -> Path:
    """Return the output beside the first input: `KIND.h5` here for standard input, beside a folder under its name."""
    if str(source) == "-":
        return Path(f"{kind}.h5")
    return beside(source.resolve() if source.name in ("", "..") else source, kind)


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
    from soundssl.ops.spectrogram import SHORTEST, LogMel

    spool, waveform = files.Spool(folder, f"worker-{number}", dtype), front_end.representation == "waveform"
    transform = iter if waveform else LogMel(front_end)
    shortest = SHORTEST if waveform else WINDOW

    def work(clip) -> dict:
        spool.start()
        entry = {"key": files.text(clip.key), "path": files.text(clip.path)}
        try:
            for frames in transform(media.read_audio(clip.path, front_end.sample_rate, clip.start, clip.end)):
                spool.add_frames(frames)
            if spool.count[0] < shortest:
                seconds, least = spool.count[0] / front_end.frame_rate, shortest / front_end.frame_rate
                raise media.DecodeError(clip.path, f"too short: {seconds:.2f} s of frames, a window takes {least} s")
            for image in media.read_images(clip.path, 1.0, IMAGE_SIZE, clip.start, clip.end) if images else ():
                spool.add_images(image[None])
        except media.DecodeError as error:
            spool.abandon()
            return {**entry, "reason": error.reason}
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no fault of this file's: the run ends, and can go on
                raise
            spool.abandon()
            return {**entry, "reason": str(error)}
        except Exception as error:  # a codec may raise anything; the file is named with it and the run goes on
            spool.abandon()
            return {**entry, "reason": f"{type(error).__name__}: {error}"}
        about = {
            "recording": files.text(clip.recording or clip.key),
            "split": files.text(clip.split),
            "source": entry.pop("path"),
            "start": clip.start,
        }
        return {**entry, **about, **spool.finish()}

    return work


def _write_labels(path: Path, clips: dict, features: Path, made_from: str, no_provenance: bool) -> None:
    """Write the labels of the clips in a features file: whole clips, classes in alphabetical order."""
    import numpy as np

    from soundssl import files

    source = files.Features(features)
    here = [clips[key] for key in source.clips.key]
    said = [None if clip.classes is None else [files.text(name) for name in clip.classes] for clip in here]
    classes = sorted({name for names in said for name in names or ()})
    column = {name: i for i, name in enumerate(classes)}
    label = np.zeros((len(here), len(classes)), np.int8)
    for row, names in zip(label, said, strict=True):
        row[:] = -1 if names is None else 0
        row[[column[name] for name in names or ()]] = 1
    inputs = [files.identity("features", features, source.attributes)]
    with files.create(
        path, "labels", inputs=inputs, made_from=made_from, attributes={}, with_provenance=not no_provenance
    ) as sink:
        sink.write("label", label)
        sink.write("segment/key", list(source.clips.key))
        sink.write("segment/start", np.zeros(len(here)))
        sink.write("segment/end", np.full(len(here), np.inf))
        sink.write("class", classes)
        sink.write("split", list(source.clips.split))
        sink.write("origin", np.zeros(len(here), np.uint8))

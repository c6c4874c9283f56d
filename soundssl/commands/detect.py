"""soundssl detect: recordings and a recogniser to what is heard when, in the formats that people open it in."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundssl.commands.event_files import Format, event_format, event_target
from soundssl.commands.interrupts import resumable
from soundssl.commands.options import (
    AllowSkipped,
    BatchSize,
    Device,
    Force,
    Jobs,
    NoClobber,
    Null,
    Part,
    Precision,
    Quiet,
    Seed,
    Strict,
    Threads,
    Timeout,
    default_output,
    listed,
    part_of,
)
from soundssl.commands.target import Target
from soundssl.commands.terminal import print_table

if TYPE_CHECKING:
    from soundssl.detection.decisions import Rule
    from soundssl.detection.job import Heard
    from soundssl.detection.thresholds import Thresholds
    from soundssl.model import Model


def detect(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            help="Media files, folders (searched through), or - for a list of paths on standard input; or one features "
            "file of the recogniser's front end."
        ),
    ],
    model: Annotated[
        Path, typer.Option("-m", "--model", help="Recogniser written by train --objective classification.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write, whose ending says the format; a folder, with / at its end, for a file a recording; - "
            "for standard output. Default: STEM.detections.csv beside the first input.",
        ),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="csv, tsv, jsonl or parquet: a row an event; raven: selection tables; audacity: label tracks; "
            "label-studio: tasks; aoef: for soundevent, whombat and BatDetect2; dcase, audioset: tables of strong "
            "annotations; labels: a labels file.",
        ),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(metavar="X|FILE", help="Score from which a class is heard, or a table of such scores."),
    ] = "0.5",
    release: Annotated[
        float | None,
        typer.Option(help="Score down to which an event goes on once it has begun. Default: the threshold."),
    ] = None,
    gap: Annotated[float, typer.Option(min=0, help="Seconds between events of a class that make them one.")] = 0.0,
    min_length: Annotated[float, typer.Option(min=0, help="Seconds that an event lasts at least.")] = 0.0,
    top: Annotated[int, typer.Option(min=0, help="Only so many classes of a window, the likeliest; 0: all.")] = 0,
    hop: Annotated[
        float | None, typer.Option(min=0.01, help="Seconds between windows. Default: half a window.")
    ] = None,
    smooth: Annotated[
        str | None,
        typer.Option(
            metavar="X|FILE",
            help="Let the windows of a recording agree: X, by how many nats a class rather stays present or absent "
            "than changes from a window to the next, 0 being neutral; or a labels file with events, from which it is "
            "learnt.",
        ),
    ] = None,
    taxonomy: Annotated[
        Path | None,
        typer.Option(help="Let classes agree: an ontology.json, in which a class that is heard implies its parents."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Labels file of these recordings: choose a threshold for each class, and write them as a table to "
            "--output, for --threshold."
        ),
    ] = None,
    wanted: Annotated[
        float | None,
        typer.Option(
            "--at-precision", min=0, max=1, help="With --calibrate: the precision to reach. Default: best F1."
        ),
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the best examples of each class as WAV files below this folder."),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="With --clips: examples of a class.")] = 10,
    margin: Annotated[float, typer.Option(min=0, help="With --clips: seconds before and after an event.")] = 0.5,
    null: Null = False,
    part: Part = None,
    timeout: Timeout = 3600,
    jobs: Jobs = 0,
    strict: Strict = False,
    allow_skipped: AllowSkipped = False,
    batch_size: BatchSize = 256,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    force: Force = False,
    no_clobber: NoClobber = False,
    quiet: Quiet = False,
) -> None:
    """Listen to recordings, and write what is heard when.

    Every window of a recording is scored by the recogniser; windows in a row in which a class reaches its threshold
    are one event. A recording may be of any length. A file that cannot be decoded costs nothing else; the exit status
    then is 3. A run that was killed goes on when the same command is given again.

    Scores are not probabilities. With --calibrate and recordings that have labels, the threshold of each class is
    chosen, precision and recall there are estimated on recordings left out, and a table is written; detections by that
    table carry probabilities instead of scores, and it is said which they are.

    With --smooth or --taxonomy, scores are taken for probabilities and revised by what the other windows of the
    recording, or the other classes of the window, say; thresholds, also those that --calibrate chooses, are of the
    revised scores.

    Columns of tables: path, start_s, end_s, class, score, low_hz, high_hz, model.

    Examples:

    soundssl detect recordings/ -m recogniser.safetensors -o detections.csv

    soundssl detect labelled/ -m recogniser.safetensors --calibrate labels.h5 -o thresholds.csv

    soundssl detect recordings/ -m recogniser.safetensors --threshold thresholds.csv -o tables/ --format raven
    """
    from soundssl import device as hardware

    shard = part_of(part)
    ending = ".thresholds.csv" if calibrate else ".detections.csv"
    inputs = [path for path in (*recordings, model, calibrate, taxonomy) if path]
    target, folder = _target(recordings, output, ending, inputs, shard, force, no_clobber, quiet)
    name = _format(target, folder, format_, bool(calibrate))
    rule, table = _rule(threshold, release, gap, min_length, top)
    _check_revision(smooth, taxonomy)
    with hardware.start(device, precision, threads) as accelerator, resumable(target.terminal):
        trained = _recogniser(model, accelerator)
        heard = _heard(
            target, recordings, trained, null=null, hop=hop, batch_size=batch_size, shard=shard, force=force,
            strict=strict, jobs=jobs, timeout=timeout,
        )  # fmt: skip
        heard = _revised(heard, smooth, taxonomy)
    if calibrate:
        _calibrate(target, heard, calibrate, wanted, seed)
    else:
        _write(target, folder, name, heard, rule, table, trained)
        if clips:
            _export(target, heard, rule, table, clips, examples, margin)
    _clear(target)
    target.finish()
    if heard.skipped and not allow_skipped:
        raise typer.Exit(3)


def _target(
    recordings: list[Path], output: str | None, ending: str, inputs: list[Path], shard, force, no_clobber, quiet
) -> tuple[Target, bool]:
    usual = default_output(recordings[0], "detections", shard).with_suffix("")
    usual = usual.with_name(usual.name.removesuffix(".detections") + ending)
    return event_target("detect", output, usual, inputs, force, no_clobber, quiet)


def _format(target: Target, folder: bool, name: str | None, calibrating: bool) -> str:
    """Return the format to write; refuse, before any work, one that the output cannot take."""
    if calibrating:
        if folder or name:
            raise typer.BadParameter("thresholds are one table, as CSV; name a file and leave out --format")
        return "csv"
    return event_format(target, folder, name)


def _rule(threshold: str, release: float | None, gap: float, least: float, top: int) -> tuple[Rule, Thresholds | None]:
    """Return when a class is heard, and the table of thresholds where a file was named."""
    from soundssl import files
    from soundssl.detection import thresholds
    from soundssl.detection.decisions import Rule

    try:
        number = float(threshold)
        if math.isnan(number):
            raise typer.BadParameter("is no number; give one, as 0.5, or a table", param_hint="--threshold")
    except ValueError:
        if release is not None:
            raise typer.BadParameter("goes with one threshold, not with a table", param_hint="--release") from None
        path = files.require(threshold)
        return Rule(0.5, None, gap, least, top), thresholds.read(path.read_bytes(), files.text(path))
    try:
        return Rule(number, release, gap, least, top), None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--release") from None


def _recogniser(path: Path, accelerator) -> Model:
    from soundssl import files
    from soundssl.detection import job
    from soundssl.model import Model

    model = Model(files.read_model(path), accelerator)
    job.recogniser(model)
    return model


def _place(target: Target) -> Path:
    """Return the folder for what is not finished: beside the output, or where that is a pipe or a device, here."""
    from soundssl import files
    from soundssl.detection import job

    nowhere = target.piped or files.is_special(target.path)
    return job.folder_of(Path("detections") if nowhere else target.path)


def _heard(target: Target, recordings: list[Path], model: Model, *, null: bool, **options) -> Heard:
    from soundssl import extraction, files
    from soundssl.detection import job

    folder = _place(target)
    job.claim(folder)
    target.terminal.say(model.accelerator.reason)
    features = len(recordings) == 1 and recordings[0].is_file() and files.kind_of(recordings[0]) == "features"
    inputs = recordings[0] if features else extraction.collect(listed(recordings, null), outputs=[target.path])
    return job.listen(inputs, model, folder, progress=target.terminal, **options)


def _check_revision(smooth: str | None, taxonomy: Path | None) -> None:
    """Refuse, before any work, what cannot be read."""
    from soundssl import files
    from soundssl.datasets import ontology

    if smooth is not None and potential_of(smooth) is None:
        files.Labels(smooth)
    if taxonomy is not None:
        ontology.read(files.require(taxonomy))


def potential_of(smooth: str) -> float | None:
    """Return what is said of staying as a number, None where it is a file."""
    try:
        number = float(smooth)
    except ValueError:
        return None
    if not math.isfinite(number):
        raise typer.BadParameter("is no number of nats; give one, as 2, or a labels file", param_hint="--smooth")
    return number


def _revised(heard: Heard, smooth: str | None, taxonomy: Path | None) -> Heard:
    from soundssl.datasets import ontology
    from soundssl.detection import smoothing
    from soundssl.labels import labelset

    change, option, edges = None, "--smooth", smoothing.Revision().edges
    try:
        if smooth is not None and (potential := potential_of(smooth)) is not None:
            change = smoothing.staying(potential)
        elif smooth is not None:
            hop = float(heard.scores.attributes["hop"])
            change = smoothing.learn(labelset.of_file(smooth), heard.classes, hop, heard.window)
        if taxonomy is not None:
            option = "--taxonomy"
            edges = smoothing.edges(heard.classes, ontology.read(taxonomy))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    return dataclasses.replace(heard, revision=smoothing.Revision(change, edges))


def _clear(target: Target) -> None:
    from soundssl.detection import job

    job.clear(_place(target))


def _calibrate(target: Target, heard: Heard, labels: Path, wanted: float | None, seed: int) -> None:
    """Choose thresholds, write them, and say what they are worth."""
    from soundssl import files
    from soundssl.detection import job, thresholds

    found = job.calibrate(heard, files.Labels(labels), wanted, seed=seed)
    if target.piped:
        sys.stdout.write(found.text())
    else:
        with files.replace(target.path, through=True) as partial:
            partial.write_text(found.text(), "utf-8")
    if not target.quiet and sys.stdout.isatty():
        print_table(list(thresholds.COLUMNS), found.rows())
    lacking = [name for name, each in zip(found.classes, found.chosen, strict=True) if each.threshold != each.threshold]
    if lacking:
        target.terminal.warn(f"no threshold for {', '.join(lacking)}: too few recordings with it or without it")
    target.terminal.say(
        f"{len(found.classes) - len(lacking)} thresholds; scores are {found.before:.3f} from what is so, calibrated "
        f"probabilities {found.after:.3f} (mean over bins, on recordings held out)"
    )


def _write(
    target: Target, folder: bool, name: str, heard: Heard, rule: Rule, table: Thresholds | None, model: Model
) -> None:
    """Write what is heard, and say how much it is and what its scores are."""
    from soundssl.detection import job, output

    probable = table is not None and table.calibrated
    called = model.path.name + " (calibrated)" * probable
    found = list(job.events(heard, rule, table, called))
    place = sys.stdout.buffer if target.piped else target.path
    count = output.write(place, name, found, job.recordings(heard), heard, folder=folder, inputs=[])
    kind = "calibrated probabilities" if probable else "those of the recogniser, not probabilities"
    target.terminal.say(f"{len(found)} events of {len({event.name for event in found})} classes in {count} recordings; "
                        f"scores are {kind}")  # fmt: skip


def _export(
    target: Target, heard: Heard, rule: Rule, table: Thresholds | None, folder: Path, examples: int, margin: float
) -> None:
    from soundssl import files
    from soundssl.detection import job, output

    made, missing = output.export(job.events(heard, rule, table), folder, examples, margin)
    for path, reason in missing.items():
        target.terminal.warn(f"{path}: {reason}; its examples are left out")
    target.terminal.say(f"{made} WAV files in {files.text(folder)}")

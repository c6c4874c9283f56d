"""soundssl separate: recordings to tracks, whole, in bounded memory."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from soundssl import SoundsslError
from soundssl.commands import decoding, featurize, target, terminal, waveforms
from soundssl.commands.options import (
    Device,
    Force,
    Jobs,
    NoClobber,
    NoProvenance,
    Output,
    Part,
    Precision,
    Quiet,
    Threads,
    part_of,
)

FLOOR = -120.0  # dB: the level of a track in which nothing is


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
    null: Annotated[
        bool, typer.Option("-0", "--null", help="The list on standard input is separated by NUL bytes.")
    ] = False,
    part: Part = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds that decoding a file may take; 0: no bound.")] = 3600,
    jobs: Jobs = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first input that gives no clip.")] = False,
    allow_skipped: Annotated[
        bool, typer.Option("--allow-skipped", help="Exit with 0 although inputs were skipped, for make.")
    ] = False,
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

    Examples:

    soundssl separate waves.h5 -m separator.safetensors -o separated.h5

    soundssl separate videos/ -m early.safetensors -m late.safetensors -o separated.h5 --wav listen/

    soundssl separate waves.h5 -m separator.safetensors --part 3/8 -o part-3.h5
    """
    piece = part_of(part)
    implied, output = output is None, output or featurize.default_output(inputs[0], "separated", piece)
    if overlap > length / 2:
        raise typer.BadParameter(f"{overlap} s is more than half of --length {length} s", param_hint="--overlap")
    from soundssl import device as hardware
    from soundssl import files
    from soundssl.ops.spectrogram import WAVEFORM

    _guard_folder(wav)
    files.guard_inputs(output, model)
    work, origin = _work(inputs, output, model, null, no_clobber, piece)
    featurize.guard_part(output, work.attributes.get("part"), force)
    with hardware.start(device, precision, threads) as accelerator:
        settings = [origin, length, overlap, silence, str(accelerator.dtype)]
        made_from = files.digest("separated", work.made_from, settings)
        skipped: list[dict] = []
        if not terminal.done_before("separate", output, made_from, force, quiet, implied):
            terminal.say("separate", accelerator.reason, quiet)
            if force:
                files.Store.begin_afresh(output)
            here = work.attributes
            networks = [network_of(files.read_model(path), here, accelerator) for path in model]
            attributes = {**work.attributes, "processors": json.dumps(origin), "silence": silence}
            with contextlib.closing(files.Store(output, attributes, "f4", made_from)) as parts:
                prepare = partial(work.prepare, parts.folder, WAVEFORM, parts.dtype, True)
                decoding.say_known("separate", parts, work.clips, quiet)
                decoding.decode("separate", parts, work.clips, prepare, jobs, timeout, strict, quiet, work.sources)
                mixtures = parts.clips(work.clips)
                skipped = [parts.done[key] for key in work.clips if "reason" in parts.done[key]]
                if not mixtures and not piece:
                    parts.discard()
                    raise SoundsslError(f"none of {len(work.clips)} inputs gave a clip; nothing was written")
                try:
                    _separate_all(parts, mixtures, networks, accelerator, (length, overlap), silence, quiet)
                except (KeyboardInterrupt, SystemExit):  # SIGINT and SIGTERM
                    terminal.say("separate", "interrupted; the same command goes on from here")
                    raise
                tracks = [key for key, entry in parts.done.items() if "parent" in entry]
                keys = [*work.clips, *tracks]
                parts.lay_out(keys, [*work.inputs, *origin], work.image_size, target.provenance_of(no_provenance))
            terminal.print_path(output, implied)
    if wav:
        _export(output, wav, quiet)
    if skipped and not allow_skipped:
        raise typer.Exit(3)


def _guard_folder(wav: Path | None) -> None:
    from soundssl import files

    if wav and wav.exists() and not wav.is_dir():
        raise files.Unusable(f"{files.text(wav)} is a file; name a folder")


def _work(
    inputs: list[Path],
    output: Path,
    model: list[Path],
    null: bool,
    no_clobber: bool,
    part: tuple[int, int] | None,
) -> tuple[waveforms.Work, list[dict]]:
    """Return what is to be read, without the tracks of an earlier separation, and the separators' identities.

    Raises FormatError for a model that is no separator, or one of another front end.
    """
    from soundssl import files
    from soundssl.ops.spectrogram import WAVEFORM

    if waveforms.given(inputs):
        work = waveforms.work(inputs[0], output, WAVEFORM, "float32", True, no_clobber, part)
        source = files.Features(inputs[0])
        mixtures = set(source.clips.key[source.tracks.parent < 0])
        work = work._replace(clips={key: clip for key, clip in work.clips.items() if key in mixtures})
    else:
        recipe = decoding.Recipe(WAVEFORM, images=False)
        work = featurize.media_work(featurize.find(inputs, null, output, no_clobber), recipe, "float32", part)
    trained = [files.read_model(path) for path in model]
    for each in trained:
        _check(each, WAVEFORM.attributes())
    return work, [files.identity("model", each.path, each.attributes) for each in trained]


def _check(trained: Any, here: dict[str, object]) -> None:
    from soundssl import files, models

    if trained.config["encoder"] not in models.SEPARATORS:
        raise files.FormatError(
            f"{files.text(trained.path)} is an encoder, not a separator; train one with --objective mixit"
        )
    wanted = trained.config["front_end"]
    different = [f"{name} {here[name]} instead of {wanted[name]}" for name in wanted if here[name] != wanted[name]]
    if different:
        raise files.FormatError(
            f"{files.text(trained.path)} was trained on other waveforms: {', '.join(different)}; train it again"
        )


def network_of(trained: Any, front_end: dict[str, object], accelerator):
    """Return the separator of a model, ready to run; raise FormatError for an encoder or one of another front end."""
    from soundssl import models

    _check(trained, front_end)
    return accelerator.place(models.restore_separator(trained.config, trained.tensors)).eval()


def _separate_all(
    parts, mixtures: list[dict], networks: list, accelerator, seconds: tuple[float, float], silence: float, quiet: bool
) -> None:
    """Separate the mixtures that the journal has no tracks of yet, by every network."""
    from soundssl import files
    from soundssl.ops import separation

    rate = int(parts.attributes["sample_rate"])
    length, overlap = (max(1, round(each * rate)) for each in seconds)
    spools = [files.Spool(parts.folder, f"worker-track-{i}", "f4") for i in range(max(n.tracks for n in networks))]
    begun, done = time.monotonic(), 0
    with terminal.progress("separate", len(mixtures), "recordings", quiet) as advance:
        for mixture in mixtures:
            key = mixture["key"]
            about = {column: mixture[column] for column in ("recording", "split", "source", "start")}
            for number, network in enumerate(networks):
                names = [
                    f"{key}#{number}.{track}" if len(networks) > 1 else f"{key}#{track}"
                    for track in range(network.tracks)
                ]
                if all(name in parts.done for name in names):
                    continue
                pieces = separation.overlap_add(
                    parts.frames_of(key), partial(_run, accelerator, network), length, overlap
                )
                entries = _spool(spools[: network.tracks], pieces, silence)
                for track, (name, entry) in enumerate(zip(names, entries, strict=True)):
                    parts.add({"key": name, **about, "parent": key, "track": track, "processor": number, **entry})
                done += mixture["count"][0]
            advance(1, f"{done / rate / 3600:.2f} h")
    taken = time.monotonic() - begun
    silent = sum(entry.get("silent", 0) for entry in parts.done.values())
    tracks = sum("parent" in entry for entry in parts.done.values())
    speed = f", {done / rate / taken:.1f} x real time" if done else ""
    terminal.say(
        "separate", f"{len(mixtures)} recordings, {tracks} tracks, {silent} of them next to silent{speed}", quiet
    )


def _run(accelerator, network, segment):
    return accelerator.run(network, segment[None])[0]


def _spool(spools: list, pieces: Iterable, silence: float) -> list[dict]:
    """Write the tracks of one recording, piece by piece, and return where each lies, with its level and mark."""
    import numpy as np

    for spool in spools:
        spool.start()
    whole, energy = 0.0, np.zeros(len(spools))
    for mixture, tracks in pieces:
        for spool, track in zip(spools, tracks, strict=True):
            spool.add_frames(track)
        whole += float(np.square(mixture, dtype=np.float64).sum())
        energy += np.square(tracks, dtype=np.float64).sum(1)
    least = 10 ** (FLOOR / 10)
    level = 10 * np.log10(np.maximum(energy / whole, least)) if whole else np.full(len(spools), FLOOR)
    return [
        {**spool.finish(), "level": float(each), "silent": int(each < silence)}
        for spool, each in zip(spools, level, strict=True)
    ]


def _export(path: Path, folder: Path, quiet: bool) -> None:
    """Write every clip of a separated file as a WAV file of floating point: nothing is clipped, and sums stay true."""
    from soundssl import files, media

    source = files.Features(path)
    rate, several = int(source.attributes["sample_rate"]), source.tracks.processor.max(initial=0) > 0
    for row, key in enumerate(source.clips.key):
        parent = source.tracks.parent[row]
        name = "mixture" if parent < 0 else f"track-{source.tracks.track[row]}"
        if several and parent >= 0:
            name = f"processor-{source.tracks.processor[row]}.{name}"
        stem = source.clips.key[parent] if parent >= 0 else key
        below = [part for part in stem.split("/") if part not in ("", ".", "..")]
        place = folder.joinpath(*below[:-1], f"{below[-1]}.{name}.wav")
        place.parent.mkdir(parents=True, exist_ok=True)
        with files.replace(place) as partial_file:
            media.write_audio(partial_file, rate, source.blocks(row))
    terminal.say("separate", f"{len(source.clips)} WAV files in {files.text(folder)}", quiet)

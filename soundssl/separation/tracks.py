"""Tracks: whole recordings taken apart, by one separator or several, and written beside their mixtures."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from soundssl import SoundsslError, extraction, files, media
from soundssl import device as hardware
from soundssl.datasets import Clip, Shard
from soundssl.extraction.decode import decode, media_source, say_known
from soundssl.extraction.skipping import tell
from soundssl.extraction.sources import Recipe, Source, guard_shard, inputs_of
from soundssl.extraction.waveforms import given_waveforms, waveform_source
from soundssl.ops import separation
from soundssl.ops.spectrogram import WAVEFORM
from soundssl.progress import SILENT, Progress
from soundssl.separation.networks import NO_CLASSIFIER, Segments, read_separator

FLOOR = -120.0  # dB: the level of a track in which nothing is
ESTIMATES = ("on-screen", "off-screen")  # the tracks that stand for all others where only these are kept


@dataclass(frozen=True)
class Separation:
    """Say what became of recordings; `skipped` holds (path, reason) of inputs that gave none.

    `seconds` of sound were separated now, in `taken` seconds. `stood` where the file stood already for the same inputs
    and options, and nothing was done.
    """

    recordings: int = 0
    tracks: int = 0
    silent: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    taken: float = 0.0
    stood: bool = False

    def __str__(self) -> str:
        """Return one line."""
        speed = f", {self.seconds / self.taken:.1f} x real time" if self.seconds else ""
        return f"{self.recordings} recordings, {self.tracks} tracks, {self.silent} of them next to silent{speed}"


def separate(
    inputs: Path | Sequence[Path] | Mapping[str, Clip],
    model: Path | Sequence[Path],
    output: Path,
    *,
    length: float = 10.0,
    overlap: float = 2.0,
    silence: float = -30.0,
    onscreen: bool = False,
    shard: Shard | None = None,
    force: bool = False,
    strict: bool = False,
    jobs: int = 0,
    timeout: float = 3600,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    progress: Progress = SILENT,
    command: str | None = None,
) -> Separation:
    """Take the recordings of media, or of one features file of waveforms, apart into tracks that sum to them.

    Writes a features file of waveforms: every mixture, and beside it its tracks, of each `model` in turn. `length` are
    the seconds that are separated at a time, `overlap` those by which they overlap at least, `silence` the level in dB
    relative to the mixture below which a track is marked silent; `device` and the rest are as for `device.start` and
    `extraction.featurize`. A model of the on-screen objective says of each track how probably it is seen; `onscreen`
    writes two tracks in place of all: what is on screen, each track times its probability, and the rest. Nothing is on
    screen of a recording without pictures.

    An interrupted run goes on where it was. Raises FormatError for a model that is no separator or one of other
    waveforms, and where `onscreen` is asked of one that cannot see; Missing, Unusable, ValueError for an overlap of
    more than half the length, and SoundsslError where no input gives a clip.
    """
    output, paths = Path(output), inputs_of(model)
    if overlap > length / 2:
        raise ValueError(f"an overlap of {overlap} s is more than half of {length} s")
    files.guard_inputs(output, paths)
    trained = [read_separator(path, WAVEFORM.attributes()) for path in paths]
    seeing = [each.config["heads"]["onscreen"] for each in trained if "onscreen" in each.config.get("heads", {})]
    if onscreen and len(seeing) < len(trained):
        raise files.FormatError(f"{files.text(paths[0])} {NO_CLASSIFIER}")
    source = _source(inputs, output, shard, seeing[0] if seeing else None)
    guard_shard(output, shard, force)
    with hardware.start(device, precision, threads) as accelerator:
        origin = [files.identity("model", each.path, each.attributes) for each in trained]
        settings = [origin, float(length), float(overlap), float(silence), str(accelerator.dtype)]
        settings += ["onscreen"] * onscreen
        made_from = files.digest("separated", source.made_from, settings)
        if not force and files.made_from(output) == made_from:
            files.clear_finished(output, made_from)
            return Separation(stood=True)
        progress.say(accelerator.reason)
        if force:
            files.Store.begin_afresh(output)
        networks = [Segments(each, accelerator) for each in trained]
        attributes = {**source.attributes, "processors": json.dumps(origin), "silence": float(silence)}
        attributes |= {"estimates": ", ".join(ESTIMATES)} if onscreen else {}
        with contextlib.closing(files.Store(output, attributes, "f4", made_from)) as spool:
            say_known(spool, source, progress)
            decode(spool, source, jobs, timeout, strict, progress)
            tell(spool.skipped(source.clips), source, progress, output)
            found = _separate_all(spool, source, networks, (length, overlap), silence, onscreen, progress)
            if not found.recordings and not shard:
                spool.discard()
                raise SoundsslError(f"none of {len(source.clips)} inputs gave a clip; nothing was written")
            keys = [*source.clips, *(key for key, entry in spool.done.items() if "parent" in entry)]
            spool.lay_out(keys, [*source.inputs, *origin], source.image_size, command)
    return found


def _source(
    inputs: Path | Sequence[Path] | Mapping[str, Clip],
    output: Path,
    shard: Shard | None,
    pictures: Mapping[str, Any] | None,
) -> Source:
    """Return what is to be read, without tracks of an earlier separation; refuse an output that would replace it.

    `pictures` are the image_size and image_rate that a model sees, None where none does.
    """
    paths = [] if isinstance(inputs, Mapping) else inputs_of(inputs)
    if given_waveforms(paths):
        source = waveform_source(paths[0], WAVEFORM, "float32", shard=shard)
        given = files.Features(paths[0])
        mixtures = set(given.clips.key[given.recorded])
        source = replace(source, clips={key: clip for key, clip in source.clips.items() if key in mixtures})
    else:
        clips = inputs if isinstance(inputs, Mapping) else extraction.collect(paths, outputs=[output])
        shown = {name: pictures[name] for name in ("image_size", "image_rate")} if pictures else {}
        source = media_source(clips, Recipe(WAVEFORM, images=bool(shown), **shown), "float32", shard)
    files.guard(output, no_clobber=False)
    files.guard_inputs(output, {clip.path for clip in source.clips.values()})
    return source


def _separate_all(
    spool: files.Store,
    source: Source,
    networks: Sequence[Segments],
    seconds: tuple[float, float],
    silence: float,
    onscreen: bool,
    progress: Progress,
) -> Separation:
    """Separate the mixtures that the journal has no tracks of yet, by every network; `seconds`: length and overlap."""
    rate, mixtures = int(spool.attributes["sample_rate"]), spool.clips(source.clips)
    length, overlap = (max(1, round(each * rate)) for each in seconds)
    folder, counts = spool.folder, [len(ESTIMATES) if onscreen else each.tracks for each in networks]
    spools = [files.Spool(folder, f"worker-track-{i}", "f4") for i in range(max(counts))]
    begun, done, blind = time.monotonic(), 0, 0
    try:
        with progress.track("separate", len(mixtures), "recordings") as advance:
            for mixture in mixtures:
                for number, network in enumerate(networks):
                    several = f"{number}." if len(networks) > 1 else ""
                    names = [f"{mixture['key']}#{several}{track}" for track in range(counts[number])]
                    if all(name in spool.done for name in names):
                        continue
                    images = spool.images_of(mixture["key"], source.image_size)
                    blind += onscreen and not len(images)
                    run = network.of(images, float(spool.attributes["image_rate"]), rate)
                    blocks = separation.overlap_add_at(spool.frames_of(mixture["key"]), run, length, overlap)
                    entries = _write(spools[: counts[number]], blocks, silence, onscreen, mixture["key"])
                    for track, (name, entry) in enumerate(zip(names, entries, strict=True)):
                        spool.add({**_about(mixture), "key": name, "track": track, "processor": number, **entry})
                    done += mixture["count"][0]
                advance(1, f"{done / rate / 3600:.2f} h")
    except (KeyboardInterrupt, SystemExit):  # SIGINT and SIGTERM
        progress.warn("interrupted; the same command goes on from here")
        raise
    if blind:
        progress.warn(f"{blind} of {len(mixtures)} recordings have no pictures; all of their sound is off screen")
    tracks = [entry for entry in spool.done.values() if "parent" in entry]
    skipped = tuple((entry["path"], entry["reason"]) for entry in spool.skipped(source.clips))
    silent = sum(entry["silent"] for entry in tracks)
    return Separation(len(mixtures), len(tracks), silent, skipped, done / rate, time.monotonic() - begun)


def _about(mixture: dict) -> dict:
    """Return what a track's entry says of its mixture."""
    return {**{name: mixture[name] for name in ("recording", "split", "source", "start")}, "parent": mixture["key"]}


def _write(
    spools: Sequence[files.Spool],
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    silence: float,
    onscreen: bool,
    name: str,
) -> list[dict]:
    """Write the tracks of one recording, block by block, and return where each lies, with its level and mark.

    Tracks of two kinds, [tracks, 2, n], tell of each track its mean probability to be on screen, by energy; `onscreen`
    writes the sum of the second kind and the rest of the mixture.
    Raises SoundsslError with the recording's name where tracks are not finite.
    """
    for spool in spools:
        spool.start()
    whole, energy, seen = 0.0, np.zeros(len(spools)), _Seen()
    for mixture, tracks in blocks:
        if tracks.ndim == 3:
            seen.add(tracks)
        if onscreen:
            on = tracks[:, 1].sum(0) if tracks.ndim == 3 else np.zeros_like(mixture)
            tracks = np.stack([on, mixture - on])
        elif tracks.ndim == 3:
            tracks = tracks[:, 0]
        for spool, track in zip(spools, tracks, strict=True):
            spool.add_frames(track)
        whole += float(np.square(mixture, dtype=np.float64).sum())
        energy += np.square(tracks, dtype=np.float64).sum(1)
    if not np.isfinite(energy).all():
        raise SoundsslError(f"the tracks of {name} are not finite; soundssl info --verify says which input is damaged")
    least = 10 ** (FLOOR / 10)
    level = 10 * np.log10(np.maximum(energy / whole, least)) if whole else np.full(len(spools), FLOOR)
    told = seen.entries(len(spools), onscreen)
    return [
        {**spool.finish(), "level": float(each), "silent": int(each < silence), **said}
        for spool, each, said in zip(spools, level, told, strict=True)
    ]


class _Seen:
    """Add up of each track its energy, and that times its probability."""

    def __init__(self) -> None:
        self.energy: Any = 0.0
        self.product: Any = 0.0

    def add(self, tracks: np.ndarray) -> None:
        """Take note of tracks and tracks times their probability. Shape: [tracks, 2, n]."""
        own = tracks.astype(np.float64)
        self.energy = self.energy + np.square(own[:, 0]).sum(1)
        self.product = self.product + (own[:, 0] * own[:, 1]).sum(1)

    def entries(self, count: int, onscreen: bool) -> list[dict[str, float]]:
        """Return what the table says of each track; of estimates, the largest probability of a track, and none."""
        if np.ndim(self.energy) == 0:  # nothing was seen
            return [{"onscreen": 0.0} if onscreen else {}] * count
        probability = np.clip(self.product / np.maximum(self.energy, np.finfo(np.float64).tiny), 0.0, 1.0)
        found = [float(probability.max()), 0.0] if onscreen else probability.tolist()
        return [{"onscreen": each} for each in found]


def export(path: Path, folder: Path) -> int:
    """Write every clip of a separated file as a WAV file below a folder; return how many.

    They are of floating point: nothing is clipped, and sums stay true. Raises FormatError, Missing, Unusable.
    """
    guard_folder(folder)
    source = files.Features(path)
    rate, several = int(source.attributes["sample_rate"]), source.tracks.processor.max(initial=0) > 0
    names = dict(enumerate(ESTIMATES)) if "estimates" in source.attributes else {}
    for row, key in enumerate(source.clips.key):
        parent = source.tracks.parent[row]
        name = "mixture" if parent < 0 else names.get(int(track := source.tracks.track[row]), f"track-{track}")
        if several and parent >= 0:
            name = f"processor-{source.tracks.processor[row]}.{name}"
        stem = source.clips.key[parent] if parent >= 0 else key
        below = [part for part in stem.split("/") if part not in ("", ".", "..")]
        place = folder.joinpath(*below[:-1], f"{below[-1]}.{name}.wav")
        place.parent.mkdir(parents=True, exist_ok=True)
        with files.replace(place) as partial_file:
            media.write_audio(partial_file, rate, source.blocks(row))
    return len(source.clips)


def guard_folder(folder: Path) -> None:
    """Raise Unusable where nothing can be written below a folder because it is a file."""
    if folder.exists() and not folder.is_dir():
        raise files.Unusable(f"{files.text(folder)} is a file; name a folder")

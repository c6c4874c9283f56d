"""Decoding: media clips to frames and images in a pool; every input ends as clips or as a reason why it gives none."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from soundssl import SoundsslError, files, media
from soundssl.datasets import Clip, Shard
from soundssl.extraction import pool
from soundssl.extraction import range as bands
from soundssl.extraction.sources import Recipe, Source, digest_of, in_shard
from soundssl.ops import spectrogram
from soundssl.progress import SILENT, Progress

# How recordings too short for a window are brought to the length of one.
EXTENDED = {"pad": spectrogram.extended, "tile": spectrogram.tiled}


def media_source(clips: Mapping[str, Clip], recipe: Recipe, store: str, shard: Shard | None = None) -> Source:
    """Return the source of features that are decoded from media files, or from those of one shard."""
    mine = in_shard(clips, shard)
    attributes = {**recipe.attributes(), **({"part": str(shard)} if shard else {})}
    digests = {key: digest_of(one) for key, one in mine.items()}
    made_from = files.digest("features", sorted(digests.values()), attributes, store)
    inputs = [{"role": "media", "file": f"{len(mine)} files", "uuid": files.digest(sorted(digests.values()))}]
    begin = partial(prepare, recipe, bands.sample(mine, recipe.front_end))
    return Source(mine, attributes, made_from, inputs, recipe.sides, begin, digests)


def decode(
    store: files.Store,
    source: Source,
    jobs: int = 0,
    timeout: float = 3600,
    strict: bool = False,
    progress: Progress = SILENT,
) -> None:
    """Put into a store what workers make of the clips that its journal does not know, or why they give nothing.

    `jobs` are worker processes, 0 one a core; `timeout` seconds a clip, 0 without bound. Raises SoundsslError for the
    first clip that gives nothing if `strict`.
    """
    known = {key for key, entry in store.done.items() if not (strict and "reason" in entry)}
    todo = [clip for key, clip in source.clips.items() if key not in known]
    work = partial(source.prepare, store.folder, store.dtype)
    begun, seconds, rate = time.monotonic(), 0.0, float(store.attributes["frame_rate"])
    skipped = 0
    try:
        with progress.track("decode", len(todo), "files") as advance:
            for clip, answer in pool.run(work, todo, jobs or pool.cores(), timeout or None):
                entry = _entry(clip, answer, source.digests)
                _tell(clip, entry, strict, progress)
                store.add(entry)
                seconds += sum(span.get("count", [0])[0] for span in entry.get("spans", [entry])) / rate
                speed = seconds / max(time.monotonic() - begun, 1e-3)
                skipped += "reason" in entry
                note = f"{seconds / 3600:.2f} h of sound, {speed:,.0f} × real time"
                advance(1, note + (f", {skipped} skipped" if skipped else ""))
    except (KeyboardInterrupt, SystemExit):  # SIGINT and SIGTERM
        progress.warn("interrupted; the same command goes on from here")
        raise


def say_known(store: files.Store, source: Source, progress: Progress) -> None:
    """Say how many of the clips an interrupted run has done."""
    if known := sum(key in store.done for key in source.clips):
        progress.say(f"going on: {known} of {len(source.clips)} inputs were done before")


def _entry(clip: Clip, answer: Any, digests: Mapping[str, str]) -> dict:
    """Return what the journal says of a clip: where its spans lie, or the reason why it has none."""
    if isinstance(answer, pool.WorkerDied):
        answer = {"reason": str(answer), "passing": answer.late}
    key = files.text(clip.key)
    entry = {"key": key, **({"made_from": digests[key]} if key in digests else {}), **answer}
    return {**entry, "path": files.text(clip.path)} if "reason" in entry else entry


def _tell(clip: Clip, entry: dict, strict: bool, progress: Progress) -> None:
    """Say what was wrong with a clip that is kept; raise SoundsslError where it gives nothing if `strict`."""
    said = entry.pop("said", "")
    if "reason" in entry and strict:
        raise SoundsslError(f"{entry['path']}: {entry['reason']}; leave out --strict to go on without it")
    if said and "reason" not in entry:
        progress.say(f"{files.text(clip.path)}: {said}; kept")


def prepare(recipe: Recipe, looked_at: Collection[str], folder: Path, dtype: str, number: int):
    """Open one worker's spool and return the function that turns a clip into what the journal says of it.

    Of the clips `looked_at` it says how much energy lies above the bands.
    """
    spool = files.Spool(folder, f"worker-{number}", dtype)
    waveform = recipe.front_end.representation == "waveform"
    transform = partial(spectrogram.held, dtype=dtype) if waveform else spectrogram.LogMel(recipe.front_end)

    def work(clip: Clip) -> dict:
        spool.start()
        try:
            spans: list[dict] = []
            for channel in recipe.channels(clip.path):
                spans += _spans(clip, channel, recipe, spool, transform)
        except media.DecodeError as error:
            spool.abandon()
            return {"reason": error.reason, "passing": error.passing}
        except spectrogram.Overflow as error:
            spool.abandon()
            return {"reason": str(error)}
        except OSError as error:
            if error.errno in files.FULL:  # no fault of this file's: the run ends, and can go on
                raise
            spool.abandon()
            return {"reason": str(error), "passing": True}
        except Exception as error:  # a codec may raise anything; the file is named with it and the run goes on
            spool.abandon()
            return {"reason": f"{type(error).__name__}: {error}"}
        said = [span.pop("said") for span in spans]
        wide = (
            bands.energy(clip.path, clip.start, clip.end, recipe.front_end)
            if files.text(clip.key) in looked_at
            else None
        )
        return {"spans": spans, "said": max(said), **({"above": wide} if wide else {})}

    return work


def _spans(clip: Clip, channel: int | None, recipe: Recipe, spool: files.Spool, transform) -> list[dict]:
    """Write the frames and images of one channel into the spool; raise DecodeError where no span is long enough."""
    front_end, heard = recipe.front_end, media.Heard()
    length = round(recipe.clip * front_end.sample_rate)
    made, longest = [], 0
    for number, waveform in enumerate(_waveforms(clip, channel, recipe, length, heard)):
        for frames in transform(waveform):
            spool.add_frames(frames)
        longest = max(longest, spool.count[0])
        if spool.count[0] < front_end.window_frames:
            spool.drop()
            continue
        start, end, key = clip.start, clip.end, files.text(clip.key)
        if length:
            start, end = (clip.start + (number + i) * length / front_end.sample_rate for i in (0, 1))
            end = end if clip.end is None else min(end, clip.end)
            key = f"{key}@{start:.12g}-{end:.12g}"
        pictures = recipe.images and heard.pictures
        for image in (
            media.read_images(clip.path, recipe.image_rate, recipe.sides, start, end, heard) if pictures else ()
        ):
            spool.add_images(image[None])
        about = {"key": key if recipe.channel != "each" else f"{key}[{channel}]", "start": start}
        made.append({**about, **spool.finish()})
    if not made:
        seconds, window = (frames / front_end.frame_rate for frames in (longest, front_end.window_frames))
        fact = f"{heard.truncated}, too short" if heard.truncated else f"too short: {seconds:.2f} s of frames"
        raise media.DecodeError(clip.path, f"{fact}, a window takes {window:.4g} s")
    about = {
        "recording": files.text(clip.recording or clip.key),
        "split": files.text(clip.split),
        "source": files.text(clip.path),
        "peak": heard.peak,
        "clipped": heard.clipped,
        "truncated": int(bool(heard.truncated)),
        "said": heard.said,
    }
    return [{**about, **span} for span in made]


def _waveforms(
    clip: Clip, channel: int | None, recipe: Recipe, length: int, heard: media.Heard
) -> Iterator[Iterable[np.ndarray]]:
    """Yield the blocks of each span of `length` samples, of the whole clip where that is 0. Shape: `[samples]` each."""
    front_end = recipe.front_end

    def sound(counted: media.Heard) -> Iterator[np.ndarray]:
        keep, fill = recipe.truncated == "keep", recipe.damaged == "keep"
        span = front_end.sample_rate, clip.start, clip.end, channel
        return media.read_audio(clip.path, *span, keep, counted, keep_damaged=fill)

    blocks = sound(heard)
    if front_end.level == spectrogram.LEVELLED:  # the level is that of the whole: the file is decoded twice
        blocks = spectrogram.levelled(blocks, spectrogram.level_of(sound(media.Heard())))
    for waveform in spectrogram.cut(blocks, length) if length else [blocks]:
        if recipe.short in EXTENDED:
            waveform = EXTENDED[recipe.short](waveform, front_end.samples(front_end.window_frames))
        yield waveform

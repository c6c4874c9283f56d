"""Decoding: inputs to frames in a pool of processes; every input ends as clips or as a reason why it gives none."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from soundssl import SoundsslError
from soundssl.commands import terminal

IMAGE_SIZE = 128  # pixels a side; inferred: what AudioScope used with the image tower of Jansen et al. 2020


@dataclass(frozen=True)
class Recipe:
    """Say how every input is decoded; `channel` is mix, each or a number from 1, `clip` is 0 for whole recordings."""

    front_end: Any
    images: bool = True
    image_size: int = IMAGE_SIZE  # pixels a side
    channel: str = "mix"
    clip: float = 0.0
    short: str = "skip"
    truncated: str = "keep"
    damaged: str = "keep"

    def attributes(self) -> dict[str, object]:
        """Return all of it by name, as it stands in a features file."""
        from soundssl import media

        return {
            **self.front_end.attributes(),
            "resampler": media.RESAMPLER,
            "image_rate": 1.0 if self.images else 0.0,
            "image_size": self.image_size if self.images else 0,
            "channel": self.channel,
            "clip": self.clip,
            "short": self.short,
            "truncated": self.truncated,
            "damaged": self.damaged,
        }

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of images in pixels."""
        return self.image_size, self.image_size

    def channels(self, path: Path) -> list[int | None]:
        """Return the channels to take of a file: None for their average."""
        from soundssl import media

        if self.channel == "each":
            return list(range(1, media.channel_count(path) + 1))
        return [None if self.channel == "mix" else int(self.channel)]


def source_digest(clip) -> str:
    """Return what says whether an input is still the same: its name, size, time of change, and what is known of it."""
    from soundssl import files

    try:
        status = clip.path.stat()
        state = [status.st_size, status.st_mtime_ns]
    except OSError:  # it will be skipped, with this as its reason
        state = [None, None]
    about = [clip.start, clip.end, clip.recording, clip.split]
    return files.digest(files.text(clip.key), files.text(clip.path), *state, *about)


def decode(
    command: str,
    store,
    clips: dict,
    prepare,
    jobs: int,
    timeout: float,
    strict: bool,
    quiet: bool,
    sources: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Put into a store what workers make of the clips that its journal does not know; name those that give nothing.

    `prepare(number)` gives the function that turns a clip into a journal entry; `sources` are digests of the inputs by
    key. Raises SoundsslError for the first that gives nothing if `strict`.
    """
    from soundssl import files, workers

    known = {key for key, entry in store.done.items() if not (strict and "reason" in entry)}
    keys = [key for key in clips if key not in known]
    todo = [clips[key] for key in keys]
    begun, seconds, rate = time.monotonic(), 0.0, float(store.attributes["frame_rate"])
    try:
        with terminal.progress(command, len(todo), "files", quiet) as advance:
            for clip, answer in workers.run(prepare, todo, jobs or workers.cores(), timeout or None):
                if isinstance(answer, workers.WorkerDied):
                    answer = {"reason": str(answer), "passing": answer.late}
                key = files.text(clip.key)
                answer = {"key": key, **({"made_from": sources[key]} if key in sources else {}), **answer}
                if "reason" in answer:
                    answer["path"] = files.text(clip.path)
                    fact = f"{answer['path']}: {answer['reason']}"
                    if strict:
                        raise SoundsslError(f"{fact}; leave out --strict to go on without it")
                    terminal.say(command, f"{fact}; skipped")
                elif said := answer.pop("said", ""):
                    terminal.say(command, f"{files.text(clip.path)}: {said}; kept", quiet)
                store.add(answer)
                seconds += sum(piece.get("count", [0])[0] for piece in answer.get("pieces", [answer])) / rate
                speed = seconds / max(time.monotonic() - begun, 1e-3)
                advance(1, f"{seconds / 3600:.2f} h of sound, {speed:,.0f} × real time")
    except (KeyboardInterrupt, SystemExit):  # SIGINT and SIGTERM
        terminal.say(command, "interrupted; the same command goes on from here")
        raise


def say_known(command: str, store, clips: dict, quiet: bool) -> None:
    """Say how many of the clips an interrupted run has done."""
    known = sum(key in store.done for key in clips)
    if known:
        terminal.say(command, f"going on: {known} of {len(clips)} inputs were done before", quiet)


def prepare(recipe: Recipe, folder: Path, front_end, dtype: str, images: bool, number: int):
    """Open one worker's spool and return the function that turns a clip into what the journal says of it."""
    from soundssl import files, media
    from soundssl.ops import spectrogram

    spool = files.Spool(folder, f"worker-{number}", dtype)
    waveform = front_end.representation == "waveform"
    transform = partial(spectrogram.held, dtype=dtype) if waveform else spectrogram.LogMel(front_end)

    def work(clip) -> dict:
        spool.start()
        try:
            pieces: list[dict] = []
            for channel in recipe.channels(clip.path):
                pieces += _pieces(clip, channel, recipe, spool, transform)
        except media.DecodeError as error:
            spool.abandon()
            return {"reason": error.reason, "passing": error.passing}
        except spectrogram.Overflow as error:
            spool.abandon()
            return {"reason": str(error)}
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no fault of this file's: the run ends, and can go on
                raise
            spool.abandon()
            return {"reason": str(error), "passing": True}
        except Exception as error:  # a codec may raise anything; the file is named with it and the run goes on
            spool.abandon()
            return {"reason": f"{type(error).__name__}: {error}"}
        said = [piece.pop("said") for piece in pieces]
        return {"pieces": pieces, "said": max(said)}

    return work


def _pieces(clip, channel: int | None, recipe: Recipe, spool, transform) -> list[dict]:
    """Write the frames and images of one channel into the spool, a piece a clip; raise DecodeError where none is."""
    from soundssl import files, media
    from soundssl.ops import spectrogram

    front_end, heard = recipe.front_end, media.Heard()

    def sound(counted) -> Iterator:
        keep, fill = recipe.truncated == "keep", recipe.damaged == "keep"
        rate, path = front_end.sample_rate, clip.path
        return media.read_audio(path, rate, clip.start, clip.end, channel, keep, counted, keep_damaged=fill)

    blocks = sound(heard)
    if front_end.level == spectrogram.LEVELLED:  # the level is that of the whole: the file is decoded twice
        blocks = spectrogram.levelled(blocks, spectrogram.level_of(sound(media.Heard())))
    length = round(recipe.clip * front_end.sample_rate)
    made, longest = [], 0
    for number, waveform in enumerate(spectrogram.cut(blocks, length) if length else [blocks]):
        if recipe.short == "pad":
            waveform = spectrogram.extended(waveform, front_end.samples(front_end.window_frames))
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
        for image in media.read_images(clip.path, 1.0, recipe.sides, start, end, heard) if pictures else ():
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
    return [{**about, **piece} for piece in made]

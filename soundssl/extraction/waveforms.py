"""Features of waveforms as input: the same clips and tracks again, as log-mel frames or as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from soundssl import SoundsslError, files
from soundssl.datasets import Clip, Shard, belongs
from soundssl.extraction.sources import Source
from soundssl.ops import spectrogram
from soundssl.ops.spectrogram import FrontEnd


def given_waveforms(inputs: Sequence[Path]) -> bool:
    """Return whether the input is one features file."""
    return len(inputs) == 1 and inputs[0].is_file() and files.kind_of(inputs[0]) == "features"


def waveform_source(
    path: Path, front_end: FrontEnd, store: str, images: bool = True, shard: Shard | None = None
) -> Source:
    """Return the source of features that are made of a waveform file, or of those of its clips in one shard.

    Tracks belong to the shard of their mixture. Raises FormatError for other files, SoundsslError for an empty one.
    """
    source = files.Features(path)
    source.require("waveform", "the command takes")
    if source.attributes["sample_rate"] != front_end.sample_rate:
        raise files.FormatError(
            f"{files.text(path)} has {source.attributes['sample_rate']} samples a second, the front end takes "
            f"{front_end.sample_rate}; make it again with soundssl featurize --representation waveform"
        )
    if not len(source.clips):
        raise SoundsslError(f"{files.text(path)} holds no clips; nothing was written")
    inputs = [files.identity("features", path, source.attributes)]
    options = {**front_end.attributes(), "store": store, "images": images, **({"part": shard} if shard else {})}
    kept = {
        name: source.attributes[name]
        for name in ("resampler", "processors", "silence", "image_size")
        if name in source.attributes
    }
    attributes = {**front_end.attributes(), **kept, "image_rate": source.attributes["image_rate"] if images else 0.0}
    attributes |= {"part": str(shard)} if shard else {}
    mixtures = source.clips.key[np.where(source.tracks.parent < 0, np.arange(len(source.clips)), source.tracks.parent)]
    whose = zip(source.clips.key, mixtures, strict=True)
    clips = {key: Clip(key, path) for key, mixture in whose if belongs(mixture, shard)}
    size = source.images.shape[1:3] if source.images is not None else (1, 1)
    begin = partial(prepare, path, front_end, images)
    return Source(clips, attributes, files.digest("features", inputs, options), inputs, size, begin)


def prepare(
    path: Path, front_end: FrontEnd, images: bool, folder: Path, dtype: str, number: int
) -> Callable[[Any], dict]:
    """Open one worker's spool and return the function that turns a clip of a waveform file into a journal entry."""
    spool, source = files.Spool(folder, f"worker-{number}", dtype), files.Features(path)
    row = {key: i for i, key in enumerate(source.clips.key)}
    waveform = front_end.representation == "waveform"
    transform = partial(spectrogram.held, dtype=dtype) if waveform else spectrogram.LogMel(front_end)

    def turn(clip: Clip) -> dict:
        spool.start()
        try:
            for frames in transform(source.blocks(row[clip.key])):
                spool.add_frames(frames)
        except spectrogram.Overflow as error:
            spool.abandon()
            return {"reason": str(error)}
        pictures = source.images_of(row[clip.key]) if images else None
        if pictures is not None and len(pictures):
            spool.add_images(pictures)
        return {**source.facts(row[clip.key]), **spool.finish()}

    return turn

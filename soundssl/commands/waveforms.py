"""Features of waveforms as input: the same clips and tracks again, as log-mel frames or as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from soundssl import SoundsslError
from soundssl.commands.options import belongs


class Work(NamedTuple):
    """Say what a features file is made of: its clips by key, its attributes and origin, and how a worker begins.

    `prepare(folder, front_end, dtype, images, number)` returns the function that turns a clip into a journal entry.
    """

    clips: dict
    attributes: dict
    made_from: str
    inputs: list[dict]
    image_size: tuple[int, int]
    prepare: Callable[..., Callable[[Any], dict]]
    # Digests of the inputs by key, where they can be taken over by an update.
    sources: Mapping[str, str] = MappingProxyType({})


def given(inputs: list[Path]) -> bool:
    """Return whether the input is one features file."""
    from soundssl import files

    return len(inputs) == 1 and inputs[0].is_file() and files.kind_of(inputs[0]) == "features"


def work(
    path: Path,
    output: Path,
    front_end,
    store: str,
    images: bool,
    no_clobber: bool,
    part: tuple[int, int] | None = None,
) -> Work:
    """Return the work of turning the clips of a waveform file, or of them one part, into features.

    Tracks belong to the part of their mixture. Refuses other files, and outputs of no use.
    """
    import numpy as np

    from soundssl import datasets, files

    files.guard(output, no_clobber)
    files.guard_inputs(output, [path])
    source = files.Features(path)
    source.require("waveform", "the command takes")
    if source.attributes["sample_rate"] != front_end.sample_rate:
        raise files.FormatError(
            f"{files.text(path)} has {source.attributes['sample_rate']} samples a second, the front end takes "
            f"{front_end.sample_rate}; make it again with soundssl featurize --representation waveform"
        )
    if not len(source.clips):
        raise SoundsslError(f"{files.text(path)} holds no clips; nothing was written")
    origin = [files.identity("features", path, source.attributes)]
    options = {**front_end.attributes(), "store": store, "images": images, **({"part": part} if part else {})}
    made_from = files.digest("features", origin, options)
    kept = {
        name: source.attributes[name]
        for name in ("resampler", "processors", "silence", "image_size")
        if name in source.attributes
    }
    attributes = {**front_end.attributes(), **kept, "image_rate": source.attributes["image_rate"] if images else 0.0}
    attributes |= {"part": f"{part[0]}/{part[1]}"} if part else {}
    mixtures = source.clips.key[np.where(source.tracks.parent < 0, np.arange(len(source.clips)), source.tracks.parent)]
    whose = zip(source.clips.key, mixtures, strict=True)
    clips = {key: datasets.Clip(key, path) for key, mixture in whose if belongs(mixture, part)}
    size = source.images.shape[1:3] if source.images is not None else (1, 1)
    return Work(clips, attributes, made_from, origin, size, partial(prepare, path))


def prepare(path: Path, folder: Path, front_end, dtype: str, images: bool, number: int) -> Callable[[Any], dict]:
    """Open one worker's spool and return the function that turns a clip of a waveform file into a journal entry."""
    from soundssl import files
    from soundssl.ops import spectrogram

    spool, source = files.Spool(folder, f"worker-{number}", dtype), files.Features(path)
    row = {key: i for i, key in enumerate(source.clips.key)}
    waveform = front_end.representation == "waveform"
    transform = partial(spectrogram.held, dtype=dtype) if waveform else spectrogram.LogMel(front_end)

    def turn(clip) -> dict:
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

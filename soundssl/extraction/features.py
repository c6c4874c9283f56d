"""Features: media files or waveforms to one features file, so that no interruption costs or changes anything."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from soundssl import SoundsslError, __version__, files
from soundssl.datasets import Clip, Shard
from soundssl.extraction import labels as clip_labels
from soundssl.extraction.decode import decode, media_source, say_known
from soundssl.extraction.range import beyond
from soundssl.extraction.skipping import tell
from soundssl.extraction.sources import STORES, Recipe, Source, collect, guard_shard, inputs_of
from soundssl.extraction.waveforms import given_waveforms, waveform_source
from soundssl.progress import SILENT, Progress


@dataclass(frozen=True)
class Extraction:
    """Say what became of the inputs of a features file; `skipped` holds (path, reason) of those that gave no clip.

    `stood` where the file stood already for the same inputs and options, and nothing was done.
    """

    clips: int = 0
    hours: float = 0.0
    skipped: tuple[tuple[str, str], ...] = ()
    silent: int = 0
    clipped: int = 0
    truncated: int = 0
    stood: bool = False

    def __str__(self) -> str:
        """Return one line; what is no error is only counted."""
        counts = {"silent": self.silent, "clipped": self.clipped, "truncated": self.truncated}
        others = "".join(f", {count} {name}" for name, count in counts.items() if count)
        return f"{self.clips} clips, {self.hours:.2f} hours, {len(self.skipped)} inputs skipped{others}"


def featurize(
    inputs: Path | Sequence[Path] | Mapping[str, Clip],
    output: Path,
    recipe: Recipe = Recipe(),
    *,
    store: str | None = None,
    labels: Path | None = None,
    shard: Shard | None = None,
    update: bool = False,
    force: bool = False,
    strict: bool = False,
    jobs: int = 0,
    timeout: float = 3600,
    progress: Progress = SILENT,
    command: str | None = None,
) -> Extraction:
    """Turn media files, folders, clips or one features file of waveforms into a features file, and say what was made.

    An interrupted run goes on where it was, and ends in the same bytes. `store` is float16 or float32, by default that
    of the recipe; `labels` where to write what a collection says of its clips; `shard` the only one to decode;
    `update` takes over from the output what has not changed; `force` begins afresh; `strict` stops at the first input
    that gives nothing; `jobs` are worker processes, 0 one a core; `timeout` seconds a file, 0 without bound. Raises
    FormatError, Missing, Unusable, and SoundsslError where no input gives a clip.
    """
    output = Path(output)
    source, store = _source(inputs, output, recipe, store or recipe.store, shard), store or recipe.store
    _guard(output, labels, source)
    guard_shard(output, shard, force)
    if not force and files.made_from(output) == source.made_from:
        if labels and files.made_from(labels) != clip_labels.made_from(source):
            clip_labels.write(labels, source, output, command)
            progress.say(f"{files.text(labels)} is made again")
        files.clear_finished(output, source.made_from)
        return Extraction(stood=True)
    if force:
        files.Store.begin_afresh(output)
    options = files.digest(source.attributes, store, __version__) if source.digests else source.made_from
    with contextlib.closing(files.Store(output, source.attributes, STORES[store], options)) as spool:
        if not force:
            _take_over(spool, source, update, progress)
        decode(spool, source, jobs, timeout, strict, progress)
        entries = spool.skipped(source.clips)
        nothing = len(entries) == len(source.clips) and not shard
        tell(entries, source, progress, None if nothing else output)
        skipped = tuple((entry["path"], entry["reason"]) for entry in entries)
        if nothing:
            spool.discard()
            raise SoundsslError(f"none of {len(source.clips)} inputs gave a clip; nothing was written")
        made = spool.lay_out(list(source.clips), source.inputs, source.image_size, command, source.made_from)
    if labels:
        clip_labels.write(labels, source, output, command)
    if told := beyond([entry["above"] for entry in spool.done.values() if "above" in entry], recipe.front_end):
        progress.say(told)
    return Extraction(
        len(made),
        sum(clip["count"][0] for clip in made) / recipe.front_end.frame_rate / 3600,
        skipped,
        silent=sum(clip.get("peak") == 0 for clip in made),
        clipped=sum(clip.get("clipped", 0) > 0 for clip in made),
        truncated=sum(clip.get("truncated", 0) for clip in made),
    )


def _source(inputs, output: Path, recipe: Recipe, store: str, shard: Shard | None) -> Source:
    """Return what the inputs are a source of: media, or waveforms."""
    if isinstance(inputs, Mapping):
        return media_source(inputs, recipe, store, shard)
    paths = inputs_of(inputs)
    if given_waveforms(paths):
        return waveform_source(paths[0], recipe.front_end, store, recipe.images, shard)
    return media_source(collect(paths, outputs=[output]), recipe, store, shard)


def _guard(output: Path, labels: Path | None, source: Source) -> None:
    """Refuse outputs that cannot be written, or would replace an input, before any work."""
    media = {clip.path for clip in source.clips.values()}
    for path in [output, *([labels] if labels else [])]:
        files.guard(path, no_clobber=False)
        files.guard_inputs(path, media)
    if labels and not clip_labels.said(source):
        raise files.Unusable(f"{files.text(labels)}: nothing is said of classes; leave it out")


def _take_over(spool: files.Store, source: Source, update: bool, progress: Progress) -> None:
    """Take from an interrupted run, and to `update` from the finished output, what still holds; say what does not."""
    name = files.text(spool.output)
    if spool.forgotten:
        progress.say(f"what a run left unfinished is begun again: {', '.join(spool.forgotten)}")
    spool.keep(source.digests)
    say_known(spool, source, progress)
    if files.made_from(spool.output) is None or files.attributes_of(spool.output).get("kind") != "features":
        return
    if changed := files.differences(spool.output, spool.attributes, spool.dtype):
        progress.say(f"{name} is made again: {', '.join(changed)}")
    elif not update:
        progress.say(f"{name} is made again: its inputs have changed; --update takes over the rest")
    else:
        taken = spool.adopt(source.digests)
        progress.say(f"{taken} of {len(source.clips)} inputs are taken over from {name}")

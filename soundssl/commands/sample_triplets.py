"""soundssl sample-triplets: a layout of clips to recipes of triplets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from soundssl import SoundsslError
from soundssl.commands.options import Force, NoClobber, NoProvenance, Output, Quiet, Seed, Split, beside, words
from soundssl.commands.target import aim
from soundssl.samplers import SAMPLERS


def sample_triplets(
    features: Annotated[Path, typer.Argument(help="Features file written by featurize.")],
    output: Output = None,
    sampler: Annotated[
        str, typer.Option(help="; ".join(f"{name}: {line}" for name, line in SAMPLERS.items()) + ".")
    ] = "joint",
    count: Annotated[int, typer.Option(min=1, help="Number of triplets.")] = 100_000,
    labels: Annotated[Path | None, typer.Option(help="Labels file, for the supervised sampler.")] = None,
    noise: Annotated[
        float, typer.Option(min=0, help="Standard deviation of the noise, a factor 1 + |eps| on each cell.")
    ] = 0.5,
    max_shift: Annotated[int, typer.Option(min=0, help="Largest shift in frequency, bands.")] = 10,
    gain: Annotated[
        float, typer.Option(min=0, help="Energy of the example mixed in, as a share of the anchor's.")
    ] = 0.25,
    proximity: Annotated[
        float,
        typer.Option(min=0, help="Largest distance of anchor and positive, seconds; inf: anywhere in the recording."),
    ] = float("inf"),
    min_distance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Least distance of anchor and positive by proximity, seconds. Default: a window, so that they do not "
            "overlap.",
        ),
    ] = None,
    grid: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds from one possible start of a window to the next, from the start of a clip; 0: any frame.",
        ),
    ] = 0.0,
    split: Split = None,
    seed: Seed = 0,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Draw recipes of triplets: which windows are anchor, positive and negative, and how the positive is changed.

    The files are small, for no sound is copied: sixty bytes a triplet. Anchor and negative never share a recording.
    Clips too short for two windows --min-distance apart give no pair by proximity; they are counted.

    Examples:

    soundssl sample-triplets features.h5 --sampler joint --count 1000000 -o triplets.h5

    soundssl sample-triplets features.h5 --sampler supervised --labels labels.h5 --split 1,2,3,4
    """
    from soundssl import files, triplets
    from soundssl.labels import clips_in_splits, joined

    _check(sampler, labels)
    given = [features, *([labels] if labels else [])]
    flags = {"force": force, "no_clobber": no_clobber, "no_provenance": no_provenance, "quiet": quiet}
    target = aim("sample-triplets", output, beside(features, "triplets"), given, **flags)
    source = files.Features(features)
    source.require("logmel", "triplets are drawn from")
    known = joined(files.Labels(labels), source) if labels and sampler == "supervised" else None
    inputs = [files.identity("features", features, source.attributes)]
    inputs += [files.identity("labels", known.path, known.attributes)] if known else []
    options = _options(source, noise, max_shift, gain, (proximity, min_distance, grid))
    made_from = files.digest("triplets", inputs, sampler, count, vars(options), split, seed)
    if target.stands(made_from):
        return
    chosen = clips_in_splits(known, source.clips, words(split), features) & source.recorded
    layout = _layout(source, options, chosen)
    if sampler in ("proximity", "joint") and (short := triplets.lonely(layout, options)):
        target.terminal.say(
            f"{short} of {len(layout.clip)} clips have no two windows {_apart(options, source):g} s apart; no pair "
            "by proximity is drawn from them"
        )
    segments = _segments(known, source) if known else None
    recipes = triplets.sample(sampler, layout, count, options, seed, segments)
    attributes = {
        "features": source.attributes["uuid"],
        "window_frames": options.window,
        "noise": noise,
        "min_distance": _apart(options, source),
        "grid": grid,
        "seed": seed,
        "samplers": json.dumps(list(triplets.NUMBER)),
        "classes": json.dumps(known.classes if known else []),
    }
    with target.create("triplets", inputs, made_from, attributes) as sink:
        for name, column in recipes.items():
            sink.write(name, column)
    target.finish(f"{count} {sampler} triplets from {len(layout.clip)} clips")


def _check(sampler: str, labels: Path | None) -> None:
    if sampler not in SAMPLERS:
        raise typer.BadParameter(f"choose from {', '.join(SAMPLERS)}", param_hint="--sampler")
    if sampler == "supervised" and labels is None:
        raise typer.BadParameter("the supervised sampler needs them", param_hint="--labels")


def _options(source, noise: float, max_shift: int, gain: float, seconds: tuple[float, float | None, float]):
    """Return the options of the sampler, in bands and frames of the features; raise BadParameter for others.

    `seconds` are those of proximity, least distance (None: a window) and grid.
    """
    from soundssl import triplets

    if max_shift >= source.bands:
        raise typer.BadParameter(f"{max_shift} is not less than {source.bands} bands", param_hint="--max-shift")
    # 0.07 s are 7 frames, not 7.000000000000001
    proximity, least, grid = (
        -1 if each is None else round(each * float(source.attributes["frame_rate"]), 6) for each in seconds
    )
    if not proximity > 1:
        raise typer.BadParameter(f"{seconds[0]:g} s are not more than one frame", param_hint="--proximity")
    options = triplets.Options(source.window, noise, max_shift, gain, proximity, least, max(1, round(grid)))
    least_steps, reach = options.steps()
    if reach < least_steps:
        raise typer.BadParameter(
            f"no window starts less than {seconds[0]:g} s from another and {_apart(options, source):g} s or "
            "more; give a larger one, or a smaller --min-distance",
            param_hint="--proximity",
        )
    return options


def _layout(source, options, chosen):
    """Return the layout of the chosen clips, on the clocks of their sources."""
    import numpy as np

    from soundssl import triplets

    begin = np.rint(source.clips.start * float(source.attributes["frame_rate"])).astype(np.int64)
    clocks = {"source": source.clips.source.astype(str), "begin": begin}
    recording = source.clips.recording_number()
    return triplets.Layout(source.offset, recording, options.window, chosen, grid=options.grid, **clocks)


def _apart(options, source) -> float:
    """Return the least distance of anchor and positive by proximity in seconds, on the grid."""
    return options.steps()[0] * options.grid / float(source.attributes["frame_rate"])


def _segments(labels, source):
    """Return the labelled segments of the clips in a features file, in frames into each clip."""
    import numpy as np

    from soundssl import files
    from soundssl.labels import rows_of
    from soundssl.triplets import Segments

    row = rows_of(labels.key, source.clips.key)
    known = row >= 0
    rate = float(source.attributes["frame_rate"])
    longest = len(source.frames)
    if not known.any():
        raise SoundsslError(
            f"{files.text(labels.path)} names no clip of {files.text(source.path)}; give the labels made with it"
        )
    return Segments(
        row=row[known],
        low=np.ceil(np.minimum(labels.start[known] * rate, longest)).astype(np.int64),
        high=np.ceil(np.minimum(labels.end[known] * rate, longest)).astype(np.int64),
        label=labels.label[known],
    )

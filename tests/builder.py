"""One builder of every file that tests need: what a test says is written, all else has plain values.

A test names what it is about: `features(path, {"a.wav": frames})`, `labels(path, whole(keys), ["dog"], [[1]])`. Further
columns are given by their name without the group, as `split=`; None leaves out one that has a plain value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from soundssl import files
from soundssl.files.schema import KINDS
from soundssl.ops.spectrogram import FrontEnd

SIZES = {"T": 7, "bands": 64, "C": 3, "I": 4, "height": 2, "width": 5, "N": 6, "D": 8, "K": 2, "S": 4, "L": 3, "E": 2}
FRONT_END = {**FrontEnd().attributes(), "resampler": "none", "image_rate": 0.0}
CONFIG = {"encoder": "plain", "size": 3, "bands": 64, "frames": 96}
ATTRIBUTES: dict[str, dict[str, object]] = {
    "features": FRONT_END,
    "triplets": {"features": "u", "window_frames": 96, "noise": 0.5, "seed": 0, "samplers": "[]", "classes": "[]"},
    "embeddings": {"layer": "embedding", "hop": 0.96, "window": 0.96, "class": "[]", "features": "", "model": ""},
    "clusters": {"method": "entropy", "metric": "cosine", "scale": 20.0, "context": 0.0, "window": 0.96},
    "labels": {},
}


def write(
    path: Path,
    kind: str,
    columns: Mapping[str, object],
    attributes: Mapping[str, object] | None = None,
    *,
    command: str | None = None,
    digest: str = "digest",
    inputs: Sequence[dict] = (),
) -> Path:
    """Write columns, by their full names, as a file of a kind; those that are None are left out."""
    about = {**ATTRIBUTES[kind], **(attributes or {})}
    given = {"inputs": list(inputs), "made_from": digest, "attributes": about, "command": command}
    with files.create(path, kind, **given) as sink:
        for name, values in columns.items():
            if values is not None:
                sink.write(name, values)
    return path


def columns(kind: str, seed: int = 0) -> dict[str, object]:
    """Return random columns that fit a schema, all but those of joined files."""
    generator = np.random.default_rng(seed)
    made: dict[str, object] = {}
    for name, column in KINDS[kind].columns.items():
        if name.startswith("part/"):
            continue
        lengths = [length.partition("+") for length in column.shape.split("|")[0].strip("[]").split(",")]
        shape = [(int(base) if base.isdigit() else SIZES[base]) + int(more or 0) for base, _, more in lengths]
        dtype = column.types.split("|")[0]
        if dtype == "str":
            made[name] = [f"{name} {i} ü" for i in range(shape[0])]
        else:
            rows = KINDS[kind].columns[column.rows].shape.strip("[]") if column.rows else ""
            most = SIZES[rows] - 1 if rows else min(column.high, 99)
            made[name] = generator.integers(max(column.low, 0), most, shape, endpoint=True).astype(dtype)
    if kind == "features":
        made |= {"clip/offset": np.array([0, 2, 2, 7]), "clip/image_offset": np.array([0, 1, 1, 4])}
        made["clip/parent"] = np.array([-1, 0, 0], "i4")
    return made


def features(
    path: Path,
    clips: Mapping[str, np.ndarray] | Sequence[np.ndarray],
    *,
    pictures: Sequence[np.ndarray] | None = None,
    skipped: Mapping[str, str] | None = None,
    dtype: str = "f2",
    attributes: Mapping[str, object] | None = None,
    command: str | None = None,
    digest: str = "digest",
    **table: object,
) -> Path:
    """Write the frames [frames, bands], or samples [samples], of each clip, by their keys or in order.

    `pictures` are those of each clip, [images, height, width, 3]; `skipped` has a reason for each input.
    """
    clips = clips if isinstance(clips, Mapping) else {f"clip-{i:02}": frames for i, frames in enumerate(clips)}
    keys, skipped = list(clips), skipped or {}
    frames = np.concatenate([np.asarray(each, dtype) for each in clips.values()])
    bands = np.asarray(frames, "f8").reshape(len(frames), -1)
    made: dict[str, object] = {
        "frames": frames,
        "mean": bands.mean(0).astype("f4"),
        "deviation": bands.std(0).astype("f4"),
        "clip/offset": np.cumsum([0, *map(len, clips.values())]),
        "clip/source": keys,
        **{f"clip/{name}": np.full(len(keys), -1) for name in ("parent", "track", "processor")},
        "clip/level": np.zeros(len(keys)),
        "skipped/path": list(skipped),
        "skipped/reason": list(skipped.values()),
    }
    about: dict[str, object] = {}
    if pictures is not None:
        made["images"] = np.concatenate([np.asarray(each, "u1") for each in pictures])
        made["clip/image_offset"] = np.cumsum([0, *map(len, pictures)])
        about |= {"image_rate": 1.0, "image_size": pictures[0].shape[1]}
    made, about = {**made, **_clips(keys, table)}, {**about, **(attributes or {})}
    return write(path, "features", _typed("features", made), about, command=command, digest=digest)


def whole(keys: Sequence[str]) -> list[tuple[str, float, float]]:
    """Return segments that are whole clips."""
    return [(key, 0.0, np.inf) for key in keys]


def labels(
    path: Path,
    segments: Sequence[tuple[str, float, float]],
    classes: Sequence[str],
    label,
    *,
    events: Sequence[tuple[int, int, float, float]] | None = None,
    attributes: Mapping[str, object] | None = None,
    command: str | None = None,
    digest: str = "digest",
    **table: object,
) -> Path:
    """Write labels [segments, classes] of segments (key, start, end); events are (segment, class, onset, offset)."""
    made: dict[str, object] = {
        "label": np.reshape(label, (len(segments), len(classes))),
        "segment/key": [key for key, _, _ in segments],
        "segment/start": [start for _, start, _ in segments],
        "segment/end": [end for _, _, end in segments],
        "class": list(classes),
        **table,
    }
    if events is not None:
        names = ("segment", "class", "onset", "offset")
        made |= {f"event/{name}": [event[i] for event in events] for i, name in enumerate(names)}
    return write(path, "labels", _typed("labels", made), attributes, command=command, digest=digest)


def embeddings(
    path: Path,
    rows: np.ndarray,
    *,
    clip: Sequence[int] | np.ndarray | None = None,
    start: Sequence[float] | np.ndarray | None = None,
    keys: Sequence[str] | None = None,
    attributes: Mapping[str, object] | None = None,
    command: str | None = None,
    digest: str = "digest",
    **table: object,
) -> Path:
    """Write rows [windows, size] in their own type, of windows that are clips of their own unless `clip` says whose."""
    clip = np.arange(len(rows)) if clip is None else np.asarray(clip)
    keys = [f"clip-{i:02}" for i in range(clip.max(initial=-1) + 1)] if keys is None else list(keys)
    made: dict[str, object] = {
        "embedding": rows,
        "window/clip": clip,
        "window/start": np.zeros(len(rows)) if start is None else start,
        "clip/source": keys,
        **_clips(keys, table),
    }
    return write(path, "embeddings", _typed("embeddings", made), attributes, command=command, digest=digest)


def clusters(
    path: Path,
    cluster: Sequence[int] | np.ndarray,
    mean: np.ndarray,
    *,
    clip: Sequence[int] | np.ndarray | None = None,
    start: Sequence[float] | np.ndarray | None = None,
    keys: Sequence[str] | None = None,
    attributes: Mapping[str, object] | None = None,
    command: str | None = None,
    digest: str = "digest",
    **table: object,
) -> Path:
    """Write the cluster of each window, of clusters with these means [clusters, size]; without `clip` of a matrix."""
    cluster = np.asarray(cluster)
    size = np.bincount(cluster, minlength=len(mean))
    made: dict[str, object] = {
        "cluster": cluster,
        "confidence": np.ones(len(cluster)),
        "similarity": np.ones(len(cluster)),
        "size": size,
        "weight": mean,
        "mean": mean,
    }
    if clip is not None:
        keys = [f"clip-{i:02}" for i in range(np.max(clip, initial=-1) + 1)] if keys is None else list(keys)
        made |= {"window/clip": clip, "window/start": np.zeros(len(cluster)) if start is None else start}
        made |= {**_clips(keys, {}), "clip/start": None}
    own = {f"clip/{name}" if f"clip/{name}" in made else name: values for name, values in table.items()}
    about = {"used": int((size > 0).sum()), **(attributes or {})}
    return write(path, "clusters", _typed("clusters", {**made, **own}), about, command=command, digest=digest)


def triplets(
    path: Path,
    features: str,
    anchor: Sequence[int],
    positive: Sequence[int],
    negative: Sequence[int],
    *,
    attributes: Mapping[str, object] | None = None,
    command: str | None = None,
    digest: str = "digest",
    **table: object,
) -> Path:
    """Write recipes by the first frames of their windows in the features file of this uuid, proximity unless said."""
    count = len(anchor)
    made: dict[str, object] = {
        "anchor": anchor,
        "positive": positive,
        "negative": negative,
        "sampler": np.full(count, 3),
        "class": np.full(count, -1),
        "seed": np.arange(count),
        "shift": np.zeros((count, 2)),
        "mixed": np.full(count, -1),
        "gain": np.zeros(count),
        **table,
    }
    about = {"features": features, **(attributes or {})}
    return write(path, "triplets", _typed("triplets", made), about, command=command, digest=digest)


def model(path: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, object]) -> Path:
    """Write tensors and the configuration of what they are of as a model file."""
    files.write_model(path, dict(tensors), {**CONFIG, **config}, inputs=[], made_from="digest")
    return path


def _clips(keys: Sequence[str], table: Mapping[str, object]) -> dict[str, object]:
    """Return the columns of a clip table: each clip a recording of its own, in no split."""
    plain = {"key": keys, "recording": keys, "split": [""] * len(keys), "start": np.zeros(len(keys))}
    return {f"clip/{name}": values for name, values in {**plain, **table}.items()}


def _typed(kind: str, made: Mapping[str, object]) -> dict[str, object]:
    """Return columns of the types of the schema, in its order; what it does not know stays as it is."""
    known = KINDS[kind].columns
    found: dict[str, object] = {}
    for name in [*(name for name in known if name in made), *(name for name in made if name not in known)]:
        values, types = made[name], known[name].types.split("|") if name in known else []
        if types == ["str"] and values is not None:
            found[name] = [str(value) for value in values]  # type: ignore[attr-defined]
        elif len(types) == 1 and values is not None:
            found[name] = np.asarray(values, types[0])
        else:
            found[name] = values
    return found

"""The five kinds of HDF5 file: their columns, attributes and versions, as soundssl-files(5) prints them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """Describe one dataset: its types (alternatives by `|`), its shape in named sizes, and what it means."""

    types: str
    shape: str
    meaning: str
    optional: bool = False


@dataclass(frozen=True)
class Kind:
    """Describe one kind of file: the version of its schema, what makes it, its datasets and its attributes."""

    version: int
    maker: str
    summary: str
    columns: Mapping[str, Column]
    attributes: Mapping[str, str]


# Attributes that every file carries.
SHARED_ATTRIBUTES = {
    "kind": "one of the five kinds",
    "schema": "version of the schema of this kind, an integer",
    "soundssl": "version of the program that wrote the file",
    "command": "the quoted command line (left out by --no-provenance)",
    "uuid": "identity of this file; with --no-provenance a digest of its content",
    "inputs": "JSON list of the files it was made from: role, file, uuid",
    "made_from": "digest of the inputs and options: the same command finds its work done",
}

_CLIP = {
    "clip/key": Column("str", "[C]", "stable name that joins files: the path relative to the folder given, with '/'"),
    "clip/recording": Column("str", "[C]", "the original source that several clips may share (else the path)"),
    "clip/split": Column("str", "[C]", "fold or split, empty where there is none"),
}

_HEARD = {
    "clip/source": Column("str", "[C]", "file to listen to"),
    "clip/start": Column("f8", "[C]", "seconds into the source"),
}

_WINDOW = {
    "window/clip": Column("i4", "[N]", "row of the window's clip"),
    "window/start": Column("f8", "[N]", "seconds into the clip, from integer sample positions"),
}

_PART = {
    "part/file": Column(
        "str",
        "[P]",
        "files that hold the rows, relative to the folder of this one, where files were joined",
        optional=True,
    ),
    "part/uuid": Column("str", "[P]", "their identities; a file that has another one now is refused", optional=True),
}

# A separated track is a clip beside its mixture: as long as it, of its recording, split, source and start, its key that
# of the mixture with `#track`, or with `#processor.track` where several separators worked. A training example draws one
# processor, and one track among those with the mixture as parent and that processor.
FEATURES = Kind(
    1,
    "soundssl featurize",
    "clips end to end, so that any window at any hop is one slice",
    {
        "frames": Column(
            "f2|f4",
            "[T,bands]|[T]",
            "log-mel frames, or the waveform: a frame is a sample; f2 rounds by 2^-11 of the value at most",
        ),
        **_CLIP,
        "clip/offset": Column("i8", "[C+1]", "clip i is frames[offset[i]:offset[i+1]]"),
        **_HEARD,
        "clip/parent": Column("i4", "[C]", "row of the mixture that a separated clip came from, -1 for none"),
        "clip/track": Column("i1", "[C]", "track number within the parent, -1 for none"),
        "clip/processor": Column("i1", "[C]", "number of the separator that made it, -1 for none"),
        "clip/level": Column("f4", "[C]", "level in dB relative to the mixture, 0 for a recording"),
        "clip/silent": Column("u1", "[C]", "1 for a track that is next to silent, else 0", optional=True),
        "clip/onscreen": Column(
            "f4", "[C]", "probability that a track is seen; nan of recordings, and without pictures", optional=True
        ),
        "clip/peak": Column("f4", "[C]", "largest magnitude of a sample of the source, 0 for silence", optional=True),
        "clip/clipped": Column("i8", "[C]", "samples of the source at full scale, in all its channels", optional=True),
        "clip/truncated": Column("u1", "[C]", "1 where the source ends before its time, else 0", optional=True),
        "clip/error": Column(
            "f4", "[C]", "largest difference of a stored frame from the one computed; no longer written", optional=True
        ),
        "clip/made_from": Column(
            "str", "[C]", "digest of the source's name, size and time of change; empty of a track", optional=True
        ),
        "skipped/path": Column("str", "[S]", "inputs that gave no clip"),
        "skipped/reason": Column("str", "[S]", "why"),
        "skipped/made_from": Column(
            "str", "[S]", "as clip/made_from; empty where the input may be read another time", optional=True
        ),
        "images": Column("u1", "[I,height,width,3]", "frames of video, RGB", optional=True),
        "clip/image_offset": Column(
            "i8", "[C+1]", "clip i has images[image_offset[i]:image_offset[i+1]]", optional=True
        ),
        "mean": Column("f4", "[bands]", "mean of each band over the whole file"),
        "deviation": Column("f4", "[bands]", "standard deviation of each band over the whole file"),
        **_PART,
    },
    {
        "representation": "logmel or waveform",
        "preset": "name of the front end",
        "sample_rate": "Hz, after resampling",
        "frame_rate": "frames per second",
        "window_length": "analysis window, samples",
        "hop_length": "hop between frames, samples",
        "fft_length": "FFT size, samples",
        "window_function": "analysis window",
        "mel_scale": "formula of the mel scale",
        "spectrum": "magnitude or power",
        "logarithm": "natural or 10",
        "level": "treatment of the waveform's level",
        "padding": "padding of the waveform",
        "bands": "number of mel bands",
        "fmin": "lower edge of the first band, Hz",
        "fmax": "upper edge of the last band, Hz",
        "floor": "added to the mel energy before the logarithm",
        "resampler": "resampling library and quality",
        "image_rate": "images per second of video, as given by --image-rate; 0 where there are none",
        "image_size": "pixels of a side of an image, 0 where there are none",
        "window_frames": "frames of a window: what an encoder of this front end sees",
        "window_hop": "frames from one window to the next where nobody says; absent: those of a window",
        "channel": "mix, each, or the number of the channel that was taken",
        "clip": "seconds that recordings were cut into, 0 for whole ones",
        "short": "what became of recordings too short for a window: skip, pad (silence) or tile (repeated)",
        "truncated": "what became of files that end before their time: keep or skip",
        "storage_error": "the largest clip/error; no longer written",
        "damaged": "what became of files that are broken in the middle: keep (silence for what is lost) or skip",
        "part": "which part of the inputs this is, as 3/8; absent where it is all",
        "processors": "JSON list of the separators that made the tracks: file and uuid, in the order of clip/processor",
        "estimates": "on-screen, off-screen where track 0 is all that is seen and track 1 the rest; absent: tracks",
        "silence": "dB relative to the mixture below which a track is marked silent, where there are tracks",
    },
)

TRIPLETS = Kind(
    1,
    "soundssl sample-triplets",
    "recipes, not data: about sixty bytes a triplet",
    {
        "anchor": Column("i8", "[N]", "first frame of the anchor's window in the features' frames"),
        "positive": Column("i8", "[N]", "first frame of the positive's window, before it is changed"),
        "negative": Column("i8", "[N]", "first frame of the negative's window"),
        "sampler": Column("u1", "[N]", "0 noise, 1 translation, 2 mixing, 3 proximity, 4 supervised"),
        "class": Column("i4", "[N]", "class shared by anchor and positive of a supervised triplet, -1 for none"),
        "seed": Column("u8", "[N]", "seed of the noise"),
        "shift": Column("i2", "[N,2]", "circular shift in frames, truncated shift in bands, of the positive"),
        "mixed": Column("i8", "[N]", "first frame of the window mixed into the positive, -1 for none"),
        "gain": Column("f4", "[N]", "share of the anchor's energy at which it is mixed in"),
    },
    {
        "features": "uuid of the features file that the frame numbers refer to",
        "window_frames": "frames of a window",
        "noise": "standard deviation of the noise sampler",
        "min_distance": "seconds by which anchor and positive by proximity start apart at least",
        "grid": "seconds from one possible start of a window to the next, 0: any frame",
        "seed": "seed of the draw",
        "samplers": "JSON list of the samplers' names",
        "classes": "JSON list of class names for supervised triplets",
    },
)

EMBEDDINGS = Kind(
    1,
    "soundssl embed",
    "a vector a window",
    {
        "embedding": Column("f2|f4", "[N,D]", "one row a window"),
        **_WINDOW,
        **_CLIP,
        **_HEARD,
        **_PART,
    },
    {
        "layer": "embedding, logits, probabilities or projection",
        "hop": "seconds between windows",
        "window": "seconds of a window",
        "class": "JSON list of class names, where the layer is logits or probabilities",
        "raw": "1 where embeddings that are scaled to length one by default were left as the net gives them",
        "part": "which part of the clips this is, as 3/8; absent where it is all",
        "features": "uuid of the features file, empty where embeddings of several were joined",
        "model": "uuid of the model file",
    },
)

CLUSTERS = Kind(
    1,
    "soundssl cluster",
    "a cluster a window, and the head that chose it",
    {
        "cluster": Column("i4", "[N]", "cluster of each row of the embeddings"),
        "confidence": Column("f2", "[N]", "probability of the chosen cluster"),
        "similarity": Column("f4", "[N]", "cosine to the mean of the own cluster, or minus the squared distance"),
        "size": Column("i8", "[K]", "windows in each cluster"),
        "weight": Column("f4", "[K,D]", "centre of each cluster, by which rows are assigned"),
        "mean": Column("f4", "[K,D]", "mean of each cluster's rows of length one, itself of length one; 0 of none"),
        **{
            name: Column(column.types, column.shape, column.meaning, optional=True)
            for name, column in {**_WINDOW, **_CLIP, **_HEARD}.items()
        },
    },
    {
        "method": "entropy or kmeans",
        "metric": "cosine or euclidean",
        "scale": "factor of the cosine in the logits",
        "context": "seconds of a clip over which embeddings were averaged; 0: none",
        "window": "seconds of a window",
        "conditional_entropy": "nats",
        "marginal_entropy": "nats",
        "used": "number of clusters that hold a window",
    },
)

LABELS = Kind(
    1,
    "soundssl featurize --dataset, or soundssl label-clusters",
    "weak, strong, partial and spread labels in one form",
    {
        "label": Column("i1", "[S,L]", "1 present, 0 absent, -1 unknown"),
        "segment/key": Column("str", "[S]", "key of the clip"),
        "segment/start": Column("f8", "[S]", "seconds into the clip"),
        "segment/end": Column("f8", "[S]", "seconds into the clip, infinity for its end"),
        "class": Column("str", "[L]", "names of the classes"),
        "weight": Column("f4", "[S]", "confidence in the segment's labels", optional=True),
        "split": Column("str", "[S]", "fold or split", optional=True),
        "origin": Column("u1", "[S]", "0 annotator, 1 spread from a cluster", optional=True),
        "event/segment": Column("i4", "[E]", "row of the segment", optional=True),
        "event/class": Column("i2", "[E]", "row of the class", optional=True),
        "event/onset": Column("f8", "[E]", "seconds into the clip", optional=True),
        "event/offset": Column("f8", "[E]", "seconds into the clip", optional=True),
    },
    {
        "questions": "number of questions asked; this and the rest where label-clusters made the file",
        "order": "which clusters came first",
        "ask": "which member was asked about",
        "spread": "share of a cluster's members that took the answer",
        "random": "whether windows at random were asked about instead",
        "split": "splits that the windows are of, empty for all",
    },
)

KINDS = {
    "features": FEATURES,
    "triplets": TRIPLETS,
    "embeddings": EMBEDDINGS,
    "clusters": CLUSTERS,
    "labels": LABELS,
}


def type_name(dtype) -> str:
    """Return the short name (`f4`, `i8`, `str` …) of a numpy dtype."""
    return "str" if dtype.kind in "OSU" else f"{dtype.kind}{dtype.itemsize}"


def _matches(shape: tuple[int, ...], pattern: str, sizes: dict[str, int]) -> bool:
    names = [name for name in re.sub(r"[\[\] ]", "", pattern).split(",") if name]
    if len(names) != len(shape):
        return False
    found = dict(sizes)
    for name, length in zip(names, shape, strict=True):
        base, plus, extra = name.partition("+")
        length -= int(extra) if plus else 0
        expected = int(base) if base.isdigit() else found.setdefault(base, length)
        if expected != length:
            return False
    sizes.update(found)
    return True


def check(kind: Kind, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare datasets (name → type and shape) with a schema; raise ValueError that names the first misfit.

    >>> check(LABELS, {"label": ("i1", (2, 3)), "segment/key": ("str", (2,))})
    Traceback (most recent call last):
    ValueError: dataset segment/start is missing
    """
    sizes: dict[str, int] = {}
    for name, column in kind.columns.items():
        if name not in found:
            if column.optional:
                continue
            raise ValueError(f"dataset {name} is missing")
        dtype, shape = found[name]
        if dtype not in column.types.split("|"):
            raise ValueError(f"dataset {name} has type {dtype}, not {column.types}")
        if not any(_matches(shape, pattern, sizes) for pattern in column.shape.split("|")):
            known = ", ".join(f"{name} = {size}" for name, size in sizes.items())
            raise ValueError(
                f"dataset {name} has shape {list(shape)}, not {column.shape}" + (f" with {known}" * bool(known))
            )

"""The five kinds of HDF5 file: their columns, attributes and versions, as soundssl-files(5) prints them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """Describe one dataset: its types (alternatives by `|`), its shape in named sizes, and what it means.

    Its numbers are `low` at least and `high` at most; where they are `rows` of another dataset, less than its length;
    where they are `ends`, they rise from 0 to the length of another dataset.
    """

    types: str
    shape: str
    meaning: str
    optional: bool = False
    low: float = -math.inf
    high: float = math.inf
    rows: str = ""
    ends: str = ""


@dataclass(frozen=True)
class Attribute:
    """Describe one attribute: what it means, and what it is: text, a number, or JSON text of names, files or models.

    A number is `low` at least and `high` at most, and finite. Without a `needed` one a file cannot be read.
    """

    meaning: str
    what: str = "text"
    low: float = -math.inf
    high: float = math.inf
    needed: bool = False


@dataclass(frozen=True)
class Kind:
    """Describe one kind of file: the version of its schema, what makes it, its datasets and its attributes."""

    version: int
    maker: str
    summary: str
    columns: Mapping[str, Column]
    attributes: Mapping[str, Attribute]


MANY = 2.0**31 - 1  # beyond any rate, length or time of ours
LEAST = 1e-6  # seconds, or frames a second: what is divided by is more than nothing

# Attributes that every file carries.
SHARED_ATTRIBUTES: Mapping[str, Attribute] = {
    "kind": Attribute("one of the five kinds"),
    "schema": Attribute("version of the schema of this kind, an integer", "integer", 0),
    "soundssl": Attribute("version of the program that wrote the file"),
    "command": Attribute("the quoted command line (left out by --no-provenance)"),
    "uuid": Attribute("identity of this file; with --no-provenance a digest of its content", needed=True),
    "inputs": Attribute("JSON list of the files it was made from: role, file, uuid", "files"),
    "made_from": Attribute("digest of the inputs and options: the same command finds its work done"),
}

_CLIP = {
    "clip/key": Column("str", "[C]", "stable name that joins files: the path relative to the folder given, with '/'"),
    "clip/recording": Column("str", "[C]", "the original source that several clips may share (else the path)"),
    "clip/split": Column("str", "[C]", "fold or split, empty where there is none"),
}

_HEARD = {
    "clip/source": Column("str", "[C]", "file to listen to"),
    "clip/start": Column("f8", "[C]", "seconds into the source", low=0, high=MANY),
}

_WINDOW = {
    "window/clip": Column("i4", "[N]", "row of the window's clip", low=0, rows="clip/key"),
    "window/start": Column("f8", "[N]", "seconds into the clip, from integer sample positions", low=0, high=MANY),
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
        "clip/offset": Column("i8", "[C+1]", "clip i is frames[offset[i]:offset[i+1]]", ends="frames"),
        **_HEARD,
        "clip/parent": Column(
            "i4", "[C]", "row of the mixture that a separated clip came from, -1 for none", low=-1, rows="clip/key"
        ),
        "clip/track": Column("i1", "[C]", "track number within the parent, -1 for none", low=-1),
        "clip/processor": Column("i1", "[C]", "number of the separator that made it, -1 for none", low=-1),
        "clip/level": Column("f4", "[C]", "level in dB relative to the mixture, 0 for a recording"),
        "clip/silent": Column(
            "u1", "[C]", "1 for a track that is next to silent, else 0", optional=True, low=0, high=1
        ),
        "clip/onscreen": Column(
            "f4",
            "[C]",
            "probability that what sounds in a track is seen; -1 of recordings, and where there are no pictures",
            optional=True,
            low=-1,
            high=1,
        ),
        "clip/peak": Column(
            "f4", "[C]", "largest magnitude of a sample of the source, 0 for silence", optional=True, low=0
        ),
        "clip/clipped": Column(
            "i8", "[C]", "samples of the source at full scale, in all its channels", optional=True, low=0
        ),
        "clip/truncated": Column(
            "u1", "[C]", "1 where the source ends before its time, else 0", optional=True, low=0, high=1
        ),
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
        "images": Column("u1", "[I,height,width,3]", "pictures of video, upright, RGB", optional=True),
        "clip/image_offset": Column(
            "i8", "[C+1]", "clip i has images[image_offset[i]:image_offset[i+1]]", optional=True, ends="images"
        ),
        "mean": Column(
            "f4",
            "[bands]",
            "mean of each band over the whole file",
        ),
        "deviation": Column("f4", "[bands]", "standard deviation of each band over the whole file", low=0),
        **_PART,
    },
    {
        "representation": Attribute("logmel or waveform", needed=True),
        "preset": Attribute("name of the front end"),
        "sample_rate": Attribute("Hz, after resampling", "integer", 1, MANY, needed=True),
        "frame_rate": Attribute("frames per second", "number", LEAST, MANY, needed=True),
        "window_length": Attribute("analysis window, samples", "integer", 1, MANY, needed=True),
        "hop_length": Attribute("hop between frames, samples", "integer", 1, MANY, needed=True),
        "fft_length": Attribute("FFT size, samples", "integer", 1, MANY, needed=True),
        "window_function": Attribute("analysis window", needed=True),
        "mel_scale": Attribute("formula of the mel scale", needed=True),
        "spectrum": Attribute("magnitude or power", needed=True),
        "logarithm": Attribute("natural, 10, or decibels, at least the floor", needed=True),
        "level": Attribute("treatment of the waveform's level", needed=True),
        "padding": Attribute("padding of the waveform", needed=True),
        "bands": Attribute("number of mel bands", "integer", 1, MANY, needed=True),
        "fmin": Attribute("lower edge of the first band, Hz", "number", 0, MANY, needed=True),
        "fmax": Attribute("upper edge of the last band, Hz", "number", 0, MANY, needed=True),
        "floor": Attribute(
            "added to the mel energy before the logarithm; of decibels the least energy", "number", 0, needed=True
        ),
        "resampler": Attribute("resampling library and quality"),
        "image_rate": Attribute("images per second of video (--image-rate), 0 where there are none", "number", 0),
        "image_size": Attribute("pixels of a side of an image, 0 where there are none", "integer", 0),
        "window_frames": Attribute("frames of a window: what an encoder of this front end sees", "integer", 1, MANY),
        "window_hop": Attribute(
            "frames from one window to the next where nobody says; absent: those of a window", "integer", 1, MANY
        ),
        "channel": Attribute("mix, each, or the number of the channel that was taken", "any"),
        "clip": Attribute("seconds that recordings were cut into, 0 for whole ones", "number", 0),
        "short": Attribute("what became of recordings too short for a window: skip, pad (silence) or tile (repeated)"),
        "truncated": Attribute("what became of files that end before their time: keep or skip"),
        "storage_error": Attribute("the largest clip/error; no longer written", "number", 0),
        "damaged": Attribute(
            "what became of files that are broken in the middle: keep (silence for what is lost) or skip"
        ),
        "part": Attribute("which part of the inputs this is, as 3/8; absent where it is all"),
        "processors": Attribute(
            "JSON list of the separators that made the tracks: file and uuid, in the order of clip/processor", "models"
        ),
        "estimates": Attribute(
            "on-screen, off-screen where track 0 is all that is seen and track 1 the rest; absent: tracks"
        ),
        "silence": Attribute(
            "dB relative to the mixture below which a track is marked silent, where there are tracks", "number"
        ),
    },
)

TRIPLETS = Kind(
    1,
    "soundssl sample-triplets",
    "recipes, not data: about sixty bytes a triplet",
    {
        "anchor": Column("i8", "[N]", "first frame of the anchor's window in the features' frames", low=0),
        "positive": Column("i8", "[N]", "first frame of the positive's window, before it is changed", low=0),
        "negative": Column("i8", "[N]", "first frame of the negative's window", low=0),
        "sampler": Column("u1", "[N]", "0 noise, 1 translation, 2 mixing, 3 proximity, 4 supervised", high=4),
        "class": Column(
            "i4", "[N]", "class shared by anchor and positive of a supervised triplet, -1 for none", low=-1
        ),
        "seed": Column("u8", "[N]", "seed of the noise"),
        "shift": Column("i2", "[N,2]", "circular shift in frames, truncated shift in bands, of the positive"),
        "mixed": Column("i8", "[N]", "first frame of the window mixed into the positive, -1 for none", low=-1),
        "gain": Column("f4", "[N]", "share of the anchor's energy at which it is mixed in", low=0),
    },
    {
        "features": Attribute("uuid of the features file that the frame numbers refer to", needed=True),
        "window_frames": Attribute("frames of a window", "integer", 1, MANY, needed=True),
        "noise": Attribute("standard deviation of the noise sampler", "number", 0),
        "min_distance": Attribute(
            "seconds by which anchor and positive by proximity start apart at least", "number", 0
        ),
        "grid": Attribute("seconds from one possible start of a window to the next, 0: any frame", "number", 0),
        "seed": Attribute("seed of the draw", "integer", 0),
        "samplers": Attribute("JSON list of the samplers' names", "names"),
        "classes": Attribute("JSON list of class names for supervised triplets", "names", needed=True),
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
        "layer": Attribute("embedding, logits, probabilities or projection", needed=True),
        "hop": Attribute("seconds between windows", "number", LEAST, MANY, needed=True),
        "window": Attribute("seconds of a window", "number", 0, MANY, needed=True),
        "class": Attribute(
            "JSON list of class names, where the layer is logits or probabilities", "names", needed=True
        ),
        "raw": Attribute(
            "1 where embeddings that are scaled to length one by default were left as the net gives them",
            "integer",
            0,
            1,
        ),
        "part": Attribute("which part of the clips this is, as 3/8; absent where it is all"),
        "features": Attribute("uuid of the features file, empty where embeddings of several were joined"),
        "model": Attribute("uuid of the model file"),
    },
)

CLUSTERS = Kind(
    1,
    "soundssl cluster",
    "a cluster a window, and the head that chose it",
    {
        "cluster": Column("i4", "[N]", "cluster of each row of the embeddings", low=-1, rows="size"),
        "confidence": Column("f2", "[N]", "probability of the chosen cluster", low=0, high=1),
        "similarity": Column("f4", "[N]", "cosine to the mean of the own cluster, or minus the squared distance"),
        "size": Column("i8", "[K]", "windows in each cluster", low=0),
        "weight": Column("f4", "[K,D]", "centre of each cluster, by which rows are assigned"),
        "mean": Column("f4", "[K,D]", "mean of each cluster's rows of length one, itself of length one; 0 of none"),
        **{
            name: Column(column.types, column.shape, column.meaning, optional=True)
            for name, column in {**_WINDOW, **_CLIP, **_HEARD}.items()
        },
    },
    {
        "method": Attribute("entropy or kmeans", needed=True),
        "metric": Attribute("cosine or euclidean", needed=True),
        "scale": Attribute("factor of the cosine in the logits", "number", needed=True),
        "context": Attribute("seconds of a clip over which embeddings were averaged; 0: none", "number", 0),
        "window": Attribute("seconds of a window", "number", 0, MANY, needed=True),
        "conditional_entropy": Attribute("nats", "number"),
        "marginal_entropy": Attribute("nats", "number"),
        "used": Attribute("number of clusters that hold a window", "integer", 0),
    },
)

LABELS = Kind(
    1,
    "soundssl featurize --dataset, label-clusters, or labels",
    "weak, strong, partial and spread labels in one form",
    {
        "label": Column("i1", "[S,L]", "1 present, 0 absent, -1 unknown", low=-1, high=1),
        "segment/key": Column("str", "[S]", "key of the clip, or path of the recording that clips lie in"),
        "segment/start": Column("f8", "[S]", "seconds into the clip", low=0, high=MANY),
        "segment/end": Column("f8", "[S]", "seconds into the clip, infinity for its end", low=0),
        "class": Column("str", "[L]", "names of the classes"),
        "modality": Column(
            "str", "[L]", "audio or visual: what the recogniser of a class looked at; absent: audio", optional=True
        ),
        "class_id": Column("str", "[L]", "identifiers of the classes, empty where one has none", optional=True),
        "rated": Column(
            "u1",
            "[S,L]",
            "1 where somebody rated the class, 0 where a zero says only that nobody did",
            optional=True,
            low=0,
            high=1,
        ),
        "truth": Column("i1", "[S,L]", "the labels before noise was put in", optional=True, low=-1, high=1),
        "segment/recording": Column("str", "[S]", "recording that several clips may share", optional=True),
        "segment/uploader": Column("str", "[S]", "who published the recording", optional=True),
        "segment/licence": Column("str", "[S]", "terms of use, with the attribution", optional=True),
        "segment/subset": Column("str", "[S]", "part of its collection, as the collection calls it", optional=True),
        "segment/noisy": Column(
            "u1", "[S]", "1 where nobody verified the labels, else 0", optional=True, low=0, high=1
        ),
        "weight": Column("f4", "[S]", "confidence in the segment's labels", optional=True),
        "split": Column("str", "[S]", "fold or split", optional=True),
        "origin": Column("u1", "[S]", "0 annotator, 1 spread from a cluster, 2 a recogniser", optional=True),
        "event/segment": Column(
            "i4", "[E]", "row of the segment that the event is in", optional=True, low=0, rows="segment/key"
        ),
        "event/class": Column("i2", "[E]", "row of the class that is heard", optional=True, low=0, rows="class"),
        "event/onset": Column("f8", "[E]", "when it begins, seconds into the clip", optional=True, low=0, high=MANY),
        "event/offset": Column(
            "f8", "[E]", "when it ends, seconds into the clip, infinity for its end", optional=True, low=0
        ),
    },
    {
        "questions": Attribute(
            "number of questions asked; this and the rest where label-clusters made the file", "integer", 0
        ),
        "order": Attribute("which clusters came first"),
        "ask": Attribute("which member was asked about"),
        "spread": Attribute("share of a cluster's members that took the answer", "number", 0),
        "random": Attribute("whether windows at random were asked about instead", "any"),
        "split": Attribute("splits that the windows are of, empty for all"),
        "verb": Attribute("what soundssl labels did; this and the rest where it made the file"),
        "options": Attribute("JSON of its options"),
    },
)

# Columns of floating point in which infinity means the end of the clip; all others hold finite numbers alone.
ENDLESS = {"segment/end", "event/offset"}

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

"""The page of the file formats, from the schemas."""

from __future__ import annotations

from soundssl.files.schema import KINDS, SHARED_ATTRIBUTES, Kind
from soundssl.manual.commands import see_also
from soundssl.manual.roff import bold, entry, escape, italic, page, paragraphs, prose, section

SIZES = {
    "C": "clips",
    "T": "frames of all clips, or samples of all clips in a waveform",
    "N": "windows, or triplets",
    "D": "numbers in an embedding",
    "K": "clusters",
    "S": "skipped inputs, or labelled segments",
    "L": "classes",
    "E": "events",
    "P": "files joined",
    "I": "images",
    "bands": "mel bands",
    "height": "pixels",
    "width": "pixels",
}
FORMAT = [
    "Five kinds of HDF5 file hold everything between recordings and scores; any HDF5 reader opens them. Tables are "
    "columns: datasets of equal length. Strings are UTF-8; bytes of a file name that are not are written as %XX. Times "
    "are seconds. Rows are counted from 0. A file is written under another name and renamed when it is whole.",
    "Types are f4 (floating point of 4 bytes), i8 (signed integer of 8 bytes), u1 (unsigned) and so on, and str. "
    "Shapes are written with these sizes, which are the same throughout a file:",
]
MODEL = [
    "A model is a safetensors file: loading one runs no code. Tensors are named encoder.*, image.* and "
    "head.OBJECTIVE.*. Its metadata hold the attributes above, with kind = model, and config: JSON of the encoder, "
    "the front end and the stages it was trained by. config.net holds further options of the net; a separator tdcn-* "
    "without it is revision 1, without skips. Made by soundssl train.",
    "Beside OUTPUT, train writes OUTPUT.metrics.jsonl, a line of JSON every ten steps with the time (UTC), and one "
    "with validation.MEASURE for every measure on unseen clips; and while it runs OUTPUT.resume, the state from which "
    "the same command goes on, with the best state and averages, and OUTPUT.lock, by which a second run is refused.",
]
SCORES = [
    "soundssl evaluate writes lines of JSON, one a metric and class: evaluation, metric, class (null for a figure over "
    "all classes), value, low and high (bounds of the 95 % interval, null where there is none), chance (what random "
    "scores would get), count (what the value averages), input, and where they apply split and recovery.",
]

# What no single column can say: by kind, subsections of running text.
NOTES: dict[str, dict[str, list[str]]] = {
    "features": {
        "Pictures": [
            "Of clips of video images holds pictures at a steady rate, whatever that of the video: picture k of a clip "
            "is the one shown k / image_rate seconds after the clip's start. It stands upright, turned and mirrored as "
            "the video's display matrix has it, and the whole of it is scaled to a square of image_size pixels; "
            "nothing is cut off. Clip i has the rows image_offset[i] to image_offset[i+1] - 1: none where there is "
            "no video, fewer than the clip is long where the video ends before the sound. Whoever needs a picture "
            "at a later time takes the last. A file without any video has neither images nor clip/image_offset. "
            "Separated tracks have none of their own; those of their mixture (clip/parent) belong to them.",
        ],
        "On-screen sounds": [
            "separate with a model of the objective onscreen writes clip/onscreen: of a track the mean over time, "
            "weighted by energy, of the probability that what sounds there is seen. It is -1 of recordings, and of "
            "tracks whose recording has no pictures.",
            "With --onscreen the attribute estimates is there, and a recording has two tracks: 0 is the sum of all "
            "tracks, each times its probability, and 1 is what is left of the mixture, so that both add up to it. "
            "clip/onscreen of track 0 is then the largest probability of any track, of track 1 it is 0. A recording "
            "without pictures has silence as track 0, of probability 0.",
        ],
    },
    "embeddings": {
        "Pictures": [
            "embed --modality image writes a row a clip that has pictures: the mean, over them, of the classifier's "
            "probabilities. layer is probabilities, window/start is 0, hop and window are the seconds from one picture "
            "to the next, and model is the identity of the weights.",
        ],
    },
    "labels": {
        "Events": [
            "Strong labels say from when to when: a row of the four event columns is one event, a sound of class "
            "event/class, within segment event/segment, from event/onset to event/offset. Both are seconds into the "
            "clip, not into the segment. An event may last to the clip's end (infinity), be as short as a moment, and "
            "overlap others, of its class too. The rows have no order.",
            "Where a segment has events of a class, label is 1 there, and the class is present at the times of the "
            "events and absent at all others of the segment. A class that is present without events is heard "
            "somewhere in the segment, nobody says when: it counts throughout. The columns are all there or none is.",
        ],
        "Machine labels": [
            "labels top writes labels of origin 2. A class that a recogniser did not take is 0, and rated is 0 "
            "everywhere: no person said so. modality says of each class whether its recogniser looked at pictures "
            "or listened; train with visual = half drops half of the visual labels in each step. With --beside, clips "
            "that one of the two recognisers had nothing of are -1 in its classes.",
        ],
        "Folds": [
            "labels split --folds N writes the numbers 1 to N into split: one more than the CRC-32 of the recording, "
            "uploader or key, as bytes of UTF-8, modulo N.",
        ],
    },
}


def files_page() -> str:
    """Return the page of the file formats."""
    shared = [line for name, what in SHARED_ATTRIBUTES.items() for line in entry(bold(name), what.meaning)]
    sizes = [line for name, meaning in SIZES.items() for line in entry(italic(name), meaning)]
    body = [
        *section("NAME", "soundssl\\-files \\- the files that soundssl reads and writes"),
        *section("DESCRIPTION", *paragraphs(FORMAT), *sizes),
        *section("ATTRIBUTES OF EVERY FILE", *shared),
        *(line for name, kind in KINDS.items() for line in kind_section(name, kind)),
        *section("MODEL", *paragraphs(MODEL)),
        *section("SCORES", *paragraphs(SCORES)),
        *see_also("soundssl-files"),
    ]
    return page("soundssl-files", 5, body)


def kind_section(name: str, kind: Kind) -> list[str]:
    """Write the section of one kind of file: its datasets, its attributes, and what no single one of them can say."""
    about = f"{kind.summary[0].upper()}{kind.summary[1:]}. Made by {kind.maker}. Schema {kind.version}."
    lines = [".PP", prose(about), '.SS "Datasets"']
    for column, what in kind.columns.items():
        types, shape = (each.replace("|", " or ") for each in (what.types, what.shape))
        term = f"{bold(column)}  {escape(types)} {italic(shape)}" + ("  (optional)" if what.optional else "")
        lines += entry(term, what.meaning)
    attributes = [line for key, what in kind.attributes.items() for line in entry(bold(key), what.meaning)]
    lines += ['.SS "Attributes"', *attributes] if attributes else []
    for title, texts in NOTES.get(name, {}).items():
        lines += [f'.SS "{escape(title)}"', *paragraphs(texts)]
    return section(name, *lines)

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
    "Beside OUTPUT, train writes OUTPUT.metrics.jsonl, a line of JSON every ten steps with the time (UTC), and while "
    "it runs OUTPUT.resume, the state from which the same command goes on, and OUTPUT.lock, by which a second run is "
    "refused.",
]
SCORES = [
    "soundssl evaluate writes lines of JSON, one a metric and class: evaluation, metric, class (null for a figure over "
    "all classes), value, low and high (bounds of the 95 % interval, null where there is none), chance (what random "
    "scores would get), count (what the value averages), input, and where they apply split and recovery.",
]


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
    """Write the section of one kind of file: its datasets, then its attributes."""
    about = f"{kind.summary[0].upper()}{kind.summary[1:]}. Made by {kind.maker}. Schema {kind.version}."
    lines = [".PP", prose(about), '.SS "Datasets"']
    for column, what in kind.columns.items():
        types, shape = (each.replace("|", " or ") for each in (what.types, what.shape))
        term = f"{bold(column)}  {escape(types)} {italic(shape)}" + ("  (optional)" if what.optional else "")
        lines += entry(term, what.meaning)
    attributes = [line for key, what in kind.attributes.items() for line in entry(bold(key), what.meaning)]
    return section(name, *lines, *(['.SS "Attributes"', *attributes] if attributes else []))

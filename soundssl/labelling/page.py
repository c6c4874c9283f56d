"""The labelling page: questions to hear and see, in one HTML file that needs no server and no network.

Each question shows a window in its context, marked, with its sound, a spectrogram made of the sound at its own rate,
the picture where there is a video, and other members of its cluster. Answers stay in the browser and leave as the
sheet that `label-clusters --answers` reads. For review each question asks whether one class is heard. Names are text,
never markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np

from soundssl import media
from soundssl.labelling.sheets import COLUMNS, Question
from soundssl.labelling.windows import Windows
from soundssl.media import encoding
from soundssl.progress import SILENT, Progress

CONTEXT = 3.0  # seconds before and after the window that is asked about
MARGIN = 0.5  # seconds before and after a window that is shown beside it
COLUMNS_SHOWN = 480  # columns of a spectrogram at most
BINS = 256  # rows of a spectrogram
RANGE = 80.0  # dB below the loudest cell that are shown as black
ANALYSIS = 0.02  # seconds of an analysis window of the spectrogram
LEVEL = 0.1  # root mean square that every sound is brought to, -20 dB re full scale
MOST_GAIN = 100.0  # 40 dB: what is next to silent stays quiet
ULTRASONIC = 96_000  # Hz: sound sampled faster than that is stored slowed down, for people hear nothing of the rest
SLOWED = 10


REVIEW = ("asked", "file", "start", "end", "class")  # columns of the sheet where each question asks about one class


class Group(NamedTuple):
    """Hold a question, others to hear beside it, and a heading: `cluster 7, 120 windows`.

    With `asked` the question is whether that class is heard; then all of a page are of that sort.
    """

    question: Question
    others: Sequence[Question] = ()
    heading: str = ""
    asked: str = ""


class Page(NamedTuple):
    """Hold a page, and the files whose sound it lacks, each with the reason."""

    html: str
    missing: dict[str, str]


def groups(windows: Windows, asked: np.ndarray, members: int = 2) -> list[Group]:
    """Return the questions about some windows, each with the members of its cluster nearest to its mean, one a clip."""
    found = []
    for question, row in zip(windows.questions(asked), asked.tolist(), strict=True):
        if windows.random:
            found.append(Group(question))
            continue
        own = np.flatnonzero(windows.cluster == windows.cluster[row])
        near = own[np.argsort(-windows.similarity[own], kind="stable")]
        near = near[windows.clip[near] != windows.clip[row]]
        first = near[np.sort(np.unique(windows.clip[near], return_index=True)[1])][:members]
        heading = f"cluster {question.cluster}, {len(own)} windows"
        found.append(Group(question, list(windows.questions(first)), heading))
    return found


def build(groups: Sequence[Group], classes: Iterable[str] = (), title: str = "", progress: Progress = SILENT) -> Page:
    """Return the page that asks these questions, with names of classes to begin with."""
    missing: dict[str, str] = {}
    index: list[dict[str, object]] = []
    parts: list[str] = []
    with progress.track("page", len(groups), "questions") as advance:
        for group in groups:
            shown = [_shown(group.question, CONTEXT, missing)]
            shown += [_shown(other, MARGIN, missing) for other in group.others]
            index.append({"heading": group.heading, "row": _row(group), "asked": group.asked})
            parts.append(_script(shown, f' id="question-{len(parts)}"'))
            advance(1)
    identity = hashlib.sha256(json.dumps([entry["row"] for entry in index]).encode()).hexdigest()[:16]
    columns = REVIEW if any(group.asked for group in groups) else COLUMNS
    about = {"id": identity, "title": title, "columns": columns, "classes": list(classes), "questions": index}
    template = resources.files("soundssl.labelling").joinpath("page.html").read_text("utf-8")
    return Page(template.replace("<!-- data -->", "\n".join([_script(about, ' id="page"'), *parts])), missing)


def _script(value: object, attributes: str) -> str:
    """Return data that a page can read and no name in it can leave: every `<` is written as an escape."""
    return f'<script type="application/json"{attributes}>{json.dumps(value).replace("<", chr(92) + "u003c")}</script>'


def _row(group: Group) -> list[str]:
    """Return the cells of a question in the sheet, without the answer."""
    question = group.question
    cluster = "" if question.cluster is None else str(question.cluster)
    times = (f"{time:.6f}".rstrip("0").rstrip(".") for time in (question.start, question.end))
    if group.asked:
        return [group.asked, question.file, *times]
    return [cluster, question.file, question.clip, *times]


def _shown(question: Question, context: float, missing: dict[str, str]) -> dict[str, object]:
    """Return what the page shows of a window: its name, times, sound, spectrogram and picture."""
    begin = max(0.0, question.start - context)
    about = {"file": question.file, "clip": question.clip, "begin": begin, "start": question.start, "end": question.end}
    try:
        rate = encoding.sound_rate(question.file)
        blocks = media.read_audio(question.file, rate, begin, question.end + context, keep_truncated=True)
        sound = np.concatenate([*blocks, np.empty(0, np.float32)])
        pictures = media.read_images(question.file, 1.0, (180, 240), question.start, question.end)
        picture = next(iter(pictures), None)
    except (media.DecodeError, OSError) as error:
        missing[question.file] = getattr(error, "reason", str(error))
        return about
    if not len(sound):
        missing[question.file] = "no sound at this time"
        return about
    slowed = SLOWED if rate > ULTRASONIC else 1
    about |= {"seconds": len(sound) / rate, "nyquist": rate / 2, "slowed": slowed}
    about["sound"] = _base64(encoding.mp3(_levelled(sound, rate, question, begin), rate // slowed))
    fine = 1 if context == CONTEXT else 2  # what stands beside the question is shown half as large
    about["spectrogram"] = _base64(encoding.jpeg(spectrogram(sound, rate, COLUMNS_SHOWN // fine, BINS // fine)))
    return about if picture is None else {**about, "picture": _base64(encoding.jpeg(picture))}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _levelled(sound: np.ndarray, rate: int, question: Question, begin: float) -> np.ndarray:
    """Return sound as loud as every other, by the level of the window that is asked about."""
    first, last = (round((time - begin) * rate) for time in (question.start, question.end))
    own = sound[first:last] if len(sound[first:last]) else sound
    gain = min(MOST_GAIN, LEVEL / max(float(np.sqrt(np.square(own, dtype=np.float64).mean())), 1e-9))
    return np.clip(sound * np.float32(gain), -1, 1)


def spectrogram(sound: np.ndarray, rate: int, columns: int = COLUMNS_SHOWN, bins: int = BINS) -> np.ndarray:
    """Return decibels as grey, the highest frequency on top. Shape: `[samples]` to `[bins, columns]` uint8.

    Bins and columns are so many at most; 255 is the loudest cell, 0 lies RANGE dB below it. The
    power of several analysis windows is averaged where a column stands for more than one.
    """
    length = max(64, 1 << round(np.log2(ANALYSIS * rate)))
    sound = np.pad(sound, (length // 2, length // 2))
    hop = max(1, length // 4)
    frames = np.lib.stride_tricks.sliding_window_view(sound, length)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(length).astype(np.float32), axis=1)[:, 1:]))
    power = _fewer(_fewer(power, columns).T, bins)
    decibel = 10 * np.log10(np.maximum(power, 1e-12))
    grey = np.clip((decibel - decibel.max()) / RANGE + 1, 0, 1) * 255
    return np.ascontiguousarray(np.round(grey[::-1]).astype(np.uint8))


def _fewer(rows: np.ndarray, most: int) -> np.ndarray:
    """Return means of neighbouring rows, so that `most` are left at the most."""
    if len(rows) <= most:
        return rows
    edges = np.linspace(0, len(rows), most + 1).astype(int)[:-1]
    return np.add.reduceat(rows, edges, axis=0) / np.diff([*edges, len(rows)])[:, None]

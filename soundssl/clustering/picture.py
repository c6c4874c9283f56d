"""A picture of clusters: their sizes, confidences, and the largest by the windows nearest to them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soundssl import files, media
from soundssl.clustering.summary import name
from soundssl.ops import spectrogram
from soundssl.reports import pictures

VGGISH = spectrogram.PRESETS["vggish"]  # what windows are shown as
BINS = 20  # of confidences


def plot(picture: str | os.PathLike, path: str | os.PathLike, found: Sequence[dict[str, Any]]) -> None:
    """Plot the sizes of a clusters file by rank, its confidences, and the largest clusters by their nearest windows.

    A cluster has spectrograms where the features that it was made from lie beside it, or else where the sound of its
    windows is found (then as VGGish has them), else the names of its windows.
    """
    clusters = files.Clusters(path)
    count, edges = np.histogram(clusters.confidence, BINS, (0, 1))
    length = float(clusters.attributes.get("window", 0.0))
    source = _features(path)
    categories = []
    for each in found:
        near = each["nearest"]
        frames = _stored(source, near, length) if source else _spectrograms(near, length)
        titles = [f"{Path(window['file']).name} {window['second']:g} s" for window in near] if frames else []
        words = ", ".join(map(name, near[:3]))
        categories.append(pictures.Category(f"{each['cluster']}: {each['windows']} windows", words, frames, titles))
    sizes = np.sort(clusters.size[clusters.size > 0])[::-1]
    scale = pictures.Scale.of(VGGISH.attributes() if source is None else source.front_end())
    pictures.clusters(picture, sizes, count / count.sum(), edges, categories, scale)


def _features(path: str | os.PathLike) -> files.Features | None:
    """Return the log-mel features that a clusters file was made from, where they lie beside it."""
    for row in sorted(files.chain(path), key=lambda row: int(str(row["depth"]))):
        if (row["role"], row["state"]) == ("features", "here"):
            source = files.Features(Path(path).parent / str(row["file"]))
            return None if source.waveform else source
    return None


def _stored(source: files.Features, windows: Sequence[dict[str, Any]], length: float) -> list[np.ndarray]:
    """Return log-mel frames of windows from a features file; none where it has not all of them."""
    rows = {files.text(str(key)): row for row, key in enumerate(source.clips.key)}
    frames = []
    for window in windows:
        if window.get("clip") not in rows:
            return []
        begin, end = source.offset[rows[window["clip"]]], source.offset[rows[window["clip"]] + 1]
        first = begin + round(window["start"] / float(source.seconds(1)))
        frames.append(np.asarray(source.frames[first : min(end, first + source.frames_of(length))], np.float32))
    return frames if all(len(each) > 1 for each in frames) else []


def _spectrograms(windows: Sequence[dict[str, Any]], length: float) -> list[np.ndarray]:
    """Return log-mel frames of windows, from the files they were heard in; none where one cannot be read."""
    frames = []
    for window in windows:
        if "file" not in window or not Path(window["file"]).is_file():
            return []
        try:
            rate, start = VGGISH.sample_rate, window["second"]
            blocks = list(media.read_audio(window["file"], rate, start, start + length, keep_truncated=True))
        except media.DecodeError:
            return []
        frames.append(spectrogram.log_mel(np.concatenate([np.zeros(0, np.float32), *blocks])))
    return frames if all(len(each) > 1 for each in frames) else []

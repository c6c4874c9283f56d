"""Embedding: a features file and a model to one vector a window, in a file; a run that was killed goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch

from soundssl import SoundsslError, files
from soundssl.files import Features
from soundssl.files.features import Windows
from soundssl.model import BATCH, Model, fitting
from soundssl.models import released
from soundssl.progress import SILENT, Advance, Progress
from soundssl.weights import Weights

Store = Literal["float32", "float16"]


class Job:
    """Say which windows are embedded by which layer of a model, and how their vectors are stored.

    `hop` in seconds is by default that of the front end; `clips` (boolean, `[clips]`) chooses some, all by default;
    `shard` (K, N) is noted where they are those of one of several runs; `raw` leaves embeddings at the length that the
    net gives them; `whitening` is the released postprocessor of VGGish, `quantise` its 8-bit form. `made_from` stands
    for all of it. Raises FormatError for features of another front end than the model's, and for a whitening that is
    none or of another size.
    """

    def __init__(
        self,
        source: Features,
        model: Model,
        *,
        layer: str = "embedding",
        hop: float | None = None,
        store: Store = "float32",
        clips: np.ndarray | None = None,
        shard: tuple[int, int] | None = None,
        batch_size: int = BATCH,
        raw: bool = False,
        whitening: Weights | None = None,
        quantise: bool = False,
    ) -> None:
        with fitting(model.path):
            source.check_front_end(model.config["front_end"], model.path)
        self.source, self.model, self.layer, self.store, self.batch_size = source, model, layer, store, batch_size
        self.length = model.config["frames"]
        self.step = source.window_hop if hop is None else source.frames_of(hop)
        self.clips = np.ones(len(source.clips), bool) if clips is None else clips
        self.shard = shard
        self.raw = raw and layer == "embedding" and model.config["unit_length"]  # else nothing is scaled anyway
        self.whitening, self.quantise = whitening, quantise
        self.inputs = [
            files.identity("features", source.path, source.attributes),
            files.identity("model", model.path, model.attributes),
            *([whitening.identity] if whitening else []),
        ]
        chosen = np.packbits(self.clips).tobytes().hex()
        settings = [layer, self.step, store, chosen, shard, str(model.accelerator.dtype)]
        self.made_from = files.digest(
            "embeddings", self.inputs, settings + ["raw"] * self.raw + ["quantise"] * quantise
        )
        if whitening:
            self._whitened(np.zeros((1, model.output(layer, self.raw).width), np.float32))  # refused before any work

    @cached_property
    def count(self) -> int:
        """Number of windows."""
        return len(self.source.grid(self.length, self.step, self.clips)[0])

    def run(
        self,
        place: str | Path | BinaryIO,
        *,
        afresh: bool = False,
        progress: Progress = SILENT,
        command: str | None = None,
    ) -> int:
        """Write the vectors and return their number: a name in .npy is a bare matrix, so is an open stream.

        A name in .csv or .parquet is a table for other programs, as `files.write_table` has it.

        What an interrupted run of the same job left beside a file is taken over, unless `afresh`. `command` is the
        command line that the file carries. Raises FormatError where there is no window, unless of a shard.
        """
        if not self.count and not self.shard:
            raise files.FormatError(f"{files.text(self.source.path)} has no window of {self.length} frames to embed")
        place = Path(place) if isinstance(place, str) else place
        if isinstance(place, Path) and place.suffix.lower() == ".parquet":
            files.require_parquet()  # before hours of work
        width = self.model.output(self.layer, self.raw).width
        with contextlib.ExitStack() as stack:
            advance = stack.enter_context(progress.track("embed", self.count, "windows"))
            kept = None
            if isinstance(place, Path):
                # A vector depends in its last bits on the batch that it is computed in.
                origin = files.digest(self.made_from, self.batch_size)
                kept = files.Vectors(place, origin, (self.batch_size, width), self.store, afresh)
                stack.enter_context(contextlib.closing(kept))
                if kept.done:
                    progress.say(f"going on: {min(kept.done, self.count)} of {self.count} windows were done before")
            batches = self._batches(kept, advance)
            if not isinstance(place, Path) or place.suffix == ".npy":
                rows = (vectors for vectors, _ in batches)
                files.write_matrix(place, (self.count, width), self.store, rows)
            elif place.suffix.lower() in files.ENDINGS:
                seconds = float(self.source.seconds(self.length))
                files.write_table(place, batches, self.source.clips, seconds, width, self.store)
            else:
                self._write(place, batches, width, command)
            if kept:
                kept.discard()
        return self.count

    def _batches(self, kept: files.Vectors | None, advance: Advance) -> Iterator[tuple[np.ndarray, Windows]]:
        output = self.model.output(self.layer, self.raw)
        for windows in self.source.windows(self.length, self.step, self.batch_size, self.clips):
            vectors = kept.take() if kept else None
            if vectors is None:
                vectors = self._stored(self._whitened(output(windows.frames)), windows)
                if kept:
                    kept.add(vectors)
            yield vectors, windows
            advance(len(vectors))

    def _whitened(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors as the released postprocessor gives them, or as they are. Shape: `[n, width]`."""
        if not self.whitening:
            return vectors
        try:
            return released.whiten(torch.from_numpy(vectors), self.whitening.tensors, self.quantise).numpy()
        except ValueError as error:
            raise files.FormatError(f"{files.text(self.whitening.path)} whitens no such embeddings: {error}") from error

    def _stored(self, vectors: np.ndarray, windows: Windows) -> np.ndarray:
        """Return vectors in the type they are stored in; raise SoundsslError where one does not fit into it."""
        with np.errstate(over="ignore"):
            stored = vectors.astype(self.store)
        if not (fine := np.isfinite(stored).all(1)).all():
            row = int(np.flatnonzero(~fine)[0])
            raise SoundsslError(
                f"the vector of {self.source.clips.key[windows.clip[row]]} at {windows.start[row]:g} s has numbers "
                f"beyond {self.store}; --store float32 holds them"
            )
        return stored

    def _write(
        self, path: Path, batches: Iterator[tuple[np.ndarray, Windows]], width: int, command: str | None
    ) -> None:
        """Write an embeddings file: vectors, times and the table of the clips."""
        source, shard = self.source, self.shard
        attributes = {
            "layer": self.layer,
            "hop": float(source.seconds(self.step)),
            "window": float(source.seconds(self.length)),
            "class": json.dumps(self.model.output(self.layer, self.raw).classes),
            **({"part": f"{shard[0]}/{shard[1]}"} if shard else {}),
            **({"raw": 1} if self.raw else {}),
            "features": source.attributes["uuid"],
            "model": self.model.attributes["uuid"],
        }
        with files.create(
            path, "embeddings", inputs=self.inputs, made_from=self.made_from, attributes=attributes, command=command
        ) as sink:
            dtype = {"float32": "f4", "float16": "f2"}[self.store]
            chosen = self.clips if shard else None
            files.write_embeddings(sink, batches, self.count, width, dtype, source.clips, chosen)

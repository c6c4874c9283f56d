"""Picture scores: the pictures of each clip and an image classifier to one row a clip, in an embeddings file.

The machine labels of MM-Videos: three pictures a second, each classified, their scores averaged over the clip.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from soundssl import files
from soundssl.device import Accelerator
from soundssl.files import Features
from soundssl.files.features import Windows
from soundssl.models import image_classifier
from soundssl.progress import SILENT, Advance, Progress
from soundssl.weights import Weights

BATCH = 64  # pictures that run through the net at a time


class Job:
    """Say which pictures are classified by which net. `made_from` stands for all of it.

    `name` is timm:NAME, `classes` the names of its outputs, `clips` (boolean, `[clips]`) chooses some; `shard` (K, N)
    is noted where they are those of one of several runs. Raises FormatError for features without pictures, ValueError
    for a net that timm does not have or weights of another.
    """

    def __init__(
        self,
        source: Features,
        name: str,
        weights: Weights,
        classes: list[str],
        accelerator: Accelerator,
        *,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        clips: np.ndarray | None = None,
        shard: tuple[int, int] | None = None,
    ) -> None:
        if source.images is None or source.image_offset is None:
            raise files.FormatError(
                f"{files.text(source.path)} holds no pictures; make it from videos, with featurize --image-rate 3"
            )
        chosen = np.ones(len(source.clips), bool) if clips is None else clips
        self.source, self.classes, self.accelerator = source, classes, accelerator
        self.clips, self.shard = chosen, shard
        self.rows = np.flatnonzero(chosen & source.recorded & (np.diff(source.image_offset) > 0))
        self.lacking = int((chosen & source.recorded).sum()) - len(self.rows)
        net = image_classifier.build(name, len(classes), weights.tensors, activation)
        self.network = accelerator.place(net).eval()
        self.inputs = [files.identity("features", source.path, source.attributes), weights.identity]
        settings = [name, classes, activation, np.packbits(chosen).tobytes().hex(), str(accelerator.dtype)]
        self.made_from = files.digest("picture scores", self.inputs, [*settings, *([shard] if shard else [])])

    def run(self, path: Path, *, afresh: bool = False, progress: Progress = SILENT, command: str | None = None) -> int:
        """Write the mean scores of the pictures of each clip, and return how many clips there are.

        Clips that an interrupted run of the same job left beside the file are taken over, unless `afresh`. Raises
        FormatError where no clip has a picture, unless of a shard.
        """
        if not len(self.rows) and not self.shard:
            raise files.FormatError(f"{files.text(self.source.path)} has no pictures of the chosen clips")
        seconds = max(1 / float(self.source.attributes["image_rate"]), 1e-3)
        attributes = {
            "layer": "probabilities",
            "hop": seconds,
            "window": seconds,
            "class": json.dumps(self.classes),
            **({"part": f"{self.shard[0]}/{self.shard[1]}"} if self.shard else {}),
            "features": self.source.attributes["uuid"],
            "model": self.inputs[1]["uuid"],
        }
        about = {"inputs": self.inputs, "made_from": self.made_from, "attributes": attributes, "command": command}
        with (
            progress.track("embed", len(self.rows), "clips") as advance,
            contextlib.closing(files.Vectors(path, self.made_from, (1, len(self.classes)), "f4", afresh)) as kept,
        ):
            if kept.done:
                progress.say(f"going on: {min(kept.done, len(self.rows))} of {len(self.rows)} clips were done before")
            chosen = self.clips if self.shard else None
            with files.create(path, "embeddings", **about) as sink:  # type: ignore[arg-type]
                scores = self._scores(kept, advance)
                files.write_embeddings(sink, scores, len(self.rows), len(self.classes), "f4", self.source.clips, chosen)
            kept.discard()
        return len(self.rows)

    def _scores(self, kept: files.Vectors, advance: Advance) -> Iterator[tuple[np.ndarray, Windows]]:
        for row in self.rows:
            mean = kept.take()
            if mean is None:
                images = self.source.images_of(int(row))
                assert images is not None
                found = [self._classified(images[low : low + BATCH]) for low in range(0, len(images), BATCH)]
                mean = np.concatenate(found).mean(0, dtype=np.float64).astype(np.float32)[None]
                kept.add(mean)
            yield mean, Windows(np.empty(0), np.array([row]), np.zeros(1))
            advance(1, "")

    @torch.inference_mode()
    def _classified(self, images: np.ndarray) -> np.ndarray:
        with self.accelerator.autocast():
            given = torch.from_numpy(np.array(images)).to(self.accelerator.device)
            return self.network(given).float().cpu().numpy()

"""Pair sampling: two windows of one clip that are to be found to belong together, and how each is augmented.

Pairs draw them: crops of a clip (temporal proximity), the same with another sound in the background (mix-back), or a
window of a mixture and one of a track that a separator found in it (Fonseca et al. 2021, "Unsupervised contrastive
learning of sound event representations" and "Self-supervised learning from automatically separated sound scenes").
Objectives whose pairs are equal share a batch; each augments a copy of its own as its options say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from soundssl.files.features import WINDOW, Features
from soundssl.objectives import Inputs, option
from soundssl.ops import augment
from soundssl.ops.generators import PerExampleGenerator


@dataclass(frozen=True)
class PairSampling:
    """Options that say what a pair is; objectives that have the same ones in common share their batches."""

    views: Literal["crops", "same", "mixback", "separated"] = option(
        "mixback",
        "crops: two windows of a clip; same: one window twice; mixback: crops, each with another recording in the "
        "background; separated: a window of a mixture and one of a track of it",
    )
    distance: float = option(math.inf, "seconds by which the starts of two crops differ at most; inf: anywhere")
    background: float = option(
        0.05,
        "mixback: largest share of a view's energy that the background has, 0.05 being 13 dB below the view; "
        "magnitudes are squared first",
    )
    adjust: bool = option(
        True, "mixback: weigh the background by the ratio of energies, so that its level is of no matter"
    )
    processors: str = option("all", "separated: separators to draw a track's from, by number, as 0,2; or all")
    silent: bool = option(True, "separated: draw near-silent tracks too (inferred)")


@dataclass(frozen=True)
class Augmentation:
    """Options that say how each view is augmented: by what, in which order, and how far each goes."""

    augment: str = option(
        "crop,compression,noise",
        "augmentations in their order, separated by commas, or none: time, band, crop, reversal, compression, masks, "
        "noise, blur",
    )
    crop_area: float = option(0.8, "crop: least share of the window's area")
    crop_aspect: float = option(
        4 / 3, "crop: largest aspect ratio, relative to the window's (inferred), and its inverse"
    )
    compression: float = option(0.75, "compression: least factor of the log-mel values")
    noise: float = option(0.01, "noise: largest deviation of normal noise on the log-mel values")
    masks: int = option(2, "masks: stripes of frames, and as many of bands")
    mask_frames: int = option(20, "masks: frames that a stripe has less than")
    mask_bands: int = option(20, "masks: bands that a stripe has less than")
    time: int = option(29, "time: frames by which a view is turned in time at most")
    band: int = option(9, "band: bands by which a view is turned upwards at most")
    reversal: float = option(0.5, "reversal: share of views that are turned round in time (inferred)")
    blur: float = option(1.0, "blur: largest deviation of the smoothing, in frames and bands (inferred)")


AUGMENTATIONS = {
    "time": lambda windows, generator, to: augment.roll_frames(windows, generator, to.time),
    "band": lambda windows, generator, to: augment.roll_bands(windows, generator, to.band),
    "crop": lambda windows, generator, to: augment.resized_crop(windows, generator, to.crop_area, to.crop_aspect),
    "reversal": lambda windows, generator, to: augment.reverse(windows, generator, to.reversal),
    "compression": lambda windows, generator, to: augment.compress(windows, generator, to.compression),
    "masks": lambda windows, generator, to: augment.mask(windows, generator, to.mask_frames, to.mask_bands, to.masks),
    "noise": lambda windows, generator, to: augment.add_gaussian(windows, generator, to.noise),
    "blur": lambda windows, generator, to: augment.blur(windows, generator, to.blur),
}  # in the order of the published code


def check(options: Any, objective: str) -> None:
    """Raise ValueError for an unknown augmentation, and for ranges that augmentation or pair sampling cannot have."""
    for name in composition(options):
        if name not in AUGMENTATIONS:
            raise ValueError(f"no augmentation is called {name!r}; there are {', '.join(AUGMENTATIONS)}, or none")
    if not (0 <= options.background <= 1 and options.distance >= 0):
        raise ValueError(
            f"background {options.background} and distance {options.distance} of the {objective} objective: a share "
            "between 0 and 1, and seconds that are not negative, are needed"
        )
    # Each range is judged where it is used. Whether a mask fits a window, the features say: see Recipe.
    _try(options, max(WINDOW, options.mask_frames), max(WINDOW, options.mask_bands))


def _try(options: Augmentation, frames: int, bands: int) -> None:
    """Raise ValueError for augmentations that windows of so many frames and bands cannot have."""
    augmented(torch.zeros(1, frames, bands), PerExampleGenerator(torch.zeros(1)), options)


def composition(options: Augmentation) -> list[str]:
    """Return the names of the augmentations in their order.

    >>> composition(Augmentation(augment="crop, masks"))
    ['crop', 'masks']
    """
    return [name.strip() for name in options.augment.split(",") if name.strip() not in ("", "none")]


def augmented(windows: Tensor, generator: PerExampleGenerator, options: Augmentation) -> Tensor:
    """Apply the augmentations, one after the other. Shape: [batch, frames, bands] to the same."""
    for place, name in enumerate(composition(options)):
        windows = AUGMENTATIONS[name](windows, generator.fork(place), options)
    return windows


def log_scale(features: Features) -> augment.LogScale:
    """Return how features write energies: their floor, their logarithm, and whether cells are magnitudes or powers."""
    said = features.attributes
    return augment.LogScale(float(said["floor"]), str(said["logarithm"]), str(said["spectrum"]))


class Recipe:
    """Say how a batch of pairs becomes two views: backgrounds as the pairs say, then an objective's own augmentation.

    `copy` is a number of the objective: two of them which share a batch see different copies of it. Raises ValueError
    for augmentations that do not fit the windows of the features.
    """

    def __init__(self, inputs: Inputs, options: Any, copy: int) -> None:
        self.scale, self.options, self.copy = log_scale(inputs.features), options, copy
        _try(options, inputs.features.window, inputs.features.bands)

    def apply(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """Return the views in float32: `window`, and `other` where there is one. Shape: each [batch, frames, bands]."""
        generator, made = PerExampleGenerator(batch["lot"]).fork(self.copy), []
        for side, name in enumerate(name for name in ("window", "other") if name in batch):
            windows = batch[name].float()
            if "share" in batch:
                background = batch[f"{name}_background"].float()
                windows = augment.mix_back(windows, background, batch["share"], self.options.adjust, self.scale)
            made.append(augmented(windows, generator.fork(side), self.options))
        return made


class Pairs(torch.utils.data.Dataset):
    """Draw one pair a clip and epoch; what is drawn depends on seed, epoch and row alone.

    A row is a clip that holds a window, and for `separated` one that has tracks. Tracks themselves are no rows. `notes`
    count the clips whose two crops can only be the same window.
    Raises ValueError where there are too few.
    """

    def __init__(self, inputs: Inputs, options: Any, seed: int) -> None:
        self.options = PairSampling(**{each.name: getattr(options, each.name) for each in fields(PairSampling)})
        features, self.seed = inputs.features, seed
        self.features, self.clips = features, inputs.clips
        self.first = features.offset[:-1].astype(np.int64)
        self.starts = np.where(inputs.clips, np.maximum(np.diff(features.offset) - features.window + 1, 0), 0)
        self.recording = features.clips.recording_number()
        rate = int(features.attributes["sample_rate"]) / int(features.attributes["hop_length"])
        self.reach = self.options.distance * rate  # frames
        self.rows = np.flatnonzero((self.starts > 0) & features.recorded)
        if self.options.views == "separated":
            self._find_tracks()
        needed = 3 if self.options.views == "mixback" else 2  # the two backgrounds are of two other recordings
        found = np.unique(self.recording[self.rows])
        if len(found) < needed:
            raise ValueError(f"{len(found)} recordings hold a window; {self.options.views} needs {needed} or more")
        single = np.count_nonzero(self.starts[self.rows] == 1)
        crops = self.options.views in ("crops", "mixback")
        same = f"{single} of {len(self.rows)} clips hold one window alone: their two crops are the same"
        self.notes = [same] if crops and single else []

    def _find_tracks(self) -> None:
        """Put tracks in the order of mixture and processor, and find the processors of each mixture, and their tracks.

        Processor g of the file gave the tracks order[begin[g]:end[g]]; a row has the processors low[row] to high[row].
        """
        tracks, chosen = self.features.tracks, self._processors()
        usable = (tracks.parent >= 0) & (self.starts > 0) & np.isin(tracks.processor, chosen)
        if not self.options.silent:
            usable &= ~tracks.silent
        found = np.flatnonzero(usable)
        self.order = found[np.lexsort((tracks.processor[found], tracks.parent[found]))]
        parent, processor = tracks.parent[self.order].astype(np.int64), tracks.processor[self.order]
        self.begin = np.flatnonzero(np.diff(parent * 256 + processor, prepend=-1))
        self.end = np.append(self.begin[1:], len(self.order))
        owner = parent[self.begin]
        self.rows = self.rows[np.isin(self.rows, owner)]
        self.low, self.high = (np.searchsorted(owner, self.rows, side) for side in ("left", "right"))

    def _processors(self) -> np.ndarray:
        """Return the numbers of the separators to draw from; raise ValueError for those that the file has not."""
        tracks, name = self.features.tracks, self.features.path.name
        known = np.unique(tracks.processor[tracks.parent >= 0])
        if not len(known):
            raise ValueError(f"views separated need tracks and {name} holds none; make it with soundssl separate")
        if self.options.processors == "all":
            return known
        asked = [word.strip() for word in self.options.processors.split(",")]
        for word in asked:
            if word not in map(str, known):
                raise ValueError(f"{name} has no processor {word!r}; it has {', '.join(map(str, known))}, or say all")
        return np.array([int(word) for word in asked])

    def __eq__(self, other: object) -> bool:
        """Return whether another draws the very same pairs."""
        return (
            isinstance(other, Pairs)
            and (self.options, self.seed) == (other.options, other.seed)
            and self.features is other.features
            and self.clips is other.clips
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the batch of (epoch, row) keys.

        Shape: `window` and `other`, and for mixback `window_background` and `other_background` [batch, frames, bands],
        `share` [batch]; `recording` and `lot` [batch], the seed of the augmentation.
        """
        drawn = [self._draw(epoch, row) for epoch, row in keys]
        batch = {
            name: torch.from_numpy(
                self.features.frames.gather(np.array([each[name] for each in drawn]), self.features.window)
            )
            for name in drawn[0]
            if name not in ("share", "lot")
        }
        if "share" in drawn[0]:
            batch["share"] = torch.tensor([each["share"] for each in drawn], dtype=torch.float32)
        batch["recording"] = torch.from_numpy(self.recording[self.rows[[row for _, row in keys]]])
        return batch | {"lot": torch.tensor([each["lot"] for each in drawn])}

    def _draw(self, epoch: int, row: int) -> dict[str, Any]:
        """Draw a pair: first frames of its windows and of their backgrounds, the share of these, and the lot."""
        generator = np.random.default_rng([self.seed, epoch, row])
        clip = self.rows[row]
        start = generator.integers(self.starts[clip])
        found: dict[str, Any] = {"window": self.first[clip] + start, "lot": int(generator.integers(1 << 62))}
        if self.options.views == "same":
            return found | {"other": found["window"]}
        partner = clip
        if self.options.views == "separated":
            processor = generator.integers(self.low[row], self.high[row])
            partner = self.order[generator.integers(self.begin[processor], self.end[processor])]
        found["other"] = self.first[partner] + self._near(start, self.starts[partner], generator)
        if self.options.views == "mixback":
            strangers = self._strangers(row, generator)
            found["window_background"], found["other_background"] = strangers
            found["share"] = generator.uniform(0, self.options.background)  # one for both views, as published
        return found

    def _near(self, start: int, starts: int, generator: np.random.Generator) -> int:
        """Draw a start that lies within the distance of another, on the clock that clip and tracks share."""
        low, high = 0, starts
        if math.isfinite(self.reach):
            low = min(max(0, math.ceil(start - self.reach)), starts - 1)
            high = max(min(starts, math.floor(start + self.reach) + 1), low + 1)
        return int(generator.integers(low, high))

    def _strangers(self, row: int, generator: np.random.Generator) -> tuple[int, int]:
        """Draw first frames of windows of two other recordings."""
        taken = [self.recording[self.rows[row]]]
        found: list[int] = []
        while len(found) < 2:
            clip = self.rows[generator.integers(len(self.rows))]
            if self.recording[clip] not in taken:
                taken.append(self.recording[clip])
                found.append(int(self.first[clip] + generator.integers(self.starts[clip])))
        return found[0], found[1]

"""Coincidence objective: tell whether two sounds, or a sound and a picture, come from one recording at about one time.

Jansen et al. 2020, section 3.1: two heads, p_AA for pairs of sounds and p_AV for pairs of sound and picture, each a
hidden layer on the two embeddings; a batch of B coinciding pairs gives B positives and B (B - 1) negatives, which have
equal total weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from soundssl import device, models, views
from soundssl.models.scorer import Scorer
from soundssl.objectives import Inputs, option
from soundssl.ops import augment, pairs

NEEDS = ("features",)
UNIT_LENGTH = True  # of embeddings in files; the scorers see them as they are, as in the paper
COPY = 2  # of a shared batch: which changes of it are this objective's own

# Values that a recipe puts in the place of others: the baseline of Arandjelovic and Zisserman 2017.
_CORRESPONDENCE = {"modality": "image", "negatives": "random", "delta": 1.0}
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "correspondence": {**_CORRESPONDENCE, "tower": "vgg"},
    "correspondence-small": {**_CORRESPONDENCE, "tower": "vgg-small"},
}


@dataclass(frozen=True)
class Options(views.Changes, views.Drawing):
    """Options of the coincidence objective."""

    views: Literal["near", "crops", "same", "mixback", "separated"] = option(  # type: ignore[assignment]
        "near", "pairs of sounds: near (less than delta apart), or those of the contrastive objective, which see there"
    )
    augment: str = option(
        "none", "changes of the windows of a pair, as of the contrastive objective: masks for example"
    )
    modality: Literal["audio", "image", "both"] = option(
        "audio", "what coincides: audio (sound with sound), image (sound with picture) or both"
    )
    alpha: float = option(0.1, "share of the sound-sound loss where both are learnt (inferred)")
    delta: float = option(10.0, "seconds: two moments of a recording less than this apart coincide; inf: any two")
    hidden: int = option(512, "ReLU units of each head")
    negatives: Literal["all", "random"] = option(
        "all", "all other pairs of the batch, or one drawn at random for each positive"
    )
    tower: Literal["auto", "folded", "vgg", "vgg-small", "resnet50"] = option(
        "auto",
        "net for pictures: folded, vgg, vgg-small or resnet50 (the paper's); auto: folded on a CPU, else resnet50",
    )
    tower_norm: Literal["batch", "group"] = option("batch", "norm of the net for pictures: batch or group")
    mixing: float = option(
        0.0, "largest energy of another recording's window mixed into a window, as share of its own; the paper has 0"
    )
    shift: int = option(0, "bands by which windows are shifted up or down at most; the paper has 0")
    preset: Literal["none", "correspondence", "correspondence-small"] = option(
        "none",
        "correspondence: the baseline of Arandjelovic and Zisserman 2017, namely modality image, negatives random, "
        "delta 1 (inferred) and tower vgg, whatever else is said of these; correspondence-small: the same with tower "
        "vgg-small; the paper's sound net is --encoder vggish",
    )


def settle(options: Options) -> Options:
    """Return the options with those of their preset in force; raise ValueError for values out of range.

    A tower that nobody has chosen by the device is the one for CPUs.
    """
    options = replace(options, **PRESETS[options.preset])
    views.check(options, "coincidence")
    if options.views != "near" and options.modality != "audio":
        raise ValueError(f"views {options.views} are pairs of sounds; modality {options.modality} has near ones only")
    if options.views != "near" and (options.mixing or options.shift):
        raise ValueError(f"mixing and shift are of near pairs; change views {options.views} by augment")
    if options.tower == "auto":
        small: Any = models.SMALL["tower"]
        options = replace(options, tower=small)
    for name, legal in (
        ("alpha", 0 <= options.alpha <= 1),
        ("delta", options.delta > 0),
        ("hidden", options.hidden >= 1),
        ("mixing", options.mixing >= 0),
        ("shift", options.shift >= 0),
    ):
        if not legal:
            raise ValueError(f"{name} of the coincidence objective is {getattr(options, name)}, which is out of range")
    return options


# ---------------------------------------------------------------- examples


class Timeline:
    """Know which windows and pictures lie near a moment. Times are whole frames on the clock of a clip's source.

    Tracks that a separator found in a clip are not in it: they were not heard beside it, they are part of it.

    Clips of one source share a clock; the clocks of two sources of one recording cannot be compared, so pairs across
    them coincide only where `delta` is infinite.
    """

    def __init__(self, inputs: Inputs, delta: float) -> None:
        features = inputs.features
        self.length = features.window
        self.first = features.offset[:-1].astype(np.int64)
        chosen = inputs.clips & features.recorded
        self.windows = np.where(chosen, np.maximum(np.diff(features.offset) - self.length + 1, 0), 0)
        self.rate = int(features.attributes["sample_rate"]) / int(features.attributes["hop_length"])  # frames a second
        self.begin = np.rint(features.clips.start * self.rate).astype(np.int64)
        self.delta = delta * self.rate
        self.recording = features.clips.recording_number()
        self.source = np.unique(features.clips.source.astype(str), return_inverse=True)[1]
        if not self.delta > 1:
            raise ValueError(f"delta is {delta} seconds, less than a frame; nothing coincides")
        order = np.argsort(self.recording, kind="stable")
        self.members = np.split(order, np.flatnonzero(np.diff(self.recording[order])) + 1)

    def paired(self) -> np.ndarray:
        """Return the windows of each clip that may be the first of a pair of sounds, 0 where another is lacking."""
        if np.isfinite(self.delta):
            return np.where(self.windows > 1, self.windows, 0)
        total = np.bincount(self.recording, self.windows)
        return np.where(total[self.recording] > 1, self.windows, 0)

    def image_range(self, images: np.ndarray, period: float, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return first number and count of each clip's pictures that have a window of their clip near.

        Shape: `images` (pictures of each clip) and `windows` [clips] to [clips] twice; `period` in frames.
        """
        first, last = self.length / 2, windows - 1 + self.length / 2  # centres of the first and the last window
        low = np.maximum(np.floor((first - self.delta) / period) + 1, 0)
        high = np.minimum(np.ceil((last + self.delta) / period), images)
        return np.where(windows > 0, low, 0).astype(np.int64), np.where(
            windows > 0, np.maximum(high - low, 0), 0
        ).astype(int)

    def near(self, clip: int, time: float, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return clips, and ranges (first number, end) in each, of the windows that start within delta of a time."""
        clips = self.members[self.recording[clip]]
        if np.isfinite(self.delta):
            clips = clips[self.source[clips] == self.source[clip]]
            place = time - self.begin[clips]
            low = np.maximum(np.floor(place - self.delta) + 1, 0)
            high = np.minimum(np.ceil(place + self.delta), allowed[clips])
            return clips, low.astype(np.int64), np.maximum(low, high).astype(np.int64)
        return clips, np.zeros(len(clips), np.int64), allowed[clips]

    def others(self, clip: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ranges as `near` does, of the windows near window `number` of a clip, without that very moment."""
        time = self.begin[clip] + number
        clips, low, high = self.near(clip, time, self.windows)
        same = np.where(self.source[clips] == self.source[clip], time - self.begin[clips], -1)
        below, above = np.clip(same, low, high), np.clip(same + 1, low, high)
        return np.concatenate([clips, clips]), np.concatenate([low, above]), np.concatenate([below, high])


def draw(ranges: tuple[np.ndarray, np.ndarray, np.ndarray], generator: np.random.Generator) -> tuple[int, int]:
    """Draw a clip and a number from ranges (clips, first number, end), every number as likely as another.

    >>> draw((np.array([3, 5]), np.array([7, 2]), np.array([7, 3])), np.random.default_rng(0))
    (5, 2)
    """
    clips, low, high = ranges
    ends = np.cumsum(high - low)
    place = generator.integers(ends[-1])
    row = int(np.searchsorted(ends, place, side="right"))
    return int(clips[row]), int(high[row] - (ends[row] - place))


def Examples(inputs: Inputs, options: Options, seed: int) -> torch.utils.data.Dataset:
    """Return the pairs that the options ask for: near ones, or those that the contrastive objective draws as well."""
    options = settle(options)
    return Near(inputs, options, seed) if options.views == "near" else views.Pairs(inputs, options, seed)


class Near(torch.utils.data.Dataset):
    """Draw one pair a recording and epoch: windows at any frame, and the pictures that the file holds.

    A row is a recording; what is drawn of it depends on seed, epoch and row alone. Recordings without a pair have no
    row. Raises ValueError where fewer than two recordings have one, and where pictures are asked of a file without.
    """

    def __init__(self, inputs: Inputs, options: Options, seed: int) -> None:
        self.options, self.seed, self.features = options, seed, inputs.features
        self.sounds, self.pictures = self.options.modality != "image", self.options.modality != "audio"
        self.timeline = Timeline(inputs, self.options.delta)
        self.starts = self.timeline.paired() if self.sounds else self.timeline.windows
        self.low, self.count = np.zeros(len(self.starts), np.int64), self.starts
        if self.pictures:
            self._find_pictures()
        recordings = np.bincount(self.timeline.recording, self.count)
        self.rows = np.flatnonzero(recordings > 0)
        if len(self.rows) < 2:
            raise ValueError(
                f"{len(self.rows)} recordings hold a pair that coincides; coincidence is learnt from two or more"
            )

    def _find_pictures(self) -> None:
        features = self.features
        if features.images is None:
            raise ValueError(
                f"modality {self.options.modality} needs pictures and {features.path.name} holds none; make the "
                f"features from videos, or take modality audio"
            )
        self.first_image = features.image_offset[:-1]
        self.period = self.timeline.rate / float(features.attributes["image_rate"])  # frames from picture to picture
        images = np.diff(features.image_offset)
        self.low, self.count = self.timeline.image_range(images, self.period, self.starts)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the batch of (epoch, row) keys.

        Shape: `window`, `other`, `mixed`, `other_mixed` [batch, frames, bands], `image` [batch, height, width, 3],
        `gain` and `shift` [batch, 2], `recording` and `lot` [batch]. Only what the options ask for is there.
        """
        drawn = [self._draw(epoch, row) for epoch, row in keys]
        column = {name: np.array([each[name] for each in drawn]) for name in drawn[0]}
        batch = {name: torch.from_numpy(column[name]) for name in ("recording", "lot")}
        batch["window"] = self._windows(column["window"])
        if self.sounds:
            batch["other"] = self._windows(column["other"])
        if self.pictures:
            batch["image"] = torch.from_numpy(self.features.images.gather(column["image"], 1)[:, 0])
        if self.options.mixing:
            batch["mixed"], batch["other_mixed"] = (self._windows(column["mixed"][:, side]) for side in (0, 1))
            batch["gain"] = torch.from_numpy(column["gain"].astype(np.float32))
        if self.options.shift:
            batch["shift"] = torch.from_numpy(column["shift"])
        return batch

    def _windows(self, first: np.ndarray) -> Tensor:
        return torch.from_numpy(self.features.frames.gather(first, self.features.window))

    def _draw(self, epoch: int, row: int) -> dict[str, Any]:
        """Draw the pair of a recording: first frames of windows, number of a picture, changes of the windows."""
        generator = np.random.default_rng([self.seed, epoch, row])
        recording, line = self.rows[row], self.timeline
        clips = line.members[recording]
        clip, number = draw((clips, self.low[clips], self.low[clips] + self.count[clips]), generator)
        found: dict[str, Any] = {"recording": recording}
        if self.pictures:
            found["image"] = self.first_image[clip] + number
            centre = line.begin[clip] + number * self.period
            clip, number = draw(line.near(clip, centre - line.length / 2, self.starts), generator)
        found["window"] = line.first[clip] + number
        if self.sounds:
            other, at = draw(line.others(clip, number), generator)
            found["other"] = line.first[other] + at
        found["lot"] = generator.integers(1 << 62)
        if self.options.mixing:
            found["mixed"] = [self._stranger(row, generator), self._stranger(row, generator)]
            found["gain"] = generator.uniform(0, self.options.mixing, 2)
        if self.options.shift:
            found["shift"] = generator.integers(-self.options.shift, self.options.shift + 1, 2)
        return found

    def _stranger(self, row: int, generator: np.random.Generator) -> int:
        """Draw the first frame of a window of another recording, each recording as likely as another."""
        other = (row + 1 + generator.integers(len(self.rows) - 1)) % len(self.rows)
        clips = self.timeline.members[self.rows[other]]
        clip, number = draw((clips, np.zeros(len(clips), np.int64), self.timeline.windows[clips]), generator)
        return self.timeline.first[clip] + number


# ---------------------------------------------------------------- loss


class Objective(nn.Module):
    """Hold the heads and the net for pictures, and take the loss over the pairs of all processes.

    What a modality does not need is not built. Tensors of an earlier stage are taken over for what both have; the rest
    starts fresh, and what only the earlier one had is dropped.
    """

    def __init__(self, encoder: nn.Module, inputs: Inputs, options: Options) -> None:
        super().__init__()
        self.encoder, self.options = encoder, settle(options)
        self.realise = views.Realise(inputs, self.options, COPY)
        size: Any = encoder.size
        modality = self.options.modality
        self.audio_scorer = Scorer(size, self.options.hidden) if modality != "image" else None
        self.image_scorer = Scorer(size, self.options.hidden) if modality != "audio" else None
        tower, norm = self.options.tower, self.options.tower_norm
        self.image = models.build_image(tower, size, norm) if modality != "audio" else None
        self.register_load_state_dict_pre_hook(_take_what_fits)

    def forward(self, batch: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; log that of each kind of pair, and the share of positives that score above all negatives."""
        first, second = self._embed(batch)
        losses, figures = {}, {}
        if self.image is not None and self.image_scorer is not None:
            picture = self.image(batch["image"]).float()
            losses["av"], figures["accuracy_av"] = self._contrast(self.image_scorer, first, picture, batch)
        if self.audio_scorer is not None and second is not None:
            losses["aa"], figures["accuracy_aa"] = self._contrast(self.audio_scorer, first, second, batch)
        alpha = self.options.alpha
        total = (1 - alpha) * losses["av"] + alpha * losses["aa"] if len(losses) == 2 else next(iter(losses.values()))
        return total, figures | {f"loss_{name}": loss.detach() for name, loss in losses.items()}

    def _embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Embed the first windows, and the others where there are any, changed as their rows and the options say."""
        windows = self.realise(batch)
        for side, window in enumerate(windows):
            if "gain" in batch:
                others = batch[("mixed", "other_mixed")[side]].float()
                window = augment.mix(window, others, batch["gain"][:, side])
            if "shift" in batch:
                bands = batch["shift"][:, side]
                window = augment.translate(window, torch.zeros_like(bands), bands)
            windows[side] = window
        embedding = self.encoder(torch.cat(windows)).float()
        first, *others = embedding.chunk(len(windows))
        return first, others[0] if others else None

    def _contrast(self, scorer: Scorer, a: Tensor, b: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return loss and accuracy of the pairs (a_i, b_i) against those of different recordings, of all processes."""
        own = torch.arange(len(a), device=a.device) + device.rank() * len(a)
        everyone, recording = device.gather(b), device.gather(batch["recording"])
        if self.options.negatives == "random":
            partner = pairs.derangement(recording, device.gather(batch["lot"]))[own]
            legal = recording[partner] != batch["recording"]
            positive, negative = scorer.paired(a, b), scorer.paired(a, everyone[partner])
            return pairs.paired_cross_entropy(positive, negative, legal), (positive > negative).float().mean()
        scores = scorer(a, everyone)
        legal = batch["recording"][:, None] != recording
        count = device.mean(legal.sum().float())
        return pairs.balanced_cross_entropy(scores, own, legal, count), pairs.outranking(scores, own, legal)


def _take_what_fits(module: nn.Module, state: dict[str, Tensor], prefix: str, *_) -> None:
    """Fill in the parts that a state lacks from the module's own, and leave out those that the module has not."""
    for name in ("audio_scorer", "image_scorer", "image"):
        part = getattr(module, name)
        given = [key for key in state if key.startswith(f"{prefix}{name}.")]
        if part is None:
            for key in given:
                del state[key]
        elif not given:
            state |= {f"{prefix}{name}.{key}": value for key, value in part.state_dict().items()}

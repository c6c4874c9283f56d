"""Coincidence objective: tell whether two sounds, or a sound and a picture, come from one recording at about one time.

Jansen et al. 2020, section 3.1: two heads, p_AA for pairs of sounds and p_AV for pairs of sound and picture, each a
hidden layer on the two embeddings; a batch of B coinciding pairs gives B positives and B (B - 1) negatives, which have
equal total weight.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from soundssl import device, models
from soundssl.models.tensors import below
from soundssl.objectives import Inputs, option, with_preset
from soundssl.objectives.clock import WINDOW, Clock, draw
from soundssl.objectives.pairs import Augmentation, Pairs, PairSampling, Recipe, check
from soundssl.ops import augment, pairs

NEEDS = ("features",)
SEPARATES = False
UNIT_LENGTH = True  # of embeddings in files; the scorers see them as they are, as in the paper
HEAD = None
NO_PICTURES = "it was never trained on pictures; train a model with --objective coincidence --set modality=image"
COPY = 2  # of a shared batch: which augmentation of it is this objective's own

# Values that a recipe puts in the place of others: the baseline of Arandjelovic and Zisserman 2017, whose pictures lie
# within their second of sound: at most half a window of 0.96 s from its centre.
_CORRESPONDENCE = {"modality": "image", "negatives": "random", "delta": 0.48}
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "correspondence": {**_CORRESPONDENCE, "tower": "vgg"},
    "correspondence-small": {**_CORRESPONDENCE, "tower": "vgg-small"},
}


@dataclass(frozen=True)
class Options(Augmentation, PairSampling):
    """Options of the coincidence objective."""

    views: Literal["near", "crops", "same", "mixback", "separated"] = option(  # type: ignore[assignment]
        "near", "pairs of sounds: near (less than delta apart), or those of the contrastive objective, which see there"
    )
    augment: str = option(
        "none", "augmentation of the windows of a pair, as of the contrastive objective: masks for example"
    )
    modality: Literal["audio", "image", "both"] = option(
        "audio", "what coincides: audio (sound with sound), image (sound with picture) or both"
    )
    alpha: float = option(0.1, "share of the sound-sound loss where both are learnt (inferred)")
    delta: float = option(10.0, "seconds: two moments of a recording less than this apart coincide; inf: any two")
    min_distance: float = option(
        WINDOW, "seconds by which two sounds of a near pair start apart at least; -1: a window, so that none overlap"
    )
    grid: float = option(
        0.0, "seconds from one possible start of a window to the next, from the start of a clip; 0: any frame; paper: 1"
    )
    hidden: int = option(512, "ReLU units of each head")
    negatives: Literal["all", "random"] = option(
        "all", "all other pairs of the batch, or one drawn at random for each positive"
    )
    tower: Literal["auto", "space-to-depth", "vgg", "vgg-small", "resnet50", "folded"] = option(
        "auto",
        "net for pictures: space-to-depth (formerly folded), vgg, vgg-small or resnet50 (the paper's); auto: "
        "space-to-depth on a CPU, else resnet50",
    )
    tower_norm: Literal["batch", "group"] = option("batch", "norm of the net for pictures: batch or group")
    mixing: float = option(
        0.0, "largest energy of another recording's window mixed into a window, as share of its own; the paper has 0"
    )
    shift: int = option(0, "bands by which windows are shifted up or down at most; the paper has 0")
    preset: Literal["none", "correspondence", "correspondence-small"] = option(
        "none",
        "correspondence: the baseline of Arandjelovic and Zisserman 2017, namely modality image, negatives random, "
        "delta 0.48 (a picture lies inside its 0.96 s of sound) and tower vgg, as far as nothing else is given; "
        "correspondence-small: the same with tower vgg-small; its sound net is --encoder vgg-l3",
    )


def settle(options: Options) -> Options:
    """Return the options with those of their preset in force; raise ValueError for values out of range.

    A tower that nobody has chosen by the device is the one for CPUs.
    """
    options = with_preset(options, PRESETS[options.preset])
    check(options, "coincidence")
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
        ("min_distance", options.min_distance >= 0 or options.min_distance == WINDOW),
        ("grid", options.grid >= 0),
        ("hidden", options.hidden >= 1),
        ("mixing", options.mixing >= 0),
        ("shift", options.shift >= 0),
    ):
        if not legal:
            raise ValueError(f"{name} of the coincidence objective is {getattr(options, name)}, which is out of range")
    return options


# ---------------------------------------------------------------- examples


def Examples(inputs: Inputs, options: Options, seed: int) -> torch.utils.data.Dataset:
    """Return the pairs that the options ask for: near ones, or those that the contrastive objective draws as well."""
    options = settle(options)
    return Near(inputs, options, seed) if options.views == "near" else Pairs(inputs, options, seed)


class Near(torch.utils.data.Dataset):
    """Draw one pair a recording and epoch: windows that do not overlap, and the pictures that the file holds.

    A row is a recording; what is drawn of it depends on seed, epoch and row alone. Recordings without a pair have no
    row, and `notes` count them. Raises ValueError where fewer than two recordings have one, where pictures are asked of
    a file without, and where no two sounds can be less than delta apart.
    """

    def __init__(self, inputs: Inputs, options: Options, seed: int) -> None:
        self.options, self.seed, self.features = options, seed, inputs.features
        self.sounds, self.pictures = self.options.modality != "image", self.options.modality != "audio"
        self.clock = clock = Clock(inputs, options.delta, options.min_distance, options.grid)
        apart = f"{clock.least / clock.rate:g} s"
        if self.sounds and not clock.least < clock.delta:
            raise ValueError(
                f"delta is {options.delta:g} s and two sounds start {apart} apart at least: none coincide; take a "
                "larger delta, or a smaller min_distance"
            )
        self.firsts = clock.paired() if self.sounds else clock.every
        self.low: np.ndarray
        self.high: np.ndarray
        self.low, self.high = self.firsts
        if self.pictures:
            self._find_pictures()
        recordings = np.bincount(clock.recording, (self.high - self.low).sum(0))
        self.rows = np.flatnonzero(recordings > 0)
        heard = np.count_nonzero(np.bincount(clock.recording, clock.windows))
        lacking = f"{heard - len(self.rows)} of {heard} recordings hold no pair of windows {apart} apart"
        self.notes = [f"{lacking}; they are left out"] if self.sounds and heard > len(self.rows) else []
        if len(self.rows) < 2:
            because = f": {lacking}, see min_distance" if self.notes else ""
            raise ValueError(
                f"{len(self.rows)} recordings hold a pair that coincides; coincidence is learnt from two or more"
                + because
            )

    def _find_pictures(self) -> None:
        features = self.features
        if features.images is None:
            raise ValueError(
                f"modality {self.options.modality} needs pictures and {features.path.name} holds none; make the "
                f"features from videos, or take modality audio"
            )
        self.first_image = features.image_offset[:-1]
        self.period = self.clock.rate / float(features.attributes["image_rate"])  # frames from picture to picture
        images = np.diff(features.image_offset)
        low, high = self.clock.image_range(images, self.period, self.firsts[1].max(0))
        self.low, self.high = low[None], high[None]

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
        recording, clock = self.rows[row], self.clock
        clips = clock.members[recording]
        low, high = self.low[:, clips], self.high[:, clips]
        clip, number = draw((np.tile(clips, len(low)), low.ravel(), high.ravel()), generator)
        found: dict[str, Any] = {"recording": recording}
        if self.pictures:
            found["image"] = self.first_image[clip] + number
            centre = clock.begin[clip] + number * self.period
            clip, number = draw(clock.near(clip, centre - clock.length / 2, self.firsts), generator)
        found["window"] = clock.first[clip] + number * clock.step
        if self.sounds:
            other, at = draw(clock.others(clip, number), generator)
            found["other"] = clock.first[other] + at * clock.step
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
        clips = self.clock.members[self.rows[other]]
        clip, number = draw((clips, np.zeros(len(clips), np.int64), self.clock.windows[clips]), generator)
        return self.clock.first[clip] + number * self.clock.step


def learnt_from_pictures(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the options of the last stage of a model that learnt coincidence of sound and picture, None of others."""
    found = [stage["objective"].get("coincidence") for stage in config.get("stage", ())]
    known = [{**asdict(Options()), **each} for each in found if each is not None]
    seen = [each for each in known if each["modality"] != "audio"]
    return seen[-1] if seen else None


def restore_pictures(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> tuple[Any, Scorer]:
    """Return the net for pictures and the head for pairs of sound and picture, as a model file has them.

    Raises ValueError for a model that was never trained on pictures.
    """
    learnt = learnt_from_pictures(config)
    if learnt is None:
        raise ValueError(NO_PICTURES)
    tower = models.build_image(learnt["tower"], config["size"], norm=learnt.get("tower_norm", "batch"))
    tower.load_state_dict(below(tensors, "head.coincidence.image."))
    scorer = Scorer(config["size"], learnt["hidden"])
    scorer.load_state_dict(below(tensors, "head.coincidence.image_scorer."))
    return tower, scorer


# ---------------------------------------------------------------- loss


class Scorer(nn.Module):
    """Score how far two embeddings seem to belong together, as a logit: a layer of ReLU units, then a linear output.

    One hidden layer on two concatenated embeddings (Jansen et al. 2020, section 3.1). The first layer is stored as
    the two halves that read the one and the other embedding. Scores are not symmetric.
    """

    def __init__(self, size: int, hidden: int):
        super().__init__()
        self.weight_a, self.weight_b = nn.Parameter(torch.empty(hidden, size)), nn.Parameter(torch.empty(hidden, size))
        self.bias, self.output = nn.Parameter(torch.empty(hidden)), nn.Parameter(torch.empty(hidden))
        self.output_bias = nn.Parameter(torch.zeros(()))
        for parameter in (self.weight_a, self.weight_b, self.bias):
            nn.init.uniform_(parameter, -1 / math.sqrt(2 * size), 1 / math.sqrt(2 * size))  # as a linear layer of both
        nn.init.uniform_(self.output, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Score all pairs. Shape: [rows, size] and [columns, size] to [rows, columns]."""
        return pairs.scores(a, b, *self._weights())

    def paired(self, a: Tensor, b: Tensor) -> Tensor:
        """Score row i of the one with row i of the other. Shape: [rows, size] twice to [rows]."""
        return pairs.paired_scores(a, b, *self._weights())

    def _weights(self) -> tuple[Tensor, ...]:
        return self.weight_a, self.weight_b, self.bias, self.output, self.output_bias


class Objective(nn.Module):
    """Hold the heads and the net for pictures, and take the loss over the pairs of all processes.

    What a modality does not need is not built. Tensors of an earlier stage are taken over for what both have; the rest
    starts fresh, and what only the earlier one had is dropped.
    """

    def __init__(self, encoder: nn.Module, inputs: Inputs, options: Options) -> None:
        super().__init__()
        self.encoder, self.options = encoder, settle(options)
        self.recipe = Recipe(inputs, self.options, COPY)
        size: Any = encoder.size
        modality = self.options.modality
        self.audio_scorer = Scorer(size, self.options.hidden) if modality != "image" else None
        self.image_scorer = Scorer(size, self.options.hidden) if modality != "audio" else None
        tower, norm = self.options.tower, self.options.tower_norm
        self.image = models.build_image(tower, size, norm=norm) if modality != "audio" else None
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
        """Embed the first windows, and the others where there are any, augmented as their rows and the options say."""
        windows = self.recipe.apply(batch)
        for side, window in enumerate(windows):
            if "gain" in batch:
                others = batch[("mixed", "other_mixed")[side]].float()
                window = augment.mix(window, others, batch["gain"][:, side], self.recipe.scale)
            if "shift" in batch:
                bands = batch["shift"][:, side]
                window = augment.translate(window, torch.zeros_like(bands), bands, self.recipe.scale)
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

"""On-screen objective: separate mixtures of two videos, and tell which tracks belong to the pictures of the first.

AudioScope (Tzinis et al. 2021): the sounds of two recordings are summed, the frames are those of the first. Mixture
invariant training separates; the tracks that it assigns to the first recording are labels, noisy ones, for a classifier
that sees the frames. No label is given; those of clips known to be all on screen or all off screen may be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from soundssl.labels import Index
from soundssl.models.audioscope import AudioScope, Sizes
from soundssl.models.tensors import below
from soundssl.objectives import Head, Inputs, coincidence, mixit, option
from soundssl.ops import onscreen, separation

NEEDS: tuple[str, ...] = ("features",)
TAKES = ("labels", "coincidence")
SEPARATES = True
UNIT_LENGTH = False
MEASURED = 16  # mixtures by whose log-mel frames the net that hears is standardised
LEAST_DEVIATION = 1e-3  # of a band, so that one that never changes divides nothing by zero


@dataclass(frozen=True)
class Options:
    """Options of the on-screen objective."""

    seconds: float = option(5.0, "length of the excerpts (inferred)")
    snr_max: float = option(30.0, "signal-to-noise ratio in dB beyond which nothing is gained")
    equal: bool = option(False, "bring both excerpts to the same energy before they are summed (inferred)")
    loss: Literal["exact", "multi-instance", "active-combinations"] = option(
        "active-combinations",
        "of the classifier: exact (all tracks of the first recording are on screen), multi-instance (one at least) or "
        "active-combinations (some of them)",
    )
    onscreen_weight: float = option(1.0, "factor of the classifier's loss beside that of the separation (inferred)")
    separator_alone: float = option(
        0.3, "share of the steps, the first ones, in which the classifier does not move the separator (inferred)"
    )
    off_screen: float = option(0.25, "share of the examples with the frames of a third recording (inferred)")
    labelled: float = option(
        0.5, "with labels: share of the examples whose first recording is known to be on or off screen (inferred)"
    )
    on_screen_class: str = option(
        "on-screen", "with labels: the class that says so, 1 on screen only, 0 off screen only"
    )
    audio_net: str = option("space-to-depth", "net that hears tracks, an encoder; of the model of coincidence if given")
    tower: str = option(
        "auto", "net for pictures, as of the coincidence objective; of the model of coincidence if given"
    )
    freeze: bool = option(
        False,
        "keep the nets that hear and see as they begin: those of --coincidence, or of the on-screen model of --init; "
        "the paper trains them on",
    )
    size: int = option(128, "numbers in the vectors of tracks and pictures (inferred)")
    attention: int = option(64, "numbers in a query of the attention (inferred)")
    hidden: int = option(128, "units of the classifier (inferred)")


def check(options: Options) -> None:
    """Raise ValueError for values out of range."""
    mixit.check(options)  # type: ignore[arg-type]
    for name in ("separator_alone", "off_screen", "labelled"):
        if not 0 <= getattr(options, name) <= 1:
            raise ValueError(f"{name} of the onscreen objective is {getattr(options, name)}; it is a share, 0 to 1")
    for name in ("size", "attention", "hidden"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} of the onscreen objective is {getattr(options, name)}; it must be positive")
    if options.onscreen_weight < 0:
        raise ValueError(f"onscreen_weight is {options.onscreen_weight}; it must not be negative")


# ---------------------------------------------------------------- the classifier, and what a model file says of it


def sizes(inputs: Inputs, options: Options) -> Sizes:
    """Return which nets the classifier is made of: those of the options, or of a model of coincidence.

    Raises ValueError where that model has never seen a picture.
    """
    tower = "space-to-depth" if options.tower == "auto" else options.tower
    if inputs.coincidence is None:
        return Sizes(options.audio_net, tower, options.size, attention=options.attention, hidden=options.hidden)
    config = inputs.coincidence.config
    learnt = coincidence.learnt_from_pictures(config)
    if learnt is None:
        raise ValueError(f"{inputs.coincidence.path}: {coincidence.NO_PICTURES}")
    return Sizes(
        audio=config["encoder"],
        image=learnt["tower"],
        size=config["size"],
        audio_norm=config["norm"],
        image_norm=learnt.get("tower_norm", "batch"),
        audio_net=dict(config.get("net", {})),
        attention=options.attention,
        hidden=options.hidden,
        frames=config["frames"],
        front_end=dict(config["front_end"]),
    )


def _facts(inputs: Inputs, options: Options) -> dict[str, Any]:
    attributes = inputs.features.attributes
    pictures = {"image_size": int(attributes.get("image_size", 0)), "image_rate": float(attributes["image_rate"])}
    return {**asdict(sizes(inputs, options)), **pictures}


HEAD = Head("on-screen classifier", _facts, tuple(Sizes.__dataclass_fields__))


# ---------------------------------------------------------------- examples


class Examples(mixit.Examples):
    """Give pairs of excerpts and pictures, of the first of them or, as off-screen examples, of a third recording.

    There are as many as excerpts fit end to end into the chosen recordings that have pictures. Raises ValueError where
    no two recordings are chosen, or none has a picture.
    """

    def __init__(self, inputs: Inputs, options: Options, seed: int) -> None:
        check(options)
        super().__init__(inputs, options, seed)  # type: ignore[arg-type]
        features = inputs.features
        if features.images is None:
            raise ValueError(
                f"{features.path.name} holds no pictures; make it from videos with soundssl featurize --representation "
                "waveform --images"
            )
        self.options, self.features, self.rate = options, features, int(features.attributes["sample_rate"])
        self.pictures = max(1, round(options.seconds * float(features.attributes["image_rate"])))
        self.heard, self.label = self.clip, np.full(len(features.clips), -1, np.int8)
        self.clip = self.clip[np.diff(features.image_offset)[self.clip] > 0]
        least, found = 3 if options.off_screen else 1, len(np.unique(self.recording[self.clip]))
        if found < least:
            raise ValueError(
                f"{found} chosen recordings have pictures; on-screen sounds are learnt from {least} or more"
            )
        if inputs.labels is not None:
            self._read_labels(inputs)
        self.labelled = np.unique(self.clip[self.label[self.clip] >= 0])

    def _read_labels(self, inputs: Inputs) -> None:
        classes, name = inputs.labels.classes, self.options.on_screen_class
        if name not in classes:
            raise ValueError(f"{inputs.labels.path.name} has no class {name!r}; it has {', '.join(classes)}")
        self.label = Index(inputs.labels, inputs.features.clips.key).of_clips()[:, classes.index(name)]
        if not (self.label[self.clip] >= 0).any():
            raise ValueError(f"no chosen clip with pictures has a label of {name!r}")

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the batch of (epoch, row) keys.

        Shape: `mixtures` [batch, 2, samples] float32, `image` [batch, pictures, height, width, 3] uint8, `label`
        [batch]: 1 all of the first is on screen, 0 nothing is, -1 unknown.
        """
        drawn = [self._draw(epoch, row) for epoch, row in keys]
        return {
            "mixtures": torch.from_numpy(np.stack([pair for pair, _, _ in drawn])),
            "image": torch.from_numpy(np.stack([image for _, image, _ in drawn])),
            "label": torch.tensor([label for _, _, label in drawn]),
        }

    def _draw(self, epoch: int, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        generator = np.random.default_rng([self.seed, epoch, row])
        first = int(self.clip[row])
        if len(self.labelled) and generator.random() < self.options.labelled:
            first = int(generator.choice(self.labelled))
        second = self._other(self.heard, generator, first)
        (one, place), (other, _) = self.excerpt(first, generator), self.excerpt(second, generator)
        label, seen = int(self.label[first]), first
        if generator.random() < self.options.off_screen:
            seen = self._other(self.clip, generator, first, second)
            label, place = 0, int(generator.integers(max(1, self.offset[seen + 1] - self.offset[seen] - self.length)))
        return np.stack([one, other]), self.features.images_from(seen, place / self.rate, self.pictures), label

    def _other(self, clips: np.ndarray, generator: np.random.Generator, *unlike: int) -> int:
        """Draw a clip of another recording than those."""
        known = self.recording[list(unlike)]
        while True:
            clip = int(clips[generator.integers(len(clips))])
            if self.recording[clip] not in known:
                return clip


# ---------------------------------------------------------------- loss


class Objective(nn.Module):
    """Separate the sum of both excerpts, and classify the tracks by the pictures; the loss is the sum of both.

    The nets that hear and see begin as those of a model of coincidence, where one is given.
    """

    def __init__(self, encoder: Any, inputs: Inputs, options: Options) -> None:
        super().__init__()
        check(options)
        self.encoder, self.options = encoder, options
        self.scope = AudioScope(sizes(inputs, options))
        given = inputs.coincidence
        if given is None and options.freeze:
            raise ValueError("freeze keeps the nets of a model of coincidence, and none is given; see --coincidence")
        if given is None:
            self._standardise(Examples(inputs, options, 0))
        else:
            self.scope.audio.load_state_dict(below(given.tensors, "encoder."))
            self.scope.image.load_state_dict(below(given.tensors, "head.coincidence.image."))
        self.frozen = [self.scope.audio, self.scope.image] if options.freeze else []
        for net in self.frozen:
            net.requires_grad_(False)

    def train(self, mode: bool = True) -> Objective:
        """Set the mode of training; a frozen net keeps the statistics of its norms."""
        super().train(mode)
        for net in self.frozen:
            net.eval()
        return self

    @torch.no_grad()
    def _standardise(self, examples: Examples) -> None:
        """Scale what the net hears by mean and deviation of the bands of some mixtures."""
        rows = np.unique(np.linspace(0, len(examples) - 1, MEASURED).astype(int))
        mixtures = examples.__getitems__([(0, int(row)) for row in rows])["mixtures"].flatten(0, 1)
        bands = self.scope.log_mel(mixtures).flatten(0, 1)
        self.scope.audio.set_statistics(bands.mean(0), bands.std(0).clamp(LEAST_DEVIATION))

    def forward(self, batch: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; log the classifier's, the improvement in dB, and mean probabilities on and off screen."""
        mixtures = batch["mixtures"].float()
        if self.options.equal:
            mixtures = mixit.equalise(mixtures)
        together = mixtures.sum(1)
        tracks = self.encoder(together)
        alone = progress < self.options.separator_alone
        with torch.autocast(together.device.type, enabled=False):
            separated, assignment = separation.mixit(mixtures, tracks, self.options.snr_max)
        logits, _ = self.scope(tracks.detach() if alone else tracks, batch["image"])
        candidate = (assignment == 0) & (batch["label"] != 0)[:, None]
        loss = onscreen.classification(logits, candidate, self.options.loss)
        loss = torch.where(batch["label"] == 1, onscreen.exact(logits, candidate), loss)
        total = separated.mean().float() + self.options.onscreen_weight * loss.mean()
        with torch.no_grad(), torch.autocast(together.device.type, enabled=False):
            before = separation.negative_snr(mixtures, together[:, None], self.options.snr_max).mean(1)
            probability = logits.sigmoid()
            on, off = (_mean(probability, which) for which in (candidate, ~candidate))
        figures = {"improvement": (before - separated.detach()).mean().float(), "classifier": loss.detach().mean()}
        return total, {**figures, "on": on, "off": off}


def _mean(values: Tensor, which: Tensor) -> Tensor:
    return (values * which).sum() / which.sum().clamp(min=1)

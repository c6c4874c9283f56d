"""Separation: how much of each of two known sources do the tracks of their mixture give back?

Conventions
-----------
Both sources of a mixture have the same energy. All ratios are scale-invariant signal-to-noise ratios (SI-SNR) in dB. A
track is heard where its level is at least `heard` dB re the quietest source (inferred). Chance is what the mixture
itself gets: an improvement of 0.

Metrics
-------
- `si_snr_improvement`, as published: one track for each source, another for the other, by the best permutation, against
  the mixture as estimate; mean over both sources
- `summed_tracks_improvement` (ours): every track goes to one source, the tracks of a source are summed; the best
  assignment
- `si_snr`: of the first kind, without the mixture's taken off
- `under_separated`, `equally_separated`, `over_separated`: shares of mixtures of which fewer tracks are heard than
  there are sources, as many, or more
- `preservation`: SI-SNR of the best track where a source goes in alone (Wisdom et al. 2020, single-source mixtures)
- `over_separation`, `over_separation_alone`: tracks heard beyond the sources, of mixtures and of sources alone
- `consistency_error`: what the tracks lack of their mixture, as a share of its root mean square; the largest
- rows of classes: `si_snr_improvement` of the sources of a class
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from soundssl.evaluations import row
from soundssl.ops import metrics, separation


@dataclass(frozen=True)
class Options:
    """Choose which tracks count as heard, and whether intervals are wanted."""

    heard: float = -20.0  # level in dB re the quietest source from which a track is heard
    bootstrap: int = 0  # replicates over mixtures for 95 % intervals; 0: none


def draw(recording: np.ndarray, label: np.ndarray | None, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw pairs of clips of different recordings, and, with labels, of no class in common and a class each.

    Shape: recording [clips] numbers, label [clips, classes] or None; returns [count, 2] rows. Raises ValueError where
    there are no such pairs.
    """
    usable = np.ones(len(recording), bool) if label is None else (label == 1).any(1)
    allowed = (recording[:, None] != recording) & usable[:, None] & usable
    if label is not None:
        present = (label == 1).astype(np.int64)
        allowed &= present @ present.T == 0
    pairs = np.argwhere(np.triu(allowed))
    if not len(pairs):
        raise ValueError("no two clips are of different recordings" + " and of different classes" * (label is not None))
    chosen = pairs[generator.choice(len(pairs), count, replace=count > len(pairs))]
    return generator.permuted(chosen, axis=1)


def measure(sources: np.ndarray, tracks: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Score the tracks of mixtures of two sources; a row a mixture.

    Shape: sources [n, 2, samples], tracks [n, tracks, samples]; returns values [n], and `by_source` [n, 2]. Raises
    ValueError where they do not fit.
    """
    if sources.ndim != 3 or sources.shape[1] != 2 or tracks.shape[::2] != sources.shape[::2]:
        raise ValueError(f"sources {list(sources.shape)} and tracks {list(tracks.shape)}: [n, 2, samples] are needed")
    given, found = torch.from_numpy(sources), torch.from_numpy(tracks)
    mixture = given.sum(1)
    before = separation.si_snr(given, mixture[:, None]).numpy()
    assigned = separation.assigned_si_snr(given, found).numpy()
    pairs = separation.si_snr(given[:, :, None], found[:, None]).numpy()  # [n, 2, tracks]
    single = np.array([each[linear_sum_assignment(each, maximize=True)] for each in pairs])
    by_source = single - before
    heard = _heard(given, found, options)
    return {
        "si_snr_improvement": by_source.mean(1),
        "summed_tracks_improvement": (assigned - before).mean(1),
        "si_snr": single.mean(1),
        "under_separated": (heard < given.shape[1]).astype(np.float64),
        "equally_separated": (heard == given.shape[1]).astype(np.float64),
        "over_separated": (heard > given.shape[1]).astype(np.float64),
        "over_separation": heard - given.shape[1],
        "consistency_error": _lack(mixture, found),
        "by_source": by_source,
    }


def measure_alone(sources: np.ndarray, tracks: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Score the tracks of sources that went in alone. Shape: [n, samples], [n, tracks, samples]; values [n]."""
    given, found = torch.from_numpy(sources), torch.from_numpy(tracks)
    return {
        "preservation": separation.si_snr(given[:, None], found).amax(1).numpy(),
        "over_separation_alone": _heard(given[:, None], found, options) - 1.0,
    }


def evaluate(
    measured: Sequence[dict[str, np.ndarray]],
    label: np.ndarray | None,
    classes: list[str],
    options: Options,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Average what was measured, batch after batch: overall rows, then the improvement of each class.

    Shape: label [mixtures, 2, classes] of the sources, or None. Raises ValueError where nothing was measured.
    """
    if not measured:
        raise ValueError("no mixture was measured")
    values = {
        name: np.concatenate([each[name] for each in measured if name in each])
        for name in dict.fromkeys(name for each in measured for name in each)
    }
    by_source = values.pop("by_source", np.empty((0, 2)))
    rows = []
    for number, (name, value) in enumerate(values.items()):
        mean = float(value.max() if name == "consistency_error" else value.mean())
        chance = 0.0 if name.endswith("_improvement") else None
        rows.append(row(name, mean, len(value), chance=chance, interval=_interval(value, name, number, options, seed)))
    for column, name in enumerate(classes if label is not None else []):
        own = label[:, :, column] == 1  # type: ignore[index]
        if own.any():
            rows.append(row("si_snr_improvement", float(by_source[own].mean()), int(own.sum()), name, chance=0.0))
    return rows


def _interval(
    value: np.ndarray, name: str, number: int, options: Options, seed: int
) -> tuple[float | None, float | None]:
    if not options.bootstrap or name == "consistency_error":
        return None, None
    weight = metrics.multiplicities(len(value), options.bootstrap, np.random.default_rng([seed, number]))
    return metrics.percentile_interval(weight @ value / len(value))


def _heard(sources: torch.Tensor, tracks: torch.Tensor, options: Options) -> np.ndarray:
    """Count the tracks that are heard. Shape: [n, sources, samples], [n, tracks, samples]; returns float [n]."""
    energy, quietest = tracks.double().square().sum(2), sources.double().square().sum(2).amin(1, keepdim=True)
    return (energy >= 10 ** (options.heard / 10) * quietest).sum(1).double().numpy()


def _lack(mixture: torch.Tensor, tracks: torch.Tensor) -> np.ndarray:
    lack = (mixture - tracks.sum(1)).double().square().mean(1)
    return (lack / mixture.double().square().mean(1).clamp(min=separation.EPSILON)).sqrt().numpy()

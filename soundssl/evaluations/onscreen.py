"""On-screen separation: what is kept of a mixture whose first sound is seen, and of one whose sounds are not.

Conventions
-----------
Mixtures are of two recordings at equal energy, with the pictures of the first. Of *on+off* mixtures the first sound is
on screen and the second is not; of *off+off* mixtures neither is. The on-screen estimate is the sum of the tracks, each
times its probability. Chance is what the trivial estimate gets, half the mixture: no improvement, 6.02 dB of
suppression (Tzinis et al. 2021 warn that it looks good).

Metrics
-------
- `si_snr_improvement`: SI-SNR in dB of the on-screen estimate to the on-screen sound, less the mixture's; on+off
- `si_snr`: without the mixture's taken off
- `suppression`: power of the mixture over that of the on-screen estimate, in dB; off+off
- `suppression_on_off`: the same of on+off mixtures, which should lose about 3 dB
- `auc`: on+off mixtures against off+off ones by the largest probability of a track
- `si_snr_improvement_oracle`: the improvement of the sum of those tracks that the true sounds would choose: what the
  separator alone allows
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from soundssl.evaluations import row
from soundssl.ops import metrics, onscreen, separation


@dataclass(frozen=True)
class Options:
    """Choose whether intervals are wanted."""

    bootstrap: int = 0  # replicates over mixtures for 95 % intervals; 0: none


def measure(sources: np.ndarray, tracks: np.ndarray, probability: np.ndarray) -> dict[str, np.ndarray]:
    """Score the tracks of mixtures of which the first source is seen; a row a mixture.

    Shape: sources [n, 2, samples], tracks [n, tracks, samples], probability [n, tracks] to [n] each.
    """
    given, found, seen = (torch.from_numpy(each) for each in (sources, tracks, probability))
    mixture = given.sum(1)
    before = separation.si_snr(given[:, 0], mixture)
    kept = onscreen.estimate(found, seen)
    after = separation.si_snr(given[:, 0], kept)
    oracle = separation.assigned_si_snr(given, found)[:, 0]
    return {
        "si_snr_improvement": (after - before).numpy(),
        "si_snr": after.numpy(),
        "mixture_si_snr": before.numpy(),
        "si_snr_improvement_oracle": (oracle - before).numpy(),
        "suppression": onscreen.suppression(mixture, kept).numpy(),
        "score": probability.max(1),
    }


def evaluate(
    on: dict[str, np.ndarray], off: dict[str, np.ndarray], options: Options = Options(), seed: int = 0
) -> list[dict[str, Any]]:
    """Average what `measure` says of on+off and of off+off mixtures; raise ValueError where either is empty."""
    if not len(on["score"]) or not len(off["score"]):
        raise ValueError("on-screen separation is scored on mixtures with something on screen and on some without")
    trivial = float(10 * np.log10(4))
    columns = [
        ("si_snr_improvement", on["si_snr_improvement"], 0.0),
        ("si_snr", on["si_snr"], float(on["mixture_si_snr"].mean())),
        ("suppression", off["suppression"], trivial),
        ("suppression_on_off", on["suppression"], trivial),
        ("si_snr_improvement_oracle", on["si_snr_improvement_oracle"], 0.0),
    ]
    rows = []
    for number, (name, value, chance) in enumerate(columns):
        weight = metrics.multiplicities(len(value), options.bootstrap, np.random.default_rng([seed, number]))
        interval = _interval(weight, lambda chosen, value=value: chosen @ value / len(value), options)  # type: ignore[misc]
        rows.append(row(name, float(value.mean()), len(value), chance=chance, interval=interval))
    rows.insert(2, _auc(on["score"], off["score"], options, seed))
    return rows


def _auc(on: np.ndarray, off: np.ndarray, options: Options, seed: int) -> dict[str, Any]:
    above = (on[:, None] > off) + 0.5 * (on[:, None] == off)
    generator = np.random.default_rng([seed, 100])
    weights = [metrics.multiplicities(len(each), options.bootstrap, generator) / len(each) for each in (on, off)]
    interval = _interval(weights[0], lambda chosen: np.einsum("rp,pn,rn->r", chosen, above, weights[1]), options)
    return row("auc", float(above.mean()), len(on) + len(off), chance=0.5, interval=interval)


def _interval(
    weight: np.ndarray, replicates: Callable[[np.ndarray], np.ndarray], options: Options
) -> tuple[float | None, float | None]:
    return metrics.percentile_interval(replicates(weight)) if options.bootstrap else (None, None)

"""Separation: how much of each known source do the tracks of a mixture give back?

Conventions
-----------
All sources of a mixture have the same energy. All ratios are scale-invariant signal-to-noise ratios (SI-SNR) in dB. A
track is heard where its level is at least `heard` dB re the quietest source (inferred). Chance is what the mixture
itself gets: an improvement of 0.

Metrics
-------
- `si_snr_improvement`, as published: a track for each source, no track for two, by the best permutation, against the
  mixture as estimate; mean over the sources; of mixtures of two sources or more
- `summed_tracks_improvement` (ours): every track goes to one source, the tracks of a source are summed; the best
  assignment; of mixtures of two
- `si_snr`: of the first kind, without the mixture's taken off
- `under_separated`, `equally_separated`, `over_separated`: shares of mixtures of which fewer tracks are heard than
  there are sources, as many, or more
- `preservation`: SI-SNR of the best track where a source goes in alone (Wisdom et al. 2020, single-source mixtures)
- `over_separation`, `over_separation_alone`: tracks heard beyond the sources, of mixtures and of sources alone
- `consistency_error`: what the tracks lack of their mixture, as a share of its root mean square; the largest
- `si_snr_improvement_3_sources`, `equally_separated_1_source` and so on: of the mixtures of as many sources, where
  their numbers differ, as in FUSS (Wisdom et al. 2021), which has one to four
- rows of classes: `si_snr_improvement` of the sources of a class
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from soundssl.evaluations import row
from soundssl.ops import metrics, separation

TRIES = 50  # draws of a mixture until one is found that is new
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
BY_NUMBER = ("si_snr_improvement", "under_separated", "equally_separated", "over_separated")  # by number of sources


@dataclass(frozen=True)
class Options:
    """Choose which tracks count as heard, and whether intervals are wanted."""

    heard: float = -20.0  # level in dB re the quietest source from which a track is heard
    bootstrap: int = 0  # replicates over mixtures for 95 % intervals; 0: none


def draw(
    recording: np.ndarray, label: np.ndarray | None, count: int, generator: np.random.Generator, sources: int = 2
) -> np.ndarray:
    """Draw clips to be mixed, of different recordings, and, with labels, of no class in common and a class each.

    No mixture is drawn twice where there are enough. Shape: recording [clips] numbers, label [clips, classes] or None;
    returns [count, sources] rows. Raises ValueError where there are no such clips.
    """
    usable = np.ones(len(recording), bool) if label is None else (label == 1).any(1)
    allowed = (recording[:, None] != recording) & usable[:, None] & usable
    if label is not None:
        present = (label == 1).astype(np.int64)
        allowed &= present @ present.T == 0
    if sources == 2:
        chosen = np.argwhere(np.triu(allowed))
        if len(chosen):
            chosen = chosen[generator.choice(len(chosen), count, replace=count > len(chosen))]
            return generator.permuted(chosen, axis=1)
    else:
        found = _grown(usable, allowed, count, sources, generator)
        if found is not None:
            return found
    number = NUMBERS.get(sources, str(sources))
    raise ValueError(
        f"no {number} clips are of different recordings" + " and of different classes" * (label is not None)
    )


def _grown(
    usable: np.ndarray, allowed: np.ndarray, count: int, sources: int, generator: np.random.Generator
) -> np.ndarray | None:
    """Draw mixtures clip by clip, each allowed beside those before; None where none is found."""
    mixtures: list[list[int]] = []
    seen: set[tuple[int, ...]] = set()
    for _ in range(count):
        found: list[int] | None = None
        for _ in range(TRIES):
            found = _one(usable, allowed, sources, generator) or found
            if found and tuple(sorted(found)) not in seen:
                break
        if found is None:
            return None
        seen.add(tuple(sorted(found)))
        mixtures.append(found)
    return np.array(mixtures)


def _one(usable: np.ndarray, allowed: np.ndarray, sources: int, generator: np.random.Generator) -> list[int] | None:
    left, found = usable, []
    for _ in range(sources):
        if not left.any():
            return None
        found.append(int(generator.choice(np.flatnonzero(left))))
        left = left & allowed[found[-1]]
    return found


def measure(sources: np.ndarray, tracks: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Score the tracks of mixtures of as many sources each; a row a mixture.

    Shape: sources [n, sources, samples], tracks [n, tracks, samples]; returns values [n], and `by_source` [n, sources].
    A source alone has no improvement. Raises ValueError where they do not fit, and for more sources than tracks.
    """
    if sources.ndim != 3 or tracks.shape[::2] != sources.shape[::2] or not sources.shape[1] <= tracks.shape[1]:
        raise ValueError(
            f"sources {list(sources.shape)} and tracks {list(tracks.shape)}: [n, sources, samples] and [n, tracks, "
            "samples] are needed, with a track or more for each source"
        )
    given, found = torch.from_numpy(sources), torch.from_numpy(tracks)
    count = given.shape[1]
    improvement = _improvement(given, found) if count > 1 else {}
    heard = _heard(given, found, options)
    return {
        **improvement,
        "under_separated": (heard < count).astype(np.float64),
        "equally_separated": (heard == count).astype(np.float64),
        "over_separated": (heard > count).astype(np.float64),
        "over_separation": heard - count,
        "consistency_error": _lack(given.sum(1), found),
        "sources": np.full(len(sources), count),
    }


def _improvement(given: torch.Tensor, found: torch.Tensor) -> dict[str, np.ndarray]:
    """Score how much better the tracks estimate the sources than the mixture does."""
    before = separation.si_snr(given, given.sum(1)[:, None]).numpy()
    pairs = separation.si_snr(given[:, :, None], found[:, None]).numpy()  # [n, sources, tracks]
    single = np.array([each[linear_sum_assignment(each, maximize=True)] for each in pairs])
    scores = {"si_snr_improvement": (single - before).mean(1)}
    if given.shape[1] == 2:
        assigned = separation.assigned_si_snr(given, found).numpy()
        scores["summed_tracks_improvement"] = (assigned - before).mean(1)
    return {**scores, "si_snr": single.mean(1), "by_source": single - before}


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
    """Average what was measured, batch after batch: overall rows, those by number of sources, then those of classes.

    Shape: label [..., classes] of the sources of all mixtures of two or more, in their order, or None. Raises
    ValueError where nothing was measured.
    """
    if not measured:
        raise ValueError("no mixture was measured")
    by_source = np.concatenate([np.empty(0), *(each["by_source"].ravel() for each in measured if "by_source" in each)])
    numbers = np.unique(np.concatenate([each.get("sources", np.empty(0, int)) for each in measured]))
    rows = _rows(measured, {name for each in measured for name in each} - {"by_source", "sources"}, "", options, seed)
    for number in numbers.tolist() if len(numbers) > 1 else []:
        own = [each for each in measured if number in each.get("sources", ())]
        rows += _rows(own, BY_NUMBER, f"_{number}_source" + "s" * (number > 1), options, seed)
    for column, name in enumerate(classes if label is not None else []):
        own = label.reshape(-1, len(classes))[:, column] == 1  # type: ignore[union-attr]
        if own.any():
            rows.append(row("si_snr_improvement", float(by_source[own].mean()), int(own.sum()), name, chance=0.0))
    return rows


def _rows(
    measured: Sequence[dict[str, np.ndarray]], names: Collection[str], ending: str, options: Options, seed: int
) -> list[dict[str, Any]]:
    """Average the values of some names, which end so in the rows."""
    found = dict.fromkeys(name for each in measured for name in each if name in names)
    rows = []
    for number, name in enumerate(found):
        value = np.concatenate([each[name] for each in measured if name in each])
        mean = float(value.max() if name == "consistency_error" else value.mean())
        chance = 0.0 if name.endswith("_improvement") else None
        interval = _interval(value, name, number, options, seed)
        rows.append(row(name + ending, mean, len(value), chance=chance, interval=interval))
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

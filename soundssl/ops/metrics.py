"""Score rankings of clips and of pairs: average precision, ROC AUC, d-prime, lwlrap, top-n, with bootstrap weights.

Conventions
-----------
`score` is `[clips]` or `[clips, classes]`, larger meaning more likely present; `label` has the same shape and holds 1
(present), 0 (absent) and -1 (unknown). An unknown entry is left out of every metric, as if it did not exist. A class
counts in a mean when it has at least one positive and one negative: without positives no metric is defined, and without
negatives every system would score 1. Ties follow one stated rule per metric, never the order of the input.

Metrics
-------
- average precision: non-interpolated, AP = sum_n (R_n - R_{n-1}) P_n over the distinct scores, so that tied items share
  the precision at the end of their tie (the form of scikit-learn)
- ROC AUC: the chance that a positive outscores a negative, plus half the chance of a tie
- d-prime: sqrt(2) Phi^-1(AUC) (Gemmeke et al. 2017; Hershey et al. 2017)
- lwlrap: label-weighted label-ranking average precision (Fonseca et al. 2019, DCASE 2019 task 2); a tie ranks at its
  worst place
- top-n: the share of clips with a true label among the n best; a tie ranks at its worst place
- accuracy and its balanced form (mean over classes) of one decision a clip
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

AUC_MARGIN = 1e-7  # keeps d-prime finite: AUC is clipped to [1e-7, 1 - 1e-7]
REPLICATE_BLOCK = 1 << 22  # weights held at once by the bootstrap, 32 MB of float64


def validate(score: np.ndarray, label: np.ndarray) -> None:
    """Raise ValueError unless scores are finite numbers and labels of the same shape hold only 1, 0 and -1."""
    if score.shape != label.shape:
        raise ValueError(f"scores are {list(score.shape)} but labels {list(label.shape)}")
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).sum())} of {score.size} scores are not finite")
    strange = np.setdiff1d(label, (-1, 0, 1))
    if strange.size:
        raise ValueError(f"labels are 1, 0 or -1, not {strange[0]}")


def split(score: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the positives and of the negatives, without the unknown; both must exist."""
    positive, negative = score[label == 1], score[label == 0]
    if not len(positive) or not len(negative):
        raise ValueError(f"needs a positive and a negative, has {len(positive)} and {len(negative)}")
    return positive, negative


# Average precision, AUC, d-prime --------------------------------------------------------------------------------


def tie_starts(ascending: np.ndarray) -> np.ndarray:
    """Return for each place of a sorted array the place where its run of equal values begins.

    >>> tie_starts(np.array([1, 2, 2, 5])).tolist()
    [0, 1, 1, 3]
    """
    place = np.arange(len(ascending))
    fresh = ascending[1:] != ascending[:-1]
    if fresh.all():
        return place
    place[1:] *= fresh
    return np.maximum.accumulate(place)


def pair_average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Average the precision at each positive, by two sorts and a merge.

    At a positive of similarity s the precision is (positives >= s) / (positives >= s + negatives >= s): ties are
    grouped, which equals scikit-learn's `average_precision_score`, and no ranking of the union is needed.

    Shape: positive [P], negative [N], finite; ValueError when either is empty.

    >>> pair_average_precision(np.array([0.9, 0.4]), np.array([0.5]))
    0.8333333333333333
    """
    if not len(positive) or not len(negative):
        raise ValueError(f"needs a positive and a negative, has {len(positive)} and {len(negative)}")
    positive, negative = np.sort(positive), np.sort(negative)
    true = len(positive) - tie_starts(positive)
    false = len(negative) - count_below(negative, positive)
    return float(np.mean(true / (true + false)))


def count_below(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how many items of a sorted array are smaller than each of the sorted values.

    The same as `searchsorted`, which takes three times as long here: a stable sort merges two sorted runs in one pass
    and leaves each value before the items equal to it.

    >>> count_below(np.array([1, 2, 2, 5]), np.array([2, 9])).tolist()
    [1, 4]
    """
    merged = np.argsort(np.concatenate([values, ascending]), kind="stable")
    return np.flatnonzero(merged < len(values)) - np.arange(len(values))


def weighted_pair_average_precision(
    positive: np.ndarray, negative: np.ndarray, positive_weight: np.ndarray, negative_weight: np.ndarray
) -> np.ndarray:
    """Average the precision once per row of weights: the bootstrap form of `pair_average_precision`.

    A weight of 2 counts an item twice, of 0 leaves it out; but each copy of a positive sees itself once only. Copies
    that vouched for one another would raise the precision of every replicate above that of the data, the more the
    fewer the positives, until the interval misses the value it is for. Unit weights give `pair_average_precision`. A
    replicate without positive weight is NaN.

    Shape: positive [P], negative [N], weights [replicates, P] and [replicates, N]; returns [replicates].
    """
    up, down = np.argsort(positive, kind="stable"), np.argsort(negative, kind="stable")
    ordered = positive[up]
    starts, places = tie_starts(ordered), np.searchsorted(negative[down], ordered, side="left")
    value = np.full(len(positive_weight), np.nan)
    step = max(1, REPLICATE_BLOCK // (len(positive) + len(negative)))
    for first in range(0, len(value), step):
        weight = positive_weight[first : first + step, up].astype(np.float64)
        true = _weight_from(weight)[:, starts] - weight + 1.0
        false = _weight_from(negative_weight[first : first + step, down].astype(np.float64))[:, places]
        total = weight.sum(axis=1)
        gain = (weight * true / (true + false)).sum(axis=1)
        np.divide(gain, total, out=value[first : first + step], where=total > 0)
    return value


def _weight_from(weight: np.ndarray) -> np.ndarray:
    """Sum each row of weights from every place to the end: [replicates, N] -> [replicates, N + 1], the last 0."""
    below = np.zeros((len(weight), weight.shape[1] + 1))
    np.cumsum(weight, axis=1, out=below[:, 1:])
    return below[:, -1:] - below


def average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """Average the precision at each positive of one class, non-interpolated, ties grouped.

    Shape: score [clips], label [clips] in {1, 0, -1}; ValueError without a positive and a negative.
    """
    return pair_average_precision(*split(score, label))


def roc_auc(score: np.ndarray, label: np.ndarray) -> float:
    """Return the share of (positive, negative) pairs in the right order, ties counting one half.

    Shape: score [clips], label [clips] in {1, 0, -1}; ValueError without a positive and a negative.

    >>> roc_auc(np.array([0.9, 0.4, 0.4]), np.array([1, 1, 0]))
    0.75
    """
    positive, negative = split(score, label)
    negative = np.sort(negative)
    below = np.searchsorted(negative, positive, side="left").sum(dtype=np.int64)
    below_or_equal = np.searchsorted(negative, positive, side="right").sum(dtype=np.int64)
    return float(below + below_or_equal) / (2.0 * len(positive) * len(negative))


def d_prime(auc: float | np.ndarray) -> float | np.ndarray:
    """Return sqrt(2) Phi^-1(AUC), the distance of two unit normals with that AUC; AUC is clipped at 1e-7 from 0 and 1.

    >>> round(d_prime(0.959), 2), round(d_prime(0.926), 2)
    (2.46, 2.05)
    """
    value = math.sqrt(2.0) * ndtri(np.clip(auc, AUC_MARGIN, 1.0 - AUC_MARGIN))
    return value if isinstance(auc, np.ndarray) else float(value)


def average_precision_chance(positives: int, total: int) -> float:
    """Return the expected average precision of a random order without ties.

    An item at rank r sees (r - 1)(F - 1)/(M - 1) other positives above it on average; the mean over its rank r of the
    precision is H_M/M (1 - q) + q with q = (F - 1)/(M - 1) and H_M the harmonic number. For large M this is F/M.
    """
    if not 0 < positives <= total:
        raise ValueError(f"needs 0 < positives <= total, has {positives} of {total}")
    if total == 1:
        return 1.0
    share = (positives - 1) / (total - 1)
    return float((1.0 / np.arange(1, total + 1)).mean() * (1.0 - share) + share)


# Over classes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PerClass:
    """Hold a metric of the classes that can be scored: their column numbers, values, and how many were skipped."""

    column: np.ndarray
    value: np.ndarray
    skipped: int

    @property
    def mean(self) -> float:
        """The unweighted mean over the scored classes; ValueError when there is none."""
        if not len(self.value):
            raise ValueError(f"none of {self.skipped} classes has both a positive and a negative")
        return float(self.value.mean())


def per_class(
    score: np.ndarray, label: np.ndarray, metric: Callable[[np.ndarray, np.ndarray], float] = average_precision
) -> PerClass:
    """Apply a metric of one class to every column having a positive and a negative; skip and count the others.

    Shape: score [clips, classes], label [clips, classes] in {1, 0, -1}.
    """
    validate(score, label)
    score, label = np.ascontiguousarray(score.T), np.ascontiguousarray(label.T)
    column = np.flatnonzero((label == 1).any(axis=1) & (label == 0).any(axis=1))
    value = np.array([metric(score[i], label[i]) for i in column], dtype=np.float64)
    return PerClass(column, value, len(label) - len(column))


def mean_d_prime(score: np.ndarray, label: np.ndarray) -> float:
    """Return the mean over classes of each class's d-prime, the habit of FSD50K (Fonseca et al. 2022)."""
    return float(np.mean(d_prime(_auc_of_classes(score, label))))


def d_prime_of_mean_auc(score: np.ndarray, label: np.ndarray) -> float:
    """Return the d-prime of the mean AUC over classes, the habit of AudioSet (Hershey et al. 2017; PANNs)."""
    return float(d_prime(float(np.mean(_auc_of_classes(score, label)))))


def _auc_of_classes(score: np.ndarray, label: np.ndarray) -> np.ndarray:
    areas = per_class(score, label, roc_auc)
    if not len(areas.value):
        raise ValueError(f"none of {areas.skipped} classes has both a positive and a negative")
    return areas.value


# Over the labels of a clip --------------------------------------------------------------------------------------


def label_ranking(score: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for every entry its rank among the known classes of its clip and the true classes at or above it.

    Ties rank at their worst place: the rank of c is the number of known classes scoring at least as much as c.

    Shape: score [clips, classes], label [clips, classes]; returns two int arrays [clips, classes].
    """
    validate(score, label)
    known = np.where(label >= 0, score, -np.inf)
    order = np.argsort(-known, axis=1, kind="stable")
    ordered, truth = np.take_along_axis(known, order, axis=1), np.take_along_axis(label, order, axis=1)
    end = np.broadcast_to(np.arange(score.shape[1]), score.shape).copy()
    end[:, :-1][ordered[:, :-1] == ordered[:, 1:]] = score.shape[1]
    end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]  # the last place of each tie
    rank, true = np.empty(score.shape, np.int64), np.empty(score.shape, np.int64)
    np.put_along_axis(rank, order, np.take_along_axis(np.cumsum(truth >= 0, axis=1), end, axis=1), axis=1)
    np.put_along_axis(true, order, np.take_along_axis(np.cumsum(truth == 1, axis=1), end, axis=1), axis=1)
    return rank, true


def lwlrap(score: np.ndarray, label: np.ndarray) -> float:
    """Average, over all true (clip, class) pairs, the share of true classes among those ranked at or above the class.

    Equals scikit-learn's `label_ranking_average_precision_score` weighted by the labels of each clip (Fonseca et al.
    2019). Clips without a true label do not count; ValueError when no clip has one.
    """
    rank, true = label_ranking(score, label)
    present = label == 1
    if not present.any():
        raise ValueError(f"none of {len(label)} clips has a true label")
    return float((true[present] / rank[present]).mean())


def lwlrap_per_class(score: np.ndarray, label: np.ndarray) -> PerClass:
    """Return lwlrap of each class with a positive: its mean over clips having the class.

    The overall lwlrap is the mean of these weighted by the positives of each class (Fonseca et al. 2019).
    """
    rank, true = label_ranking(score, label)
    positives = (label == 1).sum(axis=0)
    total = np.where(label == 1, true / np.maximum(rank, 1), 0.0).sum(axis=0)
    column = np.flatnonzero(positives)
    return PerClass(column, total[column] / positives[column], label.shape[1] - len(column))


def lwlrap_chance(label: np.ndarray) -> float:
    """Return the expected lwlrap of scores in random order: `average_precision_chance` of each clip, label-weighted."""
    true, known = (label == 1).sum(axis=1), (label >= 0).sum(axis=1)
    pairs, count = np.unique(np.stack([true, known])[:, true > 0], axis=1, return_counts=True)
    if not count.size:
        raise ValueError(f"none of {len(label)} clips has a true label")
    chance = [average_precision_chance(int(t), int(k)) for t, k in pairs.T]
    return float(np.average(chance, weights=count * pairs[0]))


def top_n(score: np.ndarray, label: np.ndarray, n: int = 1) -> float:
    """Return the share of labelled clips with at least one true class among the n best.

    A tie ranks at its worst place, so a constant score earns nothing. Clips without a true label do not count.
    """
    if not 1 <= n <= score.shape[1]:
        raise ValueError(f"n must be between 1 and the {score.shape[1]} classes, not {n}")
    rank, _ = label_ranking(score, label)
    labelled = (label == 1).any(axis=1)
    if not labelled.any():
        raise ValueError(f"none of {len(label)} clips has a true label")
    return float(((rank <= n) & (label == 1)).any(axis=1)[labelled].mean())


def top_n_chance(label: np.ndarray, n: int = 1) -> float:
    """Return the expected top-n of scores in random order: 1 - C(K - m, n)/C(K, n) for m true of K known classes."""
    labelled = label[(label == 1).any(axis=1)]
    if not len(labelled):
        raise ValueError(f"none of {len(label)} clips has a true label")
    true, known = (labelled == 1).sum(axis=1).tolist(), (labelled >= 0).sum(axis=1).tolist()
    miss = [math.comb(k - m, n) / math.comb(k, n) if n <= k else 0.0 for m, k in zip(true, known, strict=True)]
    return 1.0 - sum(miss) / len(miss)


# One decision a clip --------------------------------------------------------------------------------------------


def average_precision_at(score: np.ndarray, label: np.ndarray, n: int = 3) -> float:
    """Return the mean over clips of the average precision of their n highest classes (MAP@3 of DCASE 2018).

    Of a clip of one class it is 1 over the rank, 0 beyond n. Of equal scores the first class ranks higher. Clips
    without a class are left out; unknown classes (-1) count as absent. Shape: score and label [clips, classes].

    >>> average_precision_at(np.array([[0.2, 0.5, 0.3]]), np.array([[0, 0, 1]]))
    0.5
    """
    validate(score, label)
    labelled = (label == 1).any(axis=1)
    if not labelled.any():
        raise ValueError(f"none of {len(label)} clips has a class")
    order = np.argsort(-score[labelled], axis=1, kind="stable")[:, :n]
    right = np.take_along_axis(label[labelled] == 1, order, axis=1)
    precision = right.cumsum(axis=1) / np.arange(1, right.shape[1] + 1)
    most = np.minimum((label[labelled] == 1).sum(axis=1), n)
    return float(((precision * right).sum(axis=1) / most).mean())


def accuracy(decision: np.ndarray, label: np.ndarray) -> float:
    """Return the share of labelled clips whose decided class is true.

    Shape: decision [clips] class numbers, label [clips, classes]; clips without a true label do not count.
    """
    labelled = (label == 1).any(axis=1)
    if not labelled.any():
        raise ValueError(f"none of {len(label)} clips has a true label")
    return float((label[np.arange(len(label)), decision] == 1)[labelled].mean())


def balanced_accuracy(decision: np.ndarray, label: np.ndarray) -> float:
    """Return the mean over classes of the share of a class's clips decided as it (macro accuracy).

    Shape: decision [clips] class numbers, label [clips, classes], one true class a clip; classes without clips do not
    count.
    """
    present = label == 1
    positives = present.sum(axis=0)
    if not positives.any():
        raise ValueError(f"none of {len(label)} clips has a true label")
    right = (present & (decision[:, None] == np.arange(label.shape[1]))).sum(axis=0)
    return float((right[positives > 0] / positives[positives > 0]).mean())


# Bootstrap ------------------------------------------------------------------------------------------------------


def multiplicities(count: int, replicates: int, generator: np.random.Generator) -> np.ndarray:
    """Draw how often each of `count` clips occurs in each bootstrap replicate.

    Shape: returns int64 [replicates, count]; every row sums to `count`.
    """
    return generator.multinomial(count, np.full(count, 1.0 / count), size=replicates)


def mean_average_precision_replicates(score: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the mean average precision of every bootstrap replicate of the clips.

    A class that a replicate leaves without positives is skipped in that replicate.

    Shape: score and label [clips, classes], weight [replicates, clips]; returns [replicates].
    """
    values = []
    for column in range(label.shape[1]):
        positive, negative = np.flatnonzero(label[:, column] == 1), np.flatnonzero(label[:, column] == 0)
        if len(positive) and len(negative):
            parts = score[positive, column], score[negative, column], weight[:, positive], weight[:, negative]
            values.append(weighted_pair_average_precision(*parts))
    return mean_known(np.array(values).reshape(len(values), len(weight)))


def mean_known(values: np.ndarray) -> np.ndarray:
    """Average over the first axis what is not NaN; NaN where nothing is left.

    Shape: values [classes, replicates]; returns [replicates].
    """
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def percentile_interval(replicates: np.ndarray, level: float = 0.95) -> tuple[float | None, float | None]:
    """Return the central percentile interval of bootstrap replicates, NaN left out; (None, None) when none remain."""
    known = replicates[~np.isnan(replicates)]
    if not known.size:
        return None, None
    low, high = np.quantile(known, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)

"""Intervals: a bootstrap over patients for every metric, and DeLong's for AUROC.

A patient's images resemble each other, so whole patients are drawn, with replacement. Patients with
a positive image and patients without one are drawn apart (stratified), which keeps both classes in
every resample. A resample is a count for each patient: sums become matrix products and rankings
weighted cumulative sums, so nothing is sorted twice. Bins of the calibration error and thresholds
stay those of the whole sample. Two models judged with the same `Draws` are paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from cardiomegaly import UserError
from cardiomegaly.evaluation.metrics import (
    ECE_BINS,
    Array,
    Ints,
    bin_index,
    binary_metrics,
    checked,
    confusion,
    count_metrics,
    ranking,
    ratio,
)

RESAMPLES = 2000
LEVEL = 0.95
# Resamples handled at once: bounds the memory, few enough for the processor's cache.
CHUNK = 16
MOST_UNDEFINED = 0.05


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval; nan where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Draws:
    """How often each resample holds each patient.

    `counts` is (resamples, patients), `patient` (n,) the position of each image's patient in it.
    """

    counts: NDArray[np.uint8]
    patient: Ints

    def of(self, rows: NDArray[np.bool_] | Ints) -> Draws:
        """The same resamples, seen by some of the images."""
        return Draws(self.counts, self.patient[rows])

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """Counts of some resamples at a time."""
        for start in range(0, len(self.counts), CHUNK):
            yield self.counts[start : start + CHUNK]

    def sums(self, values: ArrayLike) -> Array:
        """Sum values of images, (n, k) or (n,), in every resample: (resamples, k)."""
        columns = np.asarray(values, np.float64).reshape(len(self.patient), -1)
        table = np.zeros((self.counts.shape[1], columns.shape[1]))
        np.add.at(table, self.patient, columns)
        return np.concatenate([chunk.astype(np.float64) @ table for chunk in self.chunks()])

    def means(self, values: ArrayLike) -> Array:
        """Average values of images, (n, k) or (n,), in every resample: (resamples, k)."""
        return ratio(self.sums(values), self.sums(np.ones(len(self.patient))))


def draw_patients(
    target: ArrayLike, patient: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Draws:
    """Draw patients with replacement, those with a positive image apart from the others.

    Args:
        target: (n,) of 0 and 1.
        patient: (n,) identifiers; the image's own number in place of it gives an image bootstrap.
        resamples: how many, 1 or more.
        seed: the same seed and the same patients give the same draws.

    Raises:
        UserError: lengths differ, or fewer than 1 resample.
    """
    truth = np.asarray(target)
    names, index = np.unique(np.asarray(patient), return_inverse=True)
    if truth.shape != index.shape or not truth.size:
        raise UserError(
            f"patient: one identifier for each image is needed, got {index.shape} "
            f"for targets {truth.shape}"
        )
    if resamples < 1:
        raise UserError(f"resamples: 1 or more are needed, got {resamples}")
    rng = np.random.default_rng(seed)
    positive = np.bincount(index, weights=truth) > 0
    counts = np.zeros((resamples, len(names)), np.uint8)
    for stratum in (np.flatnonzero(positive), np.flatnonzero(~positive)):
        size = len(stratum)
        for start in range(0, resamples if size else 0, CHUNK):
            rows = min(CHUNK, resamples - start)
            drawn = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
            found = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
            counts[start : start + rows, stratum] = np.minimum(found, 255)
    return Draws(counts, index.astype(np.int64))


def ranking_draws(draws: Draws, target: Ints, score: Array) -> dict[str, Array]:
    """AUROC and average precision of every resample, (resamples,); `score` ranks the images."""
    order = np.argsort(-score, kind="stable")
    score, true = score[order], np.flatnonzero(target[order] == 1)
    if true.size in (0, len(score)):
        nothing = np.full(len(draws.counts), np.nan)
        return {"auroc": nothing, "average_precision": nothing}
    # Images of equal score form a group; only groups with a positive image matter.
    starts = np.flatnonzero(np.diff(score, prepend=np.inf))
    group = np.searchsorted(starts, true, side="right") - 1
    first = np.flatnonzero(np.diff(group, prepend=-1))
    start = starts[group[first]]
    end = np.append(starts[1:], len(score))[group[first]]
    patient = draws.patient[order]
    auroc, precision = [], []
    for counts in draws.chunks():
        weight = counts[:, patient]
        above = np.zeros((len(counts), len(score) + 1), np.int32)
        np.cumsum(weight, axis=1, out=above[:, 1:])
        positive = np.add.reduceat(weight[:, true].astype(np.int32), first, axis=1)
        reached = np.cumsum(positive, axis=1)
        total = reached[:, -1:]
        higher = above[:, start] - reached + positive
        equal = above[:, end] - above[:, start] - positive
        negatives = above[:, -1:] - total
        beaten = negatives - higher - equal / 2
        auroc.append(ratio((positive * beaten).sum(1), (total * 1.0 * negatives)[:, 0]))
        # A group that no patient of the resample is in has weight 0 and no precision.
        share = np.nan_to_num(ratio(reached, above[:, end]))
        precision.append(ratio((positive * share).sum(1), total[:, 0]))
    found = np.concatenate(precision)
    found[np.isnan(np.concatenate(auroc))] = np.nan
    return {"auroc": np.concatenate(auroc), "average_precision": found}


def threshold_draws(
    draws: Draws, target: Ints, probability: Array, threshold: float | Array
) -> dict[str, Array]:
    """The threshold metrics of every resample, each (resamples,)."""
    return count_metrics(*draws.sums(confusion(target, probability, threshold)).T)


def error_draws(draws: Draws, target: Ints, probability: Array) -> dict[str, Array]:
    """Brier score and calibration error of every resample, each (resamples,)."""
    gap = probability - target
    index = bin_index(probability, ECE_BINS, equal_mass=True)
    binned = np.zeros((len(gap), int(index.max()) + 1))
    binned[np.arange(len(gap)), index] = gap
    return {
        "brier": draws.means(gap**2)[:, 0],
        "ece": np.abs(draws.means(binned)).sum(axis=1),
    }


def interval(value: float, draws: Array) -> Estimate:
    """Take the percentile interval; nan where over 5% of the resamples leave it undefined."""
    defined = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(defined) < (1 - MOST_UNDEFINED) * len(draws):
        return Estimate(float(value), float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))


def metric_intervals(
    target: ArrayLike,
    probability: ArrayLike,
    draws: Draws,
    threshold: float | Array = 0.5,
    logit: ArrayLike | None = None,
) -> dict[str, Estimate]:
    """Every metric of the design page (but threshold and counts) with its patient interval."""
    truth, score = checked(target, probability)
    found = ranking_draws(draws, truth, ranking(score, logit)) | error_draws(draws, truth, score)
    found |= threshold_draws(draws, truth, score, threshold)
    values = binary_metrics(truth, score, threshold, logit)
    return {name: interval(values[name], found[name]) for name in values if name in found}


def delong(target: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Return the AUROC of k models on the same images and its covariance, (k,) and (k, k).

    `scores` are probabilities, logits or anything else that ranks the images, (k, n) or (n,).
    It takes images for independent, which those of one patient are not: read it beside the patient
    bootstrap. nan without at least two images of each class.

    Source: DeLong et al., Biometrics 1988; the midranks of Sun and Xu, "Fast implementation of
    DeLong's algorithm", IEEE Signal Processing Letters 2014.
    """
    scores = np.atleast_2d(np.asarray(scores, np.float64))
    if scores.shape[1:] != np.shape(target):
        raise UserError(
            "target and probability: one score for each target is needed, got shapes "
            f"{scores.shape} and {np.shape(target)}"
        )
    truth = np.asarray(target) == 1
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < 2:
        both = min(positives, negatives) == 1
        auroc = [float(roc_auc_score(truth, row)) if both else float("nan") for row in scores]
        return np.array(auroc), np.full((len(scores), len(scores)), np.nan)
    ranks = rankdata(scores, axis=1)
    # The share of the other class that each image stands on the right side of.
    for_positive = (ranks[:, truth] - rankdata(scores[:, truth], axis=1)) / negatives
    for_negative = 1 - (ranks[:, ~truth] - rankdata(scores[:, ~truth], axis=1)) / positives
    covariance = np.cov(for_positive) / positives + np.cov(for_negative) / negatives
    return for_positive.mean(axis=1), np.atleast_2d(covariance)


def delong_interval(target: ArrayLike, score: ArrayLike) -> Estimate:
    """AUROC with DeLong's 95% interval, cut to 0 to 1."""
    auroc, covariance = delong(target, score)
    reach = norm.ppf((1 + LEVEL) / 2) * np.sqrt(covariance[0, 0])
    low, high = np.clip([auroc[0] - reach, auroc[0] + reach], 0, 1)
    return Estimate(float(auroc[0]), float(low), float(high))

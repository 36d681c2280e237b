"""How far each image moves a metric, which is what its interval is made of.

A metric computed with an image counted slightly more often changes by its influence. For a
proportion of images that is (right - proportion) / images; for AUROC it is the share of the other
class that the image stands on the right side of, less the AUROC, divided by the images of its
class (DeLong's structural components).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from cardiomegaly.evaluation.intervals import Estimate, Patients, Statistic, interval
from cardiomegaly.evaluation.metrics import (
    Array,
    Ints,
    checked,
    confusion,
    expected_calibration_error,
    proportions,
    ranking,
)


def mean_statistic(patients: Patients, values: Array) -> Statistic:
    """The mean of a number from 0 to 1 over images."""
    return proportion(patients, values, np.ones(len(values)))


def proportion(patients: Patients, right: Array, counted: Array) -> Statistic:
    """The sum of `right` over that of `counted`, both (n,); nan where nothing is counted."""
    value, influence = _proportion(right, counted)
    return patients.statistic(value, influence, counted)


def _proportion(right: Array, counted: Array) -> tuple[float, Array]:
    total = counted.sum()
    if not total:
        return float("nan"), np.zeros(len(counted))
    value = right.sum() / total
    return float(value), (right - value * counted) / total


def threshold_statistics(
    patients: Patients, probability: Array, threshold: float | Array
) -> dict[str, Statistic]:
    """Every metric of calls at a threshold, by its name."""
    tp, fp, tn, fn = confusion(patients.target, probability, threshold).T
    parts = proportions(tp, fp, tn, fn)
    metrics = {name: proportion(patients, *pair) for name, pair in parts.items()}
    counted = parts["f1"][1]
    ill, healthy = _proportion(*parts["f1"]), _proportion(2 * tn, 2 * tn + fp + fn)
    macro, influence = (ill[0] + healthy[0]) / 2, (ill[1] + healthy[1]) / 2
    if any(np.count_nonzero(patients.sums(right)) < 2 for right in (tp, tn)):
        # An F1 that rests on no patient or one does not tell how well it is known: no interval.
        influence = influence * np.nan
    metrics["f1_macro"] = patients.statistic(macro, influence, counted)
    weighted, influence = _weighted(patients.target, ill, healthy)
    metrics["f1_weighted"] = patients.statistic(weighted, influence, counted)
    return metrics


def _weighted(
    target: Ints, ill: tuple[float, Array], healthy: tuple[float, Array]
) -> tuple[float, Array]:
    """The mean of two metrics by the images of their classes, which vary with the sample too."""
    share = float(target.mean())
    if share in (0, 1):
        return ill if share else healthy
    value = share * ill[0] + (1 - share) * healthy[0]
    of_classes = (target - share) / len(target) * (ill[0] - healthy[0])
    return value, share * ill[1] + (1 - share) * healthy[1] + of_classes


def ranking_statistics(patients: Patients, score: Array) -> dict[str, Statistic]:
    """AUROC and average precision of anything that ranks the images."""
    target = patients.target
    positives = int(target.sum())
    if positives in (0, len(target)):
        nothing = patients.statistic(float("nan"), np.zeros(len(target)), np.zeros(len(target)))
        return {"auroc": nothing, "average_precision": nothing}
    rarer = (target == int(2 * positives <= len(target))) * 1.0
    return {
        "auroc": patients.statistic(*_auroc(target, score), rarer),
        "average_precision": patients.statistic(*_average_precision(target, score), rarer),
    }


def _auroc(target: Ints, score: Array) -> tuple[float, Array]:
    """AUROC and its influence by midranks.

    Source: DeLong et al., Biometrics 1988; Sun and Xu, "Fast implementation of DeLong's algorithm",
    IEEE Signal Processing Letters 2014.
    """
    positive, ranks, beaten = target == 1, rankdata(score), np.empty(len(score))
    positives, negatives = positive.sum(), (~positive).sum()
    beaten[positive] = (ranks[positive] - rankdata(score[positive])) / negatives
    beaten[~positive] = 1 - (ranks[~positive] - rankdata(score[~positive])) / positives
    value = beaten[positive].mean()
    return float(value), (beaten - value) / np.where(positive, positives, negatives)


def _average_precision(target: Ints, score: Array) -> tuple[float, Array]:
    """Average precision and its influence; images of equal score are called together.

    An image moves the precision of its own group and that of every group below.
    """
    order = np.argsort(-score, kind="stable")
    true = target[order].astype(np.float64)
    called = np.append(np.flatnonzero(np.diff(score[order])) + 1, len(score))
    group = np.repeat(np.arange(len(called)), np.diff(called, prepend=0))
    hits = np.cumsum(true)[called - 1]
    precision, gained, positives = hits / called, np.diff(hits, prepend=0), hits[-1]
    value = float(gained @ precision / positives)
    # Sums over a group and all below it, of what a positive and what any image adds there.
    below = np.cumsum((gained / called)[::-1])[::-1]
    lost = np.cumsum((gained / called * precision)[::-1])[::-1]
    influence = np.empty(len(score))
    own = true * (precision[group] - value + below[group]) - lost[group]
    influence[order] = own / positives
    return value, influence


def metric_statistics(
    patients: Patients,
    probability: Array,
    threshold: float | Array = 0.5,
    logit: ArrayLike | None = None,
) -> dict[str, Statistic]:
    """Every metric that can have an interval: all of the design page but the calibration error."""
    metrics = threshold_statistics(patients, probability, threshold)
    metrics |= ranking_statistics(patients, ranking(probability, logit))
    return metrics | {"brier": mean_statistic(patients, (probability - patients.target) ** 2)}


def metric_intervals(
    target: ArrayLike,
    probability: ArrayLike,
    patient: ArrayLike,
    threshold: float | Array = 0.5,
    logit: ArrayLike | None = None,
) -> dict[str, Estimate]:
    """Every metric of the design page with its interval; the calibration error has none.

    Args:
        target: (n,) of 0 and 1.
        probability: (n,) from 0 to 1.
        patient: (n,) identifiers.
        threshold: one number, or one for each image.
        logit: (n,) of the same predictions, where known.

    Raises:
        UserError: as `metrics.checked`, `metrics.ranking` and `Patients.of`.
    """
    truth, score = checked(target, probability)
    statistics = metric_statistics(Patients.of(truth, patient), score, threshold, logit)
    estimates = {name: interval(statistic) for name, statistic in statistics.items()}
    return estimates | {"ece": Estimate(expected_calibration_error(truth, score))}

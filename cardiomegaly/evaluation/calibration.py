"""Calibration: can a probability be taken at its word?

Platt's line on the logit and isotonic regression are fitted on validation at its natural
prevalence. Where there is no validation part, thresholds and calibration are cross-fitted: each
patient's images are treated by what the other patients gave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from cardiomegaly import UserError
from cardiomegaly.evaluation.metrics import ECE_BINS, Array, Ints, bin_index, checked
from cardiomegaly.evaluation.uncertainty import LEVEL

Calibrator = Callable[[ArrayLike], Array]
PLATT, ISOTONIC = "Platt", "isotonic"
FOLDS = 5
# Above 0 and below 1 a probability has a finite logit; a float32 sigmoid saturates at 1 - 6e-8.
EDGE = 1e-7
WEAK = 1e6  # inverse strength of the penalty: next to none, so that a separable fit stays finite


@dataclass(frozen=True)
class BrierParts:
    """Brier score = reliability - resolution + uncertainty + within.

    `within` is what the bins hide: the spread of probabilities inside a bin.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


def log_odds(probability: ArrayLike, known: ArrayLike | None = None) -> Array:
    """The `known` logits, or those of the probabilities, which are kept finite at 0 and 1."""
    if known is not None:
        return np.asarray(known, np.float64)
    found: Array = logit(np.clip(np.asarray(probability, np.float64), EDGE, 1 - EDGE))
    return found


def reliability_table(
    target: ArrayLike, probability: ArrayLike, bins: int = ECE_BINS, equal_mass: bool = True
) -> pd.DataFrame:
    """Stated against observed frequency, a row a bin.

    Returns:
        n, mean_probability, observed, low, high: the last two are Wilson's 95% interval, which
        takes images for independent but holds where a bin has no positive image.
    """
    truth, score = checked(target, probability)
    index = bin_index(score, bins, equal_mass)
    rows = []
    for number in np.unique(index):
        inside = index == number
        test = binomtest(int(truth[inside].sum()), int(inside.sum()))
        between = test.proportion_ci(LEVEL, "wilson")
        rows.append((inside.sum(), score[inside].mean(), test.statistic, between.low, between.high))
    return pd.DataFrame(rows, columns=["n", "mean_probability", "observed", "low", "high"])


def brier_decomposition(
    target: ArrayLike, probability: ArrayLike, bins: int = ECE_BINS
) -> BrierParts:
    """Split the Brier score by bins of equal mass.

    Source: Murphy, "A new vector partition of the probability score", J. Appl. Meteorol. 1973;
    the remainder after Stephenson et al., Weather and Forecasting 2008.
    """
    truth, score = checked(target, probability)
    table = reliability_table(truth, score, bins)
    share, base = table["n"] / len(truth), truth.mean()
    reliability = float((share * (table["mean_probability"] - table["observed"]) ** 2).sum())
    resolution = float((share * (table["observed"] - base) ** 2).sum())
    uncertainty, brier = float(base * (1 - base)), float(np.mean((score - truth) ** 2))
    within = brier - reliability + resolution - uncertainty
    return BrierParts(brier, reliability, resolution, uncertainty, within)


def slope_intercept(
    target: ArrayLike, probability: ArrayLike, logit: ArrayLike | None = None
) -> tuple[float, float]:
    """Slope and intercept of the targets on the logit: 1 and 0 where calibrated.

    nan with one class, constant probabilities or probabilities that separate the classes.

    Source: Cox, "Two further applications of a model for binary regression", Biometrika 1958.
    """
    truth, given = checked(target, probability)
    score = log_odds(given, logit)
    positive, negative = score[truth == 1], score[truth == 0]
    if not (len(positive) and len(negative)) or score.min() == score.max():
        return float("nan"), float("nan")
    if positive.min() >= negative.max() or positive.max() <= negative.min():
        return float("nan"), float("nan")
    return _line(score, truth.astype(np.float64))


def _line(x: Array, share: Array) -> tuple[float, float]:
    """Logistic regression on one variable, where `share` of each image counts as positive."""
    model = LogisticRegression(C=WEAK, max_iter=1000)
    both = np.concatenate([x, x])[:, None], np.repeat([1, 0], len(x))
    model.fit(*both, sample_weight=np.concatenate([share, 1 - share]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def platt_line(target: ArrayLike, logit: ArrayLike) -> tuple[float, float]:
    """Slope and intercept of a line on logits (or log odds), with Platt's smoothed targets.

    Raises:
        UserError: one class only.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    truth = both_classes(target)
    positives, negatives = truth.sum(), (1 - truth).sum()
    smoothed = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    return _line(np.asarray(logit, np.float64), smoothed)


def fit_platt(target: ArrayLike, logit: ArrayLike) -> Calibrator:
    """Fit `platt_line` and return what applies it.

    Raises:
        UserError: one class only.
    """
    slope, intercept = platt_line(target, logit)

    def calibrate(given: ArrayLike) -> Array:
        found: Array = expit(slope * np.asarray(given, np.float64) + intercept)
        return found

    return calibrate


def fit_isotonic(target: ArrayLike, probability: ArrayLike) -> Calibrator:
    """Fit a rising staircase on probabilities and return what applies it.

    Raises:
        UserError: one class only.

    Source: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass
    probability estimates", KDD 2002.
    """
    truth, score = both_classes(target), np.asarray(probability, np.float64)
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, truth)
    return lambda given: np.asarray(model.predict(np.asarray(given, np.float64)), np.float64)


CALIBRATIONS = {PLATT: fit_platt, ISOTONIC: fit_isotonic}


def both_classes(target: ArrayLike) -> Ints:
    """Return targets as integers where both classes are there."""
    truth = np.asarray(target, np.int64)
    if truth.min() == truth.max():
        raise UserError(
            f"target: a calibration needs images of both classes, all {len(truth)} are "
            f"{truth[0]}; fit it on a larger part"
        )
    return truth


def patient_folds(target: ArrayLike, patient: ArrayLike, folds: int, seed: int) -> Ints:
    """Give each patient a fold, dealing those with a positive image out apart from the others.

    Returns:
        (n,) the fold of each image; fewer folds where one class has fewer patients.

    Raises:
        UserError: fewer than two patients with or without a positive image.
    """
    names, index = np.unique(np.asarray(patient), return_inverse=True)
    positive = np.bincount(index, weights=np.asarray(target, np.float64)) > 0
    least = min(int(positive.sum()), int((~positive).sum()))
    if least < 2:
        raise UserError(
            "patient: cross-fitting needs two patients with a positive image and two without, "
            f"got {int(positive.sum())} and {int((~positive).sum())}"
        )
    rng, folds = np.random.default_rng(seed), min(folds, least)
    fold = np.zeros(len(names), np.int64)
    for stratum in (np.flatnonzero(positive), np.flatnonzero(~positive)):
        fold[rng.permutation(stratum)] = np.arange(len(stratum)) % folds
    return fold[index]


def cross_fit(
    target: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike,
    treat: Callable[[Ints, Array, Array], ArrayLike],
    seed: int = 0,
) -> Array:
    """Treat each patient's scores by what was fitted on other patients.

    `treat(target, score, given)` fits on the first two and returns a value for each `given`,
    or one for all.

    Raises:
        UserError: as `patient_folds`.
    """
    truth, scores = np.asarray(target, np.int64), np.asarray(score, np.float64)
    fold = patient_folds(truth, patient, FOLDS, seed)
    treated = np.empty_like(scores)
    for number in np.unique(fold):
        held = fold == number
        treated[held] = treat(truth[~held], scores[~held], scores[held])
    return treated

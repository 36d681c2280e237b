"""Calibration: can a probability be taken at its word?

Platt's line on the logit and isotonic regression are fitted on validation at its natural
prevalence (`fitting.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from cardiomegaly import UserError
from cardiomegaly.evaluation.influence import mean_statistic
from cardiomegaly.evaluation.intervals import Patients, interval
from cardiomegaly.evaluation.metrics import ECE_BINS, Array, Ints, bin_index, checked, ratio

Calibrator = Callable[[ArrayLike], Array]
PLATT, ISOTONIC = "Platt", "isotonic"
# Above 0 and below 1 a probability has a finite logit; a float32 sigmoid saturates at 1 - 6e-8.
EDGE = 1e-7
WEAK = 1e6  # inverse strength of the penalty: next to none, so that a separable fit stays finite


def log_odds(probability: ArrayLike, known: ArrayLike | None = None) -> Array:
    """The `known` logits, or those of the probabilities, which are kept finite at 0 and 1."""
    if known is not None:
        return np.asarray(known, np.float64)
    return np.asarray(logit(np.clip(np.asarray(probability, np.float64), EDGE, 1 - EDGE)))


def reliability_table(patients: Patients, calibrated: Mapping[str, Array]) -> pd.DataFrame:
    """Stated against observed frequency, a row a method and bin of equal mass.

    Returns:
        method, n, mean_probability, observed, low, high (the 95% interval of the frequency).
    """
    rows = []
    for method, probability in calibrated.items():
        index = bin_index(probability, ECE_BINS)
        for number in np.unique(index):
            inside = index == number
            here, stated = patients.part(inside), probability[inside].mean()
            observed = interval(mean_statistic(here, here.target.astype(np.float64)))
            rows.append((method, inside.sum(), stated, *astuple(observed)))
    names = ["method", "n", "mean_probability", "observed", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def brier_decomposition(
    target: ArrayLike, probability: ArrayLike, bins: int = ECE_BINS
) -> dict[str, float]:
    """Split the Brier score by bins of equal mass.

    Returns:
        brier = reliability - resolution + uncertainty + within, where `within` is what the bins
        hide: the spread of probabilities inside a bin.

    Source: Murphy, "A new vector partition of the probability score", J. Appl. Meteorol. 1973;
    the remainder after Stephenson et al., Weather and Forecasting 2008.
    """
    truth, score = checked(target, probability)
    index, base = bin_index(score, bins), float(truth.mean())
    n = np.bincount(index)
    stated, observed = (ratio(np.bincount(index, values), n) for values in (score, truth))
    parts = {
        "brier": float(np.mean((score - truth) ** 2)),
        "reliability": float(np.nansum(n * (stated - observed) ** 2) / len(truth)),
        "resolution": float(np.nansum(n * (observed - base) ** 2) / len(truth)),
        "uncertainty": base * (1 - base),
    }
    explained = parts["reliability"] - parts["resolution"] + parts["uncertainty"]
    return parts | {"within": parts["brier"] - explained}


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
    one_class = not (len(positive) and len(negative))
    if one_class or positive.min() >= negative.max() or positive.max() <= negative.min():
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
    return lambda given: np.asarray(expit(slope * np.asarray(given, np.float64) + intercept))


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
            f"target: images are needed of both classes, all {len(truth)} are "
            f"{truth[0]}; fit it on a larger part"
        )
    return truth

"""Prevalence: what a detector is worth where the disease is rarer or more common than here.

Sensitivity and specificity are taken to stay as they are: patients differ in number, not in kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from cardiomegaly.evaluation.calibration import both_classes, log_odds
from cardiomegaly.evaluation.influence import threshold_statistics
from cardiomegaly.evaluation.intervals import Estimate, Patients, interval, quotient
from cardiomegaly.evaluation.metrics import Array

PREVALENCES = (0.01, 0.02, 0.05, 0.10, 0.20, 0.30)


def shift_prevalence(probability: ArrayLike, now: float, then: float) -> Array:
    """Carry calibrated probabilities from one prevalence to another by Bayes' rule.

    Source: Saerens et al., "Adjusting the outputs of a classifier to new a priori probabilities",
    Neural Computation 2002.
    """
    return np.asarray(expit(log_odds(probability) + logit(then) - logit(now)))


def prevalence_table(
    patients: Patients,
    probability: Array,
    threshold: float | Array,
    prevalences: Sequence[float] = PREVALENCES,
) -> pd.DataFrame:
    """Predictive values at one threshold, had the disease another prevalence.

    Returns prevalence, ppv, ppv_low, ppv_high, npv, npv_low, npv_high.
    """
    rates = threshold_statistics(patients, probability, threshold)
    sensitivity, specificity = interval(rates["sensitivity"]), interval(rates["specificity"])
    # False calls for each true one, and ill among the not called for each healthy one there.
    quotients = {
        "ppv": quotient(_rest(specificity), sensitivity),
        "npv": quotient(_rest(sensitivity), specificity),
    }
    rows = []
    for share in prevalences:
        row = {"prevalence": share}
        for name, odds in (("ppv", (1 - share) / share), ("npv", share / (1 - share))):
            value, low, high = (1 / (1 + odds * rate) for rate in astuple(quotients[name]))
            row |= Estimate(value, high, low).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)


def _rest(rate: Estimate) -> Estimate:
    return Estimate(1 - rate.value, 1 - rate.high, 1 - rate.low)


def decision_curve(
    target: ArrayLike,
    calibrated: ArrayLike,
    prevalences: Sequence[float] = PREVALENCES,
    risks: Sequence[float] = tuple(np.arange(1, 51) / 100),
) -> pd.DataFrame:
    """Net benefit of acting on the model, at each prevalence and each risk at which one would act.

    Net benefit = sensitivity x prevalence - (1 - specificity) x (1 - prevalence) x risk/(1 - risk).

    Args:
        target: (n,) of 0 and 1, both present.
        calibrated: (n,) probabilities at the prevalence of `target`; they are carried to each other
            prevalence before they are compared with the risk.

    Returns:
        prevalence, risk, net_benefit, all_called (none called has 0 by definition).

    Source: Vickers and Elkin, "Decision curve analysis", Medical Decision Making 2006.
    """
    truth, score = both_classes(target), np.asarray(calibrated, np.float64)
    rows = []
    for share in prevalences:
        shifted = shift_prevalence(score, float(truth.mean()), share)
        for risk in risks:
            harm, called = risk / (1 - risk), shifted >= risk
            sensitivity, false = called[truth == 1].mean(), called[truth == 0].mean()
            benefit = sensitivity * share - false * (1 - share) * harm
            rows.append((share, risk, benefit, share - (1 - share) * harm))
    return pd.DataFrame(rows, columns=["prevalence", "risk", "net_benefit", "all_called"])

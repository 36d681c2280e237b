"""Predictive values and net benefit against hand computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from cardiomegaly import UserError
from cardiomegaly.evaluation import prevalence
from cardiomegaly.evaluation.intervals import Patients


def test_shifted_prevalence_by_hand() -> None:
    # Odds of 1 at a prevalence of 50% are odds of 1/9 at one of 10%.
    assert prevalence.shift_prevalence([0.5], 0.5, 0.1) == pytest.approx([0.1])


def test_predictive_values_by_hand() -> None:
    target = np.array([1] * 10 + [0] * 10)
    probability = np.array([0.9] * 8 + [0.1] * 2 + [0.9] * 3 + [0.1] * 7)
    patients = Patients.of(target, np.arange(20))
    found = prevalence.prevalence_table(patients, probability, 0.5, (0.1, 0.5))
    assert found["ppv"].to_numpy() == pytest.approx([0.08 / (0.08 + 0.27), 8 / 11])
    assert found["npv"].to_numpy() == pytest.approx([0.63 / (0.63 + 0.02), 7 / 9])
    assert (found["ppv_low"] < found["ppv"]).all() and (found["ppv"] < found["ppv_high"]).all()


def test_a_specificity_of_one_leaves_a_ppv_in_doubt_where_the_disease_is_rare() -> None:
    target = np.repeat([1, 0], [20, 180])
    probability = np.where(np.arange(200) < 16, 0.9, 0.1)
    patients = Patients.of(target, np.arange(200))
    ppv = prevalence.prevalence_table(patients, probability, 0.5, (0.01, 0.5))
    assert ppv[["ppv", "ppv_high"]].to_numpy() == pytest.approx(1)
    # At worst 2% of the healthy are called (Wilson): 0.8% true calls for about 2% false ones.
    assert ppv["ppv_low"].to_numpy() == pytest.approx([0.28, 0.97], abs=0.03)
    alone = prevalence.prevalence_table(patients.part(target == 0), probability[20:], 0.5)
    assert alone.drop(columns="prevalence").isna().all(axis=None)


def test_net_benefit_by_hand() -> None:
    target, probability = [1, 1, 0, 0, 0, 0, 0, 0], [0.9, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1]
    found = prevalence.decision_curve(target, probability, [0.25], [0.2, 0.5]).set_index("risk")
    # 1 hit and 1 false alarm of 8 images.
    assert found.loc[0.2, "net_benefit"] == pytest.approx(1 / 8 - 1 / 8 * 0.25)
    assert found.loc[0.5, "net_benefit"] == pytest.approx(0)
    assert found.loc[0.2, "all_called"] == pytest.approx(0.25 - 0.75 * 0.25)


def test_calling_by_shifted_risk_is_never_worse_than_calling_all_or_none() -> None:
    rng = np.random.default_rng(3)
    true_logit = rng.normal(-1, 1.5, 6000)
    target = (rng.random(6000) < expit(true_logit)).astype(int)
    found = prevalence.decision_curve(target, expit(true_logit))
    assert set(found["prevalence"]) == set(prevalence.PREVALENCES)
    best = np.maximum(found["all_called"], 0)
    assert (found["net_benefit"] > best - 0.01).all()


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="both classes, all 2 are 1"):
        prevalence.decision_curve([1, 1], [0.2, 0.3])

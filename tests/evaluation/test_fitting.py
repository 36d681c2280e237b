"""Thresholds against all others that could be chosen; folds and cross-fitting by patient."""

from __future__ import annotations

import numpy as np
import pytest

from cardiomegaly import UserError
from cardiomegaly.evaluation import fitting
from cardiomegaly.evaluation.metrics import binary_metrics

RNG = np.random.default_rng(5)
TARGET = np.repeat(RNG.random(200) < 0.2, 2).astype(int)
# Two decimals, so that many probabilities are equal.
PROBABILITY = np.round(np.clip(0.3 * TARGET + 0.7 * RNG.random(400), 0, 1), 2)
PATIENT = np.arange(400) // 2


def test_youden_and_f1_are_the_best_of_all_thresholds() -> None:
    every = np.concatenate([np.unique(PROBABILITY), [1.1]])
    rows = [binary_metrics(TARGET, PROBABILITY, cut) for cut in every]
    youden = binary_metrics(
        TARGET, PROBABILITY, fitting.fit_threshold(TARGET, PROBABILITY, "youden")
    )
    best = max(row["sensitivity"] + row["specificity"] for row in rows)
    assert youden["sensitivity"] + youden["specificity"] == pytest.approx(best)
    cut = fitting.fit_threshold(TARGET, PROBABILITY, "f1")
    found = binary_metrics(TARGET, PROBABILITY, cut)["f1"]
    assert found == pytest.approx(max(row["f1"] for row in rows))


@pytest.mark.parametrize("value", [0.0, 0.6, 0.9, 1.0])
def test_wanted_rates_are_reached_and_not_overdone(value: float) -> None:
    for rule, other in (("sensitivity", "specificity"), ("specificity", "sensitivity")):
        cut = fitting.fit_threshold(TARGET, PROBABILITY, rule, value)
        found = binary_metrics(TARGET, PROBABILITY, cut)
        assert found[rule] >= value
        for probe in np.concatenate([np.unique(PROBABILITY), [1.1]]):
            row = binary_metrics(TARGET, PROBABILITY, probe)
            assert row[rule] < value or row[other] <= found[other]


def test_threshold_above_certainty() -> None:
    # A negative image with probability 1: no threshold up to 1 keeps the specificity at 1.
    assert fitting.fit_threshold([0, 1], [1.0, 0.5], "specificity", 1.0) > 1


def test_a_threshold_needs_both_classes() -> None:
    with pytest.raises(UserError, match="both classes, all 2 are 1"):
        fitting.fit_threshold([1, 1], [0.2, 0.3], "youden")


def test_folds_keep_patients_together_and_deal_out_the_positives() -> None:
    fold = fitting.patient_folds(TARGET, PATIENT, 5, seed=0)
    assert (fold[::2] == fold[1::2]).all() and set(fold) == set(range(5))
    share = [TARGET[fold == number].mean() for number in range(5)]
    assert max(share) - min(share) < 0.05
    assert set(fitting.patient_folds([1, 1, 0, 0, 0], np.arange(5), 5, 0)) == {0, 1}
    with pytest.raises(UserError, match=r"two patients with a positive image .* got 1 and 4"):
        fitting.patient_folds([1, 0, 0, 0, 0], np.arange(5), 5, 0)


def test_cross_fitting_never_uses_the_patient_itself() -> None:
    seen: list[np.ndarray] = []

    def treat(target: np.ndarray, probability: np.ndarray, given: np.ndarray) -> float:
        seen.append(np.isin(given, probability))
        return fitting.fit_threshold(target, probability, "youden")

    score = 0.5 * TARGET + 0.5 * RNG.random(400)
    threshold = fitting.cross_fit(TARGET, score, PATIENT, treat)
    assert len(seen) == 5 and not np.concatenate(seen).any()
    assert len(np.unique(threshold)) > 1
    found = binary_metrics(TARGET, score, threshold)
    assert found["threshold"] == pytest.approx(threshold.mean())
    assert found["sensitivity"] + found["specificity"] > 1.4

"""Metrics and influences against scikit-learn, a derivative by hand and the jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from cardiomegaly.evaluation import influence
from cardiomegaly.evaluation.intervals import LEFT_OUT, Patients
from cardiomegaly.evaluation.metrics import binary_metrics

RNG = np.random.default_rng(1)
PATIENT = np.repeat(np.arange(60), RNG.integers(1, 8, 60))
TARGET = (RNG.random(len(PATIENT)) < 0.3).astype(int)
# Two decimals, so that many probabilities are equal.
PROBABILITY = np.round(1 / (1 + np.exp(1 - 2 * TARGET - RNG.normal(size=len(PATIENT)))), 2)
PATIENTS = Patients.of(TARGET, PATIENT)


def weighted(weight: np.ndarray) -> dict[str, float]:
    """scikit-learn's metrics of weighted images."""
    called, given = PROBABILITY >= 0.6, {"sample_weight": weight}
    return {
        "sensitivity": np.average(called[TARGET == 1], weights=weight[TARGET == 1]),
        "ppv": np.average(TARGET[called], weights=weight[called]),
        "auroc": roc_auc_score(TARGET, PROBABILITY, **given),
        "average_precision": average_precision_score(TARGET, PROBABILITY, **given),
        "f1": f1_score(TARGET, called, **given),
        "f1_macro": f1_score(TARGET, called, average="macro", **given),
        "f1_weighted": f1_score(TARGET, called, average="weighted", **given),
        "brier": np.average((PROBABILITY - TARGET) ** 2, weights=weight),
    }


def test_values_are_those_of_the_metrics() -> None:
    statistics = influence.metric_statistics(PATIENTS, PROBABILITY, 0.6)
    expected = binary_metrics(TARGET, PROBABILITY, 0.6)
    assert set(expected) - set(statistics) == {"ece", "threshold", "n", "n_positive"}
    assert {name: one.value for name, one in statistics.items()} == pytest.approx(
        {name: expected[name] for name in statistics}
    )


@pytest.mark.parametrize("image", [0, 7, 100])
def test_an_influence_is_the_derivative_by_the_weight_of_an_image(image: int) -> None:
    alone = Patients.of(TARGET, np.arange(len(TARGET)))
    statistics = influence.metric_statistics(alone, PROBABILITY, 0.6)
    step = np.zeros(len(TARGET))
    step[image] = 1e-5
    up, down = weighted(1 + step), weighted(1 - step)
    slopes = {name: (up[name] - down[name]) / 2e-5 for name in up}
    assert {name: statistics[name].influence[image].sum() for name in up} == pytest.approx(
        slopes, rel=1e-4, abs=1e-8
    )


@pytest.mark.parametrize("name", ["sensitivity", "specificity", "auroc", "brier"])
def test_moves_are_those_of_leaving_a_patient_out(name: str) -> None:
    whole = binary_metrics(TARGET, PROBABILITY)[name]
    left_out = []
    for patient in range(60):
        rest = patient != PATIENT
        left_out.append(whole - binary_metrics(TARGET[rest], PROBABILITY[rest])[name])
    moves = influence.metric_statistics(PATIENTS, PROBABILITY)[name].moves(LEFT_OUT)
    if name in ("sensitivity", "specificity"):
        assert moves == pytest.approx(left_out, abs=1e-12)
    # AUROC and Brier score depend on both classes: to first order.
    assert moves @ moves == pytest.approx(np.sum(np.square(left_out)), rel=0.03)


def test_images_are_ranked_by_their_logits() -> None:
    logit = np.log((PROBABILITY + 0.001) / (1.001 - PROBABILITY)) - 40
    rounded = np.round(1 / (1 + np.exp(-logit)), 6)
    low = influence.metric_intervals(TARGET, rounded, PATIENT, logit=logit)
    assert low["auroc"] == influence.metric_intervals(TARGET, PROBABILITY, PATIENT)["auroc"]


def test_one_class_leaves_undefined_what_needs_both() -> None:
    estimates = influence.metric_intervals(TARGET * 0, PROBABILITY, PATIENT)
    assert estimates["ece"].value > 0 and np.isnan(estimates["ece"].low)
    undefined = {name for name, one in estimates.items() if np.isnan(one.value)}
    assert undefined == {"auroc", "average_precision", "sensitivity"}
    for name in ("specificity", "accuracy", "brier", "f1_weighted"):
        assert estimates[name].low < estimates[name].value < estimates[name].high


def test_a_macro_f1_that_rests_on_no_true_positive_has_no_interval() -> None:
    estimates = influence.metric_intervals(TARGET, PROBABILITY * 0.4, PATIENT)
    assert estimates["f1"].value == estimates["f1"].low == 0 < estimates["f1"].high
    assert estimates["f1_macro"].value > 0 and np.isnan(estimates["f1_macro"].low)

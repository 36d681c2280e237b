"""The metrics against scikit-learn, their undefined values and their refusals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from cardiomegaly import UserError
from cardiomegaly.evaluation import metrics

RNG = np.random.default_rng(5)
TARGET = (RNG.random(400) < 0.2).astype(int)
# Two decimals, so that many probabilities are equal.
PROBABILITY = np.round(np.clip(0.3 * TARGET + 0.7 * RNG.random(400), 0, 1), 2)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.77])
def test_every_metric_agrees_with_scikit_learn(threshold: float) -> None:
    found = metrics.binary_metrics(TARGET, PROBABILITY, threshold)
    called = np.greater_equal(PROBABILITY, threshold)
    expected = {
        "accuracy": sk.accuracy_score(TARGET, called),
        "ppv": sk.precision_score(TARGET, called),
        "npv": sk.precision_score(1 - TARGET, ~called),
        "sensitivity": sk.recall_score(TARGET, called),
        "specificity": sk.recall_score(1 - TARGET, ~called),
        "f1": sk.f1_score(TARGET, called),
        "f1_weighted": sk.f1_score(TARGET, called, average="weighted"),
        "f1_macro": sk.f1_score(TARGET, called, average="macro"),
        "auroc": sk.roc_auc_score(TARGET, PROBABILITY),
        "average_precision": sk.average_precision_score(TARGET, PROBABILITY),
        "brier": sk.brier_score_loss(TARGET, PROBABILITY),
        "threshold": threshold,
        "n": 400,
        "n_positive": TARGET.sum(),
    }
    assert found.pop("ece") > 0
    assert found == pytest.approx(expected)


def test_equal_mass_ece_by_hand() -> None:
    target, probability = [0, 1, 1, 1], [0.1, 0.3, 0.6, 0.8]
    # Two bins of two images: means 0.2 against 0.5, and 0.7 against 1.
    assert metrics.expected_calibration_error(target, probability, bins=2) == pytest.approx(0.3)


LOW = -40 + 2 * TARGET + RNG.normal(size=400)  # logits of a network that calls nothing
FEW_DIGITS = np.round(1 / (1 + np.exp(-LOW)), 6)


def test_images_are_ranked_by_their_logits_where_probabilities_tie() -> None:
    found = metrics.binary_metrics(TARGET, FEW_DIGITS, 0.5, LOW)
    assert found["auroc"] == sk.roc_auc_score(TARGET, LOW) > 0.9
    assert found["average_precision"] == sk.average_precision_score(TARGET, LOW)
    assert metrics.binary_metrics(TARGET, FEW_DIGITS)["auroc"] == 0.5
    assert found["brier"] == pytest.approx(TARGET.mean()) and found["sensitivity"] == 0


@pytest.mark.parametrize(
    ("logit", "message"),
    [
        (LOW[1:], r"logit: one for each probability is needed, got shapes \(399,\) and \(400,\)"),
        (np.where(LOW[7] == LOW, np.inf, LOW), "logit: finite numbers are allowed, row 7 .* inf"),
        (-LOW, "logit: it must rise with the probability"),
    ],
)
def test_logits_of_something_else_are_refused(logit: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        metrics.binary_metrics(TARGET, 1 / (1 + np.exp(-LOW - 40)), 0.5, logit)


def test_one_class_is_undefined_not_zero() -> None:
    found = metrics.binary_metrics([0, 0, 0], [0.1, 0.2, 0.7])
    undefined = {name for name, value in found.items() if np.isnan(value)}
    assert undefined == {"auroc", "average_precision", "sensitivity"}
    assert found["f1_weighted"] == pytest.approx(2 * 2 / (2 * 2 + 1))


def test_nothing_called_positive_leaves_ppv_undefined() -> None:
    found = metrics.binary_metrics([0, 1], [0.1, 0.2])
    assert np.isnan(found["ppv"]) and found["f1"] == 0 and found["npv"] == 0.5


def test_constant_predictions_are_a_coin() -> None:
    found = metrics.binary_metrics(TARGET, np.full(400, 0.5))
    assert found["auroc"] == 0.5
    assert found["average_precision"] == pytest.approx(TARGET.mean())
    assert found["ece"] == pytest.approx(0.5 - TARGET.mean())


@pytest.mark.parametrize(
    ("target", "probability", "message"),
    [
        ([0, 1], [0.5], "target and probability: two flat lists"),
        ([], [], "at least one image"),
        ([0, 2], [0.1, 0.2], "target: 0 and 1 are allowed, row 1 .* holds 2"),
        ([0, np.nan], [0.1, 0.2], "target: 0 and 1 are allowed, row 1 .* holds nan"),
        ([0, 1], [0.1, 1.2], r"probability: numbers from 0 to 1 .* row 1 .* holds 1\.2"),
        ([0, 1], [np.nan, 0.2], "probability: .* row 0 .* holds nan"),
    ],
)
def test_bad_input_is_named(target: list[float], probability: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        metrics.binary_metrics(target, probability)


def test_a_bad_threshold_is_named() -> None:
    with pytest.raises(UserError, match="threshold: a finite number"):
        metrics.binary_metrics([0, 1], [0.1, 0.2], float("nan"))

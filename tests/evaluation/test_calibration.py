"""Calibration against hand computations, scikit-learn and data whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression

from cardiomegaly import UserError
from cardiomegaly.evaluation import calibration
from cardiomegaly.evaluation.metrics import (
    binary_metrics,
    expected_calibration_error,
    fit_threshold,
)

RNG = np.random.default_rng(3)
TRUE_LOGIT = RNG.normal(-1, 1.5, 6000)
TARGET = (RNG.random(6000) < expit(TRUE_LOGIT)).astype(int)
# As after training on balanced classes and for too long: too sure, and too many called ill.
PROBABILITY = expit(2 * TRUE_LOGIT + 1)
PATIENT = np.arange(6000) // 2


def test_reliability_table_agrees_with_scikit_learn() -> None:
    found = calibration.reliability_table(TARGET, PROBABILITY, 8)
    observed, stated = calibration_curve(TARGET, PROBABILITY, n_bins=8, strategy="quantile")
    assert found["observed"].to_numpy() == pytest.approx(observed)
    assert found["mean_probability"].to_numpy() == pytest.approx(stated)
    assert found["n"].tolist() == [750] * 8


def test_wilson_interval_by_hand_and_without_positives() -> None:
    found = calibration.reliability_table([0] * 10, [0.1] * 10).iloc[0]
    z2 = 1.959964**2
    assert found["low"] == 0 and found["high"] == pytest.approx(z2 / (10 + z2), rel=1e-4)


def test_brier_parts_by_hand() -> None:
    # Two distinct probabilities, one bin each: nothing is hidden within.
    found = calibration.brier_decomposition([0, 0, 0, 1, 1, 1, 1, 0], [0.2] * 4 + [0.6] * 4, 2)
    assert found.reliability == pytest.approx((0.05**2 + 0.15**2) / 2)
    assert found.resolution == pytest.approx(0.25**2)
    assert found.uncertainty == 0.25
    assert found.within == pytest.approx(0, abs=1e-12)
    assert found.brier == pytest.approx(0.2)


def test_brier_parts_sum_up() -> None:
    found = calibration.brier_decomposition(TARGET, PROBABILITY)
    assert found.brier == pytest.approx(binary_metrics(TARGET, PROBABILITY)["brier"])
    total = found.reliability - found.resolution + found.uncertainty + found.within
    assert total == pytest.approx(found.brier)
    assert abs(found.within) < 0.1 * found.brier


def test_slope_and_intercept_undo_the_known_distortion() -> None:
    slope, intercept = calibration.slope_intercept(TARGET, PROBABILITY)
    # logit = 2 true + 1, so true = 0.5 logit - 0.5.
    assert slope == pytest.approx(0.5, abs=0.04) and intercept == pytest.approx(-0.5, abs=0.08)
    honest = calibration.slope_intercept(TARGET, expit(TRUE_LOGIT))
    assert honest == pytest.approx((1, 0), abs=0.08)


@pytest.mark.parametrize(
    ("target", "probability"),
    [([0, 0], [0.1, 0.2]), ([0, 1], [0.5, 0.5]), ([0, 0, 1], [0.1, 0.3, 0.3]), ([1, 0], [0.1, 1])],
)
def test_slope_is_undefined_where_no_line_can_be_fitted(
    target: list[int], probability: list[float]
) -> None:
    assert np.isnan(calibration.slope_intercept(target, probability)).all()


@pytest.mark.parametrize(
    ("method", "score"), [("Platt", calibration.log_odds(PROBABILITY)), ("isotonic", PROBABILITY)]
)
def test_calibration_fitted_on_one_half_mends_the_other(method: str, score: np.ndarray) -> None:
    half = 3000
    mended = calibration.CALIBRATIONS[method](TARGET[:half], score[:half])(score[half:])
    before = expected_calibration_error(TARGET[half:], PROBABILITY[half:])
    after = expected_calibration_error(TARGET[half:], mended)
    assert before > 0.08 and after < 0.03
    order = np.argsort(PROBABILITY[half:])
    assert (np.diff(mended[order]) >= 0).all()


def test_isotonic_agrees_with_scikit_learn() -> None:
    expected = IsotonicRegression(out_of_bounds="clip").fit(PROBABILITY, TARGET)
    found = calibration.fit_isotonic(TARGET, PROBABILITY)([0.0, 0.3, 1.0])
    assert found == pytest.approx(expected.predict([0.0, 0.3, 1.0]))


def test_platt_stays_finite_where_classes_are_apart_and_certain() -> None:
    found = calibration.fit_platt([0, 0, 1, 1], calibration.log_odds([0.0, 0.1, 0.9, 1.0]))(
        calibration.log_odds([0.0, 1.0])
    )
    # Platt's smoothed targets: 1 / (2 + 2) and (2 + 1) / (2 + 2).
    assert found == pytest.approx([0.25, 0.75], abs=0.1)


def test_folds_keep_patients_together_and_deal_out_the_positives() -> None:
    fold = calibration.patient_folds(TARGET, PATIENT, 5, seed=0)
    assert (fold[::2] == fold[1::2]).all() and set(fold) == set(range(5))
    share = [TARGET[fold == number].mean() for number in range(5)]
    assert max(share) - min(share) < 0.05
    assert set(calibration.patient_folds([1, 1, 0, 0, 0], np.arange(5), 5, 0)) == {0, 1}
    with pytest.raises(UserError, match=r"two patients with a positive image .* got 1 and 4"):
        calibration.patient_folds([1, 0, 0, 0, 0], np.arange(5), 5, 0)


def test_cross_fitting_never_uses_the_patient_itself() -> None:
    seen: list[np.ndarray] = []

    def treat(target: np.ndarray, probability: np.ndarray, given: np.ndarray) -> float:
        seen.append(np.isin(given, probability))
        return fit_threshold(target, probability, "youden")

    threshold = calibration.cross_fit(TARGET, PROBABILITY, PATIENT, treat)
    assert len(seen) == 5 and not np.concatenate(seen).any()
    assert len(np.unique(threshold)) > 1
    found = binary_metrics(TARGET, PROBABILITY, threshold)
    assert found["threshold"] == pytest.approx(threshold.mean())
    assert found["sensitivity"] + found["specificity"] > 1.4


def test_one_class_is_refused() -> None:
    for call in calibration.CALIBRATIONS.values():
        with pytest.raises(UserError, match="both classes, all 2 are 1"):
            call([1, 1], [0.2, 0.3])

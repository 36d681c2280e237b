"""Calibration against hand computations, scikit-learn and data whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression

from cardiomegaly import UserError
from cardiomegaly.evaluation import calibration
from cardiomegaly.evaluation.intervals import Patients
from cardiomegaly.evaluation.metrics import binary_metrics, expected_calibration_error

RNG = np.random.default_rng(3)
TRUE_LOGIT = RNG.normal(-1, 1.5, 6000)
TARGET = (RNG.random(6000) < expit(TRUE_LOGIT)).astype(int)
# As after training on balanced classes and for too long: too sure, and too many called ill.
PROBABILITY = expit(2 * TRUE_LOGIT + 1)
PATIENT = np.arange(6000) // 2


def test_reliability_table_agrees_with_scikit_learn() -> None:
    found = calibration.reliability_table(Patients.of(TARGET, PATIENT), {"raw": PROBABILITY})
    observed, stated = calibration_curve(TARGET, PROBABILITY, n_bins=10, strategy="quantile")
    assert found["observed"].to_numpy() == pytest.approx(observed)
    assert found["mean_probability"].to_numpy() == pytest.approx(stated)
    assert found["n"].tolist() == [600] * 10


def test_a_bin_without_positives_has_wilsons_interval() -> None:
    patients = Patients.of([0] * 10, np.arange(10))
    found = calibration.reliability_table(patients, {"raw": np.full(10, 0.1)}).iloc[0]
    z2 = 1.959964**2
    assert found["low"] == 0 and found["high"] == pytest.approx(z2 / (10 + z2), rel=1e-4)


def test_brier_parts_by_hand() -> None:
    # Two distinct probabilities, one bin each: nothing is hidden within.
    found = calibration.brier_decomposition([0, 0, 0, 1, 1, 1, 1, 0], [0.2] * 4 + [0.6] * 4, 2)
    assert found["reliability"] == pytest.approx((0.05**2 + 0.15**2) / 2)
    assert found["resolution"] == pytest.approx(0.25**2)
    assert found["uncertainty"] == 0.25
    assert found["within"] == pytest.approx(0, abs=1e-12)
    assert found["brier"] == pytest.approx(0.2)


def test_brier_parts_sum_up() -> None:
    found = calibration.brier_decomposition(TARGET, PROBABILITY)
    assert found["brier"] == pytest.approx(binary_metrics(TARGET, PROBABILITY)["brier"])
    total = found["reliability"] - found["resolution"] + found["uncertainty"] + found["within"]
    assert total == pytest.approx(found["brier"])
    assert abs(found["within"]) < 0.1 * found["brier"]


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


def test_one_class_is_refused() -> None:
    for call in calibration.CALIBRATIONS.values():
        with pytest.raises(UserError, match="both classes, all 2 are 1"):
            call([1, 1], [0.2, 0.3])

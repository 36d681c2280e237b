"""Where thresholds and calibration come from: the validation part, or other patients in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cardiomegaly.evaluation.calibration import (
    CALIBRATIONS,
    PLATT,
    cross_fit,
    log_odds,
)
from cardiomegaly.evaluation.metrics import Array, Ints, fit_threshold


@dataclass(frozen=True)
class Predicted:
    """Probabilities of one model: (n,) of the test part, (m,) of the validation part or None.

    Its logits, where they are known, are what ranks the images and what Platt's line is fitted to.
    """

    test: Array
    val: Array | None = None
    test_logit: Array | None = None
    val_logit: Array | None = None


@dataclass(frozen=True)
class Cohort:
    """The images judged, a row an image: test with image, patient_id, target and metadata.

    `val_target` (m,) or None; `train` with target and metadata, or None; `labels` with image,
    patient_id, follow_up and target of every image known of the test patients, or None.
    """

    test: pd.DataFrame
    val_target: Ints | None = None
    train: pd.DataFrame | None = None
    labels: pd.DataFrame | None = None


class Fitting:
    """Fits on validation, or in turn on other patients of the test part."""

    def __init__(self, cohort: Cohort, seed: int) -> None:
        self.target = cohort.test["target"].to_numpy(np.int64)
        self.patient = cohort.test["patient_id"].to_numpy()
        self.seed = seed
        val = cohort.val_target
        self.val_target = val if val is not None and 0 < np.sum(val) < len(val) else None
        self.where = "the validation part"
        if self.val_target is None:
            why = "there is no validation part" if val is None else "validation has one class only"
            self.where = f"other patients of the test part (cross-fitted by patient, for {why})"

    def threshold(
        self, predicted: Predicted, rule: str, value: float | None = None
    ) -> float | Array:
        """One threshold, or one for each test image."""
        if self.val_target is not None and predicted.val is not None:
            return fit_threshold(self.val_target, predicted.val, rule, value)

        def treat(target: Ints, probability: Array, given: Array) -> float:
            return fit_threshold(target, probability, rule, value)

        return cross_fit(self.target, predicted.test, self.patient, treat, self.seed)

    def calibrate(self, predicted: Predicted, method: str) -> Array:
        """Calibrated probabilities of the test images, by a method of `CALIBRATIONS`."""
        fit, test, val = CALIBRATIONS[method], predicted.test, predicted.val
        if method == PLATT:
            test = log_odds(test, predicted.test_logit)
            val = None if val is None else log_odds(val, predicted.val_logit)
        if self.val_target is not None and val is not None:
            return fit(self.val_target, val)(test)

        def treat(target: Ints, score: Array, given: Array) -> Array:
            return fit(target, score)(given)

        return cross_fit(self.target, test, self.patient, treat, self.seed)

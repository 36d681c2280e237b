"""Decision thresholds and calibration, fitted on validation or in turn on other patients.

Where there is no validation part, both are cross-fitted: each patient's images are treated by what
the other patients of the test part gave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from cardiomegaly import UserError
from cardiomegaly.evaluation.calibration import CALIBRATIONS, PLATT, both_classes, log_odds
from cardiomegaly.evaluation.metrics import Array, Ints

FOLDS = 5


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

        def treat(target: Ints, score: Array, given: Array) -> float:
            return fit_threshold(target, score, rule, value)

        return self._apply(predicted.val, predicted.test, treat)

    def calibrate(self, predicted: Predicted, method: str) -> Array:
        """Calibrated probabilities of the test images, by a method of `CALIBRATIONS`."""
        fit, test, val = CALIBRATIONS[method], predicted.test, predicted.val
        if method == PLATT:
            test = log_odds(test, predicted.test_logit)
            val = None if val is None else log_odds(val, predicted.val_logit)
        return self._apply(val, test, lambda target, score, given: fit(target, score)(given))

    def _apply(
        self, val: Array | None, test: Array, treat: Callable[[Ints, Array, Array], Any]
    ) -> Any:
        """Treat test scores by what was fitted on validation, or on other patients in turn."""
        if self.val_target is not None and val is not None:
            return treat(self.val_target, val, test)
        return cross_fit(self.target, test, self.patient, treat, self.seed)


def fit_threshold(
    target: ArrayLike, probability: ArrayLike, rule: str, value: float | None = None
) -> float:
    """Choose the threshold that a rule asks for, midway between two probabilities that occur.

    Args:
        target: (n,) of 0 and 1.
        probability: (n,) from 0 to 1.
        rule: "youden" (largest sensitivity + specificity - 1), "f1" (largest F1), "sensitivity"
            (the highest threshold with at least `value`) or "specificity" (the lowest with it).
        value: wanted sensitivity or specificity, 0 to 1; the other rules need none.

    Raises:
        UserError: targets of one class only.
    """
    truth, score = both_classes(target), np.asarray(probability, np.float64)
    # Highest threshold first: none called, then one more distinct probability called each step.
    false, sensitivity, values = roc_curve(truth, score, drop_intermediate=False)
    # Above every probability, also where the highest is exactly 1.
    top = (values[1] + 1) / 2 if values[1] < 1 else np.nextafter(1.0, 2.0)
    cut = np.concatenate([[top], (values[1:-1] + values[2:]) / 2, [0.0]])
    if rule == "sensitivity":
        return float(cut[np.argmax(sensitivity >= value)])
    if rule == "specificity":
        return float(cut[np.flatnonzero(1 - false >= value)[-1]])
    hits, called = sensitivity * truth.sum(), false * (1 - truth).sum()
    gain = sensitivity - false if rule == "youden" else hits / (hits + called + truth.sum())
    return float(cut[np.argmax(gain)])


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

"""How a model does on a cohort that it was not made for, beside its own test part."""

from __future__ import annotations

from dataclasses import asdict, replace

import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.evaluation import calibration
from cardiomegaly.evaluation.fitting import Cohort, Fitting, Predicted
from cardiomegaly.evaluation.influence import (
    mean_statistic,
    ranking_statistics,
    threshold_statistics,
)
from cardiomegaly.evaluation.intervals import Estimate, Patients, interval
from cardiomegaly.evaluation.metrics import expected_calibration_error, ranking

HOME, REFITTED = "fitted at home", "refitted"
AT_THRESHOLD = ("sensitivity", "specificity", "ppv", "npv")


def transfer_table(name: str, cohort: Cohort, predicted: Predicted, seed: int) -> pd.DataFrame:
    """Figures on a cohort, with threshold and calibration from home and refitted on the cohort.

    The threshold is Youden's, the calibration Platt's; refitted ones are cross-fitted by patient.

    Args:
        name: of the cohort.
        cohort: its images; `val_target` is that of the model's own validation part.
        predicted: of the cohort's images, and of the model's own validation part.
        seed: of the folds.

    Returns:
        A row a metric: cohort, fitted (at home, refitted, or a dash), metric, value, low, high. PPV
        and NPV are those at the cohort's own prevalence.
    """
    target = cohort.test["target"].to_numpy()
    patients = Patients.of(target, cohort.test["patient_id"].to_numpy())
    score = ranking(predicted.test, predicted.test_logit)
    whole = {key: interval(each) for key, each in ranking_statistics(patients, score).items()}
    whole["prevalence"] = interval(mean_statistic(patients, target.astype(float)))
    rows = [{"cohort": name, "fitted": "", "metric": key, **asdict(whole[key])} for key in whole]
    for fitted, val_target in ((HOME, cohort.val_target), (REFITTED, None)):
        try:
            values = _fitted(
                Fitting(replace(cohort, val_target=val_target), seed), patients, predicted
            )
        except UserError:  # too few patients to fit on
            continue
        rows += [
            {"cohort": name, "fitted": fitted, "metric": metric, **asdict(value)}
            for metric, value in values.items()
        ]
    return pd.DataFrame(rows)


def _fitted(fitting: Fitting, patients: Patients, predicted: Predicted) -> dict[str, Estimate]:
    """Figures that need a threshold or a calibration."""
    cut = fitting.threshold(predicted, "youden")
    called = threshold_statistics(patients, predicted.test, cut)
    values = {metric: interval(called[metric]) for metric in AT_THRESHOLD}
    probability = fitting.calibrate(predicted, calibration.PLATT)
    errors = (probability - patients.target) ** 2
    values["brier"] = interval(mean_statistic(patients, errors))
    values["ece"] = Estimate(expected_calibration_error(patients.target, probability))
    slope, intercept = calibration.slope_intercept(patients.target, probability, None)
    return values | {"slope": Estimate(slope), "intercept": Estimate(intercept)}

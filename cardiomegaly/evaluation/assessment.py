"""Everything that can be said about predictions from arrays and tables, in one go.

Thresholds and calibration are fitted on the validation part. Where there is none, or it holds one
class only, they are cross-fitted by patient on the test part. What cannot be computed is left out
with its reason in `undefined`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from cardiomegaly import UserError
from cardiomegaly.evaluation import calibration
from cardiomegaly.evaluation.comparison import compare
from cardiomegaly.evaluation.fitting import Cohort, Fitting, Predicted
from cardiomegaly.evaluation.influence import mean_statistic, metric_intervals
from cardiomegaly.evaluation.intervals import Patients, interval
from cardiomegaly.evaluation.label_audit import LabelAudit, audit_labels
from cardiomegaly.evaluation.metrics import Array, checked, expected_calibration_error, ranking
from cardiomegaly.evaluation.prevalence import decision_curve, prevalence_table
from cardiomegaly.evaluation.settings import Settings
from cardiomegaly.evaluation.shortcuts import Shortcuts, evaluate_shortcuts
from cardiomegaly.evaluation.subgroups import Subgroups, evaluate_subgroups

FIXED, YOUDEN, BEST_F1 = "fixed", "Youden", "largest F1"
RAW = "as given"
Result = TypeVar("Result")


@dataclass
class Assessment:
    """The results; tables as their modules describe them, None where `undefined` says why.

    `thresholds` has a row a rule and metric: rule, threshold, metric, value, low, high. `shared` is
    the rule of the threshold that prevalence, subgroups and comparison use.
    """

    fitted_on: str
    thresholds: pd.DataFrame
    shared: str
    calibration: pd.DataFrame
    reliability: pd.DataFrame
    prevalence: pd.DataFrame
    decision: pd.DataFrame | None
    subgroups: Subgroups
    shortcuts: Shortcuts | None
    audit: LabelAudit | None
    comparison: pd.DataFrame | None
    undefined: dict[str, str]


def assess(cohort: Cohort, models: Mapping[str, Predicted], settings: Settings) -> Assessment:
    """Judge the first model in every way and compare it with the others.

    Raises:
        UserError: as `metrics.checked`; a wanted rate outside [0, 1].
    """
    for predicted in models.values():
        checked(cohort.test["target"], predicted.test)
        ranking(predicted.test, predicted.test_logit)
    undefined: dict[str, str] = {}
    predicted, fitting = next(iter(models.values())), Fitting(cohort, settings.seed)
    target, probability = fitting.target, predicted.test
    table = cohort.test.assign(probability=probability)
    if predicted.test_logit is not None:
        table["logit"] = predicted.test_logit
    patients = Patients.of(target, fitting.patient)
    cuts = _cuts(fitting, predicted, settings, undefined)
    shared = YOUDEN if YOUDEN in cuts else FIXED
    called = table.assign(called=probability >= cuts[shared])
    calibrated = _calibrated(fitting, predicted, undefined)
    best = calibrated.get(calibration.PLATT, probability)

    def or_why(what: str, compute: Callable[..., Any], *given: Any) -> Callable[[], Any]:
        return lambda: _or_why(undefined, what, compute, *given)

    parts: dict[str, Callable[[], Any]] = {
        "thresholds": lambda: _threshold_table(table, predicted, cuts),
        "calibration": lambda: _calibration_table(patients, calibrated, predicted),
        "reliability": lambda: calibration.reliability_table(patients, calibrated),
        "prevalence": lambda: prevalence_table(patients, probability, cuts[shared]),
        "decision": or_why("decision curve", decision_curve, target, best),
        "subgroups": lambda: evaluate_subgroups(table, patients, cuts[shared], settings.minimum),
        "shortcuts": or_why(
            "shortcuts", evaluate_shortcuts, table, patients, cohort.train, settings.seed
        ),
        "audit": or_why("label audit", audit_labels, cohort.labels, called),
        "comparison": lambda: _compared(fitting, models, patients, undefined),
    }
    # A bar in a terminal, where it takes longer than seconds.
    bar = tqdm(parts.items(), "evaluating", delay=3, disable=None, leave=False)
    computed = {name: compute() for name, compute in bar}
    return Assessment(fitted_on=fitting.where, shared=shared, undefined=undefined, **computed)


def _or_why(
    undefined: dict[str, str], what: str, compute: Callable[..., Result], *given: Any
) -> Result | None:
    """Compute, or keep the reason why these predictions do not allow it."""
    try:
        return compute(*given)
    except UserError as reason:
        undefined[what] = str(reason)
        return None


def _cuts(
    fitting: Fitting, predicted: Predicted, settings: Settings, undefined: dict[str, str]
) -> dict[str, float | Array]:
    rules: dict[str, tuple[str, float | None]] = {YOUDEN: ("youden", None), BEST_F1: ("f1", None)}
    wanted = {"sensitivity": settings.sensitivity, "specificity": settings.specificity}
    for name, value in wanted.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name}: a number from 0 to 1 is allowed, got {value:g}")
        rules[f"{name} {value:g}"] = (name, value)
    cuts: dict[str, float | Array] = {FIXED: 0.5}
    for name, rule in rules.items():
        cut = _or_why(undefined, f"threshold {name}", fitting.threshold, predicted, *rule)
        if cut is not None:
            cuts[name] = cut
    return cuts


def _threshold_table(
    table: pd.DataFrame, predicted: Predicted, cuts: Mapping[str, float | Array]
) -> pd.DataFrame:
    target, patient = table["target"], table["patient_id"]
    rows = []
    for rule, cut in cuts.items():
        estimates = metric_intervals(target, predicted.test, patient, cut, predicted.test_logit)
        for metric, estimate in estimates.items():
            row = {"rule": rule, "threshold": np.mean(cut), "metric": metric}
            rows.append(row | asdict(estimate))
    return pd.DataFrame(rows)


def _calibrated(
    fitting: Fitting, predicted: Predicted, undefined: dict[str, str]
) -> dict[str, Array]:
    kept = {RAW: predicted.test}
    for name in calibration.CALIBRATIONS:
        score = _or_why(undefined, f"calibration {name}", fitting.calibrate, predicted, name)
        if score is not None:
            kept[name] = score
    return kept


def _calibration_table(
    patients: Patients, calibrated: Mapping[str, Array], predicted: Predicted
) -> pd.DataFrame:
    rows, target = [], patients.target
    for name, score in calibrated.items():
        brier = interval(mean_statistic(patients, (score - target) ** 2))
        slope, intercept = calibration.slope_intercept(
            target, score, predicted.test_logit if name == RAW else None
        )
        row = {"method": name, **calibration.brier_decomposition(target, score)}
        row |= brier.columns("brier") | {"ece": expected_calibration_error(target, score)}
        rows.append(row | {"slope": slope, "intercept": intercept})
    return pd.DataFrame(rows)


def _compared(
    fitting: Fitting,
    models: Mapping[str, Predicted],
    patients: Patients,
    undefined: dict[str, str],
) -> pd.DataFrame | None:
    if len(models) < 2:
        return None
    cuts: dict[str, float | Array] = {}
    for name, predicted in models.items():
        what = f"threshold {YOUDEN} of {name}"
        cut = _or_why(undefined, what, fitting.threshold, predicted, "youden")
        cuts[name] = 0.5 if cut is None else cut
    return compare(patients, models, cuts)

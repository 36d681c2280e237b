"""Everything that can be said about predictions from arrays and tables, in one go.

Thresholds and calibration are fitted on the validation part. Where there is none, or it holds one
class only, they are cross-fitted by patient on the test part. What cannot be computed is left out
with its reason in `undefined`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TypeVar

import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.evaluation import calibration
from cardiomegaly.evaluation.comparison import compare
from cardiomegaly.evaluation.fitting import Cohort, Fitting, Predicted
from cardiomegaly.evaluation.label_audit import LabelAudit, audit_labels
from cardiomegaly.evaluation.metrics import (
    Array,
    Ints,
    binary_metrics,
    checked,
    expected_calibration_error,
    ranking,
)
from cardiomegaly.evaluation.prevalence import decision_curve, prevalence_table
from cardiomegaly.evaluation.shortcuts import Shortcuts, evaluate_shortcuts
from cardiomegaly.evaluation.subgroups import MINIMUM, Subgroups, evaluate_subgroups
from cardiomegaly.evaluation.uncertainty import (
    RESAMPLES,
    Draws,
    Estimate,
    delong_interval,
    draw_patients,
    error_draws,
    interval,
    ranking_draws,
    threshold_draws,
)

FIXED, YOUDEN, BEST_F1 = "fixed", "Youden", "largest F1"
RAW = "as given"
Found = TypeVar("Found")


@dataclass(frozen=True)
class Settings:
    """Wanted rates, the least images of a subgroup, resamples and seed of the bootstrap."""

    sensitivity: float = 0.90
    specificity: float = 0.90
    minimum: int = MINIMUM
    resamples: int = RESAMPLES
    seed: int = 0


@dataclass
class Assessment:
    """The results; tables as their modules describe them, None where `undefined` says why.

    `thresholds` has a row a rule and metric: rule, threshold, metric, value, low, high. `shared` is
    the rule of the threshold that prevalence, subgroups and comparison use.
    """

    fitted_on: str
    thresholds: pd.DataFrame
    shared: str
    delong: Estimate
    calibration: pd.DataFrame
    reliability: pd.DataFrame
    prevalence: pd.DataFrame
    decision: pd.DataFrame | None
    subgroups: Subgroups
    shortcuts: Shortcuts | None
    audit: LabelAudit | None
    comparison: pd.DataFrame | None
    undefined: dict[str, str] = field(default_factory=dict)


def assess(cohort: Cohort, models: Mapping[str, Predicted], settings: Settings) -> Assessment:
    """Judge the first model in every way and compare it with the others.

    Raises:
        UserError: as `metrics.checked`; a wanted rate outside [0, 1]; fewer than one resample.
    """
    for predicted in models.values():
        checked(cohort.test["target"], predicted.test)
        ranking(predicted.test, predicted.test_logit)
    undefined: dict[str, str] = {}
    predicted, fitting = next(iter(models.values())), Fitting(cohort, settings.seed)
    table, target = cohort.test.assign(probability=predicted.test), fitting.target
    if predicted.test_logit is not None:
        table["logit"] = predicted.test_logit
    score = ranking(predicted.test, predicted.test_logit)
    draws = draw_patients(target, fitting.patient, settings.resamples, settings.seed)
    cuts = _cuts(fitting, predicted, settings, undefined)
    shared = YOUDEN if YOUDEN in cuts else FIXED
    calibrated = _calibrated(fitting, predicted, undefined)
    best = calibrated.get(calibration.PLATT, predicted.test)
    return Assessment(
        fitted_on=fitting.where,
        thresholds=_threshold_table(target, predicted, draws, cuts),
        shared=shared,
        delong=delong_interval(target, score),
        calibration=_calibration_table(target, calibrated, predicted, draws),
        reliability=pd.concat(
            [
                calibration.reliability_table(target, score).assign(method=name)
                for name, score in calibrated.items()
            ],
            ignore_index=True,
        ),
        prevalence=prevalence_table(target, predicted.test, draws, cuts[shared]),
        decision=_or_why(undefined, "decision curve", lambda: decision_curve(target, best)),
        subgroups=evaluate_subgroups(table, draws, cuts[shared], settings.minimum),
        shortcuts=_or_why(
            undefined,
            "shortcuts",
            lambda: evaluate_shortcuts(table, draws, cohort.train, settings.seed),
        ),
        audit=_audit(cohort, table.assign(called=predicted.test >= cuts[shared]), undefined),
        comparison=_compared(fitting, models, draws, undefined) if len(models) > 1 else None,
        undefined=undefined,
    )


def _or_why(undefined: dict[str, str], what: str, compute: Callable[[], Found]) -> Found | None:
    """Compute, or keep the reason why these predictions do not allow it."""
    try:
        return compute()
    except UserError as reason:
        undefined[what] = str(reason)
        return None


def _cuts(
    fitting: Fitting, predicted: Predicted, settings: Settings, undefined: dict[str, str]
) -> dict[str, float | Array]:
    for name in ("sensitivity", "specificity"):
        if not 0 <= getattr(settings, name) <= 1:
            raise UserError(
                f"{name}: a number from 0 to 1 is allowed, got {getattr(settings, name):g}"
            )
    rules: dict[str, tuple[str, float | None]] = {YOUDEN: ("youden", None), BEST_F1: ("f1", None)}
    rules[f"sensitivity {settings.sensitivity:g}"] = ("sensitivity", settings.sensitivity)
    rules[f"specificity {settings.specificity:g}"] = ("specificity", settings.specificity)
    cuts: dict[str, float | Array] = {FIXED: 0.5}
    for name, rule in rules.items():
        found = _or_why(
            undefined, f"threshold {name}", partial(fitting.threshold, predicted, *rule)
        )
        if found is not None:
            cuts[name] = found
    return cuts


def _threshold_table(
    target: Ints, predicted: Predicted, draws: Draws, cuts: Mapping[str, float | Array]
) -> pd.DataFrame:
    probability, logit = predicted.test, predicted.test_logit
    whole = ranking_draws(draws, target, ranking(probability, logit))
    whole |= error_draws(draws, target, probability)
    rows = []
    for rule, cut in cuts.items():
        values = binary_metrics(target, probability, cut, logit)
        for metric, drawn in (threshold_draws(draws, target, probability, cut) | whole).items():
            found = interval(values[metric], drawn)
            row = {"rule": rule, "threshold": values["threshold"], "metric": metric}
            rows.append(row | asdict(found))
    return pd.DataFrame(rows)


def _calibrated(
    fitting: Fitting, predicted: Predicted, undefined: dict[str, str]
) -> dict[str, Array]:
    kept = {RAW: predicted.test}
    for name in calibration.CALIBRATIONS:
        found = _or_why(
            undefined, f"calibration {name}", partial(fitting.calibrate, predicted, name)
        )
        if found is not None:
            kept[name] = found
    return kept


def _calibration_table(
    target: Ints, calibrated: Mapping[str, Array], predicted: Predicted, draws: Draws
) -> pd.DataFrame:
    rows = []
    for name, score in calibrated.items():
        parts, drawn = (
            calibration.brier_decomposition(target, score),
            error_draws(draws, target, score),
        )
        ece = expected_calibration_error(target, score)
        slope, intercept = calibration.slope_intercept(
            target, score, predicted.test_logit if name == RAW else None
        )
        row: dict[str, float | str] = {"method": name, **asdict(parts), "ece": ece}
        for metric, value in (("brier", parts.brier), ("ece", ece)):
            found = interval(value, drawn[metric])
            row |= {f"{metric}_low": found.low, f"{metric}_high": found.high}
        rows.append(row | {"slope": slope, "intercept": intercept})
    return pd.DataFrame(rows)


def _audit(cohort: Cohort, table: pd.DataFrame, undefined: dict[str, str]) -> LabelAudit | None:
    if cohort.labels is None:
        undefined["label audit"] = "the label file is not at hand, so the order in time is unknown"
        return None
    return audit_labels(cohort.labels, table)


def _compared(
    fitting: Fitting, models: Mapping[str, Predicted], draws: Draws, undefined: dict[str, str]
) -> pd.DataFrame:
    cuts: dict[str, float | Array] = {}
    for name, predicted in models.items():
        what = f"threshold {YOUDEN} of {name}"
        found = _or_why(undefined, what, partial(fitting.threshold, predicted, "youden"))
        cuts[name] = 0.5 if found is None else found
    return compare(fitting.target, models, draws, cuts)

"""The tables of an evaluation as a reader sees them: rounded, with intervals, named in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cardiomegaly.evaluation.assessment import Assessment
from cardiomegaly.evaluation.settings import Settings
from cardiomegaly.reports.localise import Localisation
from cardiomegaly.reports.pages import (
    METRICS,
    RANKING,
    THRESHOLDED,
    interval_column,
)
from cardiomegaly.reports.subjects import Subject

RATES = ("auroc", "average_precision", "sensitivity", "specificity")
BRIER_PARTS = ["reliability", "resolution", "uncertainty", "within"]


def reader_tables(
    subject: Subject, assessment: Assessment, localisation: Localisation, settings: Settings
) -> dict[str, Any]:
    """Every table of the page by the name that the template has for it; what is undefined lacks."""
    origin = subject.origin | {"seed of the folds": str(settings.seed)}
    tables: dict[str, Any] = {
        "ranking": _ranking(assessment),
        "by_threshold": _by_threshold(assessment.thresholds),
        "calibration": _calibration(assessment.calibration),
        "prevalence": _prevalence(assessment.prevalence),
        "localisation": {
            f"{part}: {rows['n_images'].iloc[0]} images": _by_method(rows)
            for part, rows in localisation.summary.groupby("part")
        },
        "origin": pd.DataFrame({"": list(origin.values())}, index=list(origin)),
    }
    if assessment.comparison is not None:
        tables["comparison"] = _comparison(assessment.comparison)
    if len(assessment.subgroups.table):
        tables["subgroups"] = _subgroups(assessment.subgroups.table)
    if len(assessment.subgroups.gaps):
        tables["gaps"] = _gaps(assessment.subgroups.gaps)
    if assessment.shortcuts is not None:
        tables["shortcuts"] = _shortcuts(assessment.shortcuts.table)
        negatives = assessment.shortcuts.negatives
        if len(negatives):
            auroc = interval_column(negatives, "auroc")
            tables["negatives"] = negatives[["negatives", "n"]].assign(AUROC=auroc)
    if assessment.audit is not None:
        tables["contradictions"] = _contradictions(assessment.audit.contradictions)
    return tables


def _ranking(assessment: Assessment) -> pd.DataFrame:
    rows = assessment.thresholds
    rows = rows[rows["rule"] == rows["rule"].iloc[0]].set_index("metric").loc[list(RANKING)]
    return pd.DataFrame({"whole test part": interval_column(rows, "value")}, list(RANKING.values()))


def _by_threshold(rows: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for rule, group in rows.groupby("rule", sort=False):
        group = group.set_index("metric").loc[list(THRESHOLDED)]
        columns[f"{rule} {group['threshold'].iloc[0]:.3f}"] = interval_column(group, "value")
    return pd.DataFrame(columns, list(THRESHOLDED.values()))


def _comparison(rows: pd.DataFrame) -> pd.DataFrame:
    table = rows[["first", "second"]].assign(metric=rows["metric"].map(METRICS))
    table["difference"] = interval_column(rows, "difference")
    table["p"] = ["< 0.001" if value < 0.001 else value for value in rows["p_holm"]]
    return table


def _calibration(rows: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({"Brier score": interval_column(rows, "brier", "brier_")})
    table[BRIER_PARTS] = rows[BRIER_PARTS].map("{:.4f}".format)
    return table.join(rows[["ece", "slope", "intercept"]].rename(columns={"ece": "ECE"})).set_axis(
        list(rows["method"])
    )


def _prevalence(rows: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({"prevalence": [f"{share:.0%}" for share in rows["prevalence"]]})
    for name in ("ppv", "npv"):
        table[METRICS[name]] = interval_column(rows, name, f"{name}_")
    return table


def _subgroups(rows: pd.DataFrame) -> pd.DataFrame:
    table = rows[["n", "n_positive"]].rename(columns={"n_positive": "positive"})
    for name in RATES:
        if name in rows:
            table[METRICS[name]] = interval_column(rows, name, f"{name}_")
    return table.set_axis(rows["dimension"] + ": " + rows["group"])


def _gaps(rows: pd.DataFrame) -> pd.DataFrame:
    table = rows[["lowest", "highest"]].assign(gap=interval_column(rows, "gap"))
    table["may be chance"] = ~(rows["low"] > 0)
    return table.set_axis(rows["dimension"] + ": " + rows["metric"].map(METRICS))


def _shortcuts(rows: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({"AUROC of metadata": interval_column(rows, "auroc")})
    table["explained"] = rows["explained"]
    table["residual AUROC"] = interval_column(rows, "residual_auroc", "residual_")
    return table.set_axis(list(rows["source"]))


def _contradictions(rows: pd.DataFrame) -> pd.DataFrame:
    table = rows[["target", "probability", "before", "after", "contradicts_neighbours"]]
    table = table.astype({"before": "Int64", "after": "Int64"}).set_axis(list(rows["image"]))
    return table.rename(columns={"contradicts_neighbours": "contradicts both"})


def _by_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Metrics by method, the lift beside each figure that has one."""
    cells = interval_column(rows, "value")
    if "lift" in rows:
        lifts = zip(cells, rows["lift"], interval_column(rows, "lift", "lift_"), strict=True)
        cells = [
            f"{cell}, lift {text}" if np.isfinite(lift) else cell for cell, lift, text in lifts
        ]
    names = rows["metric"].str.replace("iou", "IoU").str.replace("iobb", "IoBB")
    wide = rows.assign(text=cells, metric=names).pivot_table(
        index="metric", columns="method", values="text", sort=False, aggfunc="first"
    )
    return wide.rename_axis(index=None, columns=None)

"""The report of an evaluation: evaluation.json, CSV tables, plots and one evaluation.html."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly.evaluation.uncertainty import LEVEL
from cardiomegaly.reports import evaluation_plots as draw
from cardiomegaly.reports.evaluation_content import (
    AT_ALL,
    THRESHOLDED,
    Evaluation,
    as_dict,
    shown,
    tables,
    undefined,
    with_interval,
)
from cardiomegaly.reports.evaluation_findings import (
    add_audit,
    add_localisation,
    add_origin,
    add_shortcuts,
    add_subgroups,
)
from cardiomegaly.reports.pages import Page
from cardiomegaly.reports.plots import plot_precision_recall, plot_roc
from cardiomegaly.training.record import write_csv, write_json


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path:
    """Write evaluation.json, CSV tables, plots/ and evaluation.html; return the page's path."""
    for name, table in tables(evaluation).items():
        write_csv(folder / f"{name}.csv", table)
    write_json(folder / "evaluation.json", as_dict(evaluation))
    build_page(evaluation, folder / "plots").write(folder / "evaluation.html")
    return folder / "evaluation.html"


def build_page(evaluation: Evaluation, plots: Path) -> Page:
    """Draw the plots and set the page from top to bottom."""
    test = evaluation.cohort.test
    page = Page(
        f"Evaluation of {evaluation.name}",
        f"{len(test):,} images of {test['patient_id'].nunique():,} patients, "
        f"{int(test['target'].sum()):,} labelled cardiomegaly ({test['target'].mean():.1%})",
    )
    for warning in evaluation.warnings:
        page.warning(warning)
    sections = (
        _metrics, _comparison, _calibration, _prevalence, add_subgroups, add_shortcuts, add_audit,
        add_localisation, add_origin,
    )  # fmt: skip
    for section in sections:
        section(page, evaluation, plots)
    return page


def _metrics(page: Page, evaluation: Evaluation, plots: Path) -> None:
    found, test = evaluation.assessment, evaluation.cohort.test
    page.heading("Metrics")
    page.text(
        f"Intervals of {LEVEL:.0%} by bootstrap over patients, {evaluation.settings.resamples:,} "
        "resamples, patients with and without a positive image drawn apart. Thresholds other than "
        f"0.5 were fitted on {found.fitted_on}; an image is called at or above the threshold."
    )
    rows = found.thresholds.assign(shown=shown(found.thresholds, "value"))
    first = rows[rows["rule"] == rows["rule"].iloc[0]].set_index("metric")
    whole = pd.DataFrame({"whole test part": [first["shown"][name] for name in AT_ALL]})
    whole.index = pd.Index(list(AT_ALL.values()))
    delong = found.delong
    whole.loc["AUROC, interval by DeLong"] = with_interval(delong.value, delong.low, delong.high)
    page.table(
        whole, "DeLong's interval takes images for independent: read it beside the patients'."
    )
    cuts = rows.groupby("rule", sort=False)["threshold"].first()
    wide = rows.pivot_table(index="metric", columns="rule", values="shown", aggfunc="first")
    wide = wide.loc[list(THRESHOLDED), list(cuts.index)].set_axis(list(THRESHOLDED.values()))
    wide.columns = pd.Index([f"{rule}\n{cut:.3f}" for rule, cut in cuts.items()])
    page.table(wide, "At each threshold; under cross-fitting its mean over the folds is named.")
    undefined(page, evaluation, "threshold")
    curves = {
        name: (test["target"], predicted.test) for name, predicted in evaluation.models.items()
    }
    mark = float(cuts[found.shared]) if len(curves) == 1 else None
    plot_roc(curves, plots / "roc.png", mark)
    plot_precision_recall(curves, plots / "precision_recall.png", mark)
    dot = f"; the dot marks the {found.shared} threshold" if mark is not None else ""
    page.figure(plots / "roc.png", f"ROC{dot}.")
    page.figure(plots / "precision_recall.png", "Precision and recall; dotted: prevalence.")


def _comparison(page: Page, evaluation: Evaluation, plots: Path) -> None:
    table = evaluation.assessment.comparison
    if table is None:
        return
    page.heading("Comparison on the same images")
    page.text(
        "Differences are first minus second, each model at its own threshold (Youden's), with "
        "paired patient resamples. p-values are corrected by Holm for the number of pairs."
    )
    rows = table.assign(label=table["first"] + " - " + table["second"])
    neat = rows[["first", "second"]].assign(metric=rows["metric"].map(THRESHOLDED | AT_ALL))
    neat["difference"] = shown(rows, "difference")
    neat["p, bootstrap"] = [_p(value) for value in rows["p_bootstrap_holm"]]
    neat["p, DeLong"] = [_p(value) for value in rows["p_delong_holm"]]
    page.table(neat)
    auroc = rows[rows["metric"] == "auroc"].assign(value=lambda part: part["difference"])
    draw.plot_forest(auroc, plots / "comparison.png", "difference in AUROC", 0.0)
    page.figure(plots / "comparison.png", "Paired difference in AUROC with its 95% interval.")


def _p(value: float) -> str | None:
    if np.isnan(value):
        return None
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _calibration(page: Page, evaluation: Evaluation, plots: Path) -> None:
    found = evaluation.assessment
    table = found.calibration
    page.heading("Calibration")
    val = evaluation.cohort.val_target
    share = f", at its own prevalence of {np.mean(val):.1%}" if val is not None and len(val) else ""
    page.text(f"Platt's line and the isotonic staircase were fitted on {found.fitted_on}{share}.")
    neat = pd.DataFrame({"Brier score": shown(table, "brier", "brier_")})
    for name in ("reliability", "resolution", "uncertainty", "within"):
        neat[name] = [f"{value:.4f}" for value in table[name]]
    neat["ECE"] = shown(table, "ece", "ece_")
    neat["slope"], neat["intercept"] = table["slope"], table["intercept"]
    page.table(
        neat.set_axis(list(table["method"])),
        "Brier = reliability - resolution + uncertainty + spread within bins; ECE over 10 bins of "
        "equal mass. A calibrated model has slope 1 and intercept 0.",
    )
    undefined(page, evaluation, "calibration")
    draw.plot_reliability(found.reliability, plots / "reliability.png")
    page.figure(plots / "reliability.png", "Reliability by bins of equal mass, Wilson intervals.")


def _prevalence(page: Page, evaluation: Evaluation, plots: Path) -> None:
    found = evaluation.assessment
    page.heading("Other prevalences")
    page.text(
        f"At the {found.shared} threshold, were the disease rarer or more common and patients "
        "otherwise alike. Net benefit counts a false alarm at the odds of the risk at which one "
        "would act."
    )
    neat = pd.DataFrame(
        {"prevalence": [f"{share:.0%}" for share in found.prevalence["prevalence"]]}
    )
    for name in ("ppv", "npv"):
        neat[name.upper()] = shown(found.prevalence, name, f"{name}_")
    page.table(neat)
    draw.plot_prevalence(found.prevalence, plots / "prevalence.png")
    page.figure(plots / "prevalence.png", "Predictive values over prevalence.")
    undefined(page, evaluation, "decision curve")
    if found.decision is not None:
        draw.plot_decision(found.decision, plots / "decision_curve.png")
        page.figure(plots / "decision_curve.png", "Decision curves of the calibrated model.")

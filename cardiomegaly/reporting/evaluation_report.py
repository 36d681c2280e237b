"""The report of an evaluation: evaluation.json, CSV tables, plots and one evaluation.html."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly.evaluation.uncertainty import LEVEL
from cardiomegaly.reporting import evaluation_plots as draw
from cardiomegaly.reporting.evaluation_content import Evaluation, as_dict, tables
from cardiomegaly.reporting.html import Page
from cardiomegaly.reporting.plots import plot_image_sheet, plot_precision_recall, plot_roc
from cardiomegaly.reporting.run_folder import write_csv, write_json

THRESHOLDED = {
    "sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV",
    "accuracy": "accuracy", "f1": "F1 (cardiomegaly)", "f1_weighted": "F1 (weighted)",
    "f1_macro": "F1 (macro)",
}  # fmt: skip
AT_ALL = {
    "auroc": "AUROC", "average_precision": "average precision", "brier": "Brier score", "ece": "ECE"
}  # fmt: skip
RATES = ("auroc", "average_precision", "sensitivity", "specificity")


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
        _metrics, _comparison, _calibration, _prevalence, _subgroups, _shortcuts, _audit,
        _localisation, _origin,
    )  # fmt: skip
    for section in sections:
        section(page, evaluation, plots)
    return page


def shown(table: pd.DataFrame, value: str, prefix: str = "", gap: str = " ") -> list[str]:
    """Every row's figure with its interval, from the columns value, {prefix}low, {prefix}high.

    A figure that is not defined is called "undefined"; `gap` stands before the interval.
    """
    columns = zip(table[value], table[f"{prefix}low"], table[f"{prefix}high"], strict=True)
    return [_with_interval(*row, gap) for row in columns]


def _with_interval(value: float, low: float, high: float, gap: str = " ") -> str:
    if not np.isfinite(value):
        return "undefined"
    return f"{value:.3f}{gap}({low:.3f} to {high:.3f})" if np.isfinite(low) else f"{value:.3f}"


def _undefined(page: Page, evaluation: Evaluation, *what: str) -> None:
    for name, reason in evaluation.assessment.undefined.items():
        if name.startswith(what):
            page.text(f"Undefined: {name}. {reason[:1].upper()}{reason[1:]}.")


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
    whole.loc["AUROC, interval by DeLong"] = _with_interval(delong.value, delong.low, delong.high)
    page.table(
        whole, "DeLong's interval takes images for independent: read it beside the patients'."
    )
    cuts = rows.groupby("rule", sort=False)["threshold"].first()
    wide = rows.pivot_table(index="metric", columns="rule", values="shown", aggfunc="first")
    wide = wide.loc[list(THRESHOLDED), list(cuts.index)].set_axis(list(THRESHOLDED.values()))
    wide.columns = pd.Index([f"{rule}\n{cut:.3f}" for rule, cut in cuts.items()])
    page.table(wide, "At each threshold; under cross-fitting its mean over the folds is named.")
    _undefined(page, evaluation, "threshold")
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
    _undefined(page, evaluation, "calibration")
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
    _undefined(page, evaluation, "decision curve")
    if found.decision is not None:
        draw.plot_decision(found.decision, plots / "decision_curve.png")
        page.figure(plots / "decision_curve.png", "Decision curves of the calibrated model.")


def _subgroups(page: Page, evaluation: Evaluation, plots: Path) -> None:
    found, settings = evaluation.assessment, evaluation.settings
    table = found.subgroups.table
    page.heading("Subgroups")
    page.text(
        f"At the {found.shared} threshold for all. No figures where a group has fewer than "
        f"{settings.minimum} positive or negative images. Gaps are between the two groups that lie "
        "farthest apart, so among several groups their intervals are too narrow."
    )
    if table.empty:
        return page.text("The predictions come without any column to group by.")
    neat = table[["dimension", "group", "n", "n_positive"]].rename(
        columns={"n_positive": "positive"}
    )
    for name in RATES:
        if name in table:
            neat[(THRESHOLDED | AT_ALL)[name]] = shown(table, name, f"{name}_", "\n")
    page.table(neat.assign(note=table["note"]))
    page.items(found.subgroups.words or ["No two groups have figures to compare."])
    if "auroc" not in table:
        return None
    rows = table.assign(
        label=table["dimension"] + ": " + table["group"], kind=table["dimension"],
        value=table["auroc"], low=table["auroc_low"], high=table["auroc_high"],
    )  # fmt: skip
    draw.plot_forest(rows, plots / "subgroups.png", "AUROC", found.delong.value, "all images")
    return page.figure(plots / "subgroups.png", "AUROC by subgroup with its 95% interval.")


def _shortcuts(page: Page, evaluation: Evaluation, plots: Path) -> None:
    found = evaluation.assessment
    page.heading("What can be had without the heart")
    _undefined(page, evaluation, "shortcuts")
    if found.shortcuts is None:
        return
    table = found.shortcuts.table
    page.text(
        "A model that sees metadata only, fitted on "
        f"{found.shortcuts.fitted_on}. Explained: the share (R2) of the network's logit that such "
        "a model predicts on patients held out. Residual AUROC: what the rest of the logit still "
        "achieves; 0.5 means that the network knows nothing beyond the metadata."
    )
    for words in found.shortcuts.words:
        page.warning(words)
    neat = pd.DataFrame({"AUROC of metadata": shown(table, "auroc")})
    neat["explained"] = table["explained"]
    neat["residual AUROC"] = shown(table, "residual_auroc", "residual_")
    page.table(neat.set_axis(list(table["source"])))
    rows = table.assign(label=table["source"], value=table["auroc"])
    draw.plot_forest(
        rows, plots / "shortcuts.png", "AUROC of metadata alone", found.delong.value, "network"
    )
    page.figure(plots / "shortcuts.png", "Labels ranked without the image.")
    apart = found.shortcuts.negatives
    if len(apart):
        neat = apart[["negatives", "n"]].assign(AUROC=shown(apart, "auroc"))
        page.table(neat, "Positives against two kinds of negative images.")


def _audit(page: Page, evaluation: Evaluation, plots: Path) -> None:
    audit = evaluation.assessment.audit
    page.heading("Label audit")
    _undefined(page, evaluation, "label audit")
    if audit is None:
        return
    counts = audit.counts
    page.items(
        [
            f"By patient: of {counts['patients_several']:,} patients with several images, "
            f"{counts['patients_both']:,} have both labels and {counts['patients_flip']:,} change "
            "back and forth (positive, negative, positive or the reverse).",
            f"By image: of {counts['images_between']:,} images with one before and one after, "
            f"{counts['images_contradicting']:,} contradict both.",
        ]
    )
    columns = ["image", "target", "probability", "before", "after", "contradicts_neighbours"]
    neat = audit.contradictions[columns].assign(
        before=audit.contradictions["before"].astype("Int64"),
        after=audit.contradictions["after"].astype("Int64"),
    )
    page.table(neat, "The predictions that contradict their label most confidently.")
    if evaluation.looked.contradictions is not None:
        plot_image_sheet(*evaluation.looked.contradictions, plots / "contradictions.png")
        page.figure(plots / "contradictions.png", "Worth a second look: label and probability.")


def _localisation(page: Page, evaluation: Evaluation, plots: Path) -> None:
    looked = evaluation.looked
    page.heading("Localisation")
    for note in looked.notes:
        page.text(note)
    if looked.localisation is None:
        return
    page.text(
        "Against NIH's heart boxes, beside three boxes that do not see the image: the mean of the "
        "other boxes, that box at the image's centre, and that box at half its size. The lift is "
        "over the best of them."
    )
    for part, table in looked.localisation.groupby("part", sort=False):
        page.heading(f"{part}: {table['n_images'].iloc[0]} images", 3)
        if part == "training":
            page.warning("The network was trained on these images.")
        name = f"localisation_{str(part).replace(' ', '_')}.png"
        page.table(_localisation_table(table))
        draw.plot_overlaps(table, plots / name)
        page.figure(plots / name, "Share of images over each overlap; dashed: blind boxes.")
    for place, sheet in enumerate(looked.sheets, 1):
        path = plots / f"maps_{place}.png"
        draw.plot_box_sheet(sheet.images, sheet.maps, sheet.boxes, sheet.titles, path)
        page.figure(path, f"{sheet.method}, from its best image to its worst; yellow: NIH's box.")


def _localisation_table(table: pd.DataFrame) -> pd.DataFrame:
    """Metrics by method, the lift below each figure that has one."""
    cells = shown(table, "value")
    if "lift" in table:
        lifts = zip(cells, table["lift"], shown(table, "lift", "lift_"), strict=True)
        cells = [
            f"{cell}\nlift {text}" if np.isfinite(lift) else cell for cell, lift, text in lifts
        ]
    wide = table.assign(shown=cells).pivot_table(
        index="metric", columns="method", values="shown", sort=False, aggfunc="first"
    )
    return wide.rename_axis(index=None, columns=None)


def _origin(page: Page, evaluation: Evaluation, plots: Path) -> None:
    page.heading("Where the figures come from")
    settings = evaluation.settings
    lines = evaluation.origin | {"seed of the bootstrap": str(settings.seed)}
    page.table(pd.DataFrame({"": list(lines.values())}, index=list(lines)))

"""Writes an evaluation: evaluation.json, a CSV file a table, plots, evaluation.md and .html."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.special import logit

from cardiomegaly import UserError
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.assessment import Assessment, Settings
from cardiomegaly.evaluation.metrics import ranking
from cardiomegaly.reports import evaluation_plots as draw
from cardiomegaly.reports.evaluation_tables import reader_tables
from cardiomegaly.reports.localise import Localisation
from cardiomegaly.reports.pages import write_report
from cardiomegaly.reports.plots import plot_image_sheet, plot_precision_recall, plot_roc
from cardiomegaly.reports.subjects import Subject
from cardiomegaly.reports.summary import evaluation_facts
from cardiomegaly.training.files import write_csv, write_json

SHEET_SIZE = 192  # pixels of a contradiction's picture
LONG_TABLES = ("reliability", "decision_curve", "localisation_images")  # as CSV alone


def write_evaluation(
    folder: Path,
    subject: Subject,
    assessment: Assessment,
    localisation: Localisation,
    settings: Settings,
    images: ImageFolder | None,
) -> list[str]:
    """Write everything about an evaluation into a folder.

    Returns:
        The five sentences that say it in short.
    """
    tables = _tables(assessment, localisation)
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    _draw(subject, assessment, localisation, folder / "plots")
    values = evaluation_facts(subject, assessment, localisation) | {
        "subject": subject,
        "assessment": assessment,
        "localisation": localisation,
        "settings": settings,
        "tables": reader_tables(subject, assessment, localisation, settings),
        "undefined": lambda part: [
            f"Undefined: {name}. {reason[:1].upper()}{reason[1:]}."
            for name, reason in assessment.undefined.items()
            if name.startswith(part)
        ],
        "contradictions_drawn": _draw_contradictions(subject, assessment, images, folder / "plots"),
    }
    page = folder / "evaluation.html"
    summary = write_report("evaluation.md", page.with_suffix(".md"), page, values)
    known = _as_dict(subject, assessment, localisation, settings) | {"summary": summary}
    short = {name: table for name, table in tables.items() if name not in LONG_TABLES}
    known["tables"] = {name: table.to_dict("records") for name, table in short.items()}
    write_json(folder / "evaluation.json", known)
    return summary


def _tables(assessment: Assessment, localisation: Localisation) -> dict[str, pd.DataFrame]:
    """Every table that there is, by the name of its file."""
    shortcuts, audit = assessment.shortcuts, assessment.audit
    tables = {
        "thresholds": assessment.thresholds,
        "comparison": assessment.comparison,
        "calibration": assessment.calibration,
        "reliability": assessment.reliability,
        "prevalence": assessment.prevalence,
        "decision_curve": assessment.decision,
        "subgroups": assessment.subgroups.table,
        "subgroup_gaps": assessment.subgroups.gaps,
        "shortcuts": shortcuts.table if shortcuts else None,
        "negatives_apart": shortcuts.negatives if shortcuts else None,
        "label_contradictions": audit.contradictions if audit else None,
        "localisation": localisation.summary,
        "localisation_images": localisation.images,
    }
    return {name: table for name, table in tables.items() if table is not None and len(table)}


def _as_dict(
    subject: Subject, assessment: Assessment, localisation: Localisation, settings: Settings
) -> dict[str, Any]:
    """What the tables do not hold, as plain values; undefined figures become null."""
    test, shortcuts, audit = subject.cohort.test, assessment.shortcuts, assessment.audit
    return {
        "name": subject.name,
        "origin": subject.origin,
        "warnings": subject.warnings,
        "settings": asdict(settings),
        "n": len(test),
        "n_patients": int(test["patient_id"].nunique()),
        "n_positive": int(test["target"].sum()),
        "fitted_on": assessment.fitted_on,
        "shared_threshold": assessment.shared,
        "auroc_delong": asdict(assessment.delong),
        "label_audit": audit.counts if audit else None,
        "subgroup_gaps_in_words": assessment.subgroups.words,
        "shortcuts_in_words": shortcuts.words if shortcuts else None,
        "metadata_model_fitted_on": shortcuts.fitted_on if shortcuts else None,
        "undefined": assessment.undefined,
        "notes": localisation.notes,
    }


def _draw(
    subject: Subject, assessment: Assessment, localisation: Localisation, plots: Path
) -> None:
    """Draw what the template names."""
    target, models = subject.cohort.test["target"], subject.models
    curves = {
        name: (target, ranking(model.test, model.test_logit)) for name, model in models.items()
    }
    rows = assessment.thresholds
    cut = float(rows.loc[rows["rule"] == assessment.shared, "threshold"].iloc[0])
    if next(iter(models.values())).test_logit is not None:
        cut = float(logit(cut))
    mark = cut if len(curves) == 1 else None
    plot_roc(curves, plots / "roc.png", mark)
    plot_precision_recall(curves, plots / "precision_recall.png", mark)
    draw.plot_reliability(assessment.reliability, plots / "reliability.png")
    draw.plot_prevalence(assessment.prevalence, plots / "prevalence.png")
    auroc, forest = assessment.delong.value, draw.plot_forest
    if assessment.decision is not None:
        draw.plot_decision(assessment.decision, plots / "decision_curve.png")
    if assessment.comparison is not None:
        rows = assessment.comparison[assessment.comparison["metric"] == "auroc"]
        rows = rows.assign(label=rows["first"] + " - " + rows["second"], value=rows["difference"])
        forest(rows, plots / "comparison.png", "difference in AUROC", 0.0)
    if "auroc" in assessment.subgroups.table:
        rows = assessment.subgroups.table
        rows = rows.assign(
            label=rows["dimension"] + ": " + rows["group"], kind=rows["dimension"],
            value=rows["auroc"], low=rows["auroc_low"], high=rows["auroc_high"],
        )  # fmt: skip
        forest(rows, plots / "subgroups.png", "AUROC", auroc, "all images")
    if assessment.shortcuts is not None:
        rows = assessment.shortcuts.table
        rows = rows.assign(label=rows["source"], value=rows["auroc"])
        forest(rows, plots / "shortcuts.png", "AUROC of metadata alone", auroc, "network")
    for place, (_, rows) in enumerate(localisation.summary.groupby("part"), 1):
        draw.plot_overlaps(rows, plots / f"localisation_{place}.png")
    for place, sheet in enumerate(localisation.sheets, 1):
        draw.plot_box_sheet(sheet, plots / f"maps_{place}.png")


def _draw_contradictions(
    subject: Subject, assessment: Assessment, images: ImageFolder | None, plots: Path
) -> bool:
    """Draw the most confident contradictions whose images are there; False if there are none."""
    if assessment.audit is None or images is None:
        return False
    rows = assessment.audit.contradictions
    rows = rows[[images.has(image) for image in rows["image"]]]
    if rows.empty:
        return False
    try:
        pixels = images.pixels(rows["image"].tolist(), SHEET_SIZE)
    except UserError as error:
        subject.warnings.append(f"Contradictions are listed without pictures: {error}.")
        return False
    titles = [f"label {row.target}, p {row.probability:.2f}" for row in rows.itertuples()]
    plot_image_sheet(pixels, titles, plots / "contradictions.png")
    return True

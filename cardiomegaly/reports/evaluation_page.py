"""Writes an evaluation: evaluation.json, a CSV file a table, plots, evaluation.md and .html.

What is read of the results of `evaluation` is read here and in templates/evaluation.md.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd
from scipy.special import logit

from cardiomegaly.data.boxes import HEART
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.assessment import RAW, Assessment
from cardiomegaly.evaluation.metrics import ranking
from cardiomegaly.evaluation.settings import Settings
from cardiomegaly.reports import evaluation_plots as plot
from cardiomegaly.reports.evaluation_inputs import Inputs
from cardiomegaly.reports.localise import Localisation
from cardiomegaly.reports.markdown import METRICS, RANKING, THRESHOLDED, column
from cardiomegaly.reports.pages import Report, write_report
from cardiomegaly.reports.plots import plot_forest, plot_ranking
from cardiomegaly.reports.run_description import kinds_of, smoke_reasons
from cardiomegaly.training.files import write_csv, write_json

LONG_TABLES = ("reliability", "decision_curve", "localisation_images")  # as CSV alone


def write_evaluation(
    folder: Path,
    inputs: Inputs,
    assessment: Assessment,
    localisation: Localisation,
    settings: Settings,
    images: ImageFolder | None,
) -> Report:
    """Write everything about an evaluation into a folder."""
    plots, tables = folder / "plots", _tables(inputs, assessment, localisation)
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    _draw(inputs, assessment, plots)
    rows, test = assessment.thresholds, inputs.cohort.test
    rows = rows[rows["rule"] == assessment.shared]
    ranked = _by(assessment.thresholds.drop_duplicates("metric"), RANKING, "rule")
    ranked = ranked.set_axis(["whole test part"], axis=1)
    trained = inputs.images[inputs.images["part"] == "train"]
    sizes = {
        "n": len(test),
        "n_patients": int(test["patient_id"].nunique()),
        "n_positive": int(test["target"].sum()),
    }
    values = sizes | {
        "METRICS": METRICS,
        "HEART": HEART,
        "inputs": inputs,
        "assessment": assessment,
        "settings": settings,
        "localisation": localisation,
        "kinds": kinds_of(inputs.runs),
        "smoke": ", ".join(smoke_reasons(*inputs.runs)),
        "n_train": len(trained),
        "n_train_patients": trained["patient_id"].nunique(),
        "threshold": rows["threshold"].iloc[0],
        "figures": dict(zip(rows["metric"], column(rows, "value low high"), strict=True)),
        "ece": assessment.calibration.set_index("method").loc[RAW, "ece"],
        "ranking": ranked,
        "transfer": _transfer(inputs),
        "by_threshold": _by(_named_rules(assessment.thresholds), THRESHOLDED, "rule"),
        "overlaps": _draw_overlaps(localisation, plots),
        "sheets": plot.draw_maps(localisation, images, plots),
        "contradictions": plot.draw_contradictions(assessment, images, plots),
    }
    page = folder / "evaluation.html"
    report = write_report("evaluation.md", page.with_suffix(".md"), page, values)
    shortcuts, audit = assessment.shortcuts, assessment.audit
    short = {name: table for name, table in tables.items() if name not in LONG_TABLES}
    known = sizes | {
        "name": inputs.name,
        "origin": inputs.origin,
        "warnings": report.warnings,
        "settings": asdict(settings),
        "fitted_on": assessment.fitted_on,
        "shared_threshold": assessment.shared,
        "label_audit": audit.counts if audit else None,
        "shortcuts_suspected": shortcuts.suspected if shortcuts else None,
        "metadata_model_fitted_on": shortcuts.fitted_on if shortcuts else None,
        "undefined": assessment.undefined,
        "notes": localisation.notes,
        "summary": report.summary,
        "tables": {name: table.to_dict("records") for name, table in short.items()},
    }
    write_json(folder / "evaluation.json", known)
    return report


def _tables(
    inputs: Inputs, assessment: Assessment, localisation: Localisation
) -> dict[str, pd.DataFrame]:
    """Every table that there is, by the name of its file."""
    shortcuts, audit = assessment.shortcuts, assessment.audit
    tables = {
        "transfer": inputs.transfer,
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


def _named_rules(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(rule=rows["rule"] + rows["threshold"].map(" {:.3f}".format))


def _by(rows: pd.DataFrame, metrics: dict[str, str] | None, columns: str) -> pd.DataFrame:
    """Figures with intervals, a row a metric and a column a rule or method."""
    rows = rows.assign(text=column(rows, "value low high"))
    if "lift" in rows:
        lift = ", lift " + pd.Series(column(rows, "lift lift_low lift_high"), rows.index)
        rows["text"] += lift.where(rows["lift"].notna(), "")
    wide = rows.pivot_table("text", "metric", columns, sort=False, aggfunc="first")
    wide = wide.loc[list(metrics)].rename(index=metrics) if metrics else wide
    return wide.rename_axis(index=None, columns=None)


def _transfer(inputs: Inputs) -> pd.DataFrame | None:
    """Figures with intervals, a row a metric and a column a cohort and where it was fitted."""
    if inputs.transfer is None:
        return None
    where = inputs.transfer["cohort"] + ", " + inputs.transfer["fitted"]
    rows = inputs.transfer.assign(where=where.str.removesuffix(", "))
    return _by(rows.assign(metric=rows["metric"].replace(METRICS)), None, "where")


def _draw(inputs: Inputs, assessment: Assessment, plots: Path) -> None:
    """Draw what the template names, but for pictures with images."""
    target, models, rows = inputs.cohort.test["target"], inputs.models, assessment.thresholds
    curves = {
        name: (target, ranking(model.test, model.test_logit)) for name, model in models.items()
    }
    cut = float(rows.loc[rows["rule"] == assessment.shared, "threshold"].iloc[0])
    if next(iter(models.values())).test_logit is not None:
        cut = float(logit(cut))
    plot_ranking(curves, plots, cut if len(curves) == 1 else None)
    plot.plot_reliability(assessment.reliability, plots / "reliability.png")
    plot.plot_prevalence(assessment.prevalence, plots / "prevalence.png")
    auroc = float(rows.loc[rows["metric"] == "auroc", "value"].iloc[0])
    if assessment.decision is not None:
        plot.plot_decision(assessment.decision, plots / "decision_curve.png")
    if assessment.comparison is not None:
        rows = assessment.comparison.query("metric == 'auroc'")
        rows = rows.assign(label=rows["first"] + " - " + rows["second"], value=rows["difference"])
        plot_forest({"difference in AUROC": rows}, plots / "comparison.png", 0.0, "equal")
    if "auroc" in assessment.subgroups.table:
        rows = assessment.subgroups.table.dropna(subset="auroc")
        names = {"auroc": "value", "auroc_low": "low", "auroc_high": "high", "dimension": "kind"}
        rows = rows.assign(label=rows["dimension"] + ": " + rows["group"]).rename(columns=names)
        plot_forest({"AUROC": rows}, plots / "subgroups.png", auroc, "all images")
    if assessment.shortcuts is not None:
        rows = assessment.shortcuts.table.rename(columns={"source": "label", "auroc": "value"})
        plot_forest({"AUROC of metadata alone": rows}, plots / "shortcuts.png", auroc, "network")


def _draw_overlaps(localisation: Localisation, plots: Path) -> dict[str, pd.DataFrame]:
    """Draw localisation_1.png and so on; returns the table beside each, by part and size."""
    tables = {}
    for place, (part, rows) in enumerate(localisation.summary.groupby("part"), 1):
        plot.plot_overlaps(rows, plots / f"localisation_{place}.png")
        names = rows["metric"].str.replace("iou", "IoU").str.replace("iobb", "IoBB")
        tables[f"{part}: {rows['n_images'].iloc[0]} images"] = _by(
            rows.assign(metric=names), None, "method"
        )
    return tables

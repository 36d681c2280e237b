"""What a report of an evaluation tells: the assessment, and what needed the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiomegaly.evaluation.assessment import Assessment, Settings
from cardiomegaly.evaluation.fitting import Cohort, Predicted
from cardiomegaly.reports.pages import Page

THRESHOLDED = {
    "sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV",
    "accuracy": "accuracy", "f1": "F1 (cardiomegaly)", "f1_weighted": "F1 (weighted)",
    "f1_macro": "F1 (macro)",
}  # fmt: skip
AT_ALL = {
    "auroc": "AUROC", "average_precision": "average precision", "brier": "Brier score", "ece": "ECE"
}  # fmt: skip


@dataclass(frozen=True)
class MapSheet:
    """Images (n, H, W) under one method's maps, with true boxes (n, 4) and titles."""

    method: str
    images: NDArray[np.uint8]
    maps: Sequence[NDArray[np.floating]]
    boxes: NDArray[np.float64]
    titles: list[str]


@dataclass
class Looked:
    """What needed images: localisation by part and by image, sheets, and notes on the rest."""

    localisation: pd.DataFrame | None = None
    localisation_images: pd.DataFrame | None = None
    sheets: list[MapSheet] = field(default_factory=list)
    contradictions: tuple[NDArray[np.uint8], list[str]] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """Everything that a report tells."""

    name: str
    origin: dict[str, str]
    warnings: list[str]
    cohort: Cohort
    models: Mapping[str, Predicted]
    settings: Settings
    assessment: Assessment
    looked: Looked


def tables(evaluation: Evaluation) -> dict[str, pd.DataFrame]:
    """Every table that there is, by the name of its file."""
    found, looked = evaluation.assessment, evaluation.looked
    every = {
        "thresholds": found.thresholds,
        "comparison": found.comparison,
        "calibration": found.calibration,
        "reliability": found.reliability,
        "prevalence": found.prevalence,
        "decision_curve": found.decision,
        "subgroups": found.subgroups.table,
        "subgroup_gaps": found.subgroups.gaps,
        "shortcuts": found.shortcuts.table if found.shortcuts else None,
        "negatives_apart": found.shortcuts.negatives if found.shortcuts else None,
        "label_contradictions": found.audit.contradictions if found.audit else None,
        "localisation": looked.localisation,
        "localisation_images": looked.localisation_images,
    }
    return {name: table for name, table in every.items() if table is not None and len(table)}


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The whole evaluation as plain values; undefined figures become null."""
    found, test = evaluation.assessment, evaluation.cohort.test
    left_out = ("reliability", "decision_curve", "localisation_images")
    return {
        "name": evaluation.name,
        "origin": evaluation.origin,
        "warnings": evaluation.warnings,
        "settings": asdict(evaluation.settings),
        "n": len(test),
        "n_patients": int(test["patient_id"].nunique()),
        "n_positive": int(test["target"].sum()),
        "fitted_on": found.fitted_on,
        "shared_threshold": found.shared,
        "auroc_delong": asdict(found.delong),
        "label_audit": found.audit.counts if found.audit else None,
        "subgroup_gaps_in_words": found.subgroups.words,
        "shortcuts_in_words": found.shortcuts.words if found.shortcuts else None,
        "metadata_model_fitted_on": found.shortcuts.fitted_on if found.shortcuts else None,
        "undefined": found.undefined,
        "notes": evaluation.looked.notes,
        "tables": {
            name: table.to_dict("records")
            for name, table in tables(evaluation).items()
            if name not in left_out
        },
    }


def shown(table: pd.DataFrame, value: str, prefix: str = "", gap: str = " ") -> list[str]:
    """Every row's figure with its interval, from the columns value, {prefix}low, {prefix}high.

    A figure that is not defined is called "undefined"; `gap` stands before the interval.
    """
    columns = zip(table[value], table[f"{prefix}low"], table[f"{prefix}high"], strict=True)
    return [with_interval(*row, gap) for row in columns]


def with_interval(value: float, low: float, high: float, gap: str = " ") -> str:
    """Write one figure and its interval."""
    if not np.isfinite(value):
        return "undefined"
    return f"{value:.3f}{gap}({low:.3f} to {high:.3f})" if np.isfinite(low) else f"{value:.3f}"


def undefined(page: Page, evaluation: Evaluation, *what: str) -> None:
    """Say on the page why parts whose names begin with `what` are not there."""
    for name, reason in evaluation.assessment.undefined.items():
        if name.startswith(what):
            page.text(f"Undefined: {name}. {reason[:1].upper()}{reason[1:]}.")

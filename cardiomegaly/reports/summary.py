"""What the five sentences need with which each report begins; the templates hold the words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cardiomegaly.evaluation.assessment import RAW, Assessment
from cardiomegaly.reports.localise import ATTENTION, HELD_OUT, Localisation
from cardiomegaly.reports.origin import smoke_reasons, weights_of
from cardiomegaly.reports.pages import interval_column, with_interval
from cardiomegaly.reports.published import study_figure
from cardiomegaly.reports.subjects import Subject
from cardiomegaly.reports.sweep_table import Sweep
from cardiomegaly.training.record import Run

TRAINED = {
    "none": "frozen backbone",
    "last_stage": "last stage of the backbone trained",
    "all": "all of the network trained",
}


def evaluation_facts(
    subject: Subject, assessment: Assessment, localisation: Localisation
) -> dict[str, Any]:
    """Values of the sentences of an evaluation, whose first model is meant."""
    test, rows, gaps = subject.cohort.test, assessment.thresholds, assessment.subgroups.gaps
    rows = rows[rows["rule"] == assessment.shared]
    seen = subject.images[subject.images["part"] == "train"]
    facts = {
        "images": len(test),
        "patients": test["patient_id"].nunique(),
        "positives": int(test["target"].sum()),
        "train_images": len(seen),
        "train_patients": seen["patient_id"].nunique(),
        "meta": subject.runs[0].meta if subject.runs else {},
        "kinds": kinds_of(subject.runs),
        "smoke": smoke_in_words(subject.runs),
        "threshold": rows["threshold"].iloc[0],
        "figures": dict(zip(rows["metric"], interval_column(rows, "value"), strict=True)),
        "ece": assessment.calibration.set_index("method").loc[RAW, "ece"],
        "gaps": gaps[gaps["low"] > 0].to_dict("records") if len(gaps) else [],
        "looks": pointing(localisation),
    }
    if assessment.shortcuts is not None:
        table = assessment.shortcuts.table
        facts["metadata"] = ", ".join(table["source"].iloc[1:])
        facts["metadata_auroc"] = interval_column(table, "auroc")[0]
    return facts


def sweep_facts(sweep: Sweep, best: Run | None, localisation: Localisation) -> dict[str, Any]:
    """Values of the sentences of a sweep, for which the run that is best on validation stands."""
    if best is None:
        return {"best": None}
    row, test = sweep.table.iloc[sweep.runs.index(best)], best.part("test")
    label, name = row["label"], row["backbone"]
    return {
        "best": label if name in label else f"{name}, {label}",
        "kinds": kinds_of(sweep.runs),
        "smoke": smoke_in_words(sweep.runs),
        "sizes": [f"{n:.0f}" for n in sweep.table["n_train"].dropna().unique()],
        "cohorts": sweep.table["data"].unique(),
        "images": len(test),
        "patients": test["patient_id"].nunique(),
        "positives": row["n_positive"],
        "figures": {
            name: with_interval(*row[[name, f"{name}_low", f"{name}_high"]])
            for name in ("auroc", "average_precision", "f1_weighted")
        },
        "best_smoke": row["smoke"],
        "study": study_figure(name, bool(row["balance"]), "f1_weighted", "headline"),
        "split_by_image": "image" in set(sweep.table["split"]),
        "looks": pointing(localisation),
    }


def best_run(sweep: Sweep) -> Run | None:
    """The run with the best AUROC on validation, so that its test figures are not chosen for."""
    known = [run for run in sweep.runs if run.metrics["val"].get("auroc") is not None]
    return max(known, key=lambda run: run.metrics["val"]["auroc"], default=None)


def kinds_of(runs: Sequence[Run]) -> str:
    """Backbones, weights and what was trained, of one run or of several."""
    kinds: dict[str, dict[str, None]] = {}
    for run in runs:
        how = TRAINED.get(str(run.meta.get("trainable")), "training not recorded")
        kinds.setdefault(f"{weights_of(run)} weights, {how}", {})[str(run.meta["backbone"])] = None
    return "; ".join(f"{', '.join(names)} ({kind})" for kind, names in kinds.items())


def smoke_in_words(runs: Sequence[Run]) -> str:
    """What makes smoke runs of some of these runs; empty if none is one."""
    return ", ".join(dict.fromkeys(reason for run in runs for reason in smoke_reasons(run)))


def pointing(localisation: Localisation) -> dict[str, Any] | None:
    """How often the attention map's highest point lies in the heart box, beside the best blind box.

    Returns:
        A row of `summarise` for the first attention map on held-out images, with n_images and
        blind (the figure of its best_baseline); None where it was not measured.
    """
    rows = localisation.summary
    rows = rows[(rows["part"] == HELD_OUT) & (rows["metric"] == "pointing")].set_index("method")
    maps = [method for method in rows.index if method.startswith(ATTENTION)]
    if not maps:
        return None
    row = rows.loc[maps[0]].to_dict() | {"method": maps[0]}
    return row | {"blind": rows.loc[row["best_baseline"], "value"]}

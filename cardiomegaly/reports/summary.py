"""The five sentences in plain words with which each report begins.

What was trained on whom, how good it is with its interval, against what, what to distrust, and
where the map looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cardiomegaly.evaluation.assessment import RAW, Assessment
from cardiomegaly.reports.localise import ATTENTION, HELD_OUT, Localisation
from cardiomegaly.reports.origin import smoke_reasons, weights_of
from cardiomegaly.reports.pages import with_interval
from cardiomegaly.reports.published import study_figure
from cardiomegaly.reports.subjects import Subject
from cardiomegaly.reports.sweep_table import Sweep
from cardiomegaly.training.record import Run

TRAINED = {
    "none": "frozen backbone",
    "last_stage": "last stage of the backbone trained",
    "all": "all of the network trained",
}
FEW_POSITIVES, LARGE_ECE = 100, 0.05


def evaluation_summary(
    subject: Subject, assessment: Assessment, localisation: Localisation
) -> list[str]:
    """The sentences of an evaluation; the first model is meant."""
    return [
        _training(subject),
        _performance(subject, assessment),
        _reference(assessment),
        _doubts(subject, assessment),
        where_it_looks(localisation),
    ]


def kinds_of(runs: Sequence[Run]) -> str:
    """Backbones, weights and what was trained, of one run or of several."""
    kinds: dict[str, list[str]] = {}
    for run in runs:
        how = TRAINED.get(str(run.meta.get("trainable")), "training not recorded")
        backbone = str(run.meta.get("backbone"))
        if backbone not in kinds.setdefault(f"{weights_of(run)} weights, {how}", []):
            kinds[f"{weights_of(run)} weights, {how}"].append(backbone)
    return "; ".join(f"{', '.join(names)} ({kind})" for kind, names in kinds.items())


def smoke_in_words(runs: Sequence[Run]) -> str:
    """What makes smoke runs of some of these runs; empty if none is one."""
    reasons = dict.fromkeys(reason for run in runs for reason in smoke_reasons(run))
    return ", ".join(reasons)


def _training(subject: Subject) -> str:
    if not subject.runs:
        return (
            f"{subject.name} holds the predictions of a model of which nothing else is known: not "
            "on whom it was trained, nor whether these patients were among them."
        )
    meta, several = subject.runs[0].meta, len(subject.runs)
    train = subject.images[subject.images["part"] == "train"]
    whom = f"{len(train):,} images of {train['patient_id'].nunique():,} patients"
    smoke = smoke_in_words(subject.runs)
    return (
        f"{f'A smoke run ({smoke}): ' if smoke else ''}"
        f"{f'The mean of {several} runs of ' if several > 1 else ''}{kinds_of(subject.runs)} "
        f"was trained on {whom if len(train) else 'images that are not known here'} "
        f"({meta.get('data')} data, cohort {meta.get('cohort')}, split by {meta.get('split')}) "
        f"for {meta.get('epochs')} epochs, "
        f"{'both classes drawn equally often' if meta.get('balance') else 'classes as they are'}."
    )


def _performance(subject: Subject, assessment: Assessment) -> str:
    test, rows = subject.cohort.test, assessment.thresholds
    rows = rows[rows["rule"] == assessment.shared].set_index("metric")
    auroc, sensitivity, specificity = (
        with_interval(*rows.loc[name, ["value", "low", "high"]])
        for name in ("auroc", "sensitivity", "specificity")
    )
    return (
        f"On {len(test):,} test images of {test['patient_id'].nunique():,} patients, "
        f"{int(test['target'].sum()):,} of them labelled cardiomegaly, its AUROC is {auroc}, with "
        f"the 95% interval; at its {assessment.shared} threshold of "
        f"{rows['threshold'].iloc[0]:.3f} it has a sensitivity of {sensitivity} and a specificity "
        f"of {specificity}."
    )


def _reference(assessment: Assessment) -> str:
    if assessment.shortcuts is None:
        return (
            "It is measured against chance, an AUROC of 0.5; what could be had without the image "
            f"is not known: {assessment.undefined.get('shortcuts')}."
        )
    table = assessment.shortcuts.table
    seen = ", ".join(table["source"].iloc[1:])
    auroc = with_interval(*table.iloc[0][["auroc", "low", "high"]])
    return (
        f"Against that, a model that sees no image but only {seen} has an AUROC of {auroc}, and "
        "chance one of 0.5."
    )


def _doubts(subject: Subject, assessment: Assessment) -> str:
    doubts = ["the labels, which were mined from reports"]
    if assessment.audit is not None:
        counts = assessment.audit.counts
        doubts[0] += (
            f" ({counts['images_contradicting']:,} of {counts['images_between']:,} contradict the "
            "patient's images before and after)"
        )
    positives = int(subject.cohort.test["target"].sum())
    if positives < FEW_POSITIVES:
        doubts.append(f"small differences, as only {positives} test images are positive")
    if smoke_in_words(subject.runs):
        doubts.append("every figure, since this is a smoke run")
    if any("more than one part" in warning for warning in subject.warnings):
        doubts.append("every figure, since the network has seen patients that it is tested on")
    given = assessment.calibration.set_index("method").loc[RAW]
    if given["ece"] > LARGE_ECE:
        doubts.append(f"its probabilities as they are, off by {given['ece']:.2f} on average")
    gaps = assessment.subgroups.gaps
    for gap in gaps[gaps["low"] > 0].to_dict("records") if len(gaps) else []:
        doubts.append(f"its {gap['metric']} for {gap['dimension']} {gap['lowest']}")
    if assessment.shortcuts is not None and assessment.shortcuts.words:
        doubts.append("that it looks at the heart at all (see the shortcuts below)")
    return f"What to distrust: {'; '.join(doubts)}."


def where_it_looks(localisation: Localisation) -> str:
    """How often the attention map's highest point lies in the heart box, beside blind boxes."""
    rows = localisation.summary
    if len(rows):
        attends = rows["method"].str.startswith(ATTENTION)
        rows = rows[(rows["part"] == HELD_OUT) & (rows["metric"] == "pointing") & attends]
    if not len(rows):
        why = "; ".join(localisation.notes) or "no held-out image has a heart box"
        return f"Where the map looks was not measured: {why}."
    first = rows.iloc[0]
    same = localisation.summary
    same = same[(same["part"] == HELD_OUT) & (same["metric"] == "pointing")]
    blind = same.set_index("method").loc[first["best_baseline"], "value"]
    return (
        f"The highest point of its {first['method']} map lies in NIH's heart box in "
        f"{_share(first)} of {first['n_images']} held-out images; the centre of the "
        f"{first['best_baseline']}, which never looks at the image, in {blind:.0%}."
    )


def _share(row: pd.Series) -> str:
    text = f"{row['value']:.0%}"
    if np.isfinite(row["low"]):
        text += f" ({row['low']:.0%} to {row['high']:.0%})"
    return text


def best_run(sweep: Sweep) -> Run | None:
    """The run with the best AUROC on validation, so that its test figures are not chosen for."""
    known = [run for run in sweep.runs if run.metrics["val"].get("auroc") is not None]
    return max(known, key=lambda run: run.metrics["val"]["auroc"], default=None)


def sweep_summary(sweep: Sweep, best: Run | None, localisation: Localisation) -> list[str]:
    """The sentences of a sweep; the run that is best on validation stands for all."""
    if best is None:
        return ["No run of this sweep is finished and defined yet."]
    row = sweep.table.iloc[sweep.runs.index(best)]
    n, smoke = len(sweep.runs), smoke_in_words(sweep.runs)
    sizes = " or ".join(f"{n:.0f}" for n in sweep.table["n_train"].dropna().unique())
    cohorts = " or ".join(dict.fromkeys(str(run.meta.get("data")) for run in sweep.runs))
    auroc, precision = (
        with_interval(*row[[name, f"{name}_low", f"{name}_high"]])
        for name in ("auroc", "average_precision")
    )
    test, label, name = best.part("test"), row["label"], row["backbone"]
    doubts = ["the labels, which were mined from reports"]
    if row["n_positive"] < FEW_POSITIVES:
        doubts.append(f"small differences, as only {row['n_positive']} test images are positive")
    if n > 1:
        doubts.append(f"the best of {n} runs, which looks better than it is")
    if smoke:
        doubts.append("every figure of a smoke run")
    if "image" in set(sweep.table["split"]):
        doubts.append("runs split by image, which have seen patients that they are tested on")
    return [
        f"{n} {'smoke ' if smoke else ''}run{'s' if n > 1 else ''} of {kinds_of(sweep.runs)}"
        f"{f' ({smoke})' if smoke else ''}, trained on {sizes} images of {cohorts} data.",
        "The best by its validation AUROC, "
        f"{label if name in label else f'{name}, {label}'}, has on {len(test):,} test images of "
        f"{test['patient_id'].nunique():,} patients, {row['n_positive']:,} of them labelled "
        f"cardiomegaly, an AUROC of {auroc} and an average precision of {precision}, with 95% "
        "intervals.",
        _study_sentence(row),
        f"What to distrust: {'; '.join(doubts)}.",
        where_it_looks(localisation),
    ]


def _study_sentence(row: pd.Series) -> str:
    figure = study_figure(row["backbone"], bool(row["balance"]), "f1_weighted", "headline")
    own = with_interval(*row[["f1_weighted", "f1_weighted_low", "f1_weighted_high"]])
    if row["smoke"]:
        return f"It is a smoke run ({row['smoke']}), so nothing is to be compared with the study."
    if figure is None:
        return f"Its weighted F1 is {own}; the study published none for this backbone."
    return (
        f"Against a weighted F1 of {figure:.2f} that the study published for this backbone, on its "
        f"own images and split by image, it has {own}."
    )

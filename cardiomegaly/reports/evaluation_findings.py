"""The latter half of an evaluation's page: subgroups, shortcuts, labels, localisation, origin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly.reports import evaluation_plots as draw
from cardiomegaly.reports.evaluation_content import (
    AT_ALL,
    THRESHOLDED,
    Evaluation,
    shown,
    undefined,
)
from cardiomegaly.reports.pages import Page
from cardiomegaly.reports.plots import plot_image_sheet

RATES = ("auroc", "average_precision", "sensitivity", "specificity")


def add_subgroups(page: Page, evaluation: Evaluation, plots: Path) -> None:
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


def add_shortcuts(page: Page, evaluation: Evaluation, plots: Path) -> None:
    found = evaluation.assessment
    page.heading("What can be had without the heart")
    undefined(page, evaluation, "shortcuts")
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


def add_audit(page: Page, evaluation: Evaluation, plots: Path) -> None:
    audit = evaluation.assessment.audit
    page.heading("Label audit")
    undefined(page, evaluation, "label audit")
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


def add_localisation(page: Page, evaluation: Evaluation, plots: Path) -> None:
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


def add_origin(page: Page, evaluation: Evaluation, plots: Path) -> None:
    page.heading("Where the figures come from")
    settings = evaluation.settings
    lines = evaluation.origin | {"seed of the bootstrap": str(settings.seed)}
    page.table(pd.DataFrame({"": list(lines.values())}, index=list(lines)))

"""The plots of an evaluation; the tables they draw are those of `evaluation`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.data.boxes import NUMBERS
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.assessment import Assessment
from cardiomegaly.reports.image_sheets import plot_images, plot_maps
from cardiomegaly.reports.localise import HELD_OUT, Localisation
from cardiomegaly.reports.plots import COLOURS, DOTTED, drawing

SHEET_SIZE = 192  # pixels of a contradiction's picture
MAPS, MAP_SIZE = 8, 256


def plot_reliability(table: pd.DataFrame, path: Path | str) -> None:
    """Draw observed against stated frequency, a panel a method (see `reliability_table`)."""
    methods = table.groupby("method", sort=False)
    top = min(1.0, 1.05 * float(table[["mean_probability", "high"]].max().max()))
    size = (3.3 * len(methods) + 0.6, 3.6, 1, len(methods))
    with drawing(path, *size, sharey=True) as grid:
        for axes, (method, rows), colour in zip(grid, methods, COLOURS, strict=False):
            axes.plot([0, top], [0, top], **DOTTED)
            error = [rows["observed"] - rows["low"], rows["high"] - rows["observed"]]
            axes.errorbar(
                rows["mean_probability"], rows["observed"], np.clip(error, 0, None),
                fmt="o-", color=colour, ms=5, elinewidth=1,
            )  # fmt: skip
            axes.set(title=method, xlabel="mean probability", xlim=(0, top), ylim=(0, top))
        grid[0].set_ylabel("share with the label")


def plot_prevalence(table: pd.DataFrame, path: Path | str) -> None:
    """Draw PPV and NPV with their intervals over prevalence (see `prevalence_table`)."""
    with drawing(path, 5.4, 3.8) as (axes,):
        for name, colour in zip(("ppv", "npv"), COLOURS, strict=False):
            low, high = table[f"{name}_low"], table[f"{name}_high"]
            axes.fill_between(table["prevalence"], low, high, color=colour, alpha=0.18, lw=0)
            axes.plot(
                table["prevalence"], table[name], "o-", color=colour, ms=5, label=name.upper()
            )
        axes.set(xlabel="prevalence", ylabel="predictive value", ylim=(0, 1.02), xlim=(0, None))


def plot_decision(table: pd.DataFrame, path: Path | str) -> None:
    """Draw net benefit over the risk at which one would act, a panel a prevalence."""
    shares = table["prevalence"].unique()
    columns, rows = min(3, len(shares)), math.ceil(len(shares) / 3)
    with drawing(path, 3.2 * columns, 2.8 * rows, rows, columns) as grid:
        for axes, share in zip(grid, shares, strict=False):
            part = table[table["prevalence"] == share]
            axes.plot(part["risk"], part["net_benefit"], color=COLOURS[0], label="model")
            axes.plot(part["risk"], part["all_called"], color=COLOURS[1], ls="--", label="call all")
            axes.axhline(0, label="call none", **DOTTED)
            axes.set(xlabel="risk at which one would act", ylabel="net benefit")
            axes.set(title=f"prevalence {share:.0%}", ylim=(-0.3 * share, 1.1 * share))
        for axes in grid[len(shares) :]:
            axes.axis("off")


def plot_overlaps(table: pd.DataFrame, path: Path | str) -> None:
    """Draw the share of images over each IoU and IoBB, a line a method (see `summarise`)."""
    with drawing(path, 8.6, 3.8, 1, 2, sharey=True) as grid:
        for axes, name in zip(grid, ("IoU", "IoBB"), strict=True):
            rows = table[table["metric"].str.startswith(f"{name.lower()}>")]
            for place, (method, own) in enumerate(rows.groupby("method", sort=False)):
                blind = own["lift"].isna().all()
                axes.plot(
                    own["metric"].str.partition(">")[2].astype(float), own["value"], marker="o",
                    ls="--" if blind else "-", ms=4, color=COLOURS[place % len(COLOURS)],
                    label=method,
                )  # fmt: skip
            axes.set(xlabel=f"{name} over", ylim=(-0.02, 1.02))
        grid[0].set_ylabel("share of images")


def draw_maps(localisation: Localisation, images: ImageFolder | None, plots: Path) -> list[str]:
    """Draw maps_1.png and so on: held-out images from a method's best to its worst, evenly."""
    drawn: list[str] = []
    for method, maps in localisation.maps.items():
        rows = localisation.images
        if len(rows):
            rows = rows[(rows["method"] == method) & (rows["part"] == HELD_OUT)]
        if images is None or rows.empty:
            continue
        rows = rows.sort_values("iou", ascending=False, kind="stable")
        rows = rows.iloc[np.linspace(0, len(rows) - 1, min(MAPS, len(rows))).astype(int)]
        names, drawn = rows["image"].tolist(), [*drawn, method]
        titles = [
            f"{Path(image).stem}, IoU {iou:.2f}"
            for image, iou in zip(names, rows["iou"], strict=True)
        ]
        plot_maps(
            images.pixels(names, MAP_SIZE), [maps[image] for image in names], titles,
            plots / f"maps_{len(drawn)}.png", rows[NUMBERS].to_numpy(),
        )  # fmt: skip
    return drawn


def draw_contradictions(
    assessment: Assessment, images: ImageFolder | None, plots: Path
) -> str | None:
    """Draw the most confident contradictions whose images are there.

    Returns:
        None if there are none, else why they could not be drawn, empty if they were.
    """
    if assessment.audit is None or images is None:
        return None
    rows = assessment.audit.contradictions
    rows = rows[[images.has(image) for image in rows["image"]]]
    if rows.empty:
        return None
    try:
        pixels = images.pixels(rows["image"].tolist(), SHEET_SIZE)
    except UserError as error:
        return str(error)
    titles = [f"label {row.target}, p {row.probability:.2f}" for row in rows.itertuples()]
    plot_images(pixels, titles, plots / "contradictions.png")
    return ""

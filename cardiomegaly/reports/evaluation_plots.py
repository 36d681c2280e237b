"""The plots of an evaluation; the tables they draw are those of `evaluation`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from cardiomegaly.data.boxes import BOX_FRAME
from cardiomegaly.reports.localise import MapSheet
from cardiomegaly.reports.plots import (
    COLOURS,
    INK,
    QUIET,
    image_grid,
    new_figure,
    save,
    save_note,
    tidy,
)


def plot_forest(
    rows: pd.DataFrame, path: Path | str, label: str, reference: float, name: str = ""
) -> None:
    """Draw a figure with its interval for each row, and a dotted line to compare it with.

    Args:
        rows: label, value, low, high and, where rows come in kinds, kind (its colour).
        path: PNG file.
        label: of the axis.
        reference: where the dotted line stands.
        name: of the dotted line, for the legend.
    """
    rows = rows[np.isfinite(rows["value"].astype(float))]
    if rows.empty:
        return save_note("no figure is defined", path)
    figure = new_figure(7.0, 1.1 + 0.3 * len(rows))
    axes = figure.subplots()
    tidy(axes, label, "")
    kinds = list(dict.fromkeys(rows["kind"])) if "kind" in rows else [""]
    for place, row in enumerate(rows.to_dict("records")):
        colour = COLOURS[kinds.index(row.get("kind", "")) % len(COLOURS)]
        axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=1.6)
        axes.plot(row["value"], place, "o", color=colour, ms=6)
    axes.axvline(reference, color=QUIET, ls=":", lw=1.2, label=name)
    axes.set_yticks(range(len(rows)), list(rows["label"]), color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if name:
        axes.legend(frameon=False, fontsize=8, loc="best")
    return save(figure, path)


def plot_reliability(table: pd.DataFrame, path: Path | str) -> None:
    """Draw observed against stated frequency, a panel a method (see `reliability_table`)."""
    methods = list(dict.fromkeys(table["method"]))
    figure = new_figure(3.3 * len(methods) + 0.6, 3.6)
    grid = figure.subplots(1, len(methods), sharey=True, sharex=True, squeeze=False)[0]
    top = min(1.0, 1.05 * float(table[["mean_probability", "high"]].max().max()))
    for axes, method, colour in zip(grid, methods, COLOURS, strict=False):
        rows = table[table["method"] == method]
        tidy(axes, "mean probability", "share with the label" if axes is grid[0] else "")
        axes.plot([0, top], [0, top], color=QUIET, ls=":", lw=1.2)
        error = [rows["observed"] - rows["low"], rows["high"] - rows["observed"]]
        axes.errorbar(
            rows["mean_probability"], rows["observed"], np.clip(error, 0, None),
            fmt="o-", color=colour, ms=5, lw=1.4, elinewidth=1,
        )  # fmt: skip
        axes.set_title(method, fontsize=10, color=INK)
        axes.set(xlim=(0, top), ylim=(0, top))
    save(figure, path)


def plot_prevalence(table: pd.DataFrame, path: Path | str) -> None:
    """Draw PPV and NPV with their intervals over prevalence (see `prevalence_table`)."""
    figure = new_figure(5.4, 3.8)
    axes = figure.subplots()
    tidy(axes, "prevalence", "predictive value")
    for name, colour in (("ppv", COLOURS[0]), ("npv", COLOURS[1])):
        axes.fill_between(
            table["prevalence"], table[f"{name}_low"], table[f"{name}_high"],
            color=colour, alpha=0.18, lw=0,
        )  # fmt: skip
        axes.plot(table["prevalence"], table[name], "o-", color=colour, ms=5, label=name.upper())
    axes.set(ylim=(0, 1.02), xlim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)


def plot_decision(table: pd.DataFrame, path: Path | str) -> None:
    """Draw net benefit over the risk at which one would act, a panel a prevalence."""
    prevalences = list(dict.fromkeys(table["prevalence"]))
    columns = min(3, len(prevalences))
    figure = new_figure(3.2 * columns, 2.8 * math.ceil(len(prevalences) / columns))
    grid = figure.subplots(math.ceil(len(prevalences) / columns), columns, squeeze=False).ravel()
    for axes in grid[len(prevalences) :]:
        axes.axis("off")
    for axes, share in zip(grid, prevalences, strict=False):
        rows = table[table["prevalence"] == share]
        tidy(axes, "risk at which one would act", "net benefit")
        axes.plot(rows["risk"], rows["net_benefit"], color=COLOURS[0], label="model")
        axes.plot(rows["risk"], rows["all_called"], color=COLOURS[1], ls="--", label="call all")
        axes.axhline(0, color=QUIET, ls=":", lw=1.2, label="call none")
        axes.set_title(f"prevalence {share:.0%}", fontsize=10, color=INK)
        axes.set_ylim(-0.3 * share, 1.1 * share)
    grid[0].legend(frameon=False, fontsize=8)
    save(figure, path)


def plot_overlaps(table: pd.DataFrame, path: Path | str) -> None:
    """Draw the share of images over each IoU and IoBB, a line a method (see `summarise`)."""
    methods = list(dict.fromkeys(table["method"]))
    figure = new_figure(8.6, 3.8)
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("IoU", "IoBB"), strict=True):
        tidy(axes, f"{name} over", "share of images" if name == "IoU" else "")
        rows = table[table["metric"].str.startswith(f"{name.lower()}>")]
        for place, method in enumerate(methods):
            own = rows[rows["method"] == method]
            blind = pd.isna(own["lift"]).all()
            axes.plot(
                own["metric"].str.partition(">")[2].astype(float), own["value"], marker="o",
                ls="--" if blind else "-", ms=4, color=COLOURS[place % len(COLOURS)], label=method,
            )  # fmt: skip
        axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
    save(figure, path)


def plot_box_sheet(sheet: MapSheet, path: Path | str) -> None:
    """Draw images under their maps, each with its true box."""
    figure, grid = image_grid(len(sheet.images), min(4, len(sheet.images)), 2.4, 2.65)
    extent = (0, BOX_FRAME, BOX_FRAME, 0)
    columns = zip(grid, sheet.images, sheet.maps, sheet.boxes, sheet.titles, strict=False)
    for axes, image, saliency, (x, y, width, height), title in columns:
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent)
        axes.imshow(saliency, cmap="viridis", alpha=0.4, interpolation="bilinear", extent=extent)
        axes.add_patch(Rectangle((x, y), width, height, fill=False, ec="#ffd000", lw=1.8))
        axes.set_title(title, fontsize=7, color=INK)
    save(figure, path)

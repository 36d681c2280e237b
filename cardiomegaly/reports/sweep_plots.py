"""The plots of a sweep: every run in one picture, one colour a backbone and one line a balance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cardiomegaly.reports.pages import METRICS
from cardiomegaly.reports.plots import COLOURS, INK, QUIET, Styles, new_figure, note, save, tidy
from cardiomegaly.reports.published import study_figure

LINES = ("-", "--", ":", "-.")
PANELS = ("f1", "f1_weighted", "auroc")
# Under which name the study's figures have what is plotted here.
STUDY_COLUMNS = {"f1": "f1_positive", "f1_weighted": "f1_weighted"}
STUDY_HEAD = "gwap"
ORDER = ("balanced", "unbalanced", "the study's test set")


def run_styles(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Give every run's label a colour by its place (backbone and the like) and a line by balance.

    Runs that differ by the seed only share both. `table` is that of a `Sweep`.
    """
    places, modes = list(dict.fromkeys(_places(table))), list(table["balance"].unique())
    styles = {}
    for label, place, mode in zip(table["label"], _places(table), table["balance"], strict=True):
        second, first = modes.index(mode), places.index(place)
        # More places than colours: the colours come again with other lines.
        line = LINES[(second + 2 * (first // len(COLOURS))) % len(LINES)]
        colour = first if len(places) > 1 else second
        styles[label] = (COLOURS[colour % len(COLOURS)], line)
    return styles


def _places(table: pd.DataFrame) -> list[str]:
    """What stands in one place of a plot: a label without balance and seed."""
    several = len(table["backbone"].unique()) > 1
    parts = zip(table["backbone"], table["rest"], strict=True)
    return [
        ", ".join(filter(None, (name if several or not rest else "", rest))) for name, rest in parts
    ]


def plot_intervals(table: pd.DataFrame, path: Path | str) -> None:
    """Draw F1, weighted F1 and AUROC of every run with its interval, beside the study's test set.

    `table` is that of a `Sweep`; a row in the plot is a place, its colour the balance.
    """
    names = _places(table)
    places = {name: index for index, name in enumerate(dict.fromkeys(names))}
    figure = new_figure(10.4, 1.3 + 0.55 * max(len(places), 2))
    grid = figure.subplots(1, len(PANELS), sharey=True)
    for axes, metric in zip(grid, PANELS, strict=True):
        tidy(axes, METRICS[metric], "")
        axes.grid(visible=False, axis="y")
        for balance, colour in ((True, COLOURS[0]), (False, COLOURS[1])):
            chosen = (table["balance"] == balance).to_numpy()
            rows, at = table[chosen], np.array(names)[chosen]
            _draw_side(axes, rows, [places[name] for name in at], metric, balance, colour)
    grid[0].set_yticks(list(places.values()), list(places), color=INK)
    grid[0].set_ylim(len(places) - 0.5, -0.5)
    handles, labels = grid[1].get_legend_handles_labels()
    known = dict(sorted(zip(labels, handles, strict=True), key=lambda pair: ORDER.index(pair[0])))
    figure.legend(
        list(known.values()), list(known), loc="outside upper left", ncols=3, frameon=False,
        fontsize=9,
    )  # fmt: skip
    save(figure, path)


def plot_learning_curves(
    histories: Mapping[str, pd.DataFrame], path: Path | str, styles: Styles
) -> None:
    """Draw validation loss and AUROC by epoch, one line a run."""
    figure = new_figure(11.5, max(3.8, 0.19 * len(histories) + 0.6))
    panels = {"val/loss": "validation loss", "val/auroc": "validation AUROC"}
    grid = figure.subplots(1, 2)
    for axes, (column, title) in zip(grid, panels.items(), strict=True):
        tidy(axes, "epoch", title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for label, history in histories.items():
            if column not in history or history[column].isna().all():
                continue
            rows, (colour, line) = history.dropna(subset=[column]), styles[label]
            marker = "o" if len(rows) == 1 else None
            axes.plot(rows["epoch"], rows[column], c=colour, ls=line, marker=marker, label=label)
        if not axes.lines:
            note(axes, f"no {title} was recorded")
    handles, labels = max(
        (axes.get_legend_handles_labels() for axes in grid), key=lambda h: len(h[0])
    )
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    save(figure, path)


def _draw_side(
    axes: Axes, rows: pd.DataFrame, at: list[int], metric: str, balance: bool, colour: str
) -> None:
    """Draw the runs of one balance, side by side where several share a place (seeds)."""
    side, seen = (-0.16 if balance else 0.16), dict.fromkeys(at, 0)
    for place, (_, row) in zip(at, rows.iterrows(), strict=True):
        y = place + side + 0.07 * (seen[place] - (at.count(place) - 1) / 2)
        seen[place] += 1
        if not np.isfinite(row[metric]):
            continue
        axes.plot([row[f"{metric}_low"], row[f"{metric}_high"]], [y, y], color=colour, lw=1.6)
        axes.plot(row[metric], y, "o", color=colour, ms=6, mec="white", label=ORDER[not balance])
        if row["head"] != STUDY_HEAD or row["smoke"] or metric not in STUDY_COLUMNS:
            continue
        study = study_figure(row["backbone"], balance, STUDY_COLUMNS[metric])
        if study is not None:
            axes.plot(study, place + side, "D", ms=6, mfc="none", mec=QUIET, label=ORDER[2])

"""How all plots look, and the plots that several reports draw; no window, no global state.

What cannot be drawn (one class only, no images, undefined figures) becomes a note in the plot, not
an error. Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, QUIET, FAINT = "#222222", "#666666", "#dddddd"
STYLE: Any = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": QUIET,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.titlesize": 9, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6, "xtick.color": QUIET,
    "ytick.color": QUIET, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.frameon": False,
    "legend.fontsize": 8, "lines.linewidth": 1.6, "savefig.dpi": 130,
}  # fmt: skip
DOTTED: dict[str, Any] = {"color": QUIET, "ls": ":", "lw": 1.2}
LEGEND_INSIDE = 4  # lines; a longer legend stands beside them

Array = npt.NDArray[Any]
Styles = Mapping[str, tuple[str, str]]  # colour and line by name


@contextmanager
def drawing(
    path: Path | str,
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    sharey: bool = False,
) -> Iterator[list[Axes]]:
    """Give the axes of a figure of a size in inches, then add its legend and save it as PNG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
        yield list(grid)
        _add_legend(figure, list(grid))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")


def _add_legend(figure: Figure, grid: list[Axes]) -> None:
    """Name each kind of line once: inside its axes, or beside them where the kinds are many."""
    named: dict[str, Any] = {}
    inside = []
    for axes in grid:
        if (legend := axes.get_legend()) is not None:  # of a display, with labels of its own
            legend.remove()
        handles, labels = axes.get_legend_handles_labels()
        new = {k: v for k, v in zip(labels, handles, strict=True) if k not in named}
        inside.append((axes, new))
        named |= new
    if len(named) > LEGEND_INSIDE:
        width, height = figure.get_size_inches()
        width += 0.5 + 0.065 * max(map(len, named))
        figure.set_size_inches(width, max(height, 0.19 * len(named) + 0.6))
        figure.legend(list(named.values()), list(named), loc="outside right upper")
        return
    for axes, new in inside:
        if new:
            axes.legend(list(new.values()), list(new), loc="best")


def note(axes: Axes, text: str) -> None:
    """Say in the middle of empty axes why nothing is drawn there."""
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET)


def save_note(text: str, path: Path | str) -> None:
    """Save a small picture that says in words why there is no plot."""
    with drawing(path, 4, 1.5) as (axes,):
        note(axes, text)


def plot_epochs(
    panels: Mapping[str, Mapping[str, pd.Series]], path: Path | str,
    styles: Styles | None = None, best_epoch: int | None = None,
) -> None:  # fmt: skip
    """Draw figures by epoch: a panel a title and in it a line a name, a series over epochs."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    styles = styles or {name: (COLOURS[place], "-") for place, name in enumerate(names)}
    with drawing(path, 4.2 * len(panels), 3.4, 1, len(panels)) as grid:
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            axes.set(xlabel="epoch", ylabel=title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            for name, series in lines.items():
                series, (colour, line) = series.dropna(), styles[name]
                marker = "o" if len(series) < 40 else None
                if len(series):
                    axes.plot(series, c=colour, ls=line, marker=marker, ms=3.5, label=name)
            if not axes.lines:
                note(axes, f"no {title} was recorded")
            elif best_epoch is not None:
                label = f"best epoch ({best_epoch})"
                axes.axvline(best_epoch, color=QUIET, ls="--", lw=1, label=label)


def plot_ranking(
    curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], folder: Path,
    threshold: float | None = None, styles: Styles | None = None,
) -> None:  # fmt: skip
    """Draw roc.png and precision_recall.png, a curve a name; dotted are chance and prevalence.

    Args:
        curves: targets (0/1) and scores (probabilities or logits) by name.
        folder: of the pictures.
        threshold: on the score; marks the operating point on each curve.
        styles: colour and line by name.
    """
    with (
        drawing(folder / "roc.png", 5.2, 5.2) as (roc,),
        drawing(folder / "precision_recall.png", 5.2, 5.2) as (pr,),
    ):
        for place, (name, (target, scores)) in enumerate(curves.items()):
            truth, score = np.asarray(target).astype(int), np.asarray(scores, dtype=float)
            if len(np.unique(truth)) < 2:
                why = "one class only" if len(truth) else "no images"
                for axes in (roc, pr):
                    axes.fill_between([], [], color="none", label=f"{name}: undefined ({why})")
                continue
            colour, line = (styles or {}).get(name, (COLOURS[place % len(COLOURS)], "-"))
            area = RocCurveDisplay.from_predictions(truth, score, ax=roc).roc_auc
            roc.lines[-1].set(label=f"{name}: AUROC {area:.3f}", color=colour, ls=line)
            area = PrecisionRecallDisplay.from_predictions(
                truth, score, drop_intermediate=True, ax=pr
            ).average_precision
            pr.lines[-1].set(label=f"{name}: AP {area:.3f}", color=colour, ls=line)
            pr.axhline(truth.mean(), **DOTTED)
            if threshold is not None:
                called = score >= threshold
                hit, false = called[truth == 1].mean(), called[truth == 0].mean()
                precise = truth[called].mean() if called.any() else math.nan
                for axes, x, y in ((roc, false, hit), (pr, hit, precise)):
                    axes.plot(x, y, "o", color=colour, ms=7, mec="white", clip_on=False)
        for axes in (roc, pr):
            if not axes.lines:
                names = axes.get_legend_handles_labels()[1]
                note(axes, "\n".join(names) or "no predictions")
                for empty in list(axes.collections):
                    empty.remove()
        if roc.lines:
            roc.plot([0, 1], [0, 1], **DOTTED)
        limits = {"xlim": (-0.02, 1.02), "ylim": (-0.02, 1.02), "aspect": "equal"}
        roc.set(xlabel="1 - specificity", ylabel="sensitivity", **limits)
        pr.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", **limits)


def plot_forest(
    panels: Mapping[str, pd.DataFrame], path: Path | str,
    reference: float | None = None, name: str = "",
) -> None:  # fmt: skip
    """Draw figures with their intervals: a panel a title, a line a row.

    Args:
        panels: rows of label (the same in each panel), value, low, high; perhaps kind, its colour,
            and published, a figure to set beside it.
        path: PNG file.
        reference, name: where a dotted line stands, and how it is called.
    """
    panels = {title: rows.reset_index(drop=True) for title, rows in panels.items()}
    labels = list(next(iter(panels.values()))["label"])
    if not any(np.isfinite(rows["value"].astype(float)).any() for rows in panels.values()):
        return save_note("no figure is defined", path)
    width, height = 3.8 + 3.2 * len(panels), 1.1 + 0.3 * len(labels)
    with drawing(path, width, height, 1, len(panels), sharey=True) as grid:
        for axes, (title, rows) in zip(grid, panels.items(), strict=True):
            kinds = pd.factorize(rows["kind"])[0] if "kind" in rows else np.zeros(len(rows), int)
            for place, (row, kind) in enumerate(zip(rows.to_dict("records"), kinds, strict=True)):
                colour = COLOURS[kind % len(COLOURS)]
                axes.plot([row["low"], row["high"]], [place, place], color=colour)
                axes.plot(row["value"], place, "o", color=colour, ms=6)
            if "published" in rows and rows["published"].notna().any():
                axes.plot(
                    rows["published"], rows.index, "D", ms=6, mfc="none", mec=QUIET,
                    label="the study's test set",
                )  # fmt: skip
            if reference is not None:
                axes.axvline(reference, label=name, **DOTTED)
            axes.set_yticks(range(len(labels)), labels, color=INK)
            axes.set(xlabel=title, ylim=(len(labels) - 0.4, -0.6))
    return None

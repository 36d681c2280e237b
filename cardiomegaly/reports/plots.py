"""How all plots look, and the plots of one run; matplotlib's objects, no window, no global state.

What cannot be drawn (one class only, no images, undefined figures) becomes a note in the plot, not
an error. Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, QUIET, FAINT = "#222222", "#666666", "#dddddd"
CLASSES = ("no cardiomegaly", "cardiomegaly")
LEGEND_INSIDE = 4

Array = npt.NDArray[Any]
Curves = Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
Styles = Mapping[str, tuple[str, str]]


def new_figure(width: float, height: float) -> Figure:
    """Make a white figure of a size in inches whose parts keep clear of each other."""
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    return figure


def tidy(axes: Axes, x: str, y: str) -> None:
    """Name the axes and take away what carries no information."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelsize=9)
    axes.grid(color=FAINT, lw=0.6)
    axes.set_axisbelow(True)


def note(axes: Axes, text: str) -> None:
    """Say in the middle of empty axes why nothing is drawn there."""
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET)


def save(figure: Figure, path: Path | str) -> None:
    """Save as PNG, making the folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, format="png")


def save_note(text: str, path: Path | str) -> None:
    """Save a small picture that says in words why there is no plot."""
    figure = new_figure(4, 1.5)
    axes = figure.subplots()
    axes.spines[:].set_color(FAINT)
    note(axes, text)
    save(figure, path)


def plot_history(history: pd.DataFrame, path: Path | str, best_epoch: int | None = None) -> None:
    """Draw loss and AUROC by epoch with the best epoch marked (by default that of best val AUROC).

    `history` has a row an epoch: epoch, train/loss, val/loss, val/auroc.
    """
    figure = new_figure(8.4, 3.4)
    panels = {"loss": ("train/loss", "val/loss"), "AUROC": ("val/auroc",)}
    if best_epoch is None and "val/auroc" in history and history["val/auroc"].notna().any():
        best_epoch = int(history["epoch"].to_numpy()[np.nanargmax(history["val/auroc"])])
    for axes, (title, columns) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        tidy(axes, "epoch", title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        drawn = [name for name in columns if name in history and history[name].notna().any()]
        for column in drawn:
            rows = history.dropna(subset=[column])
            colour = COLOURS[1] if column.startswith("train") else COLOURS[0]
            label = "training" if column.startswith("train") else "validation"
            marker = "o" if len(rows) < 40 else None
            axes.plot(rows["epoch"], rows[column], c=colour, marker=marker, ms=3.5, label=label)
        if not drawn:
            note(axes, f"no {title} was recorded")
            continue
        if best_epoch is not None:
            axes.axvline(best_epoch, color=QUIET, ls="--", lw=1, label=f"best epoch ({best_epoch})")
        axes.legend(frameon=False, fontsize=8)
    save(figure, path)


def plot_roc(
    curves: Curves, path: Path | str, threshold: float | None = None, styles: Styles | None = None
) -> None:
    """Draw one ROC curve a name.

    Args:
        curves: targets (0/1) and scores (probabilities or logits) by name.
        path: PNG file.
        threshold: on the score; marks the operating point on each curve.
        styles: colour and line by name.
    """
    figure = new_figure(5.2, 5.2)
    axes = figure.subplots()
    for name, truth, score, look in _two_classes(axes, curves, styles):
        display = RocCurveDisplay.from_predictions(truth, score, ax=axes)
        axes.lines[-1].set(label=f"{name}: AUROC {display.roc_auc:.3f}", **look)
        if threshold is not None:
            called = score >= threshold
            _mark(axes, called[truth == 0].mean(), called[truth == 1].mean(), look)
    if axes.lines:
        axes.plot([0, 1], [0, 1], color=QUIET, lw=1, ls=":")
    tidy(axes, "1 - specificity", "sensitivity")
    _finish(figure, axes, "lower right", path)


def plot_precision_recall(
    curves: Curves, path: Path | str, threshold: float | None = None, styles: Styles | None = None
) -> None:
    """Draw one precision-recall curve a name, prevalence dotted; arguments as in plot_roc."""
    figure = new_figure(5.2, 5.2)
    axes = figure.subplots()
    prevalences = set()
    for name, truth, score, look in _two_classes(axes, curves, styles):
        display = PrecisionRecallDisplay.from_predictions(
            truth, score, drop_intermediate=True, ax=axes
        )
        axes.lines[-1].set(label=f"{name}: AP {display.average_precision:.3f}", **look)
        prevalences.add(round(float(truth.mean()), 3))
        if threshold is not None:
            called = score >= threshold
            precise = truth[called].mean() if called.any() else math.nan
            _mark(axes, called[truth == 1].mean(), precise, look)
    for index, share in enumerate(sorted(prevalences)):
        label = "prevalence" if index == 0 else ""
        axes.axhline(share, color=QUIET, lw=1, ls=":", label=label)
    tidy(axes, "sensitivity (recall)", "PPV (precision)")
    _finish(figure, axes, "upper right", path)


def plot_confusion_matrix(
    target: npt.ArrayLike, probability: npt.ArrayLike, threshold: float, path: Path | str
) -> None:
    """Draw the counts of the four outcomes at a threshold, shaded by their share of the row."""
    truth, called = np.asarray(target).astype(int), np.asarray(probability) >= threshold
    if not len(truth):
        return save_note("no images", path)
    figure = new_figure(4.8, 4.2)
    axes = figure.subplots()
    display = ConfusionMatrixDisplay.from_predictions(
        truth, called.astype(int), labels=[0, 1], normalize="true", display_labels=CLASSES,
        cmap="Blues", values_format=".1%", colorbar=False, ax=axes, im_kw={"vmin": 0, "vmax": 1},
    )  # fmt: skip
    for (row, column), text in np.ndenumerate(display.text_):
        count = int(((truth == row) & (called == column)).sum())
        text.set_text(f"{count:,}\n{text.get_text()} of row")
    axes.set_yticks([0, 1], CLASSES, rotation=90, va="center")
    axes.set_xlabel(f"called at a threshold of {threshold:.3f}", color=INK)
    axes.set_ylabel("label", color=INK)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.spines[:].set_visible(False)
    return save(figure, path)


def plot_image_sheet(images: Array, titles: Sequence[str], path: Path | str) -> None:
    """Draw a sheet of grey images (N,H,W) uint8, one short title each."""
    if not len(images):
        return save_note("no images to show", path)
    columns = min(len(images), max(4, min(8, math.ceil(math.sqrt(len(images))))))
    figure, grid = image_grid(len(images), columns, 1.6, 1.85)
    for axes, image, title in zip(grid, images, titles, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=8, color=INK)
    return save(figure, path)


def image_grid(n: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of at least n axes without frames, each of a size in inches."""
    rows = math.ceil(n / columns)
    figure = new_figure(width * columns, height * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in grid:
        axes.axis("off")
    return figure, grid


def plot_attention_overlays(
    images: Array, maps: Array, titles: Sequence[str], path: Path | str
) -> None:
    """Draw each image (N,H,W) uint8 beside itself under its attention map (N,h,w).

    Maps are scaled to the image by bilinear interpolation and share one colour scale, so that
    images can be compared.
    """
    if not len(images):
        return save_note("no images to show", path)
    pairs = min(len(images), 2)
    figure, grid = image_grid(2 * len(images), 2 * pairs, 2.4, 2.45)
    finite = maps[np.isfinite(maps)] if maps.size else np.zeros(1)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    height, width = images.shape[1:3]
    for index, (image, attention, title) in enumerate(zip(images, maps, titles, strict=False)):
        plain, covered = grid[2 * index : 2 * index + 2]
        for axes in (plain, covered):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        plain.set_title(title, fontsize=8, color=INK, loc="left")
        drawn = covered.imshow(
            attention, cmap="viridis", vmin=low, vmax=high, alpha=0.45, interpolation="bilinear",
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )  # fmt: skip
    rows = math.ceil(len(images) / pairs)
    bar = figure.colorbar(drawn, ax=grid, shrink=min(1.0, 2.2 / rows), pad=0.01)
    bar.set_label("attention", fontsize=9, color=INK)
    if bar.solids is not None:
        bar.solids.set_alpha(1.0)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
    return save(figure, path)


def _two_classes(
    axes: Axes, curves: Curves, styles: Styles | None
) -> Iterator[tuple[str, Array, Array, dict[str, Any]]]:
    """Yield name, targets, scores and look of each defined curve; name the others."""
    for index, (name, (target, scores)) in enumerate(curves.items()):
        truth, score = np.asarray(target).astype(int), np.asarray(scores, dtype=float)
        if len(np.unique(truth)) < 2:
            why = "one class only" if len(truth) else "no images"
            axes.fill_between([], [], color="none", label=f"{name}: undefined ({why})")
            continue
        colour, line = (styles or {}).get(name, (COLOURS[index % len(COLOURS)], "-"))
        yield name, truth, score, {"color": colour, "ls": line, "lw": 1.6}


def _mark(axes: Axes, x: float, y: float, look: dict[str, Any]) -> None:
    axes.plot(x, y, "o", color=look["color"], ms=7, mec="white", clip_on=False)


def _finish(
    figure: Figure, axes: Axes, corner: Literal["lower right", "upper right"], path: Path | str
) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    _, labels = axes.get_legend_handles_labels()
    if (legend := axes.get_legend()) is not None:  # the display's, with labels of its own
        legend.remove()
    if not axes.lines:
        note(axes, "\n".join(labels) or "no predictions")
    elif len(labels) > LEGEND_INSIDE:  # beside the curves, not over them
        widest = max(len(label) for label in labels)
        figure.set_size_inches(6.0 + 0.065 * widest, max(5.2, 0.19 * len(labels) + 0.6))
        figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    else:
        axes.legend(frameon=False, fontsize=8, loc=corner)
    save(figure, path)

"""How plots look: colours, quiet axes, notes where nothing can be drawn.

Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, QUIET, FAINT = "#222222", "#666666", "#dddddd"


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

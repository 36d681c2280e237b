"""Plots: the numbers drawn are scikit-learn's, and nothing undefined stops a plot."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

from cardiomegaly.reports import plots

RNG = np.random.default_rng(0)
TARGET = (RNG.random(80) < 0.3).astype(int)
PROBABILITY = 1 / (1 + np.exp(-(2 * TARGET - 1 + RNG.normal(size=80))))


def words(figure: Figure) -> str:
    """All text of the axes and legends."""
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    for legend in [axes.get_legend() for axes in figure.axes] + list(figure.legends):
        texts += [text.get_text() for text in legend.get_texts()] if legend else []
    return "\n".join(texts)


def figure_of(saved: list[Figure], y: str) -> Figure:
    """The figure whose y axis is called that."""
    (figure,) = (figure for figure in saved if figure.axes[0].get_ylabel() == y)
    return figure


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def by_epoch(**figures: list[float]) -> dict[str, dict[str, pd.Series]]:
    """One panel, called loss."""
    return {"loss": {name: pd.Series(values) for name, values in figures.items()}}


def test_figures_by_epoch_with_the_best_marked(saved: list[Figure], tmp_path: Path) -> None:
    panels = by_epoch(validation=[3, 2, np.nan], training=[2, 1, 0])
    plots.plot_epochs(panels, tmp_path / "plots" / "history.png", best_epoch=1)
    assert is_png(tmp_path / "plots" / "history.png")
    (axes,) = saved[0].axes
    assert [line.get_label() for line in axes.lines] == [
        "validation", "training", "best epoch (1)",
    ]  # fmt: skip
    assert axes.lines[0].get_xydata().tolist() == [[0, 3], [1, 2]]
    assert "best epoch (1)" in words(saved[0])


def test_figures_of_one_epoch_of_many_and_of_none(saved: list[Figure], tmp_path: Path) -> None:
    plots.plot_epochs(by_epoch(validation=[1]), tmp_path / "one.png")
    plots.plot_epochs(by_epoch(validation=[1.0] * 50), tmp_path / "many.png")
    markers = [figure.axes[0].lines[0].get_marker() for figure in saved]
    assert markers == ["o", "None"]
    for panels in (by_epoch(validation=[np.nan]), by_epoch(), {"loss": {}}):
        plots.plot_epochs(panels, tmp_path / "undefined.png")
        assert "no loss was recorded" in words(saved[-1])


def test_roc_is_that_of_scikit_learn(saved: list[Figure], tmp_path: Path) -> None:
    plots.plot_ranking({"test": (TARGET, PROBABILITY)}, tmp_path, threshold=0.4)
    x, y, _ = roc_curve(TARGET, PROBABILITY)
    curve, point, _ = figure_of(saved, "sensitivity").axes[0].lines
    np.testing.assert_allclose(curve.get_xdata(), x)
    np.testing.assert_allclose(curve.get_ydata(), y)
    tn, fp, fn, tp = confusion_matrix(TARGET, PROBABILITY >= 0.4).ravel()
    np.testing.assert_allclose(point.get_xydata()[0], [fp / (fp + tn), tp / (tp + fn)])
    assert f"test: AUROC {roc_auc_score(TARGET, PROBABILITY):.3f}" in words(
        figure_of(saved, "sensitivity")
    )


def test_precision_recall_is_that_of_scikit_learn(saved: list[Figure], tmp_path: Path) -> None:
    curves = {"test": (TARGET, PROBABILITY)}
    plots.plot_ranking(curves, tmp_path, threshold=0.4)
    figure = figure_of(saved, "PPV (precision)")
    text = words(figure)
    assert f"test: AP {average_precision_score(TARGET, PROBABILITY):.3f}" in text
    _, fp, fn, tp = confusion_matrix(TARGET, PROBABILITY >= 0.4).ravel()
    point = figure.axes[0].lines[2]
    np.testing.assert_allclose(point.get_xydata()[0], [tp / (tp + fn), tp / (tp + fp)])
    assert figure.axes[0].lines[1].get_ydata()[0] == pytest.approx(TARGET.mean())


def test_curves_that_are_undefined_say_so(saved: list[Figure], tmp_path: Path) -> None:
    one_class = (np.zeros(4), np.full(4, 0.2))
    for curves, text in (
        ({"test": one_class}, "test: undefined (one class only)"),
        ({"test": ([], [])}, "test: undefined (no images)"),
        ({}, "no predictions"),
        ({"val": (TARGET, PROBABILITY), "test": one_class}, "test: undefined"),
    ):
        plots.plot_ranking(curves, tmp_path, threshold=1.0)
        assert all(text in words(figure) for figure in saved[-2:])
    assert all("val: A" in words(figure) for figure in saved[-2:])


def test_many_curves_have_their_own_looks_and_a_legend_beside(
    saved: list[Figure], tmp_path: Path
) -> None:
    curves = {f"run {i}": (TARGET, PROBABILITY) for i in range(30)}
    plots.plot_ranking(curves, tmp_path, styles={"run 3": ("#123456", "--")})
    figure = figure_of(saved, "sensitivity")
    assert figure.axes[0].lines[3].get_color() == "#123456"
    assert figure.axes[0].lines[3].get_linestyle() == "--"
    assert len(figure.legends[0].get_texts()) == 30
    assert figure.legends[0].get_window_extent().height < figure.bbox.height


def test_forest_draws_figures_their_intervals_and_what_they_are_compared_with(
    saved: list[Figure], tmp_path: Path
) -> None:
    rows = pd.DataFrame(
        {"label": ["a", "b"], "value": [0.7, np.nan], "low": [0.6, np.nan], "high": [0.8, np.nan]}
    )
    panels = {"F1": rows.assign(published=[0.75, np.nan]), "AUROC": rows}
    plots.plot_forest(panels, tmp_path / "x.png", 0.5, "chance")
    first, second = saved[0].axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b"]
    assert (first.get_xlabel(), second.get_xlabel()) == ("F1", "AUROC")
    assert [list(line.get_xdata()) for line in first.lines[:2]] == [[0.6, 0.8], [0.7]]
    assert first.lines[4].get_xdata()[0] == 0.75
    assert words(saved[0]).split("\n") == ["the study's test set", "chance"]


def test_a_forest_without_a_defined_figure_is_a_note(saved: list[Figure], tmp_path: Path) -> None:
    rows = pd.DataFrame({"label": ["a"], "value": [np.nan], "low": [np.nan], "high": [np.nan]})
    plots.plot_forest({"AUROC": rows}, tmp_path / "x.png", 0.5)
    assert "no figure is defined" in words(saved[0])


def test_pyplot_keeps_no_figure_open(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from matplotlib import pyplot
    before = pyplot.get_fignums()
    plots.plot_epochs(by_epoch(validation=[1, 2]), tmp_path / "history.png")
    plots.plot_ranking({"test": (TARGET, PROBABILITY)}, tmp_path)
    assert pyplot.get_fignums() == before

"""Plots: the numbers drawn are scikit-learn's, and nothing undefined stops a plot."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

from cardiomegaly.reports import plots
from tests.made_runs import make_history

RNG = np.random.default_rng(0)
TARGET = (RNG.random(80) < 0.3).astype(int)
PROBABILITY = 1 / (1 + np.exp(-(2 * TARGET - 1 + RNG.normal(size=80))))
IMAGES = RNG.integers(0, 256, (5, 20, 16), dtype=np.uint8)
MAPS = RNG.random((5, 3, 2))


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that were saved, which are saved all the same."""
    figures: list[Figure] = []
    original = plots.save

    def save(figure: Figure, path: Path | str) -> None:
        figures.append(figure)
        original(figure, path)

    monkeypatch.setattr(plots, "save", save)
    yield figures


def words(figure: Figure) -> str:
    """All text of the axes and legends."""
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    for legend in [axes.get_legend() for axes in figure.axes] + list(figure.legends):
        texts += [text.get_text() for text in legend.get_texts()] if legend else []
    return "\n".join(texts)


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def test_history_marks_the_best_epoch(saved: list[Figure], tmp_path: Path) -> None:
    history = make_history(8)
    history.loc[5, "val/auroc"] = 0.99
    plots.plot_history(history, tmp_path / "plots" / "history.png")
    assert is_png(tmp_path / "plots" / "history.png")
    loss, auroc = saved[0].axes
    assert [line.get_label() for line in loss.lines] == [
        "training", "validation", "best epoch (5)",
    ]  # fmt: skip
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), history["train/loss"])
    np.testing.assert_array_equal(auroc.lines[0].get_ydata(), history["val/auroc"])
    plots.plot_history(history, tmp_path / "history.png", best_epoch=2)
    assert "best epoch (2)" in words(saved[1])


def test_history_of_one_epoch_of_many_and_without_auroc(
    saved: list[Figure], tmp_path: Path
) -> None:
    plots.plot_history(make_history(1), tmp_path / "one.png")
    plots.plot_history(make_history(50), tmp_path / "many.png")
    undefined = make_history(3).assign(**{"val/auroc": np.nan})
    plots.plot_history(undefined, tmp_path / "undefined.png")
    assert "no AUROC was recorded" in words(saved[-1])
    plots.plot_history(pd.DataFrame({"epoch": []}), tmp_path / "empty.png")
    assert "no loss was recorded" in words(saved[-1])


def test_roc_is_that_of_scikit_learn(saved: list[Figure], tmp_path: Path) -> None:
    plots.plot_roc({"test": (TARGET, PROBABILITY)}, tmp_path / "roc.png", threshold=0.4)
    x, y, _ = roc_curve(TARGET, PROBABILITY)
    curve, point, _ = saved[0].axes[0].lines
    np.testing.assert_allclose(curve.get_xdata(), x)
    np.testing.assert_allclose(curve.get_ydata(), y)
    tn, fp, fn, tp = confusion_matrix(TARGET, PROBABILITY >= 0.4).ravel()
    np.testing.assert_allclose(point.get_xydata()[0], [fp / (fp + tn), tp / (tp + fn)])
    assert f"test: AUROC {roc_auc_score(TARGET, PROBABILITY):.3f}" in words(saved[0])


def test_precision_recall_is_that_of_scikit_learn(saved: list[Figure], tmp_path: Path) -> None:
    curves = {"test": (TARGET, PROBABILITY)}
    plots.plot_precision_recall(curves, tmp_path / "pr.png", threshold=0.4)
    text = words(saved[0])
    assert f"test: AP {average_precision_score(TARGET, PROBABILITY):.3f}" in text
    assert "prevalence" in text
    _, fp, fn, tp = confusion_matrix(TARGET, PROBABILITY >= 0.4).ravel()
    point = saved[0].axes[0].lines[1]
    np.testing.assert_allclose(point.get_xydata()[0], [tp / (tp + fn), tp / (tp + fp)])
    assert saved[0].axes[0].lines[2].get_ydata()[0] == pytest.approx(TARGET.mean(), abs=1e-3)


@pytest.mark.parametrize("plot", [plots.plot_roc, plots.plot_precision_recall])
def test_curves_that_are_undefined_say_so(plot, saved: list[Figure], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    one_class = (np.zeros(4), np.full(4, 0.2))
    plot({"test": one_class}, tmp_path / "one.png", threshold=0.5)
    assert "test: undefined (one class only)" in words(saved[-1])
    plot({"test": ([], [])}, tmp_path / "none.png")
    assert "test: undefined (no images)" in words(saved[-1])
    plot({}, tmp_path / "nothing.png")
    assert "no predictions" in words(saved[-1])
    plot({"val": (TARGET, PROBABILITY), "test": one_class}, tmp_path / "both.png", threshold=1.0)
    assert "val: A" in words(saved[-1]) and "test: undefined" in words(saved[-1])


def test_many_curves_have_their_own_looks_and_a_legend_beside(
    saved: list[Figure], tmp_path: Path
) -> None:
    curves = {f"run {i}": (TARGET, PROBABILITY) for i in range(30)}
    styles = {"run 3": ("#123456", "--")}
    plots.plot_roc(curves, tmp_path / "roc.png", styles=styles)
    assert saved[0].axes[0].lines[3].get_color() == "#123456"
    assert saved[0].axes[0].lines[3].get_linestyle() == "--"
    assert len(saved[0].legends[0].get_texts()) == 30
    height = saved[0].legends[0].get_window_extent().height
    assert height < saved[0].bbox.height


def test_confusion_matrix_counts(saved: list[Figure], tmp_path: Path) -> None:
    plots.plot_confusion_matrix(TARGET, PROBABILITY, 0.4, tmp_path / "matrix.png")
    shown = [text.get_text().split("\n")[0] for text in saved[0].axes[0].texts]
    expected = confusion_matrix(TARGET, PROBABILITY >= 0.4).ravel()
    assert shown == [str(count) for count in expected]
    plots.plot_confusion_matrix([1, 1], [0.5, 0.2], 0.5, tmp_path / "one.png")
    shown = [text.get_text().split("\n")[0] for text in saved[1].axes[0].texts]
    assert shown == ["0", "0", "1", "1"]  # at the threshold counts as called
    plots.plot_confusion_matrix([], [], 0.5, tmp_path / "none.png")
    assert "no images" in words(saved[2])


def test_image_sheet_shows_the_pixels(saved: list[Figure], tmp_path: Path) -> None:
    plots.plot_image_sheet(IMAGES, ["a", "b", "c", "d", "e"], tmp_path / "sheet.png")
    shown = [axes for axes in saved[0].axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["a", "b", "c", "d", "e"]
    np.testing.assert_array_equal(shown[2].images[0].get_array(), IMAGES[2])
    plots.plot_image_sheet(IMAGES[:1], ["a"], tmp_path / "one.png")
    plots.plot_image_sheet(IMAGES[:0], [], tmp_path / "none.png")
    assert "no images to show" in words(saved[-1])


def test_attention_covers_the_whole_image_on_one_scale(saved: list[Figure], tmp_path: Path) -> None:
    plots.plot_attention_overlays(IMAGES, MAPS, list("abcde"), tmp_path / "attention.png")
    covered = [axes for axes in saved[0].axes if len(axes.images) == 2]
    assert len(covered) == 5
    for axes, attention in zip(covered, MAPS, strict=True):
        image, overlay = axes.images
        assert list(overlay.get_extent()) == list(image.get_extent())
        assert overlay.get_clim() == (MAPS.min(), MAPS.max())
        np.testing.assert_array_equal(overlay.get_array(), attention)
    assert any(axes.get_ylabel() == "attention" for axes in saved[0].axes)
    constant = np.full((1, 2, 2), 0.5)
    plots.plot_attention_overlays(IMAGES[:1], constant, ["a"], tmp_path / "constant.png")
    unknown = np.full((1, 2, 2), np.nan)
    plots.plot_attention_overlays(IMAGES[:1], unknown, ["a"], tmp_path / "nan.png")
    plots.plot_attention_overlays(IMAGES[:0], MAPS[:0], [], tmp_path / "none.png")
    assert all(is_png(path) for path in tmp_path.iterdir())


def test_pyplot_keeps_no_figure_open(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from matplotlib import pyplot
    before = pyplot.get_fignums()
    plots.plot_history(make_history(3), tmp_path / "history.png")
    assert pyplot.get_fignums() == before

"""The plots of an evaluation: what is undefined becomes a note, what is drawn a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cardiomegaly.reports import evaluation_plots as draw
from cardiomegaly.reports.localise import MapSheet


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    kept: list[Figure] = []
    monkeypatch.setattr(draw, "save", lambda figure, path: kept.append(figure))
    return kept


def test_forest_draws_what_is_defined_and_the_reference(figures: list[Figure]) -> None:
    rows = pd.DataFrame(
        {"label": ["a", "b", "c"], "value": [0.7, np.nan, 0.9], "low": [0.6, np.nan, np.nan]}
    ).assign(high=[0.8, np.nan, np.nan])
    draw.plot_forest(rows, "x.png", "AUROC", 0.5, "chance")
    axes = figures[0].axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "c"]
    assert axes.get_xlabel() == "AUROC" and axes.get_legend() is not None


def test_nothing_defined_is_a_note(tmp_path: Path) -> None:
    rows = pd.DataFrame({"label": ["a"], "value": [np.nan], "low": [np.nan], "high": [np.nan]})
    draw.plot_forest(rows, tmp_path / "x.png", "AUROC", 0.5)
    assert (tmp_path / "x.png").stat().st_size > 500


def test_decision_curves_have_a_panel_a_prevalence(figures: list[Figure]) -> None:
    rows = [(share, risk, 0.1, 0.05) for share in (0.1, 0.2, 0.3, 0.4) for risk in (0.1, 0.2)]
    columns = ["prevalence", "risk", "net_benefit", "all_called"]
    draw.plot_decision(pd.DataFrame(rows, columns=columns), "x.png")
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles[:4] == [f"prevalence {share}0%" for share in (1, 2, 3, 4)]


def test_the_true_box_is_drawn_where_it_is(figures: list[Figure]) -> None:
    images, maps = np.zeros((2, 8, 8), np.uint8), [np.ones((3, 3))] * 2
    boxes = np.array([[100.0, 200, 300, 400]] * 2)
    draw.plot_box_sheet(MapSheet("attention", images, maps, boxes, ["a", "b"]), "x.png")
    patch = figures[0].axes[1].patches[0]
    assert patch.get_xy() == (100, 200) and patch.get_width() == 300

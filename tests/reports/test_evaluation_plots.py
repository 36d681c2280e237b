"""The plots of an evaluation: what is undefined becomes a note, what is drawn a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cardiomegaly.reports import evaluation_plots as draw


def test_decision_curves_have_a_panel_a_prevalence(saved: list[Figure], tmp_path: Path) -> None:
    rows = [(share, risk, 0.1, 0.05) for share in (0.1, 0.2, 0.3, 0.4) for risk in (0.1, 0.2)]
    columns = ["prevalence", "risk", "net_benefit", "all_called"]
    draw.plot_decision(pd.DataFrame(rows, columns=columns), tmp_path / "x.png")
    titles = [axes.get_title() for axes in saved[0].axes]
    assert titles[:4] == [f"prevalence {share}0%" for share in (1, 2, 3, 4)]


def test_reliability_lies_where_the_table_says(saved: list[Figure], tmp_path: Path) -> None:
    rows = {"method": ["a", "a", "b"], "mean_probability": [0.1, 0.4, 0.2]}
    rows |= {"observed": [0.2, 0.5, 0.1], "low": [0.1, 0.3, 0.0], "high": [0.4, 0.6, 0.3]}
    draw.plot_reliability(pd.DataFrame(rows), tmp_path / "x.png")
    first, second = saved[0].axes
    assert (first.get_title(), second.get_title()) == ("a", "b")
    assert first.containers[0].lines[0].get_xydata().tolist() == [[0.1, 0.2], [0.4, 0.5]]
    (bars,) = first.containers[0].lines[2]
    assert bars.get_segments()[0][:, 1] == pytest.approx([0.1, 0.4])


def test_overlaps_are_dashed_for_boxes_that_see_nothing(
    saved: list[Figure], tmp_path: Path
) -> None:
    rows = [(m, f"{name}>{cut}", 0.5, lift) for m, lift in (("map", 0.1), ("mean box", np.nan))
            for name in ("iou", "iobb") for cut in (0.1, 0.5)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "metric", "value", "lift"])
    draw.plot_overlaps(table, tmp_path / "x.png")
    assert [line.get_linestyle() for line in saved[0].axes[0].lines] == ["-", "--"]
    assert saved[0].axes[1].lines[0].get_xdata().tolist() == [0.1, 0.5]

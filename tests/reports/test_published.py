"""The study's figures: complete, consistent with each other, and its headline table as printed."""

from __future__ import annotations

import numpy as np
import pytest

from cardiomegaly.reports.published import BACKBONES, study_figure, study_results


def test_every_backbone_balance_and_part_is_there_once() -> None:
    frame = study_results()
    assert len(frame) == 16
    assert not frame.duplicated(["backbone", "balance", "split"]).any()
    assert set(frame["backbone"]) == set(BACKBONES)
    assert frame["balance"].dtype == bool


def test_the_headline_table() -> None:
    table = [
        [study_figure(name, balance, "f1_weighted", "headline") for name in BACKBONES]
        for balance in (True, False)
    ]
    assert table == [[0.79, 0.78, 0.81, 0.77], [0.82, 0.81, 0.83, 0.81]]
    assert study_results().groupby(["backbone", "balance"])["headline"].sum().eq(1).all()


def test_the_figures_agree_with_their_own_sensitivity_and_specificity() -> None:
    frame = study_results()
    n, p = frame["n_negative"], frame["n_positive"]
    tp, tn = (frame["sensitivity"] * p).round(), (frame["specificity"] * n).round()
    f1, f0 = 2 * tp / (2 * tp + (n - tn) + (p - tp)), 2 * tn / (2 * tn + (n - tn) + (p - tp))
    # Printed to two decimals by the study, which rounds or cuts.
    np.testing.assert_allclose((tp + tn) / (n + p), frame["accuracy"], atol=1e-3)
    np.testing.assert_allclose(f1, frame["f1_positive"], atol=0.0101)
    np.testing.assert_allclose((p * f1 + n * f0) / (p + n), frame["f1_weighted"], atol=0.0101)


def test_looking_up_a_figure() -> None:
    assert study_figure("mobilenetv1", False, "f1_positive") == pytest.approx(0.49)
    assert study_figure("mobilenetv1", False, "sensitivity", "val") == pytest.approx(0.3849)
    assert study_figure("densenet121", True, "f1_weighted") is None

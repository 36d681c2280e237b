"""What is printed and drawn after a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.reports.run_report import closing_table, most_confident, plot_confusion_matrix


def test_the_closing_table_counts_in_whole_numbers_and_says_what_is_undefined() -> None:
    metrics = {
        "val": binary_metrics([0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4]),
        "test": binary_metrics([0] * 12, [0.2] * 12),
    }
    rows = {line.split()[0]: line.split()[1:] for line in closing_table(metrics).splitlines()[2:]}
    assert rows["n"] == ["4", "12"]
    assert rows["n_positive"] == ["1", "0"]
    assert rows["auroc"] == ["1.0000", "undefined"]
    assert rows["specificity"] == ["1.0000", "1.0000"]
    assert rows["ppv"] == ["undefined", "undefined"]
    assert rows["accuracy"] == ["0.7500", "1.0000"]


def test_the_most_confident_images_right_and_wrong_positives_first() -> None:
    test = pd.DataFrame(
        {"target": [1, 1, 0, 0, 1, 0], "probability": [0.9, 0.6, 0.1, 0.8, 0.2, 0.3]}
    )
    chosen = most_confident(test, threshold=0.5, n=1)
    assert chosen["right"].index.tolist() == [0, 2]
    assert chosen["wrong"].index.tolist() == [3, 4]


def test_confusion_matrix_counts(saved: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    target, probability = rng.integers(0, 2, 80), rng.random(80)
    plot_confusion_matrix(target, probability, 0.4, tmp_path / "matrix.png", "effusion")
    shown = [text.get_text().split("\n")[0] for text in saved[0].axes[0].texts]
    expected = confusion_matrix(target, probability >= 0.4).ravel()
    assert shown == [str(count) for count in expected]
    plot_confusion_matrix([1, 1], [0.5, 0.2], 0.5, tmp_path / "one.png", "effusion")
    shown = [text.get_text().split("\n")[0] for text in saved[1].axes[0].texts]
    assert shown == ["0", "0", "1", "1"]  # at the threshold counts as called
    plot_confusion_matrix([], [], 0.5, tmp_path / "none.png", "effusion")
    assert "no images" in saved[2].axes[0].texts[0].get_text()

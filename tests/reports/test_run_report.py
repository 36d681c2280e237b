"""What is printed and drawn after a training."""

from __future__ import annotations

import pandas as pd

from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.reports.run_report import closing_table, most_confident


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

"""The shortcut panel: a planted shortcut is found and named, an honest detector is not accused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.evaluation import shortcuts
from cardiomegaly.evaluation.intervals import Patients
from cardiomegaly.evaluation.metrics import binary_metrics


def cohort(seed: int, looks_at: str) -> pd.DataFrame:
    """600 images; AP views are oftener positive, and the network looks at the view or the heart."""
    rng = np.random.default_rng(seed)
    target = (rng.random(600) < 0.3).astype(int)
    ap = rng.random(600) < np.where(target == 1, 0.8, 0.2)
    logit = (3.0 * ap if looks_at == "view" else 3.0 * target) + rng.normal(size=600)
    return pd.DataFrame(
        {
            "patient_id": 1000 * seed + np.arange(600) // 2,
            "target": target,
            "probability": 1 / (1 + np.exp(-logit)),
            "view_position": np.where(ap, "AP", "PA"),
            "sex": rng.choice(["M", "F"], 600),
            "age": np.where(rng.random(600) < 0.1, np.nan, rng.uniform(20, 80, 600)),
            "width": rng.choice([2048, 2500], 600),
            "findings": np.where(
                target == 1, "Cardiomegaly", rng.choice(["No Finding", "Mass"], 600)
            ),
        }
    )


def panel(table: pd.DataFrame, train: pd.DataFrame | None = None) -> shortcuts.Shortcuts:
    patients = Patients.of(table["target"], table["patient_id"])
    return shortcuts.evaluate_shortcuts(table, patients, train, seed=0)


@pytest.mark.parametrize("with_train", [True, False])
def test_a_planted_shortcut_is_found_and_named(with_train: bool) -> None:
    found = panel(cohort(1, "view"), cohort(2, "view") if with_train else None)
    rows = found.table.set_index("source")
    assert list(rows.index) == ["all metadata", "view", "sex", "age", "original pixel size"]
    assert rows.loc["view", "low"] > 0.7
    assert rows.loc["view", "explained"] > 0.5 and rows.loc["sex", "explained"] < 0.05
    residual = rows.loc["all metadata"]
    assert residual["residual_low"] < 0.5 < residual["residual_high"]
    assert "view" in found.suspected and "sex" not in found.suspected
    assert found.fitted_on.startswith("the training" if with_train else "other patients")


def test_a_detector_that_looks_at_the_heart_keeps_its_residual() -> None:
    found = panel(cohort(1, "heart"))
    rows = found.table.set_index("source")
    assert not found.suspected
    # The labels follow the view, so the view explains part of any good score, but not its residual.
    assert rows.loc["all metadata", "residual_low"] > 0.8


def test_one_class_in_the_training_part_falls_back_to_cross_fitting() -> None:
    found = panel(cohort(1, "view"), cohort(2, "view").assign(target=0))
    assert found.fitted_on.startswith("other patients")


def test_constant_scores_have_nothing_to_explain() -> None:
    rows = panel(cohort(1, "view").assign(probability=0.5)).table
    assert rows["explained"].isna().all()


def test_negatives_by_kind_are_what_filtering_by_hand_gives() -> None:
    table = cohort(1, "heart")
    table.loc[table["findings"] == "Mass", "probability"] **= 0.3
    patients = Patients.of(table["target"], table["patient_id"])
    found = shortcuts.negatives_by_kind(table, patients).set_index("negatives")
    for name, kind in (("No Finding", "No Finding"), ("other findings", "Mass")):
        part = table[(table["target"] == 1) | (table["findings"] == kind)]
        expected = binary_metrics(part["target"], part["probability"])["auroc"]
        assert found.loc[name, "auroc"] == pytest.approx(expected)
        assert found.loc[name, "n"] == (table["findings"] == kind).sum()
    assert found.loc["other findings", "high"] < found.loc["No Finding", "low"]
    assert shortcuts.negatives_by_kind(table.drop(columns="findings"), patients).empty


def test_no_metadata_is_refused() -> None:
    table = cohort(1, "heart")[["patient_id", "target", "probability"]]
    with pytest.raises(UserError, match="shortcut panel needs one of the columns view_position"):
        panel(table)

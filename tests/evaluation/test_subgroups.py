"""Subgroups: their names, their figures against the metrics, planted and absent gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.evaluation import subgroups
from cardiomegaly.evaluation.influence import metric_intervals
from cardiomegaly.evaluation.intervals import Patients
from cardiomegaly.evaluation.metrics import binary_metrics


def cohort(ap_noise: float) -> pd.DataFrame:
    """800 images of 400 patients; AP views are seen through more noise."""
    rng = np.random.default_rng(2)
    ap = rng.random(800) < 0.5
    target = (rng.random(800) < 0.3).astype(int)
    logit = 2 * target - 1 + rng.normal(size=800) * np.where(ap, ap_noise, 0.7)
    return pd.DataFrame(
        {
            "patient_id": np.repeat(np.arange(400), 2),
            "target": target,
            "probability": 1 / (1 + np.exp(-logit)),
            "view_position": np.where(ap, "AP", "PA"),
            "sex": rng.choice(["M", "F"], 800),
            "age": rng.uniform(20, 79, 800),
            "follow_up": np.tile([0, 1], 400),
            "findings": rng.choice(["No Finding", "Effusion", "Cardiomegaly|Mass"], 800),
        }
    )


def judged(table: pd.DataFrame, cut: float | np.ndarray = 0.5) -> subgroups.Subgroups:
    patients = Patients.of(table["target"], table["patient_id"])
    return subgroups.evaluate_subgroups(table, patients, cut, minimum=10)


def test_groups_have_names_and_the_missing_is_unknown() -> None:
    table = pd.DataFrame(
        {
            "view_position": ["PA", None],
            "age": [17.9, np.nan],
            "follow_up": [0, 3],
            "findings": ["Cardiomegaly", "Cardiomegaly|Effusion"],
        }
    )
    names = {key: list(value) for key, value in subgroups.group_names(table).items()}
    assert names == {
        "view": ["PA", "unknown"],
        "age": ["0-17", "unknown"],
        "visit": ["first image", "follow-up"],
        "findings": ["none or one", "several"],
    }
    ages = subgroups.group_names(pd.DataFrame({"age": [18.0, 79.9, 80.0, 99.0]}))["age"]
    assert list(ages) == ["18-39", "60-79", "80+", "80+"]


def test_figures_are_those_of_the_group_alone() -> None:
    table = cohort(1.5)
    found = judged(table, 0.4).table
    assert found.groupby("dimension")["n"].sum().eq(800).all()
    row = found[found["group"] == "AP"].iloc[0]
    part = table[table["view_position"] == "AP"]
    expected = binary_metrics(part["target"], part["probability"], 0.4)
    assert {name: row[name] for name in subgroups.FIGURES} == pytest.approx(
        {name: expected[name] for name in subgroups.FIGURES}
    )
    assert row["n_positive"] == part["target"].sum()
    own = metric_intervals(part["target"], part["probability"], part["patient_id"], 0.4)["auroc"]
    assert (row["auroc_low"], row["auroc_high"]) == pytest.approx((own.low, own.high))


def test_a_threshold_for_each_image_is_taken_to_the_group() -> None:
    table = cohort(1.5)
    single = judged(table, 0.4).table
    each = judged(table, np.full(800, 0.4)).table
    pd.testing.assert_frame_equal(single, each)


def test_a_planted_gap_is_found_and_an_absent_one_may_be_chance() -> None:
    table = cohort(4.0)
    gaps = judged(table).gaps.set_index(["dimension", "metric"])
    gap = gaps.loc[("view", "auroc")]
    assert (gap["lowest"], gap["highest"]) == ("AP", "PA") and gap["low"] > 0.1
    assert gaps.loc[("sex", "auroc"), "low"] <= 0
    assert set(gaps.index.get_level_values("metric")) == set(subgroups.GAPS)


def test_the_widest_gap_of_many_groups_is_judged_more_strictly() -> None:
    table = cohort(1.0)
    ages = judged(table).gaps.set_index(["dimension", "metric"]).loc[("age", "auroc")]
    two = table[subgroups.group_names(table)["age"].isin([ages["lowest"], ages["highest"]])]
    alone = judged(two).gaps.set_index(["dimension", "metric"]).loc[("age", "auroc")]
    assert ages["gap"] == pytest.approx(alone["gap"])
    assert ages["low"] < alone["low"] and alone["high"] < ages["high"]


def test_small_groups_get_no_figure() -> None:
    table = cohort(1.0)
    table.loc[(table["sex"] == "F"), "target"] = 0
    found = judged(table)
    row = found.table[found.table["group"] == "F"].iloc[0]
    assert row["note"] == "fewer than 10 positive images" and np.isnan(row["auroc"])
    assert "sex" not in set(found.gaps["dimension"])
    all_ill = judged(table.assign(target=1))
    assert all_ill.table["note"].eq("fewer than 10 negative images").all() and all_ill.gaps.empty


def test_minimum_is_checked() -> None:
    table = cohort(1.0)
    patients = Patients.of(table["target"], table["patient_id"])
    with pytest.raises(UserError, match=r"minimum: 1 or more .* got 0"):
        subgroups.evaluate_subgroups(table, patients, 0.5, minimum=0)

"""Subgroups: their names, their figures against the metrics, planted and absent gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.evaluation import subgroups
from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.evaluation.uncertainty import Draws, draw_patients, metric_intervals


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


def draws_of(table: pd.DataFrame) -> Draws:
    return draw_patients(table["target"], table["patient_id"], 300)


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
    found = subgroups.evaluate_subgroups(table, draws_of(table), 0.4).table
    assert found.groupby("dimension")["n"].sum().eq(800).all()
    row = found[found["group"] == "AP"].iloc[0]
    part = table[table["view_position"] == "AP"]
    expected = binary_metrics(part["target"], part["probability"], 0.4)
    assert {name: row[name] for name in subgroups.FIGURES} == pytest.approx(
        {name: expected[name] for name in subgroups.FIGURES}
    )
    assert row["n_positive"] == part["target"].sum()
    # Much the same interval as from resamples of these patients alone.
    own = metric_intervals(part["target"], part["probability"], draws_of(part), 0.4)["auroc"]
    assert row["auroc_high"] - row["auroc_low"] == pytest.approx(own.high - own.low, rel=0.25)


def test_a_threshold_for_each_image_is_taken_to_the_group() -> None:
    table = cohort(1.5)
    single = subgroups.evaluate_subgroups(table, draws_of(table), 0.4).table
    each = subgroups.evaluate_subgroups(table, draws_of(table), np.full(800, 0.4)).table
    pd.testing.assert_frame_equal(single, each)


def test_a_planted_gap_is_named_and_an_absent_one_may_be_chance() -> None:
    table = cohort(4.0)
    found = subgroups.evaluate_subgroups(table, draws_of(table), 0.5)
    gap = found.gaps.set_index(["dimension", "metric"]).loc[("view", "auroc")]
    assert (gap["lowest"], gap["highest"]) == ("AP", "PA") and gap["low"] > 0.1
    assert found.words[0].startswith("view: AUROC is 0.") and "lower for AP (" in found.words[0]
    sex = next(words for words in found.words if words.startswith("sex: AUROC"))
    assert sex.endswith("this may be chance.")
    assert not any("average precision" in words for words in found.words)


def test_small_groups_get_no_figure() -> None:
    table = cohort(1.0)
    table.loc[(table["sex"] == "F"), "target"] = 0
    found = subgroups.evaluate_subgroups(table, draws_of(table), 0.5)
    row = found.table[found.table["group"] == "F"].iloc[0]
    assert row["note"] == "fewer than 10 positive images" and np.isnan(row["auroc"])
    assert not any(words.startswith("sex") for words in found.words)
    all_ill = subgroups.evaluate_subgroups(table.assign(target=1), draws_of(table), 0.5)
    assert all_ill.table["note"].eq("fewer than 10 negative images").all() and not all_ill.words


def test_minimum_is_checked() -> None:
    table = cohort(1.0)
    with pytest.raises(UserError, match=r"minimum: 1 or more .* got 0"):
        subgroups.evaluate_subgroups(table, draws_of(table), 0.5, minimum=0)

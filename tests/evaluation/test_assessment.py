"""Everything in one go: where things are fitted, and what is undefined with its reason."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.evaluation.assessment import assess
from cardiomegaly.evaluation.fitting import Cohort, Predicted, fit_threshold
from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.evaluation.settings import Settings

SETTINGS = Settings()


def part(seed: int, images: int = 300) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = (rng.random(images) < 0.3).astype(int)
    table = pd.DataFrame(
        {
            "image": [f"{seed}_{number:03d}.png" for number in range(images)],
            "patient_id": 1000 * seed + np.arange(images) // 3,
            "target": target,
            "follow_up": np.arange(images) % 3,
            "view_position": rng.choice(["AP", "PA"], images),
            "findings": np.where(target == 1, "Cardiomegaly", "No Finding"),
        }
    )
    return table, 1 / (1 + np.exp(-(2 * target - 1 + rng.normal(size=images))))


TEST, SCORE = part(1)
VAL, VAL_SCORE = part(2)


def test_thresholds_are_fitted_on_validation_and_applied_to_the_test_part() -> None:
    cohort = Cohort(TEST, VAL["target"].to_numpy(), VAL, TEST)
    found = assess(cohort, {"a": Predicted(SCORE, VAL_SCORE)}, SETTINGS)
    assert found.fitted_on == "the validation part" and not found.undefined
    rows = found.thresholds.set_index(["rule", "metric"])
    assert list(found.thresholds["rule"].unique()) == [
        "fixed", "Youden", "largest F1", "sensitivity 0.9", "specificity 0.9",
    ]  # fmt: skip
    for rule, value, name in (("youden", None, "Youden"), ("sensitivity", 0.9, "sensitivity 0.9")):
        cut = fit_threshold(VAL["target"], VAL_SCORE, rule, value)
        row = rows.loc[(name, "specificity")]
        assert row["threshold"] == pytest.approx(cut)
        assert row["value"] == binary_metrics(TEST["target"], SCORE, cut)["specificity"]
    assert found.comparison is None and found.audit is not None
    assert found.calibration["method"].tolist() == ["as given", "Platt", "isotonic"]


@pytest.mark.parametrize("val_target", [None, np.zeros(300, int)])
def test_without_a_usable_validation_part_all_is_cross_fitted(
    val_target: np.ndarray | None,
) -> None:
    val = None if val_target is None else VAL_SCORE
    found = assess(Cohort(TEST, val_target), {"a": Predicted(SCORE, val)}, SETTINGS)
    why = "no validation part" if val_target is None else "one class only"
    assert "cross-fitted by patient" in found.fitted_on and why in found.fitted_on
    assert set(found.undefined) == {"label audit"}
    assert len(found.calibration) == 3


def test_one_class_is_undefined_with_its_reasons() -> None:
    healthy = TEST.assign(target=0)
    found = assess(
        Cohort(healthy), {"a": Predicted(SCORE, None), "b": Predicted(SCORE**2, None)}, SETTINGS
    )
    assert found.shared == "fixed"
    assert "two patients with a positive image" in found.undefined["threshold Youden"]
    assert "both classes" in found.undefined["decision curve"]
    assert found.shortcuts is None and found.decision is None
    assert found.calibration["method"].tolist() == ["as given"]
    rows = found.thresholds.set_index("metric")["value"]
    assert np.isnan(rows["auroc"]) and np.isnan(rows["sensitivity"]) and rows["specificity"] > 0
    assert found.comparison is not None
    assert found.comparison.set_index("metric")["p"][["auroc", "sensitivity"]].isna().all()


def test_constant_predictions_are_a_coin() -> None:
    found = assess(Cohort(TEST), {"a": Predicted(np.full(300, 0.5), None)}, SETTINGS)
    auroc = found.thresholds.set_index("metric").loc["auroc"].iloc[0]
    assert auroc["low"] < auroc["value"] == 0.5 < auroc["high"]
    assert np.isnan(found.calibration["slope"][0])
    assert found.shortcuts is not None and found.shortcuts.table["explained"].isna().all()


def test_logits_rank_and_are_calibrated_where_probabilities_tie() -> None:
    logit, val_logit = (np.log(score / (1 - score)) - 40 for score in (SCORE, VAL_SCORE))
    tied = Predicted(SCORE * 0, VAL_SCORE * 0, logit, val_logit)
    cohort = Cohort(TEST, VAL["target"].to_numpy(), VAL, TEST)
    found = assess(cohort, {"low": tied, "high": Predicted(SCORE, VAL_SCORE)}, SETTINGS)
    high = assess(cohort, {"high": Predicted(SCORE, VAL_SCORE)}, SETTINGS)
    assert found.shortcuts is not None
    for name in ("subgroups", "shortcuts"):
        tables = [getattr(each, name).table["auroc"] for each in (found, high)]
        pd.testing.assert_series_equal(*tables)
    # A line undoes the shift of the logits.
    brier = [each.calibration.set_index("method")["brier"]["Platt"] for each in (found, high)]
    assert brier[0] == pytest.approx(brier[1], rel=1e-4)
    assert found.comparison is not None and found.comparison["difference"][0] == 0


def test_models_are_compared_each_at_its_own_threshold() -> None:
    models = {"a": Predicted(SCORE, None), "b": Predicted(SCORE**3, None)}
    found = assess(Cohort(TEST), models, SETTINGS).comparison
    assert found is not None and set(found["first"]) == {"a"} and set(found["second"]) == {"b"}
    # Cubing keeps the ranking, so a fitted threshold gives the same calls.
    rows = found.set_index("metric")["difference"]
    assert rows["auroc"] == rows["sensitivity"] == 0 and rows["brier"] != 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(UserError, match="probability: numbers from 0 to 1"):
        assess(Cohort(TEST), {"a": Predicted(SCORE + 1, None)}, SETTINGS)
    with pytest.raises(UserError, match="specificity: a number from 0 to 1 is allowed, got 90"):
        assess(Cohort(TEST), {"a": Predicted(SCORE, None)}, Settings(specificity=90))

"""The paired comparison: its tests against references, its pairing, its refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from cardiomegaly import UserError
from cardiomegaly.evaluation import comparison
from cardiomegaly.evaluation.fitting import Predicted
from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.evaluation.uncertainty import draw_patients, metric_intervals

RNG = np.random.default_rng(11)
PATIENT = np.repeat(np.arange(150), 2)
TARGET = np.repeat((RNG.random(150) < 0.4).astype(int), 2)
SIGNAL = TARGET + RNG.normal(size=300)


def squash(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


GOOD = squash(SIGNAL + 0.2 * RNG.normal(size=300))
TWIN = squash(SIGNAL + 0.2 * RNG.normal(size=300))
POOR = squash(0.3 * SIGNAL + RNG.normal(size=300))


def table(probability: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [f"{number:03d}.png" for number in range(300)],
            "patient_id": PATIENT,
            "target": TARGET,
            "probability": probability,
        }
    )


def test_delong_test_against_a_direct_count() -> None:
    positive, negative = TARGET == 1, TARGET == 0
    pairs = [np.subtract.outer(score[positive], score[negative]) for score in (GOOD, POOR)]
    wins = [(np.sign(pair) + 1) / 2 for pair in pairs]
    gap = wins[0] - wins[1]
    variance = gap.mean(1).var(ddof=1) / positive.sum() + gap.mean(0).var(ddof=1) / negative.sum()
    expected = 2 * norm.sf(abs(gap.mean()) / np.sqrt(variance))
    assert comparison.delong_test(TARGET, GOOD, POOR) == pytest.approx(expected)


def test_equal_rankings_do_not_differ() -> None:
    assert comparison.delong_test(TARGET, GOOD, GOOD**2) == 1.0
    assert np.isnan(comparison.delong_test(TARGET * 0, GOOD, POOR))


def test_certain_difference_without_variance() -> None:
    target = [0, 0, 1, 1]
    assert comparison.delong_test(target, [0, 0, 1, 1], [1, 1, 0, 0]) == 0.0


def test_holm_by_hand() -> None:
    # 0.01 x 3, 0.02 x 2, 0.5 x 1; in the second case 0.03 x 2 may not fall below 0.02 x 3.
    assert comparison.holm([0.5, 0.01, 0.02]) == pytest.approx([0.5, 0.03, 0.04])
    assert comparison.holm([0.03, 0.025, np.nan, 0.02]) == pytest.approx(
        [0.06, 0.06, np.nan, 0.06], nan_ok=True
    )
    assert comparison.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_the_pair_is_compared_on_the_same_resamples() -> None:
    draws = draw_patients(TARGET, PATIENT, 500)
    models = {"good": GOOD, "twin": TWIN, "poor": POOR}
    predicted = {name: Predicted(score) for name, score in models.items()}
    found = comparison.compare(TARGET, predicted, draws, dict.fromkeys(models, 0.5))
    assert len(found) == 3 * len(comparison.COMPARED)
    auroc = found[found["metric"] == "auroc"].set_index(["first", "second"])
    expected = [binary_metrics(TARGET, score)["auroc"] for score in (GOOD, TWIN, POOR)]
    close = auroc.loc[("good", "twin")]
    assert close["difference"] == pytest.approx(expected[0] - expected[1])
    assert close["low"] < 0 < close["high"] and close["p_delong"] > 0.05
    far = auroc.loc[("good", "poor")]
    assert far["low"] > 0 and far["p_bootstrap"] < 0.02 and far["p_delong_holm"] < 0.001
    assert far["p_delong_holm"] >= far["p_delong"]
    alone = metric_intervals(TARGET, GOOD, draws)["auroc"]
    assert close["high"] - close["low"] < 0.5 * (alone.high - alone.low)
    assert found.loc[found["metric"] == "brier", "p_delong_holm"].isna().all()


def test_bootstrap_p_counts_both_sides() -> None:
    assert comparison.bootstrap_p(np.array([-1.0, 1, 1, 1, 1, 1, 1, 1, 1])) == pytest.approx(0.4)
    assert comparison.bootstrap_p(np.zeros(10)) == 1.0
    assert np.isnan(comparison.bootstrap_p(np.full(3, np.nan)))


def test_tables_are_brought_into_one_order() -> None:
    shuffled = table(POOR).sample(frac=1, random_state=0)
    found = comparison.common_images({"a": table(GOOD), "b": shuffled})
    assert (found["a"]["image"] == found["b"]["image"]).all()
    assert found["b"]["probability"].to_numpy() == pytest.approx(POOR)


def test_different_test_sets_are_refused() -> None:
    one, two = table(GOOD), table(POOR)
    with pytest.raises(UserError, match=r"two or more models are needed .* got 1"):
        comparison.common_images({"a": one})
    with pytest.raises(UserError, match=r"a and b were tested on different images \(1 stand"):
        comparison.common_images({"a": one, "b": two.iloc[1:]})
    with pytest.raises(UserError, match=r"disagree on the target of 1 images, 003\.png"):
        other = two.assign(target=two["target"].where(two.index != 3, 1 - two["target"]))
        comparison.common_images({"a": one, "b": other})
    with pytest.raises(
        ValueError, match=r"b: each image may stand once, 1 rows repeat one \(000\.png"
    ):
        comparison.common_images({"a": one, "b": pd.concat([two, two.iloc[:1]])})

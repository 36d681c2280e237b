"""The paired comparison: Holm against a hand computation, its pairing, its refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.evaluation import comparison
from cardiomegaly.evaluation.fitting import Predicted
from cardiomegaly.evaluation.influence import metric_intervals
from cardiomegaly.evaluation.intervals import Patients
from cardiomegaly.evaluation.metrics import binary_metrics

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


def test_holm_by_hand() -> None:
    # 0.01 x 3, 0.02 x 2, 0.5 x 1; in the second case 0.03 x 2 may not fall below 0.02 x 3.
    assert comparison.holm([0.5, 0.01, 0.02]) == pytest.approx([0.5, 0.03, 0.04])
    assert comparison.holm([0.03, 0.025, np.nan, 0.02]) == pytest.approx(
        [0.06, 0.06, np.nan, 0.06], nan_ok=True
    )
    assert comparison.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_pairs_are_compared_patient_by_patient() -> None:
    models = {"good": GOOD, "twin": TWIN, "poor": POOR}
    predicted = {name: Predicted(score) for name, score in models.items()}
    patients = Patients.of(TARGET, PATIENT)
    found = comparison.compare(patients, predicted, dict.fromkeys(models, 0.5))
    assert len(found) == 3 * len(comparison.COMPARED)
    auroc = found[found["metric"] == "auroc"].set_index(["first", "second"])
    expected = [binary_metrics(TARGET, score)["auroc"] for score in (GOOD, TWIN, POOR)]
    close = auroc.loc[("good", "twin")]
    assert close["difference"] == pytest.approx(expected[0] - expected[1])
    assert close["low"] < 0 < close["high"] and close["p"] > 0.05
    far = auroc.loc[("good", "poor")]
    assert far["low"] > 0 and far["p"] < far["p_holm"] < 0.001
    alone = metric_intervals(TARGET, GOOD, PATIENT)["auroc"]
    assert close["high"] - close["low"] < 0.5 * (alone.high - alone.low)


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
        UserError, match=r"b: each image may stand once, 1 rows repeat one \(000\.png"
    ):
        comparison.common_images({"a": one, "b": pd.concat([two, two.iloc[:1]])})

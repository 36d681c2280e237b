"""The recipe's table: what each row trains, and how folds and seeds become one figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import linear, recipe
from cardiomegaly import UserError
from cardiomegaly.evaluation.intervals import interval
from tests.words import compose_training

LITE = {"backbone": "timm", "model": "tf_efficientnet_lite0", "options": None}


@pytest.mark.parametrize(("name", "network"), [("frozen", {}), ("recipe_no_average", LITE)])
def test_a_row_is_five_folds_of_one_training(name: str, network: dict[str, str]) -> None:
    options = recipe.Options("nih", "weights.safetensors", **network)  # type: ignore[arg-type]
    configs = compose_training(recipe.words(options, name, 3))
    assert [config.split.fold for config in configs] == list(range(5))
    config = configs[0]
    assert config.backbone.model.startswith(network.get("model", "mobilenetv1_100"))
    assert config.backbone.options == (None if network else {"pad_type": "same"})
    assert config.backbone.trainable == ("none" if name == "frozen" else "all")
    assert config.seed == 3
    assert not config.averaging


def test_figures_are_those_of_all_folds_together_averaged_over_seeds() -> None:
    random = np.random.default_rng(0)
    target = np.arange(60) % 3 == 0
    images = pd.DataFrame(
        {
            "image": [f"{number:02}.png" for number in range(60)],
            "patient_id": np.arange(60) // 2,
            "target": target.astype(int),
            "view_position": np.where(np.arange(60) % 5 < 3, "PA", "AP"),
        }
    )
    seeds, expected = [], []
    for _ in range(2):
        table = images.assign(logit=target + random.normal(size=60), split="test")
        folds = [table[fold::5].assign() for fold in random.permutation(5)]
        folds[0] = pd.concat([folds[0], folds[1].assign(split="val", logit=-99.0)])
        seeds.append(folds)
        views = {"AUROC": table, "AUROC PA": table[table["view_position"] == "PA"]}
        expected.append({k: roc_auc_score(v["target"], v["logit"]) for k, v in views.items()})
    figures = recipe.judge(seeds, validation=0.5, pointing=0.5)
    for name, mean in pd.DataFrame(expected).mean().items():
        estimate = interval(figures.statistics[str(name)])
        assert estimate.value == pytest.approx(mean)
        assert estimate.low < mean < estimate.high


def test_the_regression_learns_from_training_images_alone() -> None:
    random = np.random.default_rng(0)
    split = pd.DataFrame({"image": [f"{i:02}" for i in range(90)], "target": np.arange(90) % 2})
    split["split"] = np.repeat(["train", "val", "test"], 30)
    values = random.normal(size=(90, 4)) + 3 * split[["target"]].to_numpy()
    features = pd.DataFrame(values[::-1], index=split["image"].tolist()[::-1])
    predictions = split[split["split"] != "train"].sample(frac=1, random_state=0)
    made = linear.fit_and_predict(split, predictions, features)
    assert roc_auc_score(made["target"], made["logit"]) > 0.99
    others = split.assign(target=split["target"].where(split["split"] == "train", 0))
    again = linear.fit_and_predict(others, predictions, features)
    np.testing.assert_array_equal(made["logit"], again["logit"])


def test_a_misspelt_row_is_one_line() -> None:
    options = recipe.Options("nih", "weights.safetensors", rows=["recipee"])
    with pytest.raises(UserError, match="rows: there is no recipee; there are: frozen, all_trai"):
        recipe.act(options)

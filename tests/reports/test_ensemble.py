"""Averages of models and of flips, with their order kept where probabilities are 0 or 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.model.predictor import Predictor
from cardiomegaly.reports.ensemble import average, average_flips
from cardiomegaly.training.record import read_run


def test_average_aligns_the_images() -> None:
    one = pd.DataFrame(
        {"image": ["a", "b"], "patient_id": 1, "target": 0, "probability": [0.2, 0.4]}
    )
    two = one.iloc[::-1].assign(probability=[0.0, 0.8])
    assert average({"one": one, "two": two})["probability"].tolist() == pytest.approx([0.5, 0.2])


def test_the_mean_of_probabilities_keeps_its_order_far_from_one_half() -> None:
    images = {"image": list("abcd"), "patient_id": 1, "target": 0}
    one, two = np.array([-2.0, 0.5, 45, -60]), np.array([1.0, 0.5, 44, -50])
    tables = {
        name: pd.DataFrame(images).assign(logit=logit, probability=expit(logit))
        for name, logit in (("one", one), ("two", two))
    }
    mean = average(tables)
    np.testing.assert_allclose(mean["probability"], (expit(one) + expit(two)) / 2, rtol=1e-12)
    np.testing.assert_allclose(mean["logit"][1:2], 0.5)
    # Where probabilities are 1 to the last digit: 1 - p is the mean of exp(-logit).
    assert mean["logit"][2] == pytest.approx(-np.log((np.exp(-45.0) + np.exp(-44.0)) / 2))
    assert mean["logit"][3] == pytest.approx(np.log((np.exp(-60.0) + np.exp(-50.0)) / 2))
    without = {"one": tables["one"], "two": tables["two"].drop(columns="logit")}
    assert "logit" not in average(without)


def test_flips_are_averaged_with_the_image(trained_run: Path, phantom_root: Path) -> None:
    run, folder = read_run(trained_run), ImageFolder(phantom_root)
    table = average_flips(run, folder, "cpu")
    predictor = Predictor.from_checkpoint(run.checkpoint)
    pixels = folder.pixels(table["image"].tolist()[:3], predictor.image_size)[:, None]
    pair = [predictor.predict(view.copy()).probability for view in (pixels, pixels[..., ::-1])]
    np.testing.assert_allclose(table["probability"][:3], np.mean(pair, axis=0), rtol=1e-5)
    assert not np.allclose(pair[0], pair[1])

"""A run tested on another cohort."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly.evaluate import main
from tests.other_tables import rewritten


@pytest.fixture(scope="module")
def test_part(trained_run: Path) -> set[str]:
    predictions = pd.read_csv(trained_run / "predictions.csv")
    return set(predictions.loc[predictions["split"] == "test", "image"])


@pytest.mark.parametrize("name", ["chexpert", pytest.param("brax", marks=pytest.mark.slow)])
def test_the_same_images_in_anothers_table_give_the_same_figures(
    trained_run: Path, test_part: set[str], phantom_root: Path, tmp_path: Path, name: str
) -> None:
    root = rewritten(phantom_root, tmp_path / name, name, test_part)
    words = [f"run={trained_run}", f"output={tmp_path / 'out'}", "minimum=2", "gradcam=false"]
    assert main([*words, f"data={name}", f"data.root={root}", "data.fit=stretch"]) == 0
    table = pd.read_csv(tmp_path / "out" / "transfer.csv", keep_default_na=False)
    internal, external = (rows for _, rows in table.groupby("cohort", sort=False))
    pairs = internal.merge(external, on=["fitted", "metric"], how="left")
    assert {"auroc", "ppv", "slope", "brier"} <= set(pairs["metric"])
    values = pairs[["value_x", "value_y"]].apply(pd.to_numeric).to_numpy().T
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6)
    exact = pairs["metric"].isin(["auroc", "average_precision", "sensitivity", "ppv", "prevalence"])
    assert values[0][exact].tolist() == values[1][exact].tolist()  # to the digit
    own = json.loads((trained_run / "metrics.json").read_text())["test"]
    assert values[0][pairs["metric"] == "auroc"].tolist() == [
        pytest.approx(own["auroc"], abs=1e-12)
    ]
    (page,) = (tmp_path / "out").glob(f"*-on-{name}/evaluation.md")
    assert f"From home to {name}" in page.read_text()
    assert (external["fitted"] == "refitted").any()


@pytest.mark.slow
def test_several_runs_and_cohorts_give_one_table(
    trained_run: Path, test_part: set[str], phantom_root: Path, tmp_path: Path
) -> None:
    roots = {
        name: rewritten(phantom_root, tmp_path / name, name, test_part)
        for name in ("brax", "padchest")
    }
    cohorts = ",".join(f"{name}:{root}" for name, root in roots.items())
    out = tmp_path / "out"
    assert (
        main([f"run={trained_run}", f"output={out}", f"cohorts={{{cohorts}}}", "gradcam=false"])
        == 0
    )
    matrix = pd.read_csv(out / "auroc.csv")
    assert list(matrix) == ["trained", "own test part", "brax", "padchest"]
    assert matrix.loc[0, "own test part"] == matrix.loc[0, "brax"]


def test_what_cannot_be_tested_elsewhere(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data=chexpert", "data.root=x", f"run={trained_run}", "cohorts={brax:y}"]) == 2
    assert "cohorts: goes with runs and without data=NAME" in capsys.readouterr().err
    assert main([f"run={trained_run}", "data=chexpert", f"data.root={tmp_path}"]) == 2
    assert "holds no train.csv" in capsys.readouterr().err
    assert main([f"run={trained_run}", "data=chexpart"]) == 2
    assert "did you mean 'chexpert'?" in capsys.readouterr().err

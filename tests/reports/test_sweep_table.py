"""The runs of a sweep as tables: labels, figures, means over seeds, the study beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from cardiomegaly.reports.sweep_page import report_sweep, run_styles, seed_table, study_table
from cardiomegaly.reports.sweep_runs import read_sweep
from tests.made_runs import configure, make_predictions, make_run


def test_the_threshold_is_that_of_the_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    metrics = pd.read_json(folder / "metrics.json", typ="series")
    metrics["test"]["threshold"] = 0.2
    metrics.to_json(folder / "metrics.json")
    test = make_predictions(2.0, 1).query("split == 'test'")
    row = read_sweep(tmp_path, None).table.iloc[0]
    assert row["f1"] == pytest.approx(f1_score(test["target"], test["probability"] >= 0.2))


def test_seeds_give_mean_and_standard_deviation(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for balance in (True, False):
            make_run(tmp_path / f"{balance}-{seed}", balance=balance, seed=seed)
    make_run(tmp_path / "lone", backbone="densenet121", seed=1)
    sweep = read_sweep(tmp_path, None)
    assert sweep.variables == ["backbone", "balance", "seed"]
    assert "mobilenetv1, balanced, seed 2" in set(sweep.table["label"])
    means = seed_table(sweep.table)
    assert list(means["runs"]) == [3, 3, 1]
    same = sweep.table[sweep.table["configuration"] == "mobilenetv1, balanced"]
    values, weighted = same["auroc"].to_numpy(), same["f1_weighted"]
    mean_and_sd = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert means.loc["mobilenetv1, balanced", "AUROC"] == mean_and_sd
    assert means.loc["densenet121, balanced", "AUROC"].endswith(" ± –")  # noqa: RUF001
    expected = f"{weighted.mean():.2f} ± {weighted.std():.2f} (3 runs)"
    assert study_table(sweep).loc["balanced, this sweep", "MobileNetV1"] == expected
    report_sweep(tmp_path, None)
    assert "Mean and spread over seeds and folds" in (tmp_path / "summary.md").read_text("utf-8")
    styles = run_styles(sweep.table)
    of_seeds = {styles[f"mobilenetv1, balanced, seed {seed}"] for seed in (1, 2, 3)}
    assert len(of_seeds) == 1 and of_seeds != {styles["mobilenetv1, unbalanced, seed 1"]}


def test_a_sweep_over_seeds_alone_is_labelled(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(tmp_path / str(seed), seed=seed)
    sweep = read_sweep(tmp_path, None)
    assert list(sweep.table["label"]) == [f"mobilenetv1, balanced, seed {s}" for s in (1, 2)]
    assert list(seed_table(sweep.table).index) == ["mobilenetv1, balanced"]


def test_an_ablation_is_labelled_by_what_it_varies(tmp_path: Path) -> None:
    steps = [("dense", "all", "none"), ("dense", "none", "w/a.safetensors"), ("gwap", "none", "")]
    for index, (head, trainable, weights) in enumerate(steps):
        given = ["+experiment=ablation", f"head={head}", "resume=x"] + (
            [f"backbone.weights={weights}"] if weights else []
        )
        folder = tmp_path / str(index)
        make_run(folder, head=head, trainable=trainable, overrides=given)
        configure(folder, {"backbone": {"weights": weights or "pretrained"}})
    sweep = read_sweep(tmp_path, None)
    assert sweep.variables == ["head", "weights", "trainable"]
    labels = [
        "head dense, weights random, trainable all",
        "head dense, weights a.safetensors, trainable none",
        "head gwap, weights pretrained, trainable none",
    ]
    assert list(sweep.table["label"]) == labels
    assert len(set(run_styles(sweep.table).values())) == 3
    table = study_table(sweep)
    assert list(table.columns) == ["MobileNetV1", "weights"]
    assert list(table["weights"][:3]) == ["random", "a.safetensors", "pretrained"]
    assert list(table.index) == [
        *(f"balanced, {label}" for label in labels),
        "balanced, study's headline",
        "balanced, study's test set",
    ]
    report_sweep(tmp_path, None)


def test_equal_settings_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / name)
    labels = list(read_sweep(tmp_path, None).table["label"])
    assert labels == ["mobilenetv1, balanced (a)", "mobilenetv1, balanced (b)"]

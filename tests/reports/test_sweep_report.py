"""The sweep's report: figures against scikit-learn, unfinished sweeps, seeds, warnings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

from cardiomegaly import report
from cardiomegaly.reports.sweep_plots import run_styles
from cardiomegaly.reports.sweep_report import sweep_warnings, write_report
from cardiomegaly.reports.sweep_table import cell_table, read_sweep, study_table
from tests.made_runs import OTHER_HASH, configure, make_ledger, make_predictions, make_run
from tests.reports.test_pages import refuse_references

FEW = 60  # resamples: enough to see that there are intervals
BACKBONES = ("resnet152v2", "inceptionv3", "mobilenetv1", "efficientnetb4")


def make_eight(folder: Path) -> Path:
    for index, backbone in enumerate(BACKBONES):
        for balance in (True, False):
            name = f"backbone={backbone},balance={str(balance).lower()}"
            make_run(folder / name, backbone, balance, seed=42, signal=1 + index / 2 + balance / 4)
    return folder


def test_the_eight_runs_of_the_study(tmp_path: Path) -> None:
    folder = make_eight(tmp_path / "first")
    path = write_report(folder, resamples=FEW)
    assert path == folder / "report.html"
    summary = pd.read_csv(folder / "summary.csv")
    assert list(summary["label"][:3]) == [
        "resnet152v2, balanced", "resnet152v2, unbalanced", "inceptionv3, balanced",
    ]  # fmt: skip
    for _, row in summary.iterrows():
        for name in ("f1", "f1_weighted", "auroc", "average_precision", "sensitivity", "npv"):
            assert 0 <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1
    row = summary.iloc[0]
    test = make_predictions(1.25, 42).query("split == 'test'")
    truth, score = test["target"], test["probability"]
    assert row["auroc"] == pytest.approx(roc_auc_score(truth, score))
    assert row["average_precision"] == pytest.approx(average_precision_score(truth, score))
    assert row["f1"] == pytest.approx(f1_score(truth, score >= 0.5))
    assert row["f1_weighted"] == pytest.approx(f1_score(truth, score >= 0.5, average="weighted"))
    assert row["sensitivity"] == pytest.approx(recall_score(truth, score >= 0.5))
    assert (row["parameters"], row["best_epoch"], row["images_per_second"]) == (3_400_000, 5, 61.5)

    page, text = path.read_text(encoding="utf-8"), (folder / "summary.md").read_text("utf-8")
    refuse_references(page)
    assert page.count("<img") == 4
    assert "8 of 8 jobs finished" in page and 'class="warning"' not in page
    study = "| balanced, study's headline | 0.79 | 0.78 | 0.81 | 0.77 |"
    assert study in text
    assert "| unbalanced, study's test set | 0.82 | 0.81 | 0.82 | 0.79 |" in text
    shown = f"{row['auroc']:.3f} ({row['auroc_low']:.3f}-{row['auroc_high']:.3f})"
    assert shown in text and shown.replace(" ", "\n") in page
    assert "**Warning.**" not in text


def test_the_threshold_is_that_of_the_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    metrics = pd.read_json(folder / "metrics.json", typ="series")
    metrics["test"]["threshold"] = 0.2
    metrics.to_json(folder / "metrics.json")
    test = make_predictions(2.0, 1).query("split == 'test'")
    row = read_sweep(tmp_path, resamples=FEW).table.iloc[0]
    assert row["f1"] == pytest.approx(f1_score(test["target"], test["probability"] >= 0.2))


def test_an_unfinished_sweep_lists_every_job_with_its_own_message(tmp_path: Path) -> None:
    make_run(tmp_path / "0", "resnet152v2")
    make_run(tmp_path / "1", "inceptionv3")
    configure(tmp_path / "2", {})
    (make_run(tmp_path / "4", "mobilenetv1") / "metrics.json").write_text("{")
    ledger = make_ledger(
        [
            (0, "done", ["backbone=resnet152v2"], str(tmp_path / "0"), None),
            # Killed after its last file and before its entry: finished all the same.
            (1, "running", ["backbone=inceptionv3"], str(tmp_path / "1"), None),
            (2, "failed", ["backbone=mobilenetv1"], str(tmp_path / "2"), "out of <memory>"),
            (3, "planned", ["backbone=efficientnetb4"], None, None),
            (4, "done", "seed=1 balance=true", str(tmp_path / "4"), None),
            (5, "done", [], str(tmp_path / "gone"), None),
            (6, "running", [], str(tmp_path / "6"), None),
            (7, "planned", [], None, None),
        ]
    )
    sweep = read_sweep(tmp_path, ledger, FEW)
    assert list(sweep.table["backbone"]) == ["resnet152v2", "inceptionv3"]
    jobs = sweep.jobs.set_index("job")
    assert list(jobs["status"]) == [
        "failed", "planned", "damaged", "missing", "running", "planned",
    ]  # fmt: skip
    assert jobs.loc["2", "message"] == "out of <memory>"
    assert jobs.loc["3", "settings"] == "backbone=efficientnetb4"
    assert jobs.loc["3", "message"] == "not started yet"
    assert "metrics.json is damaged" in jobs.loc["4", "message"]
    assert jobs.loc["4", "settings"] == "seed=1 balance=true"
    assert jobs.loc["6", "message"] == "still running on host since 2026-01-02T03:04"

    page = write_report(tmp_path, ledger, FEW).read_text(encoding="utf-8")
    assert "6 of 8 jobs are not finished" in page and "out of &lt;memory&gt;" in page
    assert "| 2 | failed | backbone=mobilenetv1 | out of <memory> |" in (
        tmp_path / "summary.md"
    ).read_text(encoding="utf-8")


def test_without_a_ledger_unfinished_and_damaged_runs_are_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    configure(tmp_path / "b", {})
    (make_run(tmp_path / "c") / "history.csv").write_text("")
    jobs = read_sweep(tmp_path, resamples=FEW).jobs
    assert list(jobs["job"]) == ["b", "c"]
    assert list(jobs["status"]) == ["unfinished", "damaged"]


def test_a_sweep_that_has_only_begun(tmp_path: Path) -> None:
    ledger = make_ledger([(0, "planned", ["balance=true"], None, None)])
    page = write_report(tmp_path, ledger, FEW).read_text(encoding="utf-8")
    assert "0 of 1 jobs finished" in page and "not started yet" in page
    assert len(pd.read_csv(tmp_path / "summary.csv")) == 0


def test_seeds_give_mean_and_standard_deviation(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for balance in (True, False):
            make_run(tmp_path / f"{balance}-{seed}", balance=balance, seed=seed)
    make_run(tmp_path / "lone", backbone="densenet121", seed=1)
    sweep = read_sweep(tmp_path, resamples=FEW)
    assert sweep.variables == ["backbone", "balance", "seed"]
    assert "mobilenetv1, balanced, seed 2" in set(sweep.table["label"])
    cells = cell_table(sweep)
    assert list(cells["runs"]) == [3, 3, 1]
    values = sweep.table.loc[sweep.table["cell"] == "mobilenetv1, balanced", "auroc"].to_numpy()
    assert cells.loc["mobilenetv1, balanced", "auroc_mean"] == pytest.approx(values.mean())
    assert cells.loc["mobilenetv1, balanced", "auroc_sd"] == pytest.approx(np.std(values, ddof=1))
    assert np.isnan(cells.loc["densenet121, balanced", "auroc_sd"])
    weighted = sweep.table.loc[sweep.table["cell"] == "mobilenetv1, balanced", "f1_weighted"]
    expected = f"{weighted.mean():.2f} ± {weighted.std():.2f} (3 runs)"
    assert study_table(sweep).loc["balanced, this sweep", "MobileNetV1"] == expected
    text = write_report(tmp_path, resamples=FEW).read_text(encoding="utf-8")
    assert "Mean and spread over seeds" in text
    styles = run_styles(sweep.table)
    same = {styles[f"mobilenetv1, balanced, seed {seed}"] for seed in (1, 2, 3)}
    assert len(same) == 1 and same != {styles["mobilenetv1, unbalanced, seed 1"]}


def test_a_sweep_over_seeds_alone_is_labelled(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(tmp_path / str(seed), seed=seed)
    sweep = read_sweep(tmp_path, resamples=FEW)
    assert list(sweep.table["label"]) == [f"mobilenetv1, balanced, seed {s}" for s in (1, 2)]
    assert list(cell_table(sweep).index) == ["mobilenetv1, balanced"]


def test_an_ablation_is_labelled_by_what_it_varies(tmp_path: Path) -> None:
    steps = [("dense", "all", "none"), ("dense", "none", "w/a.safetensors"), ("gwap", "none", "")]
    for index, (head, trainable, weights) in enumerate(steps):
        given = ["+experiment=ablation", f"head={head}", "resume=x"] + (
            [f"backbone.weights={weights}"] if weights else []
        )
        folder = tmp_path / str(index)
        make_run(folder, head=head, trainable=trainable, overrides=given)
        configure(folder, {"backbone": {"weights": "pretrained"}, "head": {"dropout": 0.5}})
    sweep = read_sweep(tmp_path, resamples=FEW)
    assert sweep.variables == ["head", "trainable", "backbone.weights"]
    labels = [
        "head dense, trainable all, weights none",
        "head dense, trainable none, weights a.safetensors",
        "head gwap, trainable none, weights pretrained",
    ]
    assert list(sweep.table["label"]) == labels
    assert len(set(run_styles(sweep.table).values())) == 3
    table = study_table(sweep)
    assert list(table.columns) == ["MobileNetV1"]
    assert list(table.index) == [
        *(f"balanced, {label}" for label in labels),
        "balanced, study's headline",
        "balanced, study's test set",
    ]
    write_report(tmp_path, resamples=FEW)


def test_equal_settings_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / name)
    labels = list(read_sweep(tmp_path, resamples=FEW).table["label"])
    assert labels == ["mobilenetv1, balanced (a)", "mobilenetv1, balanced (b)"]


def test_runs_that_should_not_be_compared_are_warned_about(tmp_path: Path) -> None:
    make_run(tmp_path / "0", balance=True)
    make_run(tmp_path / "1", balance=False)
    assert sweep_warnings(read_sweep(tmp_path, resamples=FEW)) == []
    make_run(tmp_path / "1", balance=False, split_hash=OTHER_HASH)
    (warning,) = sweep_warnings(read_sweep(tmp_path, resamples=FEW))
    assert "not all runs were trained and tested on the same images" in warning.lower()
    assert "0123456789: balanced. fedcba9876: unbalanced" in warning
    assert "may come from the images" in write_report(tmp_path, resamples=FEW).read_text("utf-8")
    make_run(tmp_path / "1", balance=False, label_file_sha256=OTHER_HASH)
    (warning,) = sweep_warnings(read_sweep(tmp_path, resamples=FEW))
    assert "same label file" in warning
    make_run(tmp_path / "1", balance=False, data="phantom", split="image")
    leaking, phantom = sweep_warnings(read_sweep(tmp_path, resamples=FEW))
    assert "one patient in training and test" in leaking
    assert "phantom cohort" in phantom


def test_splits_that_follow_the_seed_have_their_own_words(tmp_path: Path) -> None:
    make_run(tmp_path / "0", seed=1)
    make_run(tmp_path / "1", seed=2, split_hash=OTHER_HASH)
    (warning,) = sweep_warnings(read_sweep(tmp_path, resamples=FEW))
    assert "different seeds were split differently" in warning


def test_one_class_in_the_test_part_is_undefined_and_not_0(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    frame = pd.read_csv(folder / "predictions.csv")
    frame["target"] = 0
    frame.to_csv(folder / "predictions.csv", index=False)
    path = write_report(tmp_path, resamples=FEW)
    assert np.isnan(pd.read_csv(tmp_path / "summary.csv")["auroc"][0])
    refuse_references(path.read_text(encoding="utf-8"))
    frame[frame["split"] == "val"].to_csv(folder / "predictions.csv", index=False)
    write_report(tmp_path, resamples=FEW)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "sweep" / "0")
    assert report.main([f"sweep={tmp_path / 'sweep'}", f"resamples={FEW}"]) == 0
    out = capsys.readouterr().out
    assert "# Sweep sweep" in out and str(tmp_path / "sweep" / "report.html") in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep=/nowhere/at/all"], "sweep folder .* does not exist"),
        ([], "sweep: required"),
        (["sweep=FOLDER"], "holds no run"),
        (["sweep=FOLDER", "resample=3"], "unknown key 'resample'"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([word.replace("FOLDER", str(tmp_path)) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert pd.Series([error]).str.contains(message).all()

"""The sweep's report: figures against scikit-learn, unfinished sweeps, seeds, warnings."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

from cardiomegaly import report
from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.reports.sweep_page import report_sweep
from cardiomegaly.reports.sweep_runs import pooled_folds, read_sweep
from cardiomegaly.sweep.ledger import Entry, write_entry
from cardiomegaly.training.files import write_json
from tests.made_runs import OTHER_HASH, configure, make_ledger, make_predictions, make_run
from tests.reports.test_pages import refuse_references

BACKBONES = ("resnet152v2", "inceptionv3", "mobilenetv1", "efficientnetb4")


def written(folder: Path, ledger: pd.DataFrame | None = None) -> tuple[str, str]:
    """The report of a sweep as HTML and as Markdown."""
    report_sweep(folder, ledger, "cpu")
    html = (folder / "report.html").read_text(encoding="utf-8")
    refuse_references(html)
    return html, (folder / "summary.md").read_text(encoding="utf-8")


def make_eight(folder: Path) -> Path:
    for index, backbone in enumerate(BACKBONES):
        for balance in (True, False):
            name = f"backbone={backbone},balance={str(balance).lower()}"
            make_run(folder / name, backbone, balance, seed=42, signal=1 + index / 2 + balance / 4)
    return folder


def test_the_eight_runs_of_the_study(tmp_path: Path) -> None:
    folder = make_eight(tmp_path / "first")
    page, text = written(folder)
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

    assert page.count("<img") == 4
    assert "8 of 8 jobs finished" in page and "<blockquote" not in page
    assert "| balanced, study's headline | 0.79 | 0.78 | 0.81 | 0.77 | ImageNet |" in text
    assert "| unbalanced, study's test set | 0.82 | 0.81 | 0.82 | 0.79 | ImageNet |" in text
    auroc = f"{row['auroc']:.3f} ({row['auroc_low']:.3f} to {row['auroc_high']:.3f})"
    assert auroc in text and auroc in page
    assert "**Warning.**" not in text


def test_the_report_begins_with_five_sentences(tmp_path: Path) -> None:
    make_eight(tmp_path)
    whom, good, study, distrust, looks = report_sweep(tmp_path, None, "cpu").summary
    html, text = written(tmp_path)
    assert text.split("## ")[0].count("\n- ") == 5
    assert (
        "8 runs of resnet152v2, inceptionv3" in whom
        and "pretrained weights" in whom
        and "on 400 images" in whom
    )
    best = pd.read_csv(tmp_path / "summary.csv").set_index("label").loc["efficientnetb4, balanced"]
    assert "efficientnetb4, balanced" in good and f"AUROC of {best['auroc']:.3f} (" in good
    assert "Against a weighted F1 of 0.77 that the study published" in study
    assert "the best of 8 runs" in distrust
    assert "Where the map looks was not measured" in looks
    assert html.index("8 runs") < html.index("<h2")


def test_a_smoke_run_never_stands_beside_the_study_unnamed(tmp_path: Path) -> None:
    make_run(tmp_path / "0", "mobilenetv1")
    configure(
        make_run(tmp_path / "1", "resnet152v2"),
        {
            "backbone": {"weights": "pretrained"},
            "trainer": {"max_epochs": 2, "limit_train_batches": 6},
        },
    )
    page, text = written(tmp_path)
    (row,) = [line for line in text.splitlines() if line.startswith("| balanced, this sweep")]
    smoke, full = row.split(" | ")[1], row.split(" | ")[3]
    assert smoke.endswith(", smoke run") and "smoke" not in full and "pretrained" in row
    assert "1 of 2 runs are smoke runs (only 6 batches an epoch, at most 2 epochs)" in text
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        assert "pretrained" in table


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
    sweep = read_sweep(tmp_path, ledger)
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

    page, text = written(tmp_path, ledger)
    assert "6 of 8 jobs are not finished" in page and "out of &lt;memory&gt;" in page
    assert "| 2 | failed | backbone=mobilenetv1 | out of \\<memory\\> |" in text


@pytest.mark.parametrize("damaged", ["predictions.csv", "metrics.json", "history.csv"])
def test_one_damaged_run_among_eight_is_one_line(damaged: str, tmp_path: Path) -> None:
    path = make_eight(tmp_path) / "backbone=mobilenetv1,balance=true" / damaged
    path.write_text(path.read_text()[:4])
    assert report.main([f"sweep={tmp_path}"]) == 0
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "7 of 8 jobs finished" in text
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {path.parent.name} |")]
    assert "| damaged |" in line and str(path) in line


def test_one_damaged_ledger_file_is_named_and_the_report_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place, path in enumerate(sorted(make_eight(tmp_path).iterdir())):
        write_entry(tmp_path, Entry(path.name, place, "done"))
    broken = tmp_path / "ledger" / "backbone=mobilenetv1,balance=true.json"
    broken.write_text("{")
    assert report.main([f"sweep={tmp_path}"]) == 0
    assert caplog.text.count(f"{broken} was damaged") == 1
    assert "8 of 8 jobs finished" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_a_sweep_that_has_only_begun(tmp_path: Path) -> None:
    ledger = make_ledger([(0, "planned", ["balance=true"], None, None)])
    page, _ = written(tmp_path, ledger)
    assert "0 of 1 jobs finished" in page and "not started yet" in page
    assert len(pd.read_csv(tmp_path / "summary.csv")) == 0


def test_runs_that_should_not_be_compared_are_warned_about(tmp_path: Path) -> None:
    make_run(tmp_path / "0", balance=True)
    make_run(tmp_path / "1", balance=False)
    assert report_sweep(tmp_path, None).warnings == []
    make_run(tmp_path / "1", balance=False, split_hash=OTHER_HASH)
    (warning,) = report_sweep(tmp_path, None).warnings
    assert "not all runs were trained and tested on the same images" in warning.lower()
    assert "0123456789: balanced. fedcba9876: unbalanced" in warning
    assert "may come from the images" in written(tmp_path)[1]
    make_run(tmp_path / "1", "<b>*x*", balance=True, split_hash=OTHER_HASH)
    (warning,) = report_sweep(tmp_path, None).warnings
    assert "fedcba9876: <b>*x*." in warning and "<b>" not in written(tmp_path)[0]
    make_run(tmp_path / "1", balance=False, label_file_sha256=OTHER_HASH)
    (warning,) = report_sweep(tmp_path, None).warnings
    assert "same label file" in warning
    make_run(tmp_path / "1", balance=False, data="phantom", split="image")
    phantom, leaking = report_sweep(tmp_path, None).warnings
    assert "phantom cohort" in phantom
    assert "one patient in training and test" in leaking


def test_splits_that_follow_the_seed_have_their_own_words(tmp_path: Path) -> None:
    make_run(tmp_path / "0", seed=1)
    make_run(tmp_path / "1", seed=2, split_hash=OTHER_HASH)
    (warning,) = report_sweep(tmp_path, None).warnings
    assert "different seeds were split differently" in warning


def test_one_class_in_the_test_part_is_undefined_and_not_0(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    frame = pd.read_csv(folder / "predictions.csv").assign(target=0)
    frame.to_csv(folder / "predictions.csv", index=False)
    metrics = {
        part: binary_metrics(rows["target"], rows["probability"])
        for part, rows in frame.groupby("split")
    }
    write_json(folder / "metrics.json", metrics | {"meta": {}})
    _, text = written(tmp_path)
    assert np.isnan(pd.read_csv(tmp_path / "summary.csv")["auroc"][0])
    assert "undefined" in text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "sweep" / "0")
    assert report.main([f"sweep={tmp_path / 'sweep'}"]) == 0
    out = capsys.readouterr().out
    assert "1 run of mobilenetv1" in out and str(tmp_path / "sweep" / "report.html") in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep=/nowhere/at/all"], "sweep folder .* does not exist"),
        ([], "sweep: required"),
        (["sweep=FOLDER"], "holds no run"),
        (["sweep=FOLDER", "resample=3"], "this command has no 'resample'"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([word.replace("FOLDER", str(tmp_path)) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert pd.Series([error]).str.contains(message).all()


def test_folds_are_pooled(tmp_path: Path) -> None:
    tests = []
    for fold in range(3):
        folder = make_run(
            tmp_path / "sweep" / str(fold), seed=1, signal=1.5 + fold / 4, fold=fold,
            n_train=400 + fold,
            overrides=[f"split.fold={fold}", "split.folds=3"],
        )  # fmt: skip
        config = {"backbone": {"name": "mobilenetv1"}, "split": {"folds": 3, "fold": fold}}
        configure(folder, config)
        table = make_predictions(1.5 + fold / 4, fold)
        table["image"] = f"{fold}-" + table["image"]
        table["patient_id"] += 1000 * fold
        table.to_csv(folder / "predictions.csv", index=False)
        tests.append(table.query("split == 'test'"))
    pooled = pd.concat(tests)
    row = pooled_folds(read_sweep(tmp_path / "sweep", None)).iloc[0]
    assert (row["folds"], row["n"]) == (3, len(pooled))
    assert row["auroc"] == pytest.approx(roc_auc_score(pooled["target"], pooled["probability"]))
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
    _, text = written(tmp_path / "sweep")
    assert "## Cross-validation, folds together" in text
    assert f"{row['auroc']:.3f} ({row['auroc_low']:.3f} to {row['auroc_high']:.3f})" in text
    assert f"over its 3 folds,\n  {len(pooled)} images" in text
    each = [roc_auc_score(test["target"], test["probability"]) for test in tests]
    assert f"{np.mean(each):.3f} ± {np.std(each, ddof=1):.3f}" in text  # beside mean and spread
    (tmp_path / "sweep" / "2" / "metrics.json").unlink()
    assert pooled_folds(read_sweep(tmp_path / "sweep", None)).empty

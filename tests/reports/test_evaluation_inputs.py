"""What is judged: names, averages, labels beside images, and a split that leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.reports.evaluation_inputs import inputs_of_runs, join_labels, name_runs
from cardiomegaly.training.files import write_csv
from cardiomegaly.training.record import read_run
from tests.made_runs import make_run


def made(folder: Path, split_of: dict[int, str] | None = None, **meta: str) -> Path:
    """A run folder with a split.csv; `split_of` sets the part of some rows."""
    make_run(folder, **meta)  # type: ignore[arg-type]
    table = read_run(folder).predictions[["image", "patient_id", "split", "target"]]
    for row, part in (split_of or {}).items():
        table.loc[row, "split"] = part
    write_csv(folder / "split.csv", table)
    return folder


def test_runs_are_named_by_as_much_of_their_path_as_tells_them_apart(tmp_path: Path) -> None:
    runs = [read_run(made(tmp_path / name)) for name in ("a/one", "b/one")]
    assert list(name_runs(runs)) == ["a/one", "b/one"]
    assert list(name_runs(runs[:1])) == ["one"]
    with pytest.raises(UserError, match=r"run: each run may be given once"):
        name_runs([runs[0], runs[0]])


def test_patients_in_more_than_one_part_are_counted(tmp_path: Path) -> None:
    run = read_run(made(tmp_path / "run", {0: "test"}, data="phantom"))
    inputs = inputs_of_runs({"run": run}, None)
    assert inputs.leaking == 1
    assert len(inputs.cohort.test) == (run.predictions["split"] == "test").sum()
    assert inputs.cohort.val_target is not None and inputs.cohort.train is None


def test_several_runs_are_judged_by_their_mean_first(tmp_path: Path) -> None:
    runs = {name: read_run(made(tmp_path / name)) for name in ("a", "b")}
    inputs = inputs_of_runs(runs, None)
    assert list(inputs.models) == ["mean of 2 runs", "a", "b"] and inputs.name == "mean of 2 runs"


def test_no_test_part_is_refused(tmp_path: Path) -> None:
    run = read_run(made(tmp_path / "run"))
    run.metrics["test"] |= {"n": 0, "n_positive": 0, "brier": None}
    with pytest.raises(UserError, match="run: the run has no test images"):
        inputs_of_runs({"run": replace(run, predictions=run.part("val"))}, None)


def test_labels_are_joined_whatever_folder_and_suffix_a_name_has() -> None:
    labels = pd.DataFrame({"image": ["a.png", "b.png"], "patient_id": [1, 2], "target": [0, 1]})
    labels["age"] = [40.0, 50.0]
    given = pd.DataFrame({"image": ["x/b.PNG", "a"], "probability": [0.1, 0.2]})
    found = join_labels(given, labels, "theirs")
    assert found["image"].tolist() == ["b.png", "a.png"]
    assert found["target"].tolist() == [1, 0] and found["age"].tolist() == [50.0, 40.0]
    own = join_labels(given.assign(target=[0, 0]), labels, "theirs")
    assert own["target"].tolist() == [0, 0] and own["patient_id"].tolist() == [2, 1]
    with pytest.raises(UserError, match=r"labels: 1 of 2 images of theirs .* 'c' for one"):
        join_labels(given.assign(image=["c", "a"]), labels, "theirs")

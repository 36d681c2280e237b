"""Run folders: what is written comes back, half a file is never seen, damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.training.files import sha256, write_csv
from cardiomegaly.training.record import find_runs, read_run, write_results
from tests.made_runs import HASH, configure, make_predictions, make_run


def test_a_run_comes_back(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "3", backbone="inceptionv3", seed=5, epochs=4)
    run = read_run(folder)
    assert run.name == "3"
    assert run.config["backbone"]["name"] == "inceptionv3"
    assert run.meta["seed"] == 5
    assert run.split_hash == HASH
    assert list(run.history["epoch"]) == [0, 1, 2, 3]
    expected = make_predictions(2.0, 5)
    expected = expected[expected["split"] == "test"].reset_index(drop=True)
    pd.testing.assert_frame_equal(run.part("test"), expected, check_dtype=False)
    assert run.metrics["test"]["n"] == len(expected)
    assert run.checkpoint == folder / "checkpoints" / "best.ckpt"


def test_interpolations_of_the_configuration_stay_as_written(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    groups = "backbone: {}\ndata: {}\ntrainer: {}\n"
    text = "rate: 1e-3\nroot: ${hydra:runtime.cwd}\n"
    (folder / ".hydra" / "config.yaml").write_text(groups + text)
    written = {"rate": 0.001, "root": "${hydra:runtime.cwd}"}
    assert read_run(folder).config == {"backbone": {}, "data": {}, "trainer": {}} | written


def test_runs_are_found_finished_or_not_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "2", "deeper/1"):
        configure(tmp_path / name, {})
    (tmp_path / "not-a-run").mkdir()
    assert find_runs(tmp_path) == [tmp_path / "2", tmp_path / "10", tmp_path / "deeper" / "1"]
    assert find_runs(tmp_path / "2") == []


def test_what_is_no_finished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist: give the folder of a run"):
        read_run(tmp_path / "absent")
    with pytest.raises(UserError, match="sweep folder .* does not exist"):
        find_runs(tmp_path / "absent")
    with pytest.raises(UserError, match=r"is not a run folder \(it has no .*config.yaml"):
        read_run(tmp_path)
    folder = make_run(tmp_path / "run")
    with pytest.raises(UserError, match="did you mean .*run"):
        read_run(tmp_path)
    for name in ("history.csv", "predictions.csv", "metrics.json"):
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"unfinished .*{name}.* resume="):
            read_run(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", '{"val": {', "metrics.json is damaged: .*train the run again"),
        ("metrics.json", '{"val": {}, "test": {}}', "it has no part 'meta'"),
        ("metrics.json", "[]", "it has no part 'val'"),
        ("predictions.csv", "", "predictions.csv is damaged"),
        ("predictions.csv", "image,target\na,1\n", "no column patient_id, split, probability"),
        ("history.csv", "lr\n1\n", "no column epoch"),
        (".hydra/config.yaml", "a: [", "config.yaml is damaged"),
        (".hydra/config.yaml", "[1, 2]", "expected a mapping"),
        (".hydra/config.yaml", "backbone: {name: x}", "config.yaml is damaged: it has no 'data'"),
        (".hydra/config.yaml", "backbone: {name: x}\ndata:", "it has no 'data'"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_run(folder)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("probability", 1.5, "numbers from 0 to 1"),
        ("probability", np.nan, "numbers from 0 to 1"),
        ("logit", np.nan, "logits must be finite"),
        ("target", 2, "targets must be 0 or 1"),
    ],
)
def test_impossible_predictions_are_refused(
    tmp_path: Path, column: str, value: float, message: str
) -> None:
    folder = make_run(tmp_path / "run")
    frame = pd.read_csv(folder / "predictions.csv")
    frame.loc[3, column] = value
    write_csv(folder / "predictions.csv", frame)
    with pytest.raises(UserError, match=message):
        read_run(folder)


@pytest.mark.parametrize("name", ["split.csv", "history.csv", "predictions.csv"])
def test_a_file_that_the_run_did_not_write_is_not_believed(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "split.csv").write_text("image,split\na.png,val\nb.png,test\n")
    run = read_run(folder)
    write_results(folder, run.config, run.predictions, run.metrics)
    assert read_run(folder).meta == run.meta | {
        f"{table}_sha256": sha256(folder / f"{table}.csv")
        for table in ("split", "history", "predictions")
    }
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match=f"{name} is missing or not the file that the run wrote"):
        read_run(folder)


def test_older_runs_have_neither_logits_nor_hashes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_csv(folder / "predictions.csv", make_predictions(2.0, 1).drop(columns="logit"))
    assert "logit" not in read_run(folder).predictions

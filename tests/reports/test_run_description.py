"""Where a run's figures come from: data found again, damage named, smoke runs called so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cardiomegaly import UserError
from cardiomegaly.reports.run_description import (
    data_root,
    label_file,
    learned_by,
    read_split,
    smoke_reasons,
    weights_of,
)
from cardiomegaly.training.files import write_csv
from cardiomegaly.training.record import Run, read_run
from tests.made_runs import configure, make_run


def made(folder: Path, config: dict[str, Any] | None = None, **meta: Any) -> Run:
    make_run(folder, **meta)
    if config is not None:
        configure(folder, config)
    return read_run(folder)


def test_a_relative_folder_of_data_is_found_from_where_the_run_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "start" / "data").mkdir(parents=True)
    (tmp_path / "start" / "data" / "labels.csv").touch()
    run = made(tmp_path / "run", data_root="data", label_file="labels.csv")
    assert data_root(run) is None and label_file(run) is None
    hydra = f"hydra:\n  runtime:\n    cwd: {tmp_path / 'start'}\n  run: {{dir: '${{now:%Y}}'}}\n"
    (run.folder / ".hydra" / "hydra.yaml").write_text(hydra)
    assert data_root(run) == tmp_path / "start" / "data"
    assert label_file(run) == tmp_path / "start" / "data" / "labels.csv"
    monkeypatch.chdir(tmp_path / "start")
    (run.folder / ".hydra" / "hydra.yaml").unlink()
    assert data_root(run) == Path("data")


def test_a_split_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    with pytest.raises(UserError, match=r"split\.csv is missing or damaged"):
        read_split(run)
    split = run.predictions[["image", "patient_id", "split", "target"]]
    write_csv(run.folder / "split.csv", split)
    assert read_split(run)["part"].tolist() == split["split"].tolist()
    for text in ("", "image,split\na.png,test\n", "image,patient_id,spl"):
        (run.folder / "split.csv").write_text(text)
        with pytest.raises(UserError, match=r"split\.csv is missing or damaged"):
            read_split(run)


def test_weights_are_named_in_a_word(tmp_path: Path) -> None:
    def named(configured: str | None, **recorded: Any) -> str:
        backbone = {} if configured is None else {"weights": configured}
        return weights_of(made(tmp_path / "run", {"backbone": backbone}, weights=recorded))

    assert named("none", name="none", source="random") == "random"
    assert named("pretrained", name="tf_x.ns", source="https://x") == "pretrained"
    assert named("/w/a.safetensors", name="a.safetensors", source="/w/a") == "a.safetensors"
    # Phantom data where the pretrained weights cannot be had: what was used counts.
    assert named("pretrained", name="none", source="random") == "random"
    assert named(None) == "not recorded"


def test_smoke_runs_are_called_so(tmp_path: Path) -> None:
    def reasons(trainer: dict[str, Any], weights: str = "pretrained", **meta: Any) -> list[str]:
        config = {"trainer": trainer, "backbone": {"weights": weights}}
        meta = {"weights": {"source": "random" if weights == "none" else "x"}, **meta}
        return smoke_reasons(made(tmp_path / "run", config, **meta))

    full = {"limit_train_batches": 1.0, "max_epochs": 100}
    assert reasons(full) == [] and reasons({}) == []
    assert reasons(full | {"limit_train_batches": 6}) == ["only 6 batches an epoch"]
    assert reasons(full | {"limit_train_batches": 0.25}) == ["only 25% of the batches an epoch"]
    assert reasons(full | {"limit_train_batches": 1}) == ["only 1 batches an epoch"]
    assert reasons(full | {"max_epochs": 2}) == ["at most 2 epochs"]
    assert reasons(full | {"max_epochs": "${x}"}) == []
    assert reasons(full, "none") == ["a frozen backbone of random weights"]
    assert reasons(full, "none", trainable="all") == []
    assert reasons(full, data="phantom") == ["generated images, the phantom cohort"]


def test_what_moved_the_weights_is_named(tmp_path: Path, trained_run: Path) -> None:
    assert learned_by(read_run(trained_run)) == "BCEWithLogitsLoss, Adam"
    schedule = {"_target_": "a.b.WarmupCosine", "warmup": 0.1}
    other = made(tmp_path / "run", loss={"_target_": "mine.Loss"}, schedule=schedule)
    assert learned_by(other) == "Loss, WarmupCosine"
    assert learned_by(made(tmp_path / "old")) == "not recorded"

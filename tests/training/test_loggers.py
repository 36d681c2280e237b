"""Loggers of other programs, on this machine alone: what they hold is what `history.csv` holds."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import DictConfig
from pytorch_lightning.loggers import wandb as lightning_wandb

from cardiomegaly import UserError, config
from cardiomegaly.training.trainer import build_trainer

PACKAGE = "the extra [loggers] is not installed"


def train(small: list[str], folder: Path, *words: str) -> pd.DataFrame:
    """Train two jobs in a process, and return the histories of both, one after the other."""
    tiny = ["backbone=timm", "backbone.model=test_resnet", "trainer.max_epochs=2", *words]
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_TRACKING_URI": ""}
    environment = {key: value for key, value in (os.environ | quiet).items() if value}
    given = [word for word in small if not word.startswith("logger=")]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "cardiomegaly.train", "-m", *given, *tiny, "seed=1,2",
         "hydra.sweep.dir=sweep"],
        cwd=folder, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    histories = sorted((folder / "sweep").glob("*/history.csv"))
    assert len(histories) == 2
    return pd.concat([pd.read_csv(path) for path in histories], ignore_index=True)


@pytest.mark.slow
def test_mlflow_in_a_local_file(small: list[str], tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason=PACKAGE)
    history = train(small, tmp_path, "logger=mlflow")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        logged = pd.read_sql("select * from metrics where key = 'val/auroc'", database)
        runs = pd.read_sql("select * from runs", database)
        parameters = pd.read_sql("select * from params", database)
    assert sorted(logged["value"]) == sorted(history["val/auroc"])
    names = [f"test_resnet_balance-True_seed-{seed}" for seed in (1, 2)]
    assert sorted(runs["name"]) == names
    assert set(runs["status"]) == {"FINISHED"}
    assert "torch.optim.Adam" in set(parameters["value"])


@pytest.mark.slow
def test_wandb_without_a_network(small: list[str], tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason=PACKAGE)
    history = train(small, tmp_path, "logger=wandb")
    logged = sorted((tmp_path / "sweep").glob("*/logs/wandb/offline-run-*/run-*.wandb"))
    assert len(logged) == 2  # one for each job, although one process ran both
    for path, rows in zip(logged, (history[:2], history[2:]), strict=True):
        content = path.read_bytes()
        assert b"val/auroc" in content
        assert all(repr(value).encode() in content for value in rows["val/auroc"])


def test_a_package_that_is_missing_is_one_line(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", False)
    settings = config.check(composed("logger=wandb"))
    with pytest.raises(UserError, match=r"logger: wandb is not installed; say pip install 'cardi"):
        build_trainer(settings, tmp_path, "32-true")

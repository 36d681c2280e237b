"""Sweeps as a user starts them: Hydra's own multirun, with a faked or a real training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cardiomegaly import train
from cardiomegaly.config import Config
from cardiomegaly.reports import sweep_page
from cardiomegaly.sweep import callback, ledger
from tests.made_runs import make_run

FIRST = Path("outputs/sweeps/first")
SEEDS = ("backbone=mobilenetv1", "seed=1,2,3", "sweep.name=first")


class Fake:
    """A training that writes a run folder at once, and does to some jobs what the test says."""

    def __init__(self) -> None:
        self.trained: list[int] = []
        self.resumed: list[bool] = []
        self.trouble: dict[int, BaseException] = {}  # by seed
        self.trouble_in: dict[int, BaseException] = {}  # by how many were trained before

    def __call__(self, run: Config, folder: Path, *_: object) -> float:
        self.trained.append(run.seed)
        self.resumed.append(run.resume is not None)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        if len(self.trained) - 1 in self.trouble_in:
            raise self.trouble_in[len(self.trained) - 1]
        if run.seed in self.trouble:
            raise self.trouble[run.seed]
        written = (folder / ".hydra" / "config.yaml").read_text()
        value = 1 - abs(run.trainer.learning_rate - 0.003)
        make_run(folder, run.backbone.name, run.balance, run.seed, best_value=value)
        (folder / ".hydra" / "config.yaml").write_text(written)
        return value


@pytest.fixture
def fake(command_in_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    """What `python -m cardiomegaly.train` calls, in the place of a training."""
    fake = Fake()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "train_and_report", fake)
    monkeypatch.setattr(callback.SweepCallback, "begun", None)
    return fake


@pytest.fixture
def sweep(fake: Fake, small: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Start a sweep of faked jobs with these words; returns the exit code."""
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]

    def start(*words: str) -> int:
        first = [] if any(word.startswith("sweep.resume") for word in words) else ["-m", *small]
        monkeypatch.setattr(sys, "argv", ["train", *first, *words, *quiet])
        try:
            train.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return start


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report out, for tests of something else: its plots take time."""
    monkeypatch.setattr(sweep_page, "report_sweep", lambda *_: None)


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python -m cardiomegaly.train -m` in a folder; what it says goes to output.txt."""
    begun = []

    def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
        with (cwd / "output.txt").open("a") as output:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "cardiomegaly.train", "-m", *words],
                cwd=cwd, env=os.environ | {"PYTHONWARNINGS": "default", "OMP_NUM_THREADS": "1"},
                stdout=output, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()


def statuses(folder: str | Path) -> list[str]:
    """What the ledger says of each job."""
    return [entry.status for entry in ledger.read_entries(Path(folder))]

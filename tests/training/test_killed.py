"""Real trainings, killed or requeued between two epochs: resumed, they end as undisturbed ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cardiomegaly.training.record import read_run

Train = Callable[..., Path]
WORDS = ("trainer.max_epochs=4", "backbone.trainable=all", "trainer.monitor=val/loss")
PROGRAM = [sys.executable, "-m", "cardiomegaly.train"]


@pytest.fixture(scope="module")
def undisturbed(trained: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the others should be like, trained in this process without loader processes."""
    return trained(tmp_path_factory.mktemp("undisturbed") / "run", *WORDS)


def start(
    words: list[str], cwd: Path, send: signal.Signals, environment: dict[str, str] | None = None
) -> tuple[str, int]:
    """Start a training and send it a signal as soon as it tells of epoch 1."""
    with subprocess.Popen(  # noqa: S603
        [*PROGRAM, *words],
        cwd=cwd, env=os.environ | (environment or {}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if " epoch 1/" in line:
                    process.send_signal(send)
                    break
            rest, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    return "".join([*lines, rest]), process.returncode


def assert_equal(run: Path, undisturbed: Path) -> None:
    """Every prediction to the last digit, and every epoch but for its times."""
    ours, theirs = read_run(run), read_run(undisturbed)
    times = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(
        ours.history.drop(columns=times), theirs.history.drop(columns=times), check_exact=True
    )
    assert (run / "predictions.csv").read_bytes() == (undisturbed / "predictions.csv").read_bytes()
    assert ours.metrics["test"] == theirs.metrics["test"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_killed_and_resumed_equals_undisturbed(
    small: list[str], undisturbed: Path, tmp_path: Path, workers: int
) -> None:
    """Killed in epoch 2, or while the checkpoint of epoch 1 is written."""
    words = [*small, *WORDS, f"data.workers={workers}", "hydra.run.dir=run"]
    output, code = start(words, tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert not (tmp_path / "run" / "metrics.json").exists()
    done = subprocess.run(  # noqa: S603
        [*PROGRAM, "resume=run"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stdout
    assert_equal(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_slurm_requeues_a_job_which_goes_on_by_itself(
    small: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    """SLURM signals that the time is up; the same job starts again in the same folder."""
    requeued = tmp_path / "requeued"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {requeued}\nkill -TERM $PPID\n')
    scontrol.chmod(0o755)
    job = {
        "PATH": f"{scontrol.parent}:{os.environ['PATH']}", "SLURM_NTASKS": "1",
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "study", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "1",
    }  # fmt: skip
    words = [*small, *WORDS, "data.workers=1", "hydra.run.dir=run"]
    output, code = start(words, tmp_path, signal.SIGUSR1, job)
    assert code == 128 + signal.SIGTERM, output
    assert requeued.read_text() == "requeue 4711\n"
    output = subprocess.run(  # noqa: S603
        [*PROGRAM, *words], env=os.environ | job | {"SLURM_RESTART_COUNT": "1"},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "going on from" in output
    assert_equal(tmp_path / "run", undisturbed)
    assert not list((tmp_path / "run").glob("hpc_ckpt*"))

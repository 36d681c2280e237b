"""Two processes train one network over gloo: as one would, and not without each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from cardiomegaly.training.record import read_run
from tests.faults import forked
from tests.faults.conftest import said

pytestmark = pytest.mark.slow
TWO = ("trainer.devices=2", "trainer.strategy=ddp")
LIVE = ("features=live", "data.workers=1")


def start(words: list[str], cwd: Path) -> subprocess.Popen[bytes]:
    """Start a training in new processes: Lightning starts the second as it was itself started."""
    with (cwd / "output.txt").open("ab") as output:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "cardiomegaly.train", *words],
            cwd=cwd, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def test_two_processes_train_as_one(tiny: list[str], tmp_path: Path) -> None:
    """Half a batch each, without what is drawn anew in each process (augmentation, dropout)."""
    words = [*tiny, *LIVE, "augment=none", "head=gap", "head.dropout=0", "balance=false"]
    one = [*words, "trainer.batch_size=12", "hydra.run.dir=one"]
    assert forked.run(one, tmp_path) == 0, said(tmp_path)
    two = [*words, "trainer.batch_size=6", "hydra.run.dir=two", *TWO]
    assert start(two, tmp_path).wait() == 0, said(tmp_path)
    alone, shared = (read_run(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose(shared.history["train/loss"], alone.history["train/loss"], rtol=1e-4)
    np.testing.assert_allclose(shared.predictions["logit"], alone.predictions["logit"], atol=1e-4)


@pytest.mark.parametrize("victim", ["first", "second"])
def test_one_of_two_processes_is_killed(tiny: list[str], tmp_path: Path, victim: str) -> None:
    """The other does not wait for it; together they go on as if nobody had touched them."""
    words = [*tiny, *LIVE, "backbone.trainable=all", *TWO]
    assert start([*words, "hydra.run.dir=whole"], tmp_path).wait() == 0, said(tmp_path)
    process = start([*words, "hydra.run.dir=run"], tmp_path)
    first = psutil.Process(process.pid)
    while process.poll() is None and not (tmp_path / "run/checkpoints/last.ckpt").is_file():
        pass
    (second,) = (child for child in first.children() if "LOCAL_RANK" in child.environ())
    (first if victim == "first" else second).kill()
    assert process.wait(60) != 0
    second.wait(60)
    assert start(["resume=run"], tmp_path).wait() == 0, said(tmp_path)
    ours, whole = (tmp_path / name / "predictions.csv" for name in ("run", "whole"))
    assert ours.read_bytes() == whole.read_bytes()

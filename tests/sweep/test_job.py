"""A job of a sweep: what becomes of it when the training fails, ends or is interrupted."""

from __future__ import annotations

import logging
import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from cardiomegaly import UserError, config
from cardiomegaly.sweep import job, ledger
from tests.sweep.conftest import FIRST, SEEDS, Fake, statuses


@pytest.mark.slow
def test_a_failed_job_does_not_stop_the_others(
    sweep: Callable[..., int], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.trouble = {
        1: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GB\nmore"),
        2: UserError("backbone.weights: these do not fit"),
    }
    assert sweep(*SEEDS) == 1
    assert fake.trained == [1, 2, 3]
    assert statuses(FIRST) == ["failed", "failed", "done"]
    out = capsys.readouterr().out
    assert "sweep outputs/sweeps/first: 3 jobs (3 planned)" in out
    assert "1 of 3 jobs are done. Report: outputs/sweeps/first/report.html" in out
    errors = [
        "backbone-mobilenetv1_seed-1: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GB",
        "backbone-mobilenetv1_seed-2: backbone.weights: these do not fit",
    ]
    for error in errors:
        assert f"failed: {error}\n" in out
        assert error.partition(": ")[2] in (FIRST / "summary.md").read_text()
    entry = ledger.read_entries(FIRST)[0]
    assert "in __call__" in (entry.traceback or "")
    assert (entry.attempts, entry.host, entry.finished is None) == (1, platform.node(), False)

    fake.trouble = {2: SystemExit("no more")}
    assert sweep("sweep.resume=outputs/sweeps/first") == 1
    assert fake.trained == [1, 2, 3, 1, 2]
    assert fake.resumed[3:] == [True, True]
    assert "failed: backbone-mobilenetv1_seed-2: SystemExit: no more" in capsys.readouterr().out
    fake.trouble = {}  # it failed when it went on from its checkpoint: now from the start
    assert sweep(*SEEDS) == 0
    assert (fake.trained[5:], fake.resumed[5:]) == ([2], [False])
    assert sweep(*SEEDS) == 0
    assert len(fake.trained) == 6
    assert "3 jobs (3 done)" in capsys.readouterr().out


@pytest.mark.usefixtures("no_report")
def test_a_failed_job_with_other_settings_starts_from_the_beginning(
    sweep: Callable[..., int], fake: Fake
) -> None:
    fake.trouble = {2: MemoryError()}
    assert sweep(*SEEDS) == 1
    fake.trouble = {}
    assert sweep("sweep.resume=outputs/sweeps/first", "seed=2", "trainer.batch_size=4") == 0
    assert (fake.trained[3:], fake.resumed[3:]) == ([2], [False])
    assert statuses(FIRST) == ["done", "done", "done"]


@pytest.mark.parametrize("wrapped", [False, True])  # Lightning turns Ctrl-C into an exit
@pytest.mark.usefixtures("no_report")
def test_an_interruption_stops_the_sweep(
    sweep: Callable[..., int], fake: Fake, wrapped: bool
) -> None:
    stop = SystemExit(1) if wrapped else KeyboardInterrupt()
    stop.__context__ = KeyboardInterrupt() if wrapped else None
    fake.trouble = {2: stop}
    assert sweep(*SEEDS) == 128 + signal.SIGINT
    assert statuses(FIRST) == ["done", "interrupted", "planned"]
    fake.trouble = {}
    assert sweep("sweep.resume=outputs/sweeps/first") == 0
    assert (fake.trained, fake.resumed) == ([1, 2, 2, 3], [False, False, True, False])


@pytest.mark.usefixtures("no_report")
def test_another_process_has_the_job(
    sweep: Callable[..., int], fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    name = "backbone-mobilenetv1_seed-2"
    ledger.write_entry(FIRST, ledger.begin(ledger.Entry(name, 1, "planned"), resumed=False))
    caplog.set_level(logging.INFO)
    with ledger.locked(ledger.job_lock(FIRST.absolute(), name)):
        assert sweep(*SEEDS) == 0
        assert statuses(FIRST) == ["done", "running", "done"]
    assert fake.trained == [1, 3]
    assert f"another process runs {name}" in caplog.text


def test_gpus_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, composed: Callable[..., DictConfig]
) -> None:
    chosen = [job.choose_gpu(["0", "1"], tmp_path, process=7) for _ in range(3)]
    assert chosen == ["0", "1", "1"]  # the third finds both taken
    job._kept.close()
    gpu = config.check(composed("trainer=gpu"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for visible, own in (("", "0"), ("5,3", "5")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        job.share_gpus(tmp_path, config.check(composed("trainer=cpu")))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
        job.share_gpus(tmp_path, gpu)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == own
        job._kept.close()


@pytest.mark.usefixtures("no_report")
def test_fail_fast_ends_the_sweep_with_the_first_failure(
    sweep: Callable[..., int], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.trouble = {2: MemoryError()}
    assert sweep(*SEEDS, "sweep.fail_fast=true") == 1
    assert fake.trained == [1, 2]
    assert statuses(FIRST) == ["done", "failed", "planned"]
    assert "failed: backbone-mobilenetv1_seed-2: MemoryError" in capsys.readouterr().out


def test_a_bug_keeps_its_traceback_and_a_mistake_has_none(
    sweep: Callable[..., int], fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    fake.trouble = {1: ValueError("a bug"), 2: UserError("a mistake")}
    assert sweep(*SEEDS) == 1
    bug, mistake = ledger.read_entries(FIRST)[:2]
    assert (bug.error, mistake.error) == ("ValueError: a bug", "a mistake")
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [bool(record.exc_info) for record in logged] == [True, False]


def test_sigterm_is_an_interruption() -> None:
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    assert job.interruption(SIGTERMException()) == 143
    assert job.interruption(SystemExit(143)) == 143
    assert job.interruption(SystemExit(1)) is None
    assert job.interruption(RuntimeError()) is None

"""Sweeps trained for real, in processes that are killed and started again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cardiomegaly.sweep import ledger
from tests.sweep.conftest import statuses

Command = Callable[..., subprocess.Popen[str]]
TIMES = ["train_seconds", "images_per_second", "peak_memory_mb"]
EIGHT = [
    f"backbone-{name}_balance-{balance}"
    for name in ("resnet152v2", "inceptionv3", "mobilenetv1", "efficientnetb4")
    for balance in (True, False)
]


@pytest.mark.slow
def test_the_eight_runs(command: Command, small: list[str], tmp_path: Path) -> None:
    """The study's own sweep, trained for real; memory is returned between the jobs."""
    done = command(
        *small, "+experiment=sweep", "sweep.name=eight", "backbone.image_size=80",
        "trainer.limit_train_batches=1", cwd=tmp_path,
    )  # fmt: skip
    assert done.wait(600) == 0, (tmp_path / "output.txt").read_text()
    folder = tmp_path / "outputs" / "sweeps" / "eight"
    entries = ledger.read_entries(folder)
    assert [entry.job for entry in entries] == EIGHT
    assert {entry.status for entry in entries} == {"done"}
    table = pd.read_csv(folder / "summary.csv").set_index("run").loc[EIGHT]
    assert (table["split_hash"].nunique(), len(table)) == (1, 8)
    assert (folder / "report.html").is_file()
    output = (tmp_path / "output.txt").read_text()
    assert "8 of 8 jobs are done." in output
    assert "Warning" not in output
    if sys.platform == "linux":
        peak = table["peak_memory_mb"]
        first, second = peak[::2].to_numpy(), peak[1::2].to_numpy()
        assert (second < 1.1 * first).all(), peak
        assert peak["backbone-mobilenetv1_balance-True"] < peak.iloc[0]  # the large one came first


@pytest.mark.slow
def test_killed_in_its_fourth_job_and_resumed(
    command: Command, small: list[str], tmp_path: Path
) -> None:
    words = [*small, "backbone=mobilenetv1", "trainer.max_epochs=2", "hydra.sweep.dir=sweep"]
    (tmp_path / "undisturbed").mkdir()
    undisturbed = command(*words, "seed=4,5", cwd=tmp_path / "undisturbed")
    killed = command(*words, "seed=1,2,3,4,5", cwd=tmp_path)
    fourth = tmp_path / "sweep" / "backbone-mobilenetv1_seed-4"
    while not (fourth / "checkpoints" / "last.ckpt").is_file():
        assert killed.poll() is None, (tmp_path / "output.txt").read_text()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = ledger.read_entries(tmp_path / "sweep")
    assert [entry.status for entry in before] == [*["done"] * 3, "interrupted", "planned"]

    resumed = command("sweep.resume=sweep", cwd=tmp_path)
    assert resumed.wait(300) == 0, (tmp_path / "output.txt").read_text()
    after = ledger.read_entries(tmp_path / "sweep")
    assert after[:3] == before[:3]
    assert [entry.attempts for entry in after] == [1, 1, 1, 2, 1]
    assert after[3].resumed
    assert undisturbed.wait(300) == 0
    for entry in after[3:]:
        for name in ("predictions.csv", "history.csv"):
            mine, theirs = (
                pd.read_csv(folder / "sweep" / entry.job / name).drop(
                    columns=["seconds", "images_per_second"], errors="ignore"
                )
                for folder in (tmp_path, tmp_path / "undisturbed")
            )
            pd.testing.assert_frame_equal(mine, theirs)
    mine, theirs = (
        pd.read_csv(folder / "sweep" / "summary.csv").drop(columns=TIMES)
        for folder in (tmp_path, tmp_path / "undisturbed")
    )
    assert mine["seed"].tolist() == [1, 2, 3, 4, 5]
    pd.testing.assert_frame_equal(mine[3:].reset_index(drop=True), theirs)


@pytest.mark.slow
def test_two_processes_and_joblib(command: Command, small: list[str], tmp_path: Path) -> None:
    """A parallel sweep and a second process on the same folder: every job is run once."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher.joblib_launcher")
    words = [*small, "seed=1,2,3", "sweep.name=two", f"data.cache={tmp_path / 'cache'}"]
    first = command(*words, "launcher=joblib", cwd=tmp_path)
    second = command(*words, cwd=tmp_path)
    output = tmp_path / "output.txt"
    assert (first.wait(300), second.wait(300)) == (0, 0), output.read_text()
    entries = ledger.read_entries(tmp_path / "outputs" / "sweeps" / "two")
    assert [(entry.status, entry.attempts) for entry in entries] == [("done", 1)] * 3
    assert len({entry.pid for entry in entries} & {first.pid, second.pid}) < 2
    assert "3 of 3 jobs are done" in output.read_text()


@pytest.mark.slow
def test_jobs_of_joblib_have_loader_processes(
    command: Command, small: list[str], tmp_path: Path
) -> None:
    """Joblib's processes start others in a way of their own, which torch's loaders cannot."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher.joblib_launcher")
    words = [*small, "data.workers=1", "seed=1,2", "sweep.name=two", "launcher=joblib"]
    done = command(*words, cwd=tmp_path).wait(300)
    assert done == 0, (tmp_path / "output.txt").read_text()
    assert statuses(tmp_path / "outputs" / "sweeps" / "two") == ["done", "done"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("hydra_submitit_launcher.submitit_launcher", ["hydra/launcher=submitit_local"]),
        ("hydra_ray_launcher.ray_launcher", ["launcher=ray", "+hydra.launcher.ray.init.num_cpus=1"]),  # noqa: E501
    ],
)  # fmt: skip
def test_other_launchers(
    command: Command, small: list[str], tmp_path: Path, plugin: str, words: list[str]
) -> None:
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"{plugin} is not installed")
    done = command(*small, *words, "seed=1", "sweep.name=one", cwd=tmp_path)
    assert done.wait(300) == 0, (tmp_path / "output.txt").read_text()
    (entry,) = ledger.read_entries(tmp_path / "outputs" / "sweeps" / "one")
    assert (entry.status, entry.pid != done.pid) == ("done", True)

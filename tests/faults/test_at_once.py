"""Two processes that want the same folder at the same time."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cardiomegaly.training.begun import alone
from tests.faults import forked
from tests.faults.conftest import said


@pytest.mark.slow
def test_two_that_go_on_with_one_run(tiny: list[str], undisturbed: bytes, tmp_path: Path) -> None:
    """One does, the other is refused in one line, and leaves what the first has begun."""
    place = ("cardiomegaly.training.module", "CardiomegalyModule.training_step", 11)
    code = forked.run([*tiny, "hydra.run.dir=run"], tmp_path, place)
    assert code == -signal.SIGKILL, said(tmp_path)
    both = [forked.start(["resume=run"], tmp_path) for _ in range(2)]
    for process in both:
        process.join()
    assert sorted({process.exitcode for process in both} - {2}) == [0], said(tmp_path)
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == undisturbed


@pytest.mark.slow
def test_a_folder_that_another_process_trains_into(tiny: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with alone(folder):
        assert forked.run([*tiny, "hydra.run.dir=run"], tmp_path) == 2
    assert said(tmp_path).splitlines()[-1] == (
        f"error: another process trains into {folder}: wait for its end, or give another folder"
    )
    assert folder.is_dir()


@pytest.mark.slow
def test_two_runs_fill_one_cache(tiny: list[str], undisturbed: bytes, tmp_path: Path) -> None:
    both = [forked.start([*tiny, f"hydra.run.dir=run-{i}"], tmp_path) for i in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0], said(tmp_path)
    for number in range(2):
        assert (tmp_path / f"run-{number}" / "predictions.csv").read_bytes() == undisturbed
    (images,) = (tmp_path / "cache").glob("images-*")
    assert (images / "rows.bin").stat().st_size == 90 * 64 * 64  # none is there twice

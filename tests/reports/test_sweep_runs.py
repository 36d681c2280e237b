"""What stands in a sweep's folder."""

from __future__ import annotations

from pathlib import Path

from cardiomegaly.reports.sweep_runs import read_sweep
from tests.made_runs import configure, make_run


def test_without_a_ledger_unfinished_and_damaged_runs_are_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    configure(tmp_path / "b", {})
    (make_run(tmp_path / "c") / "history.csv").write_text("")
    jobs = read_sweep(tmp_path, None).jobs
    assert list(jobs["job"]) == ["b", "c"]
    assert list(jobs["status"]) == ["unfinished", "damaged"]

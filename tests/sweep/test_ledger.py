"""The ledger: what it says of a job after its process has ended in any way, and who may run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cardiomegaly import UserError
from cardiomegaly.sweep import ledger
from cardiomegaly.sweep.ledger import Entry
from cardiomegaly.training.files import write_json

# Takes the lock, forks a child that outlives it as a loader process does, and waits to be killed.
HOLDER = """
import os, sys, time
from pathlib import Path
from cardiomegaly.sweep import ledger
with ledger.locked(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    first = Entry("seed-1", 0, ledger.PLANNED, ["seed=1"])
    failed = Entry("seed-2", 1, ledger.FAILED, ["seed=2"], error="out of memory", attempts=2)
    for entry in (failed, first):
        ledger.write_entry(tmp_path, entry)
    assert ledger.read_entries(tmp_path) == [first, failed]
    table = ledger.read_ledger(tmp_path)
    assert list(table.columns) == ledger.COLUMNS
    assert table["status"].tolist() == ["planned", "failed"]
    assert table["run_dir"].tolist() == [str(tmp_path / "seed-1"), str(tmp_path / "seed-2")]
    assert table["overrides"][1] == ["seed=2"]
    assert ledger.read_entry(tmp_path, "seed-3") is None


def test_a_killed_process_leaves_an_interrupted_job(tmp_path: Path) -> None:
    lock = ledger.job_lock(tmp_path, "job")
    ledger.write_entry(tmp_path, ledger.begin(Entry("job", 0, ledger.PLANNED), resumed=False))
    holder = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        assert ledger.read_entries(tmp_path)[0].status == ledger.RUNNING
        with ledger.locked(lock) as mine:
            assert not mine
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(child, 0)  # it still lives, and holds nothing
        assert ledger.read_entries(tmp_path)[0].status == ledger.INTERRUPTED
        with ledger.locked(lock) as mine:
            assert mine
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_looking_at_ones_own_lock_does_not_drop_it(tmp_path: Path) -> None:
    lock = tmp_path / "ledger" / "job.lock"
    look = f"from pathlib import Path; from cardiomegaly.sweep.ledger import is_locked; \
print(is_locked(Path({str(lock)!r})))"
    with ledger.locked(lock) as mine:
        assert mine and ledger.is_locked(lock)
        with ledger.locked(lock) as again:
            assert not again
        seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)  # noqa: S603
        assert seen.stdout == "True\n", seen.stderr
    assert not ledger.is_locked(lock)
    assert not ledger.is_locked(tmp_path / "absent.lock")


def test_the_metrics_say_whether_a_job_is_done(tmp_path: Path) -> None:
    ledger.write_entry(tmp_path, Entry("deleted", 0, ledger.DONE, objective=0.5))
    ledger.write_entry(tmp_path, Entry("killed", 1, ledger.RUNNING))  # after its last file
    write_json(tmp_path / "killed" / "metrics.json", {"meta": {"best_value": 0.75}})
    deleted, killed = ledger.read_entries(tmp_path)
    assert deleted.status == ledger.PLANNED
    assert (killed.status, killed.objective) == (ledger.DONE, 0.75)


def test_a_new_attempt_forgets_the_last_error() -> None:
    failed = Entry("job", 3, ledger.FAILED, ["seed=1"], error="lost", traceback="...", attempts=1)
    entry = ledger.begin(failed, resumed=True)
    assert (entry.status, entry.error, entry.traceback) == (ledger.RUNNING, None, None)
    assert (entry.attempts, entry.number, entry.pid) == (2, 3, os.getpid())


def test_one_damaged_file_among_eight(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is named and rebuilt from the run folder; the others are as they were."""
    for number in range(8):
        done = number < 4
        entry = Entry(f"job-{number}", number, ledger.DONE if done else ledger.FAILED, error="x")
        ledger.write_entry(tmp_path, entry)
        if done:
            metrics = {"meta": {"best_value": number / 10}}
            write_json(tmp_path / entry.job / "metrics.json", metrics)
    damage = ("{", '{"job": "job"}', '{"job": "a", "number": 0, "status": "done", "x": 1}', "[]",
              '{"job": "../../a", "number": "0", "status": "done"}', "\x00\x00")  # fmt: skip
    for place, text in enumerate(damage):
        number = (2, 5)[place % 2]
        (tmp_path / "ledger" / f"job-{number}.json").write_text(text)
        caplog.clear()
        entries = {entry.job: entry for entry in ledger.read_entries(tmp_path)}
        assert f"job-{number}.json was damaged (" in caplog.text
        assert "written anew by what is in its run folder" in caplog.text
        assert (entries["job-2"].status, entries["job-2"].objective) == (ledger.DONE, 0.2)
        assert entries["job-5"].status in (ledger.FAILED, ledger.INTERRUPTED)
        assert [entries[f"job-{i}"].error for i in (0, 1, 3, 4, 6, 7)] == ["x"] * 6
        caplog.clear()
        assert len(ledger.read_ledger(tmp_path)) == 8
        assert not caplog.records


def test_a_damaged_file_of_a_running_job_is_left_to_it(tmp_path: Path) -> None:
    ledger.write_entry(tmp_path, Entry("job", 0, ledger.RUNNING))
    path = tmp_path / "ledger" / "job.json"
    path.write_text("{")
    with ledger.locked(ledger.job_lock(tmp_path, "job")):
        (entry,) = ledger.read_entries(tmp_path)
        assert entry.status == ledger.RUNNING
        assert path.read_text() == "{"


def test_a_job_killed_after_its_last_file_is_done_for_who_holds_its_lock(tmp_path: Path) -> None:
    ledger.write_entry(tmp_path, Entry("job", 0, ledger.RUNNING))
    write_json(tmp_path / "job" / "metrics.json", {"meta": {"best_value": 0.75}})
    with ledger.locked(ledger.job_lock(tmp_path, "job")):
        entry = ledger.read_entry(tmp_path, "job", mine=True)
    assert entry is not None and entry.status == ledger.DONE


def test_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no ledger: give the folder that a sweep"):
        ledger.read_ledger(tmp_path)

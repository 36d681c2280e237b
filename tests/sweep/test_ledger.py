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
from cardiomegaly.sweep.identity import job_name, settings
from cardiomegaly.sweep.ledger import Entry
from cardiomegaly.training.record import write_json

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
    holder = subprocess.Popen(
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
        seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
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


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no ledger: give the folder that a sweep"):
        ledger.read_ledger(tmp_path)
    (tmp_path / "ledger").mkdir()
    for text in ("{", '{"job": "job"}', '{"job": "job", "number": 0, "status": "done", "x": 1}'):
        (tmp_path / "ledger" / "job.json").write_text(text)
        with pytest.raises(UserError, match=r"job.json is damaged .* delete it to run the job"):
            ledger.read_entries(tmp_path)
        row = ledger.read_ledger(tmp_path).iloc[0]
        assert row["status"] == "damaged" and "job.json is damaged" in row["error"]


@pytest.mark.parametrize(
    ("keys", "overrides", "name"),
    [
        (["seed"], ["seed=1", "balance=True", "backbone=resnet50", "data.root=/x"],
         "backbone-resnet50_balance-True_seed-1"),
        (["step"], ["+step=gap", "+experiment=ablation"], "step-gap"),
        (["backbone.weights"], ["backbone.weights=/data/a=b/google v1.pt"],
         "backbone.weights-google-v1.pt"),
        (["trainer.learning_rate"], ["trainer.learning_rate=0.001"], "trainer.learning_rate-0.001"),
        ([], ["data=phantom"], "run"),
    ],
)  # fmt: skip
def test_job_names(keys: list[str], overrides: list[str], name: str) -> None:
    assert job_name(keys, overrides) == name
    assert job_name(keys, reversed(overrides)) == name


def test_long_names_stay_apart() -> None:
    names = {job_name(["split.fractions"], [f"split.fractions={'9' * 300}{i}"]) for i in range(2)}
    assert len(names) == 2
    assert max(map(len, names)) < 140


def test_what_may_change_between_two_starts() -> None:
    words = ["seed=1", "data.workers=2", "sweep.name=a", "hydra/launcher=joblib", "+step=gap"]
    assert settings(words) == {"seed": "seed=1", "step": "+step=gap"}

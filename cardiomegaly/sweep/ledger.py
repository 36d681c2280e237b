"""The ledger of a sweep: what became of each job.

Every job has a small JSON file of its own in `<sweep>/ledger/`, replaced in one step, so processes
and machines that share a sweep folder never rewrite the same file. Whoever runs a job holds the
lock beside it; the system drops the lock with the process, however that ends. So a job that is
recorded as running while its lock is free was interrupted.

The locks are POSIX record locks: unlike those of `flock`, the loader processes that a training
forks do not inherit them, and they hold on network file systems.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.training.record import METRICS, write_json

LEDGER = "ledger"
PLANNED, RUNNING, DONE = "planned", "running", "done"
FAILED, INTERRUPTED, DAMAGED = "failed", "interrupted", "damaged"
COLUMNS = [
    "job", "status", "overrides", "run_dir", "error", "objective", "started", "finished", "host",
    "pid", "attempts",
]  # fmt: skip
ATTEMPTS, PAUSE = 3, 0.1  # a reader that looks at a lock holds it for an instant (seconds)

_held: set[Path] = set()  # a second handle on one's own lock would drop it when it closes


@dataclass
class Entry:
    """One job of a sweep.

    Attributes:
        job: its name, which is also that of its run folder below the sweep's.
        number: its place in the sweep.
        status: planned, running, done, failed or interrupted.
        overrides: what the job sets, as Hydra's words.
        error: why it failed, in a line; `traceback` says where.
        objective: the best value of the monitored metric.
        started, finished: local time with its zone, ISO 8601.
        attempts: how often it was begun.
        resumed: whether the last attempt went on from a checkpoint.
    """

    job: str
    number: int
    status: str
    overrides: list[str] = field(default_factory=list)
    error: str | None = None
    traceback: str | None = None
    objective: float | None = None
    started: str | None = None
    finished: str | None = None
    host: str | None = None
    pid: int | None = None
    attempts: int = 0
    resumed: bool = False


def write_entry(sweep: Path, entry: Entry) -> None:
    """Record what is known of a job now."""
    write_json(_path(sweep, entry.job), asdict(entry))


def read_entry(sweep: Path, job: str) -> Entry | None:
    """What is known of a job, None if nothing is; it is done once its metrics are written.

    Raises:
        UserError: the file is damaged.
    """
    path = _path(sweep, job)
    if not path.is_file():
        return None
    try:
        entry = Entry(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it to run the job again") from error
    metrics = sweep / job / METRICS
    if entry.status == RUNNING and not is_locked(path.with_suffix(".lock")):
        entry.status = INTERRUPTED
    if entry.status == DONE and not metrics.is_file():
        entry.status = PLANNED
    elif entry.status == INTERRUPTED and metrics.is_file():  # killed before it could say so
        entry.status, entry.objective = DONE, _objective(metrics)
    return entry


def read_entries(sweep: Path) -> list[Entry]:
    """All jobs of a sweep, in their order."""
    names = [path.stem for path in (sweep / LEDGER).glob("*.json")]
    entries = [entry for name in names if (entry := read_entry(sweep, name))]
    return sorted(entries, key=lambda entry: (entry.number, entry.job))


def read_ledger(folder: Path | str) -> pd.DataFrame:
    """The ledger of a sweep folder as a table, one row a job (COLUMNS).

    A job whose file is damaged has the status "damaged" and says so in `error`.

    Raises:
        UserError: the folder has no ledger.
    """
    sweep = Path(folder)
    if not (sweep / LEDGER).is_dir():
        raise UserError(f"{sweep} has no ledger: give the folder that a sweep wrote into")
    entries, damaged = [], []
    for job in (path.stem for path in (sweep / LEDGER).glob("*.json")):
        try:
            entry = read_entry(sweep, job)
        except UserError as error:
            damaged.append({"job": job, "status": DAMAGED, "error": str(error)})
        else:
            entries += [entry] if entry else []
    entries.sort(key=lambda entry: (entry.number, entry.job))
    rows = [asdict(entry) | {"run_dir": str(sweep / entry.job)} for entry in entries]
    return pd.DataFrame(rows + damaged, columns=COLUMNS)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock file for the time of the block; False if it is held already."""
    if path.resolve() in _held:
        yield False
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    mine = _try_lock(handle)
    if mine:
        _held.add(path.resolve())
    try:
        yield mine
    finally:
        _held.discard(path.resolve())
        os.close(handle)


def job_lock(sweep: Path, job: str) -> Path:
    """The lock file of a job."""
    return _path(sweep, job).with_suffix(".lock")


def is_locked(path: Path) -> bool:
    """Whether a process holds this lock file."""
    if path.resolve() in _held:
        return True
    if not path.is_file():
        return False
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    finally:
        os.close(handle)
    return False


def begin(entry: Entry, resumed: bool) -> Entry:
    """The entry of a job that starts here and now."""
    return Entry(
        entry.job,
        entry.number,
        RUNNING,
        entry.overrides,
        started=now(),
        host=socket.gethostname(),
        pid=os.getpid(),
        attempts=entry.attempts + 1,
        resumed=resumed,
    )


def now() -> str:
    """The time, to the second, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _path(sweep: Path, job: str) -> Path:
    return sweep / LEDGER / f"{job}.json"


def _objective(metrics: Path) -> float | None:
    value = json.loads(metrics.read_text(encoding="utf-8"))["meta"].get("best_value")
    return None if value is None else float(value)


def _try_lock(handle: int) -> bool:
    for attempt in range(ATTEMPTS):
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            time.sleep(PAUSE * (attempt + 1 < ATTEMPTS))
        else:
            return True
    return False

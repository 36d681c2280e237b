"""The ledger of a sweep: what became of each job.

Every job has a small JSON file of its own in `<sweep>/ledger/`, replaced in one step, so processes
and machines that share a sweep folder never rewrite the same file. Whoever runs a job holds the
lock beside it; the system drops the lock with the process, however that ends. So a job that is
recorded as running while its lock is free was interrupted.

The locks are filelock's: a loader process that a training has forked does not hold on to them.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from cardiomegaly import UserError

if TYPE_CHECKING:  # every start of a sweep imports this file: pandas only for the table
    import pandas as pd

log = logging.getLogger(__name__)
LEDGER, METRICS = "ledger", "metrics.json"
PLANNED, RUNNING, DONE = "planned", "running", "done"
FAILED, INTERRUPTED = "failed", "interrupted"
STATES = (PLANNED, RUNNING, DONE, FAILED, INTERRUPTED)
COLUMNS = [
    "job", "status", "overrides", "run_dir", "error", "objective", "started", "finished", "host",
    "pid", "attempts",
]  # fmt: skip
LOOK = 0.3  # seconds: a reader that looks at a lock holds it for an instant
LAST = 10**6  # number of a job whose place is not known


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
    from cardiomegaly.training.files import write_json

    write_json(_path(sweep, entry.job), asdict(entry))


def read_entry(sweep: Path, job: str, mine: bool = False) -> Entry | None:
    """What is known of a job, None if nothing is; it is done once its metrics are written.

    A damaged file is written anew by what the job's run folder says.

    Args:
        sweep: its folder.
        job: its name.
        mine: whether the caller holds the job's lock.
    """
    path = _path(sweep, job)
    if not path.is_file():
        return None
    damage = None
    try:
        entry = _parse(path.read_text(encoding="utf-8"))
        entry.job = job
    except (ValueError, TypeError) as error:
        entry, damage = Entry(job, LAST, RUNNING), error
    metrics = sweep / job / METRICS
    running = not mine and entry.status == RUNNING and is_locked(job_lock(sweep, job))
    if entry.status == RUNNING and not running:
        entry.status = INTERRUPTED
    if entry.status == DONE and not metrics.is_file():
        entry.status = PLANNED
    elif entry.status == INTERRUPTED and metrics.is_file():  # killed before it could say so
        entry.status, entry.objective = DONE, _objective(metrics)
    if damage is not None and not running:
        write_entry(sweep, entry)
        log.warning(
            "%s was damaged (%s): written anew by what is in its run folder, as %s; nothing is to "
            "be done", path, " ".join(str(damage).split()), entry.status,
        )  # fmt: skip
    return entry


def read_entries(sweep: Path) -> list[Entry]:
    """All jobs of a sweep, in their order."""
    names = [path.stem for path in (sweep / LEDGER).glob("*.json")]
    entries = [entry for name in names if (entry := read_entry(sweep, name))]
    return sorted(entries, key=lambda entry: (entry.number, entry.job))


def read_ledger(folder: Path | str) -> pd.DataFrame:
    """The ledger of a sweep folder as a table, one row a job (COLUMNS).

    Raises:
        UserError: the folder has no ledger.
    """
    import pandas as pd

    sweep = Path(folder)
    if not (sweep / LEDGER).is_dir():
        raise UserError(f"{sweep} has no ledger: give the folder that a sweep wrote into")
    rows = [asdict(entry) | {"run_dir": str(sweep / entry.job)} for entry in read_entries(sweep)]
    return pd.DataFrame(rows, columns=COLUMNS)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock file for the time of the block; False if it is held already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=LOOK)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def job_lock(sweep: Path, job: str) -> Path:
    """The lock file of a job."""
    return _path(sweep, job).with_suffix(".lock")


def is_locked(path: Path) -> bool:
    """Whether a process holds this lock file."""
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, PermissionError):  # held, perhaps by another user
        return True


def how_to_go_on(sweep: Path) -> str:
    """The command that goes on with a sweep."""
    return f"python -m cardiomegaly.train -m {shlex.quote(f'sweep.resume={sweep}')}"


def begin(entry: Entry, resumed: bool) -> Entry:
    """The entry of a job that starts here and now."""
    return Entry(
        entry.job,
        entry.number,
        RUNNING,
        entry.overrides,
        started=now(),
        host=platform.node(),
        pid=os.getpid(),
        attempts=entry.attempts + 1,
        resumed=resumed,
    )


def now() -> str:
    """The time, to the second, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _path(sweep: Path, job: str) -> Path:
    return sweep / LEDGER / f"{job}.json"


def _parse(text: str) -> Entry:
    entry = Entry(**json.loads(text))
    if entry.status not in STATES or not isinstance(entry.number, int):
        raise ValueError(f"status {entry.status!r}, number {entry.number!r}")
    return entry


def _objective(metrics: Path) -> float | None:
    try:
        value = json.loads(metrics.read_text(encoding="utf-8"))["meta"].get("best_value")
        return None if value is None else float(value)
    except (ValueError, TypeError, KeyError):  # the report names what is damaged
        return None

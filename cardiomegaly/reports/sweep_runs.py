"""What stands in a sweep's folder: finished runs and what tells them apart, and unfinished jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.reports.origin import weights_of
from cardiomegaly.reports.published import BACKBONES
from cardiomegaly.training.record import Run, UnfinishedRunError, find_runs, read_run

# What of a run's record may tell it from another; the rest is found in the overrides.
VARIABLES = (
    "backbone", "balance", "head", "weights", "trainable", "features", "data", "cohort", "split",
    "seed",
)  # fmt: skip
NAMES = {"backbone.trainable": "trainable", "backbone.weights": "weights"}
# Overrides that say where and how a run is computed, not what.
NO_SETTING = ("resume", "experiment", "logger", "data.workers", "data.cache", "trainer.devices")
JOB_COLUMNS = ["job", "status", "settings", "message"]
MESSAGES = {
    "planned": "not started yet",
    "running": "still running",
    "interrupted": "interrupted: starting the same sweep again goes on from its last checkpoint",
    "failed": "failed without a message",
}


def read_runs(folder: Path | str, ledger: pd.DataFrame | None) -> tuple[list[Run], pd.DataFrame]:
    """Read the finished runs below a folder, and list what is not finished or not readable.

    Args:
        folder: the sweep's folder; a run stands in a folder below it.
        ledger: job, status, overrides, run_dir, error, started, host of every job of the sweep.

    Returns:
        The runs, and a table of job, status, settings, message.

    Raises:
        UserError: there is no such folder, or neither a run nor a ledger in it.
    """
    folders = find_runs(folder)
    if not folders and ledger is None:
        raise UserError(f"{folder} holds no run: give the folder that the sweep wrote into")
    runs, broken = [], {}
    for path in folders:
        try:
            runs.append(read_run(path))
        except UnfinishedRunError as error:
            broken[path.name] = ("unfinished", str(error))
        except UserError as error:
            broken[path.name] = ("damaged", str(error))
    return sorted(runs, key=_study_order), _open_jobs(ledger, {run.name for run in runs}, broken)


def _study_order(run: Run) -> tuple[int, str, bool]:
    """Backbones as in the study's table, balanced before unbalanced; the rest as the folders."""
    name = str(run.meta.get("backbone"))
    rank = list(BACKBONES).index(name) if name in BACKBONES else len(BACKBONES)
    return rank, name, not run.meta.get("balance")


def distinguishing(runs: Sequence[Run]) -> list[str]:
    """Name the settings that differ between runs; backbone and balance where none does."""
    named = dict.fromkeys(key for run in runs for key in _overrides(run))
    others = [key for key in named if NAMES.get(key, key) not in (*VARIABLES, *NO_SETTING)]
    settings = [name for name in VARIABLES if name != "seed"] + others + ["seed"]
    differing = [key for key in settings if len({str(setting(run, key)) for run in runs}) > 1]
    return differing if set(differing) - {"seed"} else ["backbone", "balance", *differing]


def setting(run: Run, key: str) -> Any:
    """What a run has for a setting: as recorded, as overridden, or as configured."""
    if key == "weights":
        return weights_of(run)
    if key in VARIABLES and key in run.meta:
        return run.meta[key]
    if key in (given := _overrides(run)):
        return given[key]
    value: Any = run.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "default" if value is None or isinstance(value, dict) else value


def label_of(settings: dict[str, Any]) -> str:
    """Put settings into words: "mobilenetv1, balanced, seed 1"."""
    words = []
    for key, value in settings.items():
        text = str(value).rsplit("/", 1)[-1]
        if key == "balance":
            text = "balanced" if value else "unbalanced"
        elif key != "backbone":
            text = f"{key.split('.')[-1]} {text}"
        words.append(text)
    return ", ".join(words)


def _overrides(run: Run) -> dict[str, str]:
    pairs = (text.lstrip("+~").partition("=") for text in run.meta.get("overrides") or [])
    return {key: value for key, _, value in pairs if not key.startswith(("hydra.", "sweep."))}


def _open_jobs(
    ledger: pd.DataFrame | None, finished: set[str], broken: dict[str, tuple[str, str]]
) -> pd.DataFrame:
    """Jobs of the ledger that are not finished, then folders that the ledger does not know."""
    rows, listed, jobs = [], set(finished), []
    if ledger is not None:
        jobs = ledger.astype(object).where(ledger.notna(), None).to_dict("records")
    for job in jobs:
        folder = Path(str(job.get("run_dir") or "")).name
        status = str(job.get("status"))
        if folder in listed:
            continue
        if folder:
            listed.add(folder)
        message = str(job.get("error") or MESSAGES.get(status, ""))
        if status == "done":
            gone = ("missing", f"its run folder {job.get('run_dir')} is gone")
            status, message = broken.get(folder, gone)
        elif status == "running":
            message += f" on {job.get('host')} since {job.get('started')}"
        given = job.get("overrides")
        settings = given if isinstance(given, str) else " ".join(given or [])
        rows.append([str(job.get("job")), status, settings, message])
    unknown = {name: why for name, why in broken.items() if name not in listed}
    rows += [[name, status, "", message] for name, (status, message) in unknown.items()]
    return pd.DataFrame(rows, columns=JOB_COLUMNS)

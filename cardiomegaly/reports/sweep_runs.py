"""What stands in a sweep's folder: finished runs with their figures, and unfinished jobs.

A run is labelled by whatever distinguishes it in this sweep (backbone and balance in the study's
own, the head in an ablation); runs that differ by nothing but the seed share a configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.evaluation.influence import metric_intervals
from cardiomegaly.reports.markdown import METRICS
from cardiomegaly.reports.published import BACKBONES
from cardiomegaly.reports.run_description import smoke_reasons, weights_of
from cardiomegaly.training.record import Run, UnfinishedRunError, find_runs, read_run

# What of a run's record may tell it from another; the rest is found in the overrides.
VARIABLES = (
    "backbone", "balance", "head", "weights", "trainable", "features", "data", "cohort", "split",
    "seed",
)  # fmt: skip
REPEATS = ("seed", "split.fold")  # runs that differ by these are of one configuration
NAMES = {"backbone.trainable": "trainable", "backbone.weights": "weights"}
# Overrides that say where and how a run is computed, not what.
NO_SETTING = ("resume", "experiment", "logger", "data.workers", "data.cache", "trainer.devices")
NUMBERS = (
    "image_size", "parameters", "parameters_trainable", "images_per_second", "train_seconds",
    "epochs", "best_epoch", "peak_memory_mb", "n_train", "n_val", "n_test",
)  # fmt: skip
TEXTS = ("device", "precision", "split_hash", "label_file_sha256")
MESSAGES = {
    "planned": "not started yet",
    "running": "still running",
    "interrupted": "interrupted: starting the same sweep again goes on from its last checkpoint",
    "failed": "failed without a message",
}


@dataclass(frozen=True)
class Sweep:
    """What is known of a sweep at this moment.

    `table` has a row a finished run, in the order of `runs`: run, label, configuration (the label
    without seed and fold), rest (without backbone and balance too), smoke (why it is one, or
    empty), VARIABLES, `<metric>`, `<metric>_low`, `<metric>_high` on the test part, NUMBERS and
    TEXTS as recorded. `jobs` lists what is not finished: job, status, settings, message.
    """

    folder: Path
    runs: list[Run]
    variables: list[str]
    table: pd.DataFrame
    jobs: pd.DataFrame


def read_sweep(folder: Path | str, ledger: pd.DataFrame | None) -> Sweep:
    """Read every run below a folder and judge the finished ones on their test part.

    Args:
        folder: the sweep's folder; a run stands in a folder below it.
        ledger: job, status, overrides, run_dir, error, started, host of every job of the sweep.

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
        except UserError as error:
            status = "unfinished" if isinstance(error, UnfinishedRunError) else "damaged"
            broken[path.name] = (status, str(error))
    order = list(BACKBONES)  # as in the study's table, balanced first; the rest as the folders

    def study_order(run: Run) -> tuple[int, str, bool]:
        name = str(run.meta.get("backbone"))
        return order.index(name) if name in order else len(order), name, not run.meta.get("balance")

    runs.sort(key=study_order)
    variables = distinguishing(runs)
    rows = [_row(run, variables) for run in runs]
    table = pd.DataFrame(rows, columns=None if rows else ["label", "rest", *VARIABLES, *METRICS])
    for name in table.columns.intersection(list(NUMBERS)):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    table.insert(0, "run", [str(run.folder.relative_to(folder)) for run in runs])
    if rows:
        twins = table["label"].duplicated(keep=False)
        table.loc[twins, "label"] += " (" + table.loc[twins, "run"] + ")"
    jobs = _open_jobs(ledger, {run.name for run in runs}, broken)
    return Sweep(Path(folder), runs, variables, table, jobs)


def pooled_folds(sweep: Sweep) -> pd.DataFrame:
    """Figures of the folds of cross-validation together: a row a configuration and seed.

    Every image is tested once, by the run that has not seen its patient, so the intervals are those
    of the whole cohort. Configurations without folds, or whose folds are not all there, are left
    out.
    """
    rows = []
    groups: dict[tuple[str, int], list[Run]] = {}
    for run, row in zip(sweep.runs, sweep.table.to_dict("records"), strict=True):
        if run.meta.get("fold") is not None:
            groups.setdefault((row["configuration"], row["seed"]), []).append(run)
    for (configuration, seed), runs in groups.items():
        if {run.meta["fold"] for run in runs} != set(range(runs[0].config["split"]["folds"])):
            continue
        tests = [
            run.part("test").assign(threshold=run.metrics["test"]["threshold"]) for run in runs
        ]
        test = pd.concat(tests, ignore_index=True)
        estimates = metric_intervals(
            test["target"], test["probability"], test["patient_id"],
            test["threshold"].to_numpy(), test.get("logit"),
        )  # fmt: skip
        known: dict[str, Any] = {
            "configuration": configuration,
            "seed": seed,
            "folds": len(runs),
            "n": len(test),
            "n_positive": int(test["target"].sum()),
        }
        for name, estimate in estimates.items():
            known |= estimate.columns(name)
        rows.append(known)
    return pd.DataFrame(rows)


def distinguishing(runs: Sequence[Run]) -> list[str]:
    """Name the settings that differ between runs; backbone and balance where none does."""
    named = dict.fromkeys(key for run in runs for key in _overrides(run))
    others = [key for key in named if NAMES.get(key, key) not in (*VARIABLES, *NO_SETTING)]
    settings = [*VARIABLES[:-1], *others, "seed"]
    differing = [key for key in settings if len({str(setting(run, key)) for run in runs}) > 1]
    return differing if set(differing) - set(REPEATS) else ["backbone", "balance", *differing]


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


def _row(run: Run, variables: list[str]) -> dict[str, Any]:
    settings = {key: setting(run, key) for key in variables}
    labels = {"label": (), "configuration": REPEATS, "rest": (*REPEATS, "backbone", "balance")}
    row: dict[str, Any] = {
        name: label_of({key: settings[key] for key in variables if key not in left_out})
        for name, left_out in labels.items()
    }
    row |= {"smoke": ", ".join(smoke_reasons(run))}
    row |= {key: setting(run, key) for key in VARIABLES} | settings
    test, threshold = run.part("test"), run.metrics["test"].get("threshold", 0.5)
    row |= {f"{name}{end}": float("nan") for name in METRICS for end in ("", "_low", "_high")}
    if len(test):
        columns = test["target"], test["probability"], test["patient_id"]
        estimates = metric_intervals(*columns, threshold, test.get("logit"))
        for name, estimate in estimates.items():
            row |= estimate.columns(name)
    row |= {"threshold": threshold, "n_positive": int(test["target"].sum())}
    return row | {key: run.meta.get(key) for key in (*NUMBERS, *TEXTS)}


def _open_jobs(
    ledger: pd.DataFrame | None, finished: set[str], broken: dict[str, tuple[str, str]]
) -> pd.DataFrame:
    """Jobs of the ledger that are not finished, then folders that the ledger does not know."""
    rows, listed, jobs = [], set(finished), []
    if ledger is not None:
        jobs = ledger.astype(object).where(ledger.notna(), None).to_dict("records")
    for job in jobs:
        folder, status = Path(str(job.get("run_dir") or "")).name, str(job.get("status"))
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
    rows += [
        [name, status, "", why] for name, (status, why) in broken.items() if name not in listed
    ]
    return pd.DataFrame(rows, columns=["job", "status", "settings", "message"])

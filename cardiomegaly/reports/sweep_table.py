"""The runs of a sweep as tables: what tells them apart, their figures with intervals, their means.

A run is labelled by whatever distinguishes it in this sweep (backbone and balance in the study's
own, the head in an ablation); runs that differ by nothing but the seed form a cell.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cardiomegaly.evaluation.uncertainty import draw_patients, metric_intervals
from cardiomegaly.reports.published import BACKBONES, study_figure
from cardiomegaly.reports.sweep_runs import (
    VARIABLES,
    distinguishing,
    label_of,
    read_runs,
    setting,
)
from cardiomegaly.training.record import Run

METRICS = {
    "f1": "F1 (cardiomegaly)",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "accuracy": "accuracy",
    "f1_weighted": "F1 (weighted)",
}
RECORDED = (
    "image_size", "parameters", "parameters_trainable", "images_per_second", "train_seconds",
    "epochs", "best_epoch", "peak_memory_mb", "device", "precision", "n_train", "n_val", "n_test",
    "split_hash", "label_file_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """What is known of a sweep at this moment.

    `table` has a row a finished run, in the order of `runs`: run, label, cell (the label without
    the seed), VARIABLES, `<metric>`, `<metric>_low`, `<metric>_high` on the test part, RECORDED.
    `jobs` lists what is not finished: job, status, settings, message.
    """

    folder: Path
    runs: list[Run]
    variables: list[str]
    table: pd.DataFrame
    jobs: pd.DataFrame


def read_sweep(
    folder: Path | str, ledger: pd.DataFrame | None = None, resamples: int = 2000
) -> Sweep:
    """Read every run below a folder and judge the finished ones on their test part.

    Args:
        folder: the sweep's folder.
        ledger: as in `read_runs`.
        resamples: of the patient bootstrap behind the intervals.

    Raises:
        UserError: as `read_runs`.
    """
    runs, jobs = read_runs(folder, ledger)
    variables = distinguishing(runs)
    rows = [_row(run, variables, resamples) for run in runs]
    table = pd.DataFrame(rows, columns=None if rows else ["label", *VARIABLES, *METRICS])
    table.insert(0, "run", [str(run.folder.relative_to(folder)) for run in runs])
    if rows:
        twins = table["label"].duplicated(keep=False)
        table.loc[twins, "label"] += " (" + table.loc[twins, "run"] + ")"
    return Sweep(Path(folder), runs, variables, table, jobs)


def cell_table(sweep: Sweep) -> pd.DataFrame:
    """Average runs that differ by the seed only: `runs`, then mean and SD (n - 1) of each metric.

    The index is the cell's label; the SD of a single run is nan.
    """
    groups = sweep.table.groupby("cell", sort=False)
    columns: dict[str, Any] = {"runs": groups.size()}
    for name in METRICS:
        columns[f"{name}_mean"] = groups[name].mean()
        columns[f"{name}_sd"] = groups[name].std(ddof=1)
    return pd.DataFrame(columns)


def study_table(sweep: Sweep) -> pd.DataFrame:
    """Set the weighted F1 of the sweep beside the study's: rows balance and source, text cells.

    One run is written with its 95% interval, several as mean and SD. Where a sweep varies more
    than backbone, balance and seed, every combination of the rest has its own row.
    """
    rest = [key for key in sweep.variables if key not in ("backbone", "balance", "seed")]
    table, rows = sweep.table, {}
    backbones = list(dict.fromkeys(table["backbone"])) if len(table) else []
    if not rest:
        backbones = [*BACKBONES, *(name for name in backbones if name not in BACKBONES)]
    for balance in (True, False):
        mode = label_of({"balance": balance})
        groups: list[tuple[Hashable, pd.DataFrame]] = [("", table)]
        if len(table):
            table = sweep.table[sweep.table["balance"] == balance]
            groups = list(table.groupby("rest", sort=False)) or [("", table)]
        if rest and not len(table):
            continue
        for name, group in groups:
            row = f"{mode}, {name}" if name else f"{mode}, this sweep"
            rows[row] = [_cell(group, backbone) for backbone in backbones]
        for source, split in (("study's headline", "headline"), ("study's test set", "test")):
            figures = [study_figure(name, balance, "f1_weighted", split) for name in backbones]
            rows[f"{mode}, {source}"] = [f"{f:.2f}" if f is not None else None for f in figures]
    names = [BACKBONES.get(name, name) for name in backbones]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names, dtype=object)


def _row(run: Run, variables: list[str], resamples: int) -> dict[str, Any]:
    settings = {key: setting(run, key) for key in variables}
    cell = {key: value for key, value in settings.items() if key != "seed"}
    rest = {key: value for key, value in cell.items() if key not in ("backbone", "balance")}
    row: dict[str, Any] = {"label": label_of(settings)}
    row |= {"cell": label_of(cell), "rest": label_of(rest)}
    row |= {key: run.meta.get(key) for key in VARIABLES} | settings
    test = run.part("test")
    threshold = run.metrics["test"].get("threshold", 0.5)
    if len(test):
        draws = draw_patients(test["target"], test["patient_id"], resamples)
        found = metric_intervals(test["target"], test["probability"], draws, threshold)
    for name in METRICS:
        estimate = found[name] if len(test) else None
        row[name] = estimate.value if estimate else np.nan
        row[f"{name}_low"] = estimate.low if estimate else np.nan
        row[f"{name}_high"] = estimate.high if estimate else np.nan
    row |= {"threshold": threshold, "n_positive": int(test["target"].sum())}
    return row | {key: run.meta.get(key) for key in RECORDED}


def _cell(runs: pd.DataFrame, backbone: str) -> str | None:
    found = runs[runs["backbone"] == backbone] if len(runs) else runs
    if not len(found):
        return None
    if len(found) > 1:
        mean, spread = found["f1_weighted"].mean(), found["f1_weighted"].std(ddof=1)
        return f"{mean:.2f} ± {spread:.2f} ({len(found)} runs)"
    one = found.iloc[0]
    return with_interval(one, "f1_weighted", 2)


def with_interval(row: pd.Series[Any], name: str, decimals: int = 3, gap: str = " ") -> str | None:
    """Write a metric with its interval, "0.812 (0.770-0.853)"; None where it is undefined."""
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if not np.isfinite(value):
        return None
    known = np.isfinite(low) and np.isfinite(high)
    span = f"({low:.{decimals}f}-{high:.{decimals}f})" if known else "(no interval)"
    return f"{value:.{decimals}f}{gap}{span}"

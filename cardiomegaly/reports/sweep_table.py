"""The runs of a sweep as tables: what tells them apart, their figures with intervals, their means.

A run is labelled by whatever distinguishes it in this sweep (backbone and balance in the study's
own, the head in an ablation); runs that differ by nothing but the seed share a configuration.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cardiomegaly.evaluation.influence import metric_intervals
from cardiomegaly.evaluation.intervals import Estimate
from cardiomegaly.reports.origin import smoke_reasons
from cardiomegaly.reports.pages import METRICS, interval_column
from cardiomegaly.reports.published import BACKBONES, study_figure
from cardiomegaly.reports.sweep_runs import (
    VARIABLES,
    distinguishing,
    label_of,
    read_runs,
    setting,
)
from cardiomegaly.training.record import Run

NUMBERS = (
    "image_size", "parameters", "parameters_trainable", "images_per_second", "train_seconds",
    "epochs", "best_epoch", "peak_memory_mb", "n_train", "n_val", "n_test",
)  # fmt: skip
TEXTS = ("device", "precision", "split_hash", "label_file_sha256")
NOT_COMPUTED = Estimate(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Sweep:
    """What is known of a sweep at this moment.

    `table` has a row a finished run, in the order of `runs`: run, label, configuration (the label
    without the seed), smoke (why it is a smoke run, or empty), VARIABLES, `<metric>`,
    `<metric>_low`, `<metric>_high` on the test part, NUMBERS and TEXTS as recorded.
    `jobs` lists what is not finished: job, status, settings, message.
    """

    folder: Path
    runs: list[Run]
    variables: list[str]
    table: pd.DataFrame
    jobs: pd.DataFrame


def read_sweep(folder: Path | str, ledger: pd.DataFrame | None) -> Sweep:
    """Read every run below a folder and judge the finished ones on their test part.

    Args:
        folder: the sweep's folder.
        ledger: as in `read_runs`.

    Raises:
        UserError: as `read_runs`.
    """
    runs, jobs = read_runs(folder, ledger)
    variables = distinguishing(runs)
    rows = [_row(run, variables) for run in runs]
    table = pd.DataFrame(rows, columns=None if rows else ["label", *VARIABLES, *METRICS])
    for name in table.columns.intersection(list(NUMBERS)):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    table.insert(0, "run", [str(run.folder.relative_to(folder)) for run in runs])
    if rows:
        twins = table["label"].duplicated(keep=False)
        table.loc[twins, "label"] += " (" + table.loc[twins, "run"] + ")"
    return Sweep(Path(folder), runs, variables, table, jobs)


def _row(run: Run, variables: list[str]) -> dict[str, Any]:
    settings = {key: setting(run, key) for key in variables}
    configuration = {key: value for key, value in settings.items() if key != "seed"}
    rest = {key: configuration[key] for key in configuration if key not in ("backbone", "balance")}
    row: dict[str, Any] = {"label": label_of(settings)}
    row |= {"configuration": label_of(configuration), "rest": label_of(rest)}
    row |= {"smoke": ", ".join(smoke_reasons(run))}
    row |= {key: setting(run, key) for key in VARIABLES} | settings
    test, threshold = run.part("test"), run.metrics["test"].get("threshold", 0.5)
    estimates: dict[str, Estimate] = {}
    if len(test):
        columns = test["target"], test["probability"], test["patient_id"]
        estimates = metric_intervals(*columns, threshold, test.get("logit"))
    for name in METRICS:
        estimate = estimates.get(name, NOT_COMPUTED)
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    row |= {"threshold": threshold, "n_positive": int(test["target"].sum())}
    return row | {key: run.meta.get(key) for key in (*NUMBERS, *TEXTS)}


def seed_means(table: pd.DataFrame) -> pd.DataFrame:
    """Average runs that differ by the seed only, a row a configuration.

    Returns:
        runs (how many), weights, and mean and SD (n - 1, nan for a single run) of each metric.
    """
    groups = table.groupby("configuration", sort=False)
    columns: dict[str, Any] = {"runs": groups.size(), "weights": groups["weights"].first()}
    for name in METRICS:
        columns |= {f"{name}_mean": groups[name].mean(), f"{name}_sd": groups[name].std(ddof=1)}
    return pd.DataFrame(columns)


def study_table(sweep: Sweep) -> pd.DataFrame:
    """Set the weighted F1 of the sweep beside the study's: rows balance and source, text cells.

    One run is written with its 95% interval, several as mean and SD, smoke runs as what they are;
    the last column names the weights. Where a sweep varies more than backbone, balance and seed,
    every combination of the rest has its own row.
    """
    varied = set(sweep.variables) - {"backbone", "balance", "seed"}
    table, rows = sweep.table, {}
    backbones = list(dict.fromkeys(table["backbone"]))
    if not varied:
        backbones = [*BACKBONES, *(name for name in backbones if name not in BACKBONES)]
    for balance in (True, False):
        mode, own = label_of({"balance": balance}), table[table["balance"] == balance]
        if varied and own.empty:
            continue
        groups: list[tuple[Hashable, pd.DataFrame]] = [("", own)]
        if len(own):
            groups = list(own.groupby("rest", sort=False))
        for name, group in groups:
            figures = [_own_figure(group[group["backbone"] == other]) for other in backbones]
            weights = ", ".join(group["weights"].unique())
            rows[f"{mode}, {name or 'this sweep'}"] = [*figures, weights or None]
        for source, split in (("study's headline", "headline"), ("study's test set", "test")):
            published = [study_figure(name, balance, "f1_weighted", split) for name in backbones]
            texts = [None if figure is None else f"{figure:.2f}" for figure in published]
            rows[f"{mode}, {source}"] = [*texts, "ImageNet"]
    names = [BACKBONES.get(name, name) for name in backbones]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*names, "weights"], dtype=object)


def _own_figure(runs: pd.DataFrame) -> str | None:
    """The weighted F1 of runs that differ by the seed only."""
    if runs.empty:
        return None
    values, smoke = runs["f1_weighted"], ", smoke run" if runs["smoke"].any() else ""
    if len(runs) == 1:
        return interval_column(runs, "f1_weighted", "f1_weighted_", decimals=2)[0] + smoke
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f} ({len(runs)} runs){smoke}"

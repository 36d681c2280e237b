"""The tables of a sweep as a reader sees them: rounded, in words, one row a run or a cell."""

from __future__ import annotations

import pandas as pd

from cardiomegaly.reports.pages import cell
from cardiomegaly.reports.sweep_table import METRICS, Sweep, cell_table, with_interval

HASH_SHOWN = 10
ORIGIN = (
    "backbone", "head", "trainable", "seed", "cohort", "split", "image_size", "n_train", "n_val",
    "n_test",
)  # fmt: skip
# The weighted F1 has a table of its own.
SHOWN = {name: title for name, title in METRICS.items() if name != "f1_weighted"}


def metric_table(sweep: Sweep, gap: str = " ") -> pd.DataFrame:
    """Every run's figures with their intervals; `gap` stands between the two."""
    rows = sweep.table.iterrows()
    cells = [
        {title: with_interval(row, name, 3, gap) for name, title in SHOWN.items()}
        for _, row in rows
    ]
    return pd.DataFrame(cells, index=list(sweep.table["label"]))


def seed_table(sweep: Sweep) -> pd.DataFrame | None:
    """Mean and SD of each cell; None where no two runs differ by the seed only."""
    means = cell_table(sweep)
    if means["runs"].max() < 2:
        return None
    shown = pd.DataFrame({"runs": means["runs"]})
    for name, title in SHOWN.items():
        pairs = zip(means[f"{name}_mean"], means[f"{name}_sd"], strict=True)
        shown[title] = [f"{cell(mean)} ± {cell(sd)}" for mean, sd in pairs]
    return shown


def cost_table(sweep: Sweep) -> pd.DataFrame:
    """What each run took: parameters, speed, time, epochs, memory."""
    table, shown = sweep.table, pd.DataFrame(index=list(sweep.table["label"]))
    millions = {"parameters": "parameters (M)", "parameters_trainable": "trained (M)"}
    for name, title in millions.items():
        shown[title] = [None if pd.isna(n) else f"{n / 1e6:.2f}" for n in table[name]]
    shown["images/s"] = [None if pd.isna(n) else f"{n:.1f}" for n in table["images_per_second"]]
    shown["time"] = [_duration(seconds) for seconds in table["train_seconds"]]
    for name in ("epochs", "best_epoch", "peak_memory_mb"):
        shown[name.replace("_", " ")] = [None if pd.isna(n) else f"{n:.0f}" for n in table[name]]
    for name in ("device", "precision"):
        shown[name] = list(table[name])
    return shown.rename(columns={"peak memory mb": "peak memory (MB)"})


def origin_table(sweep: Sweep) -> pd.DataFrame:
    """What each run was trained and tested on."""
    table, shown = sweep.table, pd.DataFrame(index=list(sweep.table["label"]))
    shown["run folder"] = list(table["run"])
    for name in ORIGIN:
        shown[name.replace("_", " ").replace("n ", "n, ")] = list(table[name].astype(object))
    shown["positive in test"] = list(table["n_positive"])
    shown["threshold"] = list(table["threshold"])
    for name, title in (("split_hash", "split hash"), ("label_file_sha256", "label file hash")):
        shown[title] = [str(value)[:HASH_SHOWN] if value else None for value in table[name]]
    return shown


def _duration(seconds: float | None) -> str | None:
    if seconds is None or pd.isna(seconds):
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"

"""Writes the report of a sweep, finished or not: summary.csv, summary.md, report.html and plots."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.localisation import FRACTION
from cardiomegaly.evaluation.uncertainty import RESAMPLES
from cardiomegaly.reports.localise import Localisation, localise
from cardiomegaly.reports.origin import data_root, read_split
from cardiomegaly.reports.pages import (
    METRICS,
    cell,
    interval_column,
    write_report,
)
from cardiomegaly.reports.plots import plot_precision_recall, plot_roc
from cardiomegaly.reports.published import DIFFERENCES
from cardiomegaly.reports.summary import best_run, sweep_facts
from cardiomegaly.reports.sweep_plots import plot_intervals, plot_learning_curves, run_styles
from cardiomegaly.reports.sweep_table import Sweep, read_sweep, seed_means, study_table
from cardiomegaly.training.files import write_csv
from cardiomegaly.training.record import Run

PLOTS = "report_plots"
HASH_LENGTH = 10
SHOWN_METRICS = {
    name: title
    for name, title in METRICS.items()
    if name not in ("f1_weighted", "f1_macro", "brier", "ece")
}
ORIGIN = (
    "run", "backbone", "head", "weights", "trainable", "seed", "cohort", "split", "image_size",
    "n_train", "n_val", "n_test", "n_positive", "threshold",
)  # fmt: skip


def report_sweep(
    folder: Path | str,
    ledger: pd.DataFrame | None = None,
    resamples: int = RESAMPLES,
    device: str = "auto",
) -> tuple[list[str], list[str]]:
    """Write summary.csv, summary.md and report.html into a sweep's folder, finished or not.

    Args:
        folder: the sweep's folder.
        ledger: job, status, overrides, run_dir, error, started, host of every job of the sweep.
        resamples: of the patient bootstrap behind the intervals.
        device: on which the best run's maps are computed: auto, cpu or cuda.

    Returns:
        The five sentences that say it in short, and the warnings.

    Raises:
        UserError: there is no such folder, or neither a run nor a ledger in it.
    """
    sweep = read_sweep(folder, ledger, resamples)
    best = best_run(sweep)
    looks = Localisation() if best is None else locate(best, resamples, device)
    warnings, now = sweep_warnings(sweep), datetime.now().astimezone()
    tables = {"study": study_table(sweep)}
    if sweep.runs:
        tables |= {"metrics": _metrics(sweep), "cost": _cost(sweep), "origin": _origin(sweep)}
        means = seed_means(sweep.table)
        if means["runs"].max() > 1:
            tables["seeds"] = _seeds(means)
        _draw(sweep)
    values = sweep_facts(sweep, best, looks) | {
        "sweep": sweep,
        "localisation": looks,
        "warnings": warnings,
        "tables": tables,
        "differences": DIFFERENCES,
        "now": f"{now:%Y-%m-%d %H:%M %Z}",
    }
    write_csv(sweep.folder / "summary.csv", sweep.table.drop(columns="rest", errors="ignore"))
    folder = sweep.folder
    return write_report("sweep.md", folder / "summary.md", folder / "report.html", values), warnings


def locate(run: Run, resamples: int, device: str) -> Localisation:
    """Judge a run's attention on the boxed hearts that it was not trained on, if they are there."""
    root = data_root(run)
    try:
        images = read_split(run)
        return localise(
            images[images["part"] != "train"], {run.name: run},
            None if root is None else ImageFolder(root),
            gradcam=False, fraction=FRACTION, resamples=resamples, seed=0, device=device,
        )  # fmt: skip
    except UserError as error:
        return Localisation(notes=[str(error)])


def sweep_warnings(sweep: Sweep) -> list[str]:
    """Say in plain words why figures of this sweep should not be compared as they stand."""
    warnings = []
    smoke = sweep.table[sweep.table["smoke"] != ""] if sweep.runs else sweep.table
    if len(smoke):
        warnings.append(
            f"{len(smoke)} of {len(sweep.runs)} runs are smoke runs "
            f"({'; '.join(smoke['smoke'].unique())}): their figures show that the program works "
            "and say nothing about radiographs or about the study."
        )
    by_seed = {(run.meta.get("seed"), run.split_hash) for run in sweep.runs}
    hashes = _labels_by(sweep, lambda run: run.split_hash)
    if len(hashes) > 1 and len(by_seed) == len({seed for seed, _ in by_seed}):
        warnings.append(
            "Runs of different seeds were split differently. Compare runs of one seed with each "
            "other; the spread over seeds includes that of the images they were tested on."
        )
    elif len(hashes) > 1:
        warnings.append(
            "Not all runs were trained and tested on the same images, so a difference between them "
            f"may come from the images. Split hashes: {_in_words(hashes)}."
        )
    label_files = _labels_by(sweep, lambda run: run.label_file_sha256)
    if len(label_files) > 1:
        warnings.append(
            "Not all runs used the same label file, so the same image may count as cardiomegaly in "
            f"one and not in another. Label file hashes: {_in_words(label_files)}."
        )
    if any(run.meta.get("split") == "image" for run in sweep.runs):
        warnings.append(
            "Runs split by image have images of one patient in training and test: their figures "
            "are better than on new patients."
        )
    if len(sweep.jobs):
        total = len(sweep.jobs) + len(sweep.runs)
        warnings.append(
            f"{len(sweep.jobs)} of {total} jobs are not finished; the tables show the others."
        )
    return warnings


def _labels_by(sweep: Sweep, key: Callable[[Run], str | None]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for run, label in zip(sweep.runs, sweep.table["label"], strict=True):
        groups.setdefault((key(run) or "unknown")[:HASH_LENGTH], []).append(label)
    return groups


def _in_words(groups: dict[str, list[str]]) -> str:
    return ". ".join(f"{name}: {'; '.join(labels)}" for name, labels in groups.items())


def _metrics(sweep: Sweep) -> pd.DataFrame:
    columns = {
        title: interval_column(sweep.table, name, f"{name}_")
        for name, title in SHOWN_METRICS.items()
    }
    columns["weights"] = list(sweep.table["weights"])
    return pd.DataFrame(columns, index=list(sweep.table["label"]))


def _seeds(means: pd.DataFrame) -> pd.DataFrame:
    table = means[["runs"]].copy()
    for name, title in SHOWN_METRICS.items():
        pairs = zip(means[f"{name}_mean"], means[f"{name}_sd"], strict=True)
        table[title] = [f"{cell(mean)} ± {cell(sd)}" for mean, sd in pairs]
    return table.assign(weights=means["weights"])


def _draw(sweep: Sweep) -> None:
    folder, styles = sweep.folder / PLOTS, run_styles(sweep.table)
    curves, histories = {}, {}
    for label, run in zip(sweep.table["label"], sweep.runs, strict=True):
        test, histories[label] = run.part("test"), run.history
        curves[label] = (test["target"], test["logit" if "logit" in test else "probability"])
    plot_intervals(sweep.table, folder / "intervals.png")
    plot_roc(curves, folder / "roc.png", styles=styles)
    plot_precision_recall(curves, folder / "precision_recall.png", styles=styles)
    plot_learning_curves(histories, folder / "learning_curves.png", styles)


def _cost(sweep: Sweep) -> pd.DataFrame:
    """What each run took."""
    rows = sweep.table.set_index("label")
    formats: dict[str, tuple[str, Callable[[float], str]]] = {
        "parameters": ("parameters (M)", lambda n: f"{n / 1e6:.2f}"),
        "parameters_trainable": ("trained (M)", lambda n: f"{n / 1e6:.2f}"),
        "images_per_second": ("images/s", lambda n: f"{n:.1f}"),
        "train_seconds": ("time", _duration),
        "epochs": ("epochs", lambda n: f"{n:.0f}"),
        "best_epoch": ("best epoch", lambda n: f"{n:.0f}"),
        "peak_memory_mb": ("peak memory (MB)", lambda n: f"{n:.0f}"),
    }
    columns = {
        title: [None if pd.isna(value) else text(value) for value in rows[name]]
        for name, (title, text) in formats.items()
    }
    return pd.DataFrame(columns, rows.index).join(rows[["device", "precision", "weights"]])


def _origin(sweep: Sweep) -> pd.DataFrame:
    """What each run was trained and tested on."""
    rows = sweep.table.set_index("label")
    table = rows[list(ORIGIN)].astype({"image_size": "Int64"}).rename(columns={
        "run": "run folder", "image_size": "image size", "n_train": "n, train", "n_val": "n, val",
        "n_test": "n, test", "n_positive": "positive in test",
    })  # fmt: skip
    for name, title in (("split_hash", "split hash"), ("label_file_sha256", "label file hash")):
        table[title] = [None if pd.isna(value) else value[:HASH_LENGTH] for value in rows[name]]
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"

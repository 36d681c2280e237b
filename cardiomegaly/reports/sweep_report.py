"""The report of a sweep: summary.csv, summary.md and one self-contained report.html."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cardiomegaly.reports.pages import Page, cell
from cardiomegaly.reports.plots import plot_precision_recall, plot_roc
from cardiomegaly.reports.published import DIFFERENCES
from cardiomegaly.reports.sweep_plots import plot_intervals, plot_learning_curves, run_styles
from cardiomegaly.reports.sweep_shown import (
    HASH_SHOWN,
    cost_table,
    metric_table,
    origin_table,
    seed_table,
)
from cardiomegaly.reports.sweep_table import Sweep, read_sweep, study_table
from cardiomegaly.training.record import Run, write_csv, write_text

PLOTS = "report_plots"
STUDY_CAPTION = "Weighted F1: a single run with its 95% interval, several seeds as mean ± SD."
METRIC_CAPTION = (
    "Test part, 95% intervals by bootstrap over patients. F1, sensitivity, specificity, PPV, NPV "
    "and accuracy at the run's own threshold."
)
SEED_CAPTION = "Mean ± standard deviation over runs that differ by the seed only."


def write_report(
    folder: Path | str, ledger: pd.DataFrame | None = None, resamples: int = 2000
) -> Path:
    """Write summary.csv, summary.md and report.html into a sweep's folder, finished or not.

    Args:
        folder: the sweep's folder.
        ledger: job, status, overrides, run_dir, error, started, host of every job of the sweep.
        resamples: of the patient bootstrap behind the intervals.

    Returns:
        The path of report.html.

    Raises:
        UserError: there is no such folder, or neither a run nor a ledger in it.
    """
    sweep = read_sweep(folder, ledger, resamples)
    warnings = sweep_warnings(sweep)
    write_csv(sweep.folder / "summary.csv", sweep.table.drop(columns="rest", errors="ignore"))
    write_text(sweep.folder / "summary.md", _markdown(sweep, warnings))
    page = _page(sweep, warnings)
    page.write(sweep.folder / "report.html")
    return sweep.folder / "report.html"


def sweep_warnings(sweep: Sweep) -> list[str]:
    """Say in plain words why figures of this sweep should not be compared as they stand."""
    found = []
    by_seed = {(run.meta.get("seed"), run.split_hash) for run in sweep.runs}
    seeds = {seed for seed, _ in by_seed}
    hashes = _labels_by(sweep, lambda run: run.split_hash)
    if len(hashes) > 1 and len(by_seed) == len(seeds):
        found.append(
            "Runs of different seeds were split differently. Compare runs of one seed with each "
            "other; the spread over seeds includes that of the images they were tested on."
        )
    elif len(hashes) > 1:
        found.append(
            "Not all runs were trained and tested on the same images, so a difference between them "
            f"may come from the images. Split hashes: {_in_words(hashes)}."
        )
    labels = _labels_by(sweep, lambda run: run.label_file_sha256)
    if len(labels) > 1:
        found.append(
            "Not all runs used the same label file, so the same image may count as cardiomegaly in "
            f"one and not in another. Label file hashes: {_in_words(labels)}."
        )
    if any(run.meta.get("split") == "image" for run in sweep.runs):
        found.append(
            "Runs split by image have images of one patient in training and test: their figures "
            "are better than on new patients."
        )
    if any(run.meta.get("data") == "phantom" for run in sweep.runs):
        found.append(
            "These runs saw the phantom cohort, which is generated: their figures show that the "
            "program works and say nothing about radiographs or about the study."
        )
    if len(sweep.jobs):
        total = len(sweep.jobs) + len(sweep.runs)
        found.append(
            f"{len(sweep.jobs)} of {total} jobs are not finished; the tables show the others."
        )
    return found


def _labels_by(sweep: Sweep, key: Callable[[Run], str | None]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for run, label in zip(sweep.runs, sweep.table.get("label", []), strict=True):
        groups.setdefault((key(run) or "unknown")[:HASH_SHOWN], []).append(label)
    return groups


def _in_words(groups: dict[str, list[str]]) -> str:
    return ". ".join(f"{name}: {'; '.join(labels)}" for name, labels in groups.items())


def _page(sweep: Sweep, warnings: list[str]) -> Page:
    total, now = len(sweep.runs) + len(sweep.jobs), datetime.now().astimezone()
    page = Page(
        f"Sweep {sweep.folder.resolve().name}",
        f"{len(sweep.runs)} of {total} jobs finished, reported {now:%Y-%m-%d %H:%M %Z}",
    )
    for warning in warnings:
        page.warning(warning)
    page.heading("Weighted F1 beside the study")
    page.table(study_table(sweep), STUDY_CAPTION)
    page.text(DIFFERENCES)
    if sweep.runs:
        page.heading("Every run")
        page.table(metric_table(sweep, gap="\n"), METRIC_CAPTION)
        seeds = seed_table(sweep)
        if seeds is not None:
            page.heading("Mean and spread over seeds")
            page.table(seeds, SEED_CAPTION)
        _add_plots(page, sweep)
        page.heading("Cost")
        page.table(cost_table(sweep))
    if len(sweep.jobs):
        page.heading("Jobs not finished")
        page.table(sweep.jobs)
    if sweep.runs:
        page.heading("Where the figures come from")
        page.table(origin_table(sweep))
    return page


def _add_plots(page: Page, sweep: Sweep) -> None:
    folder = sweep.folder / PLOTS
    styles = run_styles(sweep.table)
    tests = [run.part("test") for run in sweep.runs]
    labels = list(sweep.table["label"])
    curves: dict[str, Any] = {
        label: (test["target"], test["probability"])
        for label, test in zip(labels, tests, strict=True)
    }
    histories = {label: run.history for label, run in zip(labels, sweep.runs, strict=True)}
    plot_intervals(sweep.table, folder / "intervals.png")
    plot_roc(curves, folder / "roc.png", styles=styles)
    plot_precision_recall(curves, folder / "precision_recall.png", styles=styles)
    plot_learning_curves(histories, folder / "learning_curves.png", styles)
    page.heading("Plots")
    page.figure(folder / "intervals.png", "Test figures with 95% intervals by patient bootstrap.")
    page.figure(folder / "roc.png", "ROC on the test part. Dotted: chance.")
    page.figure(folder / "precision_recall.png", "Precision-recall on the test part.")
    page.figure(folder / "learning_curves.png", "Validation loss and AUROC by epoch.")


def _markdown(sweep: Sweep, warnings: list[str]) -> str:
    blocks = [f"# Sweep {sweep.folder.resolve().name}"]
    blocks += [f"> **Warning.** {warning}" for warning in warnings]
    blocks += [
        "## Weighted F1 beside the study",
        _pipes(study_table(sweep)),
        STUDY_CAPTION,
        DIFFERENCES,
    ]
    if sweep.runs:
        blocks += ["## Every run", _pipes(metric_table(sweep)), METRIC_CAPTION]
        seeds = seed_table(sweep)
        if seeds is not None:
            blocks += ["## Mean and spread over seeds", _pipes(seeds), SEED_CAPTION]
        blocks += ["## Cost", _pipes(cost_table(sweep))]
    if len(sweep.jobs):
        blocks += ["## Jobs not finished", _pipes(sweep.jobs.set_index("job"))]
    if sweep.runs:
        blocks += ["## Where the figures come from", _pipes(origin_table(sweep))]
    return "\n\n".join(blocks) + "\n"


def _pipes(frame: pd.DataFrame) -> str:
    rows = [["", *frame.columns], ["---"] * (frame.shape[1] + 1)]
    rows += [
        [label, *map(cell, row)]
        for label, row in zip(frame.index, frame.to_numpy(dtype=object), strict=True)
    ]
    lines = [[str(text).replace("|", "\\|").replace("\n", " ") for text in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

"""Writes the report of a sweep, finished or not: summary.csv, summary.md, report.html and plots."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.data.boxes import HEART
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.settings import Settings
from cardiomegaly.reports.localise import Localisation, localise
from cardiomegaly.reports.markdown import METRICS, cell, column
from cardiomegaly.reports.pages import Report, write_report
from cardiomegaly.reports.plots import COLOURS, plot_epochs, plot_forest, plot_ranking
from cardiomegaly.reports.published import BACKBONES, DIFFERENCES, study_figure
from cardiomegaly.reports.run_description import data_config, data_root, kinds_of, read_split
from cardiomegaly.reports.sweep_runs import Sweep, label_of, pooled_folds, read_sweep
from cardiomegaly.training.files import write_csv
from cardiomegaly.training.record import Run

LINES = ("-", "--", ":", "-.")
HASH_LENGTH = 10
SHORT_METRICS = {  # that have a column in the tables
    name: title for name, title in METRICS.items()
    if name not in ("f1_weighted", "f1_macro", "brier", "ece")
}  # fmt: skip
# What is plotted, and under which name the study's figures have it.
PANELS = {"f1": "f1_positive", "f1_weighted": "f1_weighted", "auroc": None}
STUDY_HEAD = "gwap"


def report_sweep(
    folder: Path | str,
    ledger: pd.DataFrame | None = None,
    device: str = "auto",
) -> Report:
    """Write summary.csv, summary.md and report.html into a sweep's folder, finished or not.

    Args:
        folder: the sweep's folder.
        ledger: job, status, overrides, run_dir, error, started, host of every job of the sweep.
        device: on which the best run's maps are computed: auto, cpu or cuda.

    Raises:
        UserError: there is no such folder, or neither a run nor a ledger in it.
    """
    sweep = read_sweep(folder, ledger)
    runs = sweep.table.copy()
    # The best on validation, so that its test figures are not chosen for.
    known = [run for run in sweep.runs if run.metrics["val"].get("auroc") is not None]
    best = max(known, key=lambda run: run.metrics["val"]["auroc"], default=None)
    values: dict[str, Any] = {"best": None}
    folds = pooled_folds(sweep)
    if best is not None:
        pooled = None if folds.empty else folds.sort_values("auroc").iloc[-1]
        row = runs.iloc[sweep.runs.index(best)]
        values = {
            "best": row,
            "pooled": pooled,
            "figures": [
                column((row if pooled is None else pooled).to_frame().T, _spec(name))[0]
                for name in ("auroc", "average_precision", "f1_weighted")
            ],
            "n_images": len(best.part("test")),
            "n_patients": best.part("test")["patient_id"].nunique(),
            "localisation": locate(best, device),
            "published": None
            if best.meta.get("finding", HEART) != HEART
            else study_figure(row["backbone"], row["balance"], "f1_weighted", "headline"),
            "kinds": kinds_of(sweep.runs),
        }
    if sweep.runs:
        _draw(sweep)
        seconds = runs["train_seconds"].round()
        runs["time"] = [None if pd.isna(n) else str(timedelta(seconds=n)) for n in seconds]
        runs[["parameters", "parameters_trainable"]] /= 1e6
        for name in ("split_hash", "label_file_sha256"):
            runs[name] = runs[name].str[:HASH_LENGTH]
    metrics = {title: _spec(name) for name, title in SHORT_METRICS.items()}
    values |= {
        "sweep": sweep,
        "HEART": HEART,
        "finding": best.meta.get("finding", HEART) if best else HEART,
        "runs": runs,
        "study": study_table(sweep),
        "seeds": seed_table(runs) if sweep.runs else runs,
        "folds": folds,
        "metrics": metrics | {"weights": "weights"},
        "fold_metrics": {"seed": "seed", "folds": "folds", "images": "n"} | metrics,
        "differences": DIFFERENCES,
        "now": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    }
    folder = sweep.folder
    write_csv(folder / "summary.csv", sweep.table.drop(columns="rest", errors="ignore"))
    return write_report("sweep.md", folder / "summary.md", folder / "report.html", values)


def _spec(metric: str) -> str:
    return f"{metric} {metric}_low {metric}_high"


def locate(run: Run, device: str) -> Localisation:
    """Judge a run's attention on the boxed hearts that it was not trained on, if they are there."""
    root = data_root(run)
    try:
        images = read_split(run)
        return localise(
            images[images["part"] != "train"], {run.name: run},
            None if root is None else ImageFolder(root, data_config(run).fit),
            gradcam=False, fraction=Settings().fraction, device=device,
        )  # fmt: skip
    except UserError as error:
        return Localisation(notes=[str(error)])


def seed_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and SD (n - 1) of runs that differ by seed or fold only, a row a configuration."""
    groups = runs.groupby("configuration", sort=False)
    table = pd.DataFrame({"runs": groups.size()})
    for name, title in SHORT_METRICS.items():
        mean, sd = groups[name].mean().map(cell), groups[name].std(ddof=1).map(cell)
        table[title] = mean + " ± " + sd
    return table.assign(weights=groups["weights"].first())


def study_table(sweep: Sweep) -> pd.DataFrame:
    """Set the weighted F1 of the sweep beside the study's: rows balance and source, text cells.

    One run is written with its 95% interval, several as mean and SD, smoke runs as what they are;
    the last column names the weights. Where a sweep varies more than backbone, balance and seed,
    every combination of the rest has its own row.
    """
    varied = set(sweep.variables) - {"backbone", "balance", "seed"}
    table, rows = sweep.table, {}
    backbones = list(dict.fromkeys([*(() if varied else BACKBONES), *table["backbone"]]))
    for balance in (True, False):
        mode, own = label_of({"balance": balance}), table[table["balance"] == balance]
        if varied and own.empty:
            continue
        for name in [*own["rest"].unique()] or [""]:
            group = own[own["rest"] == name]
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
        return column(runs, f"{_spec('f1_weighted')}:.2f")[0] + smoke
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f} ({len(runs)} runs){smoke}"


def run_styles(runs: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """A colour by backbone and the like, a line by balance; seeds share both."""
    places = pd.factorize(runs["backbone"] + runs["rest"])[0]
    modes = pd.factorize(runs["balance"])[0]
    styles = {}
    for label, place, mode in zip(runs["label"], places, modes, strict=True):
        # More places than colours: the colours come again with other lines.
        line = LINES[(mode + 2 * (place // len(COLOURS))) % len(LINES)]
        styles[label] = (COLOURS[(place if places.max() else mode) % len(COLOURS)], line)
    return styles


def _draw(sweep: Sweep) -> None:
    folder, styles, table = sweep.folder / "report_plots", run_styles(sweep.table), sweep.table
    runs = dict(zip(table["label"], sweep.runs, strict=True))
    curves = {}
    for label, run in runs.items():
        test = run.part("test")
        curves[label] = (test["target"], test["logit" if "logit" in test else "probability"])
    plot_ranking(curves, folder, styles=styles)
    histories = {label: run.history.set_index("epoch") for label, run in runs.items()}
    panels = {
        title: {label: rows[name] for label, rows in histories.items() if name in rows}
        for name, title in {"val/loss": "validation loss", "val/auroc": "validation AUROC"}.items()
    }
    plot_epochs(panels, folder / "learning_curves.png", styles)
    forest = {}
    for metric, study in PANELS.items():
        names = {metric: "value", f"{metric}_low": "low", f"{metric}_high": "high"}
        rows = table[["label", *names]].rename(columns=names).assign(kind=table["balance"])
        rows["published"] = [
            study_figure(run["backbone"], run["balance"], study)
            if study and run["head"] == STUDY_HEAD and not run["smoke"] else None
            for run in table.to_dict("records")
        ]  # fmt: skip
        forest[METRICS[metric]] = rows.astype({"published": float})
    plot_forest(forest, folder / "intervals.png")

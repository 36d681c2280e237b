"""Writes what a data set holds: exploration.html, exploration.md, CSV tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cardiomegaly.config import Config
from cardiomegaly.data import exploration as explore
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.data.images import Pixels
from cardiomegaly.data.labels import find_label_file, labelled_rows
from cardiomegaly.data.split import draw_cohort, split_cohort
from cardiomegaly.data.tables import read_labels
from cardiomegaly.reports.image_sheets import plot_images
from cardiomegaly.reports.pages import Report, write_report
from cardiomegaly.reports.plots import COLOURS, drawing
from cardiomegaly.training.files import write_csv

EXAMPLES = 24  # images on a sheet
MOST_LISTED = 20  # outliers and pairs in the page; the CSV files hold all


def write_exploration(config: Config, folder: Path, progress: bool = False) -> Report:
    """Look at the label table and the images of a data set and write what is seen.

    Args:
        config: its data, cohort, split and seed are used.
        folder: for the results.
        progress: show a bar while images are measured.

    Returns:
        What was written, with the five sentences that say it in short.

    Raises:
        UserError: the label table or the folder cannot be used as they are.
    """
    label_file = find_label_file(config.data)
    listed = read_labels(label_file, config.data)
    rows = labelled_rows(listed)
    files = ImageFolder(Path(config.data.root))
    found = [files.find(image) for image in rows["image"]]
    there = rows[[file is not None for file in found]].reset_index(drop=True)
    paths = [file.path for file in found if file is not None]
    measured, thumbnails = explore.measure_images(paths, progress)
    measured.insert(0, "image", there["image"])
    readable = measured["wrong"].eq("").to_numpy()
    tables: dict[str, pd.DataFrame] = {
        "prevalence": explore.prevalence(rows),
        "missing": explore.missing_values(listed),
        "images": measured,
        "outliers": explore.outliers(measured),
    }
    if "findings" in rows:
        tables["findings"] = explore.co_occurrence(rows)
    if "patient_id" in rows and rows["patient_id"].notna().all():
        tables["patients"] = explore.images_a_patient(rows)
        groups = pd.factorize(there["patient_id"])[0]
        tables["duplicates"] = explore.near_duplicates(thumbnails, np.where(readable, groups, -1))
    if there["target"].nunique() == 2:
        tables["balance"] = explore.balance(_parts(rows, there, config), config.seed)
    for name, column in (("outliers", "place"), ("duplicates", "first"), ("duplicates", "second")):
        if name in tables:
            names = there["image"].to_numpy()[tables[name][column].to_numpy(int)]
            tables[name] = tables[name].assign(**{column: names})
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    _draw(folder / "plots", there, measured, thumbnails, readable, config.seed)
    values = {
        "config": config,
        "label_file": label_file.name,
        "listed": listed,
        "rows": rows,
        "n_found": len(there),
        "n_unreadable": int((~readable).sum()),
        "wrong": list(measured["wrong"][~readable][:MOST_LISTED]),
        "tables": tables,
        "most": MOST_LISTED,
    }
    return write_report(
        "exploration.md", folder / "exploration.md", folder / "exploration.html", values
    )


def _parts(rows: pd.DataFrame, there: pd.DataFrame, config: Config) -> dict[str, pd.DataFrame]:
    """The whole table, the images that are there, the cohort, and its parts."""
    cohort = draw_cohort(
        there, config.cohort.name, tuple(config.cohort.views),
        config.cohort.negatives_per_positive, config.seed,
    )  # fmt: skip
    part = split_cohort(
        cohort, config.split.name, config.split.fractions, config.seed, Path(config.data.root)
    )
    parts = {name: cohort[part == name] for name in ("train", "val", "test")}
    return {"label table": rows, "images found": there, "cohort": cohort} | parts


def _draw(
    folder: Path,
    there: pd.DataFrame,
    measured: pd.DataFrame,
    thumbnails: Pixels,
    readable: Any,
    seed: int,
) -> None:
    """Sheets of examples, and where size, brightness and contrast of the images lie."""
    rng = np.random.default_rng(seed)
    for target, name in ((1, "positive"), (0, "negative")):
        places = np.flatnonzero(readable & there["target"].eq(target).to_numpy())
        places = np.sort(rng.permutation(places)[:EXAMPLES])
        titles = list(there["image"].iloc[places].str[-20:])
        plot_images(thumbnails[places], titles, folder / f"{name}.png")
    with drawing(folder / "measures.png", 12, 3, 1, len(explore.MEASURES)) as grid:
        for axes, measure in zip(grid, explore.MEASURES, strict=True):
            for target, name in ((0, "negative"), (1, "positive")):
                values = measured[measure][readable & there["target"].eq(target)]
                axes.hist(values, 30, density=True, alpha=0.6, color=COLOURS[target], label=name)
            axes.set(xlabel=measure, yticks=[])

"""Runs tested on cohorts other than their own: predictions, and the table of runs and cohorts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.config import DataConfig
from cardiomegaly.data.images import decode_images, name_some
from cardiomegaly.data.labels import load_labelled_images
from cardiomegaly.data.split import draw_cohort
from cardiomegaly.evaluation.external_validation import HOME, transfer_table
from cardiomegaly.evaluation.fitting import Cohort, Predicted
from cardiomegaly.model.prediction import predict_views
from cardiomegaly.reports.evaluation_inputs import Inputs, inputs_of_runs
from cardiomegaly.reports.pages import column
from cardiomegaly.reports.run_description import read_split
from cardiomegaly.training.files import write_csv
from cardiomegaly.training.record import Run

log = logging.getLogger(__name__)
BATCH = 64  # images


def external_inputs(
    name: str, run: Run, data: DataConfig, views: list[str], device: str, seed: int
) -> Inputs:
    """Predict a cohort by a run: the cohort is judged as the run's own test part would be.

    Raises:
        UserError: the cohort cannot be read, holds no image that can be, or another finding than
            the run was trained for.
    """
    trained_for = run.meta.get("finding", "Cardiomegaly")
    if data.name == run.meta.get("data") and data.finding != trained_for:
        raise UserError(f"data.finding: {name} was trained for {trained_for}, got {data.finding}")
    labelled = load_labelled_images(data)
    test = predict_cohort(run, draw_cohort(labelled.table, "all", tuple(views)), data.fit, device)
    own = inputs_of_runs({name: run}, None)
    home = next(iter(own.models.values()))
    predicted = Predicted(
        test["probability"].to_numpy(), home.val, test["logit"].to_numpy(),
        home.val_logit,
    )  # fmt: skip
    split = read_split(run)
    part = test[["image", "patient_id"]].assign(part="test")
    cohort = Cohort(test, own.cohort.val_target)
    internal = transfer_table(f"{run.meta.get('data')}, own test part", own.cohort, home, seed)
    internal = internal[internal["fitted"].isin(["", HOME])]
    return Inputs(
        name=f"{name} on {data.name}",
        cohort=cohort,
        models={name: predicted},
        images=pd.concat([split[split["part"] == "train"], part], ignore_index=True),
        runs=[run],
        origin=own.origin
        | {
            "data": data.root, "label file": str(labelled.label_file),
            "label file sha256": labelled.label_file_sha256,
            **{name: str(getattr(data, name)) for name in ("finding", "uncertain", "blank", "fit")},
        },
        cohort_name=data.name,
        transfer=pd.concat([internal, transfer_table(data.name, cohort, predicted, seed)]),
    )  # fmt: skip


def predict_cohort(run: Run, images: pd.DataFrame, fit: str, device: str) -> pd.DataFrame:
    """Set probability and logit beside images (columns path and those of a label table).

    Images that cannot be read are left out and named.

    Raises:
        UserError: none can be read.
    """
    # Networks and their libraries take seconds and most of a GiB: only where they are needed.
    from cardiomegaly.model.predictor import Predictor, choose_device

    predictor = Predictor.from_checkpoint(run.checkpoint, choose_device(device))
    readable: list[int] = []
    logits, probability = [], []
    for start in range(0, len(images), BATCH):
        paths = images["path"][start : start + BATCH].tolist()
        decoded = enumerate(decode_images(paths, predictor.image_size, fit), start)
        whole = {place: pixels for place, pixels in decoded if isinstance(pixels, np.ndarray)}
        readable += whole
        if whole:
            pixels = np.stack(list(whole.values()))[:, None]
            prediction = predict_views(predictor, pixels, bool(run.meta.get("flips")))
            logits.append(prediction.logits)
            probability.append(prediction.probability)
    unreadable = images.drop(index=images.index[readable])["path"].tolist()
    if len(unreadable) == len(images):
        raise UserError(f"data.root: none of the {len(images):,} images can be read")
    if unreadable:
        log.warning("%d images cannot be read: %s", len(unreadable), name_some(unreadable))
    table = images.iloc[readable].drop(columns=["path", "key"]).reset_index(drop=True)
    return table.assign(probability=np.concatenate(probability), logit=np.concatenate(logits))


def write_transfer(folder: Path, evaluated: Mapping[tuple[str, str], Inputs]) -> pd.DataFrame:
    """Write transfer.csv, every figure of every run on every cohort, and auroc.csv.

    Returns:
        AUROC with its interval: a row a run, a column its own test part and each cohort.
    """
    tables, rows = [], []
    for (run, cohort), inputs in evaluated.items():
        assert inputs.transfer is not None  # noqa: S101  (for the type checker)
        tables.append(inputs.transfer.assign(run=run))
        auroc = inputs.transfer[inputs.transfer["metric"] == "auroc"]
        own, here = column(auroc, "value low high")
        rows.append({"trained": run, "own test part": own, cohort: here})
    matrix = pd.DataFrame(rows).groupby("trained", sort=False).first()
    write_csv(folder / "transfer.csv", pd.concat(tables, ignore_index=True))
    write_csv(folder / "auroc.csv", matrix.reset_index())
    return matrix

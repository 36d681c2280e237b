"""The figures of a run: predictions of its best checkpoint, their metrics and calibration."""

from __future__ import annotations

from typing import Any

import pandas as pd
from tqdm import tqdm

from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.evaluation.calibration import platt_line
from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.model.predictor import Predictor

TESTED = ("val", "test")
IMAGE_COLUMNS = ("image", "patient_id", "split", "target", "view_position", "sex", "age")


def predict(
    datamodule: CardiomegalyDataModule, predictor: Predictor, flips: bool, bar: bool
) -> pd.DataFrame:
    """A row for each validation and test image, validation first.

    Args:
        datamodule: after `setup`.
        predictor: the run's.
        flips: as in `prediction.predict_views`.
        bar: show progress.
    """
    tables = []
    for part, loader in zip(TESTED, datamodule.predict_dataloader(), strict=True):
        batches = tqdm(loader, desc=f"predicting {part}", disable=not bar)
        prediction = predictor.predict_batches(batches, flips)
        table = datamodule.parts[part].reindex(columns=list(IMAGE_COLUMNS))
        table.insert(4, "logit", prediction.logits)
        table.insert(5, "probability", prediction.probability)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def part_metrics(predictions: pd.DataFrame, threshold: float) -> dict[str, dict[str, Any]]:
    """Metrics of the validation and of the test part."""
    parts = {part: predictions[predictions["split"] == part] for part in TESTED}
    return {
        part: binary_metrics(rows["target"], rows["probability"], threshold, rows["logit"])
        for part, rows in parts.items()
    }


def calibration(predictions: pd.DataFrame) -> dict[str, Any]:
    """Platt's line on the logit, fitted on validation, which keeps its natural prevalence."""
    val = predictions[predictions["split"] == "val"]
    slope, intercept = platt_line(val["target"], val["logit"])
    return {"method": "platt", "fitted_on": "val", "slope": slope, "intercept": intercept}

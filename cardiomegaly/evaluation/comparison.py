"""Compares models on the same images, patient by patient, with Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cardiomegaly import UserError
from cardiomegaly.evaluation.fitting import Predicted
from cardiomegaly.evaluation.influence import metric_statistics
from cardiomegaly.evaluation.intervals import Patients, paired_difference
from cardiomegaly.evaluation.metrics import Array

COMPARED = (
    "auroc", "average_precision", "sensitivity", "specificity", "f1", "f1_weighted", "brier"
)  # fmt: skip


def common_images(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Bring prediction tables into one order of images, or refuse them.

    Args:
        tables: by model name; each with the columns image, patient_id, target, probability.

    Raises:
        UserError: fewer than two models, an image twice, other images, targets or patients.
    """
    if len(tables) < 2:
        raise UserError(f"run: two or more models are needed for a comparison, got {len(tables)}")
    sorted_tables = {}
    for name, table in tables.items():
        refuse_repeats(name, table["image"])
        sorted_tables[name] = table.sort_values("image").reset_index(drop=True)
    first, *others = sorted_tables
    for name in others:
        _same(first, sorted_tables[first], name, sorted_tables[name])
    return sorted_tables


def refuse_repeats(name: str, images: pd.Series) -> None:
    """Raise a UserError where an image stands more than once."""
    twice = images.duplicated()
    if twice.any():
        raise UserError(
            f"{name}: each image may stand once, {int(twice.sum())} rows repeat one "
            f"({images[twice].iloc[0]} for one); keep one prediction an image"
        )


def _same(first: str, one: pd.DataFrame, second: str, two: pd.DataFrame) -> None:
    differing = set(one["image"]) ^ set(two["image"])
    if differing:
        raise UserError(
            f"{first} and {second} were tested on different images ({len(differing)} stand in one "
            f"of them only, {min(differing)} for one): compare runs of one split"
        )
    for column in ("target", "patient_id"):
        unequal = (one[column] != two[column]).to_numpy()
        if unequal.any():
            raise UserError(
                f"{first} and {second} disagree on the {column} of {int(unequal.sum())} images, "
                f"{one['image'][unequal].iloc[0]} for one: compare runs of one label file"
            )


def holm(p_values: ArrayLike) -> Array:
    """Correct p-values for their number by Holm's step-down method; nan stays nan, uncounted.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 1979.
    """
    given = np.asarray(p_values, np.float64)
    corrected = np.full_like(given, np.nan)
    order = np.argsort(given)[: int(np.isfinite(given).sum())]
    steps = given[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def compare(
    patients: Patients, models: Mapping[str, Predicted], thresholds: Mapping[str, float | Array]
) -> pd.DataFrame:
    """Compare every pair of models in every metric of `COMPARED`.

    Args:
        patients: those of the test part.
        models: by name; their test part is in the order of the patients' images.
        thresholds: each model's own.

    Returns:
        A row a pair and metric: first, second, metric, difference (first - second), low, high, p,
        p_holm. Holm's correction counts the pairs within one metric.
    """
    statistics = {
        name: metric_statistics(patients, model.test, thresholds[name], model.test_logit)
        for name, model in models.items()
    }
    rows = []
    for metric in COMPARED:
        for first, second in combinations(models, 2):
            gap, p = paired_difference(statistics[first][metric], statistics[second][metric])
            row = {"first": first, "second": second, "metric": metric}
            rows.append(row | {"difference": gap.value, "low": gap.low, "high": gap.high, "p": p})
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("metric")["p"].transform(lambda part: holm(part.to_numpy()))
    return table

"""Compares models on the same images: paired patient bootstrap, DeLong's test, Holm's correction.

The same resamples of patients serve both models of a pair, so what makes a patient easy for both
does not widen the interval of their difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import norm

from cardiomegaly import UserError
from cardiomegaly.evaluation.fitting import Predicted
from cardiomegaly.evaluation.metrics import Array, Ints, binary_metrics, ranking
from cardiomegaly.evaluation.uncertainty import (
    Draws,
    delong,
    error_draws,
    interval,
    ranking_draws,
    threshold_draws,
)

COMPARED = (
    "auroc",
    "average_precision",
    "sensitivity",
    "specificity",
    "f1",
    "f1_weighted",
    "brier",
)


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
    """Raise a ValueError where an image stands more than once."""
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


def delong_test(target: ArrayLike, first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p-value of equal AUROC on the same images; 1 for equal rankings, nan if undefined.

    Source: DeLong et al., "Comparing the areas under two or more correlated ROC curves",
    Biometrics 1988.
    """
    auroc, covariance = delong(target, np.stack([np.asarray(first), np.asarray(second)]))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = abs(auroc[0] - auroc[1])
    if np.isnan(variance):
        return float("nan")
    # Rounding leaves a variance near 1e-20 where the rankings are equal.
    if variance < 1e-15:
        return 1.0 if difference < 1e-12 else 0.0
    return float(2 * norm.sf(difference / np.sqrt(variance)))


def bootstrap_p(draws: Array) -> float:
    """Two-sided p-value of no difference: twice the smaller share of resamples on one side of 0."""
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return float("nan")
    lower, upper = (int(side.sum()) + 1 for side in (defined <= 0, defined >= 0))
    return float(min(1.0, 2 * min(lower, upper) / (len(defined) + 1)))


def compare(
    target: Ints,
    models: Mapping[str, Predicted],
    draws: Draws,
    thresholds: Mapping[str, float | Array],
) -> pd.DataFrame:
    """Compare every pair of models in every metric of `COMPARED`.

    Args:
        target: (n,) of 0 and 1.
        models: by name; their test part is in the order of `target`.
        draws: resamples of the same n images.
        thresholds: each model's own.

    Returns:
        A row a pair and metric: first, second, metric, difference (first - second), low, high,
        p_bootstrap, p_bootstrap_holm, and for AUROC p_delong, p_delong_holm. Holm's correction
        counts the pairs within one metric.
    """
    drawn, values, scores = {}, {}, {}
    for name, model in models.items():
        values[name] = binary_metrics(target, model.test, thresholds[name], model.test_logit)
        scores[name] = ranking(model.test, model.test_logit)
        drawn[name] = ranking_draws(draws, target, scores[name])
        drawn[name] |= error_draws(draws, target, model.test)
        drawn[name] |= threshold_draws(draws, target, model.test, thresholds[name])
    rows = []
    for metric in COMPARED:
        for first, second in combinations(models, 2):
            gap = drawn[first][metric] - drawn[second][metric]
            found = interval(values[first][metric] - values[second][metric], gap)
            row = {"first": first, "second": second, "metric": metric, "difference": found.value}
            row |= {"low": found.low, "high": found.high, "p_bootstrap": bootstrap_p(gap)}
            if metric == "auroc":
                row["p_delong"] = delong_test(target, scores[first], scores[second])
            rows.append(row)
    table = pd.DataFrame(rows)
    for column in ("p_bootstrap", "p_delong"):
        table[f"{column}_holm"] = table.groupby("metric")[column].transform(
            lambda part: holm(part.to_numpy())
        )
    return table

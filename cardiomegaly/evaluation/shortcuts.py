"""Shortcuts: what can be had without looking at the heart.

A gradient-boosted model sees metadata alone. How well it ranks the labels says what a network could
gain by reading the view or the scanner off the image; how much of the network's score it explains
says what the network did gain there at most. Both are measured on images the model was not fitted
on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from cardiomegaly import UserError
from cardiomegaly.evaluation.calibration import FOLDS, log_odds, patient_folds
from cardiomegaly.evaluation.metrics import Array, Ints, binary_metrics
from cardiomegaly.evaluation.uncertainty import Draws, Estimate, interval, ranking_draws

# What each sees. Sizes and spacings are those of the original image, and so tell the scanner.
SOURCES = {
    "view": ("view_position",),
    "sex": ("sex",),
    "age": ("age",),
    "follow-up number": ("follow_up",),
    "original pixel size": ("width", "height", "spacing_x", "spacing_y"),
}
CODES = {"AP": 1.0, "PA": 0.0, "M": 1.0, "F": 0.0}
NO_FINDING = "No Finding"
TREES, LEAVES, LEAF_IMAGES = 60, 8, 10


@dataclass(frozen=True)
class Shortcuts:
    """The shortcut panel.

    `table` has a row for all metadata and a row for each source alone: source, auroc, low, high (of
    the metadata model), explained (R2 of the network's logit, on patients held out) and
    residual_auroc, residual_low, residual_high (of what the metadata leave unexplained).
    `negatives` has a row a kind of negative image: negatives, n, auroc, low, high. `words` names
    each source that ranks the labels and without which the network no longer does.
    """

    table: pd.DataFrame
    negatives: pd.DataFrame
    fitted_on: str
    words: list[str]


def metadata(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Numbers by source, of the columns that the table has; missing values stay missing."""
    found = {}
    for source, columns in SOURCES.items():
        numbers = {name: _coded(table[name]) for name in columns if name in table}
        if numbers:
            found[source] = pd.DataFrame(numbers)
    return found


def _coded(column: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(np.float64)
    return column.map(CODES).astype(np.float64)


# Trees this small gain nothing by threads, and on a busy machine waiting threads cost minutes.
@threadpool_limits.wrap(limits=1, user_api="openmp")
def evaluate_shortcuts(
    table: pd.DataFrame, draws: Draws, train: pd.DataFrame | None = None, seed: int = 0
) -> Shortcuts:
    """Measure what metadata alone achieve and how much of the network's score they explain.

    Args:
        table: target, probability, patient_id, logit and findings where known, and metadata; a row
            an image.
        draws: resamples of the table's patients, in its order.
        train: target and metadata of the training part, of no patient of `table`; without it, or
            with one class in it, the metadata model is cross-fitted by patient.
        seed: of folds and trees.

    Raises:
        UserError: no metadata column at all; as `patient_folds`.
    """
    sources = metadata(table)
    if not sources:
        named = ", ".join(column for columns in SOURCES.values() for column in columns)
        raise UserError(f"labels: the shortcut panel needs one of the columns {named}, got none")
    target, logit = table["target"].to_numpy(), log_odds(table["probability"], table.get("logit"))
    fold = patient_folds(target, table["patient_id"], FOLDS, seed)
    usable = train is not None and train["target"].nunique() == 2
    seen = metadata(train) if usable and train is not None else {}
    rows: list[dict[str, Any]] = []
    for name, numbers in {"all metadata": pd.concat(sources.values(), axis=1), **sources}.items():
        columns = list(numbers)
        if seen and train is not None:
            known = pd.concat(seen.values(), axis=1)[columns].to_numpy()
            guess = _classify(known, train["target"].to_numpy(), numbers.to_numpy(), seed)
        else:
            guess = _held_out(numbers.to_numpy(), target, fold, seed)
        auroc = _auroc(draws, target, guess)
        expected = _held_out(numbers.to_numpy(), logit, fold, seed)
        rest = logit - expected
        spread = float(np.sum((logit - logit.mean()) ** 2))
        residual = _auroc(draws, target, rest)
        rows.append(
            {
                "source": name,
                "auroc": auroc.value,
                "low": auroc.low,
                "high": auroc.high,
                "explained": 1 - float(np.sum(rest**2)) / spread if spread else float("nan"),
                "residual_auroc": residual.value,
                "residual_low": residual.low,
                "residual_high": residual.high,
            }
        )
    words = _name(rows, _auroc(draws, target, table.get("logit", table["probability"]).to_numpy()))
    where = "the training part" if seen else "other patients of the same images (cross-fitted)"
    return Shortcuts(pd.DataFrame(rows), negatives_apart(table, draws), where, words)


def _name(rows: list[dict[str, Any]], network: Estimate) -> list[str]:
    return [
        f"The network ranks the labels with an AUROC of {network.value:.3f}; without what "
        f"{row['source']} can tell of its score, {row['residual_auroc']:.3f} is left (95% interval "
        f"{row['residual_low']:.3f} to {row['residual_high']:.3f}). It may be reading "
        f"{row['source']} in place of the heart."
        for row in rows
        if network.low > 0.5 and row["low"] > 0.5 and row["residual_low"] <= 0.5
    ]


def negatives_apart(table: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """AUROC of the positives against healthy and against otherwise ill negatives.

    Without a column findings the table is empty.
    """
    columns = ["negatives", "n", "auroc", "low", "high"]
    if "findings" not in table:
        return pd.DataFrame(columns=columns)
    target = table["target"].to_numpy()
    score = table.get("logit", table["probability"]).to_numpy()
    healthy = (table["findings"] == NO_FINDING).to_numpy()
    rows: list[tuple[str, int, float, float, float]] = []
    for name, kind in ((NO_FINDING, healthy), ("other findings", ~healthy)):
        chosen = (target == 1) | kind
        found = _auroc(draws.of(chosen), target[chosen], score[chosen])
        n = int((kind & (target == 0)).sum())
        rows.append((name, n, found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=columns)


def _classify(known: Array, target: Ints, asked: Array, seed: int) -> Array:
    model = HistGradientBoostingClassifier(
        max_iter=TREES, max_leaf_nodes=LEAVES, min_samples_leaf=LEAF_IMAGES,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    guess: Array = model.fit(known, target).predict_proba(asked)[:, 1]
    return guess


def _held_out(numbers: Array, wanted: Array | Ints, fold: Ints, seed: int) -> Array:
    """Guess labels (integers) or scores (floats) of each fold from the other folds."""
    guess = np.empty(len(wanted))
    for number in np.unique(fold):
        held = fold == number
        if wanted.dtype.kind in "iu":
            guess[held] = _classify(numbers[~held], wanted[~held], numbers[held], seed)
            continue
        model = HistGradientBoostingRegressor(
            max_iter=TREES, max_leaf_nodes=LEAVES, min_samples_leaf=LEAF_IMAGES,
            early_stopping=False, random_state=seed,
        )  # fmt: skip
        guess[held] = model.fit(numbers[~held], wanted[~held]).predict(numbers[held])
    return guess


def _auroc(draws: Draws, target: Ints, score: Array) -> Estimate:
    """AUROC of any score, with its patient interval."""
    # Ranks keep the order and lie in [0, 1], where the metrics want a probability.
    rank = np.unique(score, return_inverse=True)[1] / len(score)
    value = binary_metrics(target, rank)["auroc"]
    return interval(value, ranking_draws(draws, target, rank)["auroc"])

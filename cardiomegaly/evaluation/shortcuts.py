"""Shortcuts: what can be had without looking at the heart.

A gradient-boosted model sees metadata alone. How well it ranks the labels says what a network could
gain by reading the view or the scanner off the image; how much of the network's score it explains
says what the network did gain there at most. Both are measured on images that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from cardiomegaly import UserError
from cardiomegaly.evaluation.calibration import log_odds
from cardiomegaly.evaluation.fitting import FOLDS, patient_folds
from cardiomegaly.evaluation.influence import ranking_statistics
from cardiomegaly.evaluation.intervals import Patients, interval
from cardiomegaly.evaluation.metrics import Array, Ints

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
CROSS_FITTED = "other patients of the same images (cross-fitted)"
# Images that a metadata model is fitted on, drawn where there are more: its few numbers need no
# more, and a million would take minutes.
FITTED = 50_000
TREES: dict[str, Any] = {
    "max_iter": 60, "max_leaf_nodes": 8, "min_samples_leaf": 10, "early_stopping": False,
}  # fmt: skip


@dataclass(frozen=True)
class Shortcuts:
    """The shortcut panel.

    `table` has a row for all metadata and a row for each source alone: source, auroc, low, high (of
    the metadata model), explained (R2 of the network's logit, on patients held out) and
    residual_auroc, residual_low, residual_high (of what the metadata leave unexplained).
    `negatives` has a row a kind of negative image: negatives, n, auroc, low, high. `suspected` has
    each source that ranks the labels and without which the network no longer does.
    """

    table: pd.DataFrame
    negatives: pd.DataFrame
    fitted_on: str
    suspected: list[str]


def metadata(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Numbers by source, of the columns that the table has; missing values stay missing."""
    columns_of = {}
    for source, columns in SOURCES.items():
        numbers = {name: _coded(table[name]) for name in columns if name in table}
        if numbers:
            columns_of[source] = pd.DataFrame(numbers)
    return columns_of


def _coded(column: pd.Series) -> pd.Series:
    numeric = pd.api.types.is_numeric_dtype(column)
    return (column if numeric else column.map(CODES)).astype(np.float64)


# Trees this small gain nothing by threads, and on a busy machine waiting threads cost minutes.
@threadpool_limits.wrap(limits=1, user_api="openmp")
def evaluate_shortcuts(
    table: pd.DataFrame, patients: Patients, train: pd.DataFrame | None, seed: int
) -> Shortcuts:
    """Measure what metadata alone achieve and how much of the network's score they explain.

    Args:
        table: target, probability, patient_id, logit and findings where known, and metadata; a row
            an image.
        patients: those of the table, in its order.
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
    if train is not None and train["target"].nunique() < 2:
        train = None
    rows: list[dict[str, Any]] = []
    for name, numbers in {"all metadata": pd.concat(sources.values(), axis=1), **sources}.items():
        if train is None:
            guess = _held_out(_classify, numbers.to_numpy(), target, fold, seed)
        else:
            known = pd.concat(metadata(train).values(), axis=1)[list(numbers)].to_numpy()
            guess = _classify(known, train["target"].to_numpy(), numbers.to_numpy(), seed)
        rest = logit - _held_out(_regress, numbers.to_numpy(), logit, fold, seed)
        spread = float(np.sum((logit - logit.mean()) ** 2))
        explained = 1 - float(np.sum(rest**2)) / spread if spread else float("nan")
        row = {"source": name, **_auroc(patients, guess), "explained": explained}
        rows.append(row | _auroc(patients, rest, "residual_"))
    network = _auroc(patients, table.get("logit", table["probability"]).to_numpy())
    where = "the training part" if train is not None else CROSS_FITTED
    suspected = [
        row["source"]
        for row in rows
        if network["low"] > 0.5 and row["low"] > 0.5 and row["residual_low"] <= 0.5
    ]
    return Shortcuts(pd.DataFrame(rows), negatives_by_kind(table, patients), where, suspected)


def negatives_by_kind(table: pd.DataFrame, patients: Patients) -> pd.DataFrame:
    """AUROC of the positives against healthy and against otherwise ill negatives.

    Without a column findings the table is empty.
    """
    if "findings" not in table:
        return pd.DataFrame(columns=["negatives", "n", "auroc", "low", "high"])
    positive = (table["target"] == 1).to_numpy()
    score = table.get("logit", table["probability"]).to_numpy()
    healthy = (table["findings"] == NO_FINDING).to_numpy()
    rows = []
    for name, kind in ((NO_FINDING, healthy), ("other findings", ~healthy)):
        chosen = positive | kind
        row = {"negatives": name, "n": int((kind & ~positive).sum())}
        rows.append(row | _auroc(patients.part(chosen), score[chosen]))
    return pd.DataFrame(rows)


def _classify(known: Array, target: Ints, asked: Array, seed: int) -> Array:
    some, model = _drawn(known, seed), HistGradientBoostingClassifier(**TREES, random_state=seed)
    return np.asarray(model.fit(known[some], target[some]).predict_proba(asked)[:, 1])


def _regress(known: Array, score: Array, asked: Array, seed: int) -> Array:
    some, model = _drawn(known, seed), HistGradientBoostingRegressor(**TREES, random_state=seed)
    return np.asarray(model.fit(known[some], score[some]).predict(asked))


def _drawn(known: Array, seed: int) -> Ints:
    return np.sort(np.random.default_rng(seed).permutation(len(known))[:FITTED])


def _held_out(
    guess: Callable[[Array, Any, Array, int], Array],
    numbers: Array,
    wanted: Any,
    fold: Ints,
    seed: int,
) -> Array:
    """Guess what is wanted of each fold from the other folds."""
    guesses = np.empty(len(wanted))
    for number in np.unique(fold):
        held = fold == number
        guesses[held] = guess(numbers[~held], wanted[~held], numbers[held], seed)
    return guesses


def _auroc(patients: Patients, score: Array, prefix: str = "") -> dict[str, float]:
    """AUROC of any score with its interval, as columns of a table."""
    one = interval(ranking_statistics(patients, score)["auroc"])
    return {f"{prefix}auroc": one.value, f"{prefix}low": one.low, f"{prefix}high": one.high}

"""Subgroups: for whom the detector works, at the threshold that all of them share.

Every group is seen by the same resamples of patients, so the interval of a gap is paired. A group
with few positive or few negative images gets its size and no figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.evaluation.metrics import Array, binary_metrics, ranking
from cardiomegaly.evaluation.uncertainty import Draws, interval, ranking_draws, threshold_draws

MINIMUM = 10
AGES = (0, 18, 40, 60, 80, np.inf)
FIGURES = ("auroc", "average_precision", "sensitivity", "specificity")
# Average precision rises with the share of positives, so it is not compared between groups.
GAPS = {"auroc": "AUROC", "sensitivity": "sensitivity", "specificity": "specificity"}


@dataclass(frozen=True)
class Subgroups:
    """A row a group, a row a gap, and the gaps in words."""

    table: pd.DataFrame
    gaps: pd.DataFrame
    words: list[str]


def group_names(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Name each image's group in every dimension that the table has columns for.

    Reads view_position, sex, age (years), follow_up (0 = first) and findings (joined by |); what
    is missing is called "unknown".
    """
    found: dict[str, pd.Series] = {}
    for column, name in (("view_position", "view"), ("sex", "sex")):
        if column in table:
            found[name] = table[column].astype(object).where(table[column].notna(), "unknown")
    if "age" in table:
        names = [f"{low}-{high - 1:.0f}" for low, high in pairwise(AGES[:-1])]
        bands = pd.cut(table["age"], list(AGES), right=False, labels=[*names, f"{AGES[-2]}+"])
        found["age"] = bands.astype(object).where(bands.notna(), "unknown")
    if "follow_up" in table:
        first = table["follow_up"] == 0
        found["visit"] = pd.Series(np.where(first, "first image", "follow-up"), table.index)
    if "findings" in table:
        several = table["findings"].str.contains("|", regex=False).to_numpy(bool)
        found["findings"] = pd.Series(np.where(several, "several", "none or one"), table.index)
    return found


def evaluate_subgroups(
    table: pd.DataFrame, draws: Draws, threshold: float | Array, minimum: int = MINIMUM
) -> Subgroups:
    """Judge every group of `group_names` apart.

    Args:
        table: target, probability, patient_id, logit where known, and what `group_names` reads; a
            row an image.
        draws: resamples of the table's patients, in its order.
        threshold: one number, or one for each image.
        minimum: positive and negative images that a group needs for its figures.

    Raises:
        UserError: a minimum below 1.
    """
    if minimum < 1:
        raise UserError(f"minimum: 1 or more positive images are needed, got {minimum}")
    rows, gaps = [], []
    for dimension, names in group_names(table).items():
        drawn: dict[str, dict[str, Array]] = {}
        for group in sorted(names.unique()):
            inside = (names == group).to_numpy(bool)
            row, draws_of_group = _judge(table, inside, draws, threshold, minimum)
            rows.append({"dimension": dimension, "group": group} | row)
            if draws_of_group:
                drawn[group] = draws_of_group
        values = {row["group"]: row for row in rows if row["dimension"] == dimension}
        gaps += [_widest(dimension, metric, values, drawn) for metric in GAPS if len(drawn) > 1]
    return Subgroups(pd.DataFrame(rows), pd.DataFrame(gaps), [_sentence(gap) for gap in gaps])


def _judge(
    table: pd.DataFrame,
    inside: NDArray[np.bool_],
    draws: Draws,
    threshold: float | Array,
    minimum: int,
) -> tuple[dict[str, float | str], dict[str, Array]]:
    part = table[inside]
    target, score = part["target"].to_numpy(), part["probability"].to_numpy()
    positives, patients = int(target.sum()), int(part["patient_id"].nunique())
    row: dict[str, float | str] = {"n": len(part), "n_patients": patients, "n_positive": positives}
    fewer = min(positives, len(part) - positives)
    if fewer < minimum:
        kind = "positive" if fewer == positives else "negative"
        return row | {"note": f"fewer than {minimum} {kind} images"}, {}
    cut = np.broadcast_to(threshold, len(table))[inside]
    logit = part["logit"].to_numpy() if "logit" in part else None
    values, here = binary_metrics(target, score, cut, logit), draws.of(inside)
    drawn = ranking_draws(here, target, ranking(score, logit))
    drawn |= threshold_draws(here, target, score, cut)
    for name in FIGURES:
        found = interval(values[name], drawn[name])
        row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return row | {"note": ""}, drawn


def _widest(
    dimension: str,
    metric: str,
    values: dict[str, dict[str, float | str]],
    drawn: dict[str, dict[str, Array]],
) -> dict[str, float | str]:
    """Find the two groups that lie farthest apart."""

    def reach(pair: tuple[str, str]) -> float:
        return float(values[pair[1]][metric]) - float(values[pair[0]][metric])

    low, high = max(combinations(drawn, 2), key=lambda pair: abs(reach(pair)))
    if reach((low, high)) < 0:
        low, high = high, low
    found = interval(reach((low, high)), drawn[high][metric] - drawn[low][metric])
    row: dict[str, float | str] = {"dimension": dimension, "metric": metric}
    row |= {"lowest": low, "lowest_value": values[low][metric]}
    row |= {"highest": high, "highest_value": values[high][metric]}
    return row | {"gap": found.value, "low": found.low, "high": found.high}


def _sentence(gap: dict[str, float | str]) -> str:
    text = (
        f"{gap['dimension']}: {GAPS[str(gap['metric'])]} is {gap['gap']:.3f} lower for "
        f"{gap['lowest']} ({gap['lowest_value']:.3f}) than for {gap['highest']} "
        f"({gap['highest_value']:.3f})"
    )
    if np.isnan(float(gap["low"])):
        return f"{text}; no interval can be given."
    text += f", 95% interval {gap['low']:.3f} to {gap['high']:.3f}"
    return text + ("; this may be chance." if float(gap["low"]) <= 0 else ".")

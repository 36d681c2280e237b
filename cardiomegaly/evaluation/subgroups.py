"""Subgroups: for whom the detector works, at the threshold that all of them share.

A group with few positive or few negative images gets its size and no figure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.evaluation.influence import metric_statistics
from cardiomegaly.evaluation.intervals import LEVEL, Patients, Statistic, group_difference, interval
from cardiomegaly.evaluation.metrics import Array

AGES = (0, 18, 40, 60, 80, np.inf)
FIGURES = ("auroc", "average_precision", "sensitivity", "specificity")
# Average precision rises with the share of positives, so it is not compared between groups.
GAPS = ("auroc", "sensitivity", "specificity")


@dataclass(frozen=True)
class Subgroups:
    """A row a group, and a row a dimension and metric for the widest gap between its groups."""

    table: pd.DataFrame
    gaps: pd.DataFrame


def group_names(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Name each image's group in every dimension that the table has columns for.

    Reads view_position, sex, age (years), follow_up (0 = first) and findings (joined by |); what
    is missing is called "unknown".
    """
    groups: dict[str, pd.Series] = {}
    for column, name in (("view_position", "view"), ("sex", "sex")):
        if column in table:
            groups[name] = table[column].astype(object).where(table[column].notna(), "unknown")
    if "age" in table:
        names = [f"{low}-{high - 1:.0f}" for low, high in pairwise(AGES[:-1])]
        bands = pd.cut(table["age"], list(AGES), right=False, labels=[*names, f"{AGES[-2]}+"])
        groups["age"] = bands.astype(object).where(bands.notna(), "unknown")
    if "follow_up" in table:
        first = table["follow_up"] == 0
        groups["visit"] = pd.Series(np.where(first, "first image", "follow-up"), table.index)
    if "findings" in table:
        several = table["findings"].str.contains("|", regex=False).to_numpy(bool)
        groups["findings"] = pd.Series(np.where(several, "several", "none or one"), table.index)
    return groups


def evaluate_subgroups(
    table: pd.DataFrame, patients: Patients, threshold: float | Array, minimum: int
) -> Subgroups:
    """Judge every group of `group_names` by itself.

    Args:
        table: target, probability, patient_id, logit where known, and what `group_names` reads; a
            row an image.
        patients: those of the table, in its order.
        threshold: one number, or one for each image.
        minimum: positive and negative images that a group needs for its figures.

    Raises:
        UserError: a minimum below 1.
    """
    if minimum < 1:
        raise UserError(f"minimum: 1 or more positive images are needed, got {minimum}")
    rows: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    for dimension, names in group_names(table).items():
        judged: dict[str, dict[str, Statistic]] = {}
        for group in sorted(names.unique()):
            inside = (names == group).to_numpy(bool)
            cut = np.broadcast_to(threshold, len(table))[inside]
            row, statistics = _judge(table[inside], patients.part(inside), cut, minimum)
            rows.append({"dimension": dimension, "group": group} | row)
            if statistics:
                judged[group] = statistics
        gaps += [_widest(dimension, metric, judged) for metric in GAPS if len(judged) > 1]
    return Subgroups(pd.DataFrame(rows), pd.DataFrame(gaps))


def _judge(
    part: pd.DataFrame, patients: Patients, cut: Array, minimum: int
) -> tuple[dict[str, Any], dict[str, Statistic]]:
    n, positives = len(part), int(part["target"].sum())
    row = {"n": n, "n_patients": part["patient_id"].nunique(), "n_positive": positives, "note": ""}
    if min(positives, n - positives) < minimum:
        kind = "positive" if positives < minimum else "negative"
        return row | {"note": f"fewer than {minimum} {kind} images"}, {}
    logit = part["logit"].to_numpy() if "logit" in part else None
    statistics = metric_statistics(patients, part["probability"].to_numpy(), cut, logit)
    for name in FIGURES:
        row |= interval(statistics[name]).columns(name)
    return row, statistics


def _widest(dimension: str, metric: str, judged: dict[str, dict[str, Statistic]]) -> dict[str, Any]:
    """Find the two groups that lie farthest apart; the interval holds for all pairs at once."""
    groups = sorted(judged, key=lambda group: judged[group][metric].value)
    low, high = judged[groups[0]][metric], judged[groups[-1]][metric]
    pairs = math.comb(len(groups), 2)
    gap = group_difference(high, low, 1 - (1 - LEVEL) / pairs)
    return {
        "dimension": dimension, "metric": metric, "lowest": groups[0], "lowest_value": low.value,
        "highest": groups[-1], "highest_value": high.value,
        "gap": gap.value, "low": gap.low, "high": gap.high,
    }  # fmt: skip

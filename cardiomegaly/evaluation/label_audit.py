"""Label audit: labels that contradict themselves over time, and predictions that contradict labels.

NIH's labels were mined from reports. A heart rarely grows, shrinks and grows again, so a patient
whose labels do is likely to be labelled wrongly at least once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cardiomegaly import UserError

MOST_CONFIDENT = 24


@dataclass(frozen=True)
class LabelAudit:
    """Two ways of counting, and the images to look at.

    `counts`: patients, patients_several (with 2 images or more), patients_both (with both labels),
    patients_flip (whose label changes at least twice: positive, negative, positive or the reverse),
    images_between (with an image before and one after), images_contradicting (whose label
    contradicts both). `contradictions`: image, patient_id, follow_up, target, probability,
    before, after (labels of the neighbours in time, nan where none), contradicts_neighbours,
    disagreement (distance of probability and label); most confident first, half of them labelled
    positive where there are as many.
    """

    counts: dict[str, int]
    contradictions: pd.DataFrame


def neighbours_in_time(labels: pd.DataFrame) -> pd.DataFrame:
    """Sort images by patient and follow-up number and set their neighbours' labels beside them.

    Args:
        labels: image, patient_id, follow_up, target; a row an image.

    Returns:
        The same columns with before, after (nan where none) and contradicts_neighbours.
    """
    table = labels[["image", "patient_id", "follow_up", "target"]]
    table = table.sort_values(["patient_id", "follow_up", "image"]).reset_index(drop=True)
    of_patient = table.groupby("patient_id")["target"]
    table["before"], table["after"] = of_patient.shift(1), of_patient.shift(-1)
    table["contradicts_neighbours"] = (table["before"] == table["after"]) & (
        table["before"] != table["target"]
    )
    return table


def audit_labels(
    labels: pd.DataFrame | None, predictions: pd.DataFrame, most: int = MOST_CONFIDENT
) -> LabelAudit:
    """Count the labels that disagree over time and list the most confident contradictions.

    Args:
        labels: as `neighbours_in_time`, every image known of the patients in question.
        predictions: image, probability and called (true where called positive) of those judged.
        most: rows of the list.

    Raises:
        UserError: no labels are at hand.
    """
    if labels is None:
        raise UserError("the label file is not at hand, so the order in time is unknown")
    table = neighbours_in_time(labels)
    changed = table["before"].notna() & (table["before"] != table["target"])
    of_patient = table.groupby("patient_id")
    images, positives = of_patient.size(), of_patient["target"].sum()
    between = table["before"].notna() & table["after"].notna()
    counts = {
        "patients": len(images),
        "patients_several": int((images > 1).sum()),
        "patients_both": int(((positives > 0) & (positives < images)).sum()),
        "patients_flip": int((changed.groupby(table["patient_id"]).sum() >= 2).sum()),
        "images_between": int(between.sum()),
        "images_contradicting": int(table["contradicts_neighbours"].sum()),
    }
    judged = table.merge(predictions[["image", "probability", "called"]], on="image")
    judged["disagreement"] = np.abs(judged["probability"] - judged["target"])
    judged = judged[judged["called"] != (judged["target"] == 1)]
    judged = judged.sort_values(["disagreement", "image"], ascending=[False, True])
    rank = judged.groupby("target").cumcount()
    chosen = judged.loc[rank.sort_values(kind="stable").index[:most]]
    chosen = chosen.sort_values(["disagreement", "image"], ascending=[False, True])
    return LabelAudit(counts, chosen.drop(columns="called").reset_index(drop=True))

"""The label audit on patients drawn up by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cardiomegaly.evaluation import label_audit

STORIES = {1: [1, 0, 1], 2: [0, 0, 1, 1], 3: [1], 4: [0, 1, 1, 0], 5: [0, 0], 6: [1, 0, 1, 0]}
LABELS = pd.DataFrame(
    [
        {"image": f"{patient}_{visit}", "patient_id": patient, "follow_up": visit, "target": label}
        for patient, story in STORIES.items()
        for visit, label in enumerate(story)
    ]
)


def predict(**changed: float) -> pd.DataFrame:
    """Probabilities that agree with the labels, but for those named."""
    table = LABELS[["image"]].assign(probability=LABELS["target"] * 0.8 + 0.1)
    for image, probability in changed.items():
        table.loc[table["image"] == image.removeprefix("of_"), "probability"] = probability
    return table.assign(called=table["probability"] >= 0.5)


def test_both_ways_of_counting_by_hand() -> None:
    shuffled = LABELS.sample(frac=1, random_state=0)
    found = label_audit.audit_labels(shuffled, predict())
    assert found.counts == {
        "patients": 6,
        "patients_several": 5,
        "patients_both": 4,  # 1, 2, 4 and 6
        "patients_flip": 3,  # 1, 4 and 6; patient 2 changes once
        "images_between": 1 + 2 + 2 + 2,
        "images_contradicting": 3,  # 1_1, 6_1 and 6_2; in patient 4 two images agree
    }
    assert found.contradictions.empty


def test_most_confident_contradictions_come_first() -> None:
    predictions = predict(of_1_1=0.97, of_3_0=0.01, of_5_1=0.6)
    found = label_audit.audit_labels(LABELS, predictions, most=2).contradictions
    assert found["image"].tolist() == ["3_0", "1_1"]
    assert found["contradicts_neighbours"].tolist() == [False, True]
    assert np.isnan(found["before"][0]) and found["after"][1] == 1
    every = label_audit.audit_labels(LABELS, predictions.iloc[::-1]).contradictions
    assert every["image"].tolist() == ["3_0", "1_1", "5_1"]


def test_both_labels_are_shown_where_both_are_contradicted() -> None:
    predictions = predict(of_1_1=0.99, of_2_0=0.98, of_2_1=0.97, of_5_0=0.96, of_3_0=0.4)
    found = label_audit.audit_labels(LABELS, predictions, most=3).contradictions
    assert found["image"].tolist() == ["1_1", "2_0", "3_0"]


def test_images_that_were_not_judged_still_count_as_neighbours() -> None:
    predictions = predict(of_1_1=0.9)
    found = label_audit.audit_labels(LABELS, predictions[predictions["image"] == "1_1"])
    assert found.contradictions["before"].tolist() == [1.0]
    assert found.counts["images_contradicting"] == 3

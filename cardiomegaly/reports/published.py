"""The figures that the reimplemented study published; published/study_results.csv holds them.

The source stands at the head of that file. The study tested on its own images, split by image, so
its figures give an orientation and not a target.
"""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

# The order of the study's table.
BACKBONES = {
    "resnet152v2": "ResNet152V2",
    "inceptionv3": "InceptionV3",
    "mobilenetv1": "MobileNetV1",
    "efficientnetb4": "EfficientNetB4",
}
DIFFERENCES = (
    "The study split by image, so that a patient's images stood in training and test, took 13,880 "
    "images of which 20% are positive, and augmented at random also while it tested. Its headline "
    "table mixes validation and test figures. Read its numbers as an orientation, not as a target."
)


def study_results() -> pd.DataFrame:
    """Read the study's figures: one row a backbone, balance (bool) and split ("val" or "test").

    `f1_weighted` is the study's F score, `f1_positive` the F1 of cardiomegaly; `headline` marks the
    rows that its headline table was taken from. All shares are from 0 to 1.
    """
    source = files("cardiomegaly.reports") / "published" / "study_results.csv"
    with source.open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#")


def study_figure(backbone: str, balance: bool, column: str, split: str = "test") -> float | None:
    """Look up one figure; `split` is "val", "test" or "headline". None where the study has none."""
    frame = study_results()
    part = frame["headline"] if split == "headline" else frame["split"] == split
    rows = frame[(frame["backbone"] == backbone) & (frame["balance"] == balance) & part]
    return float(rows[column].iloc[0]) if len(rows) else None

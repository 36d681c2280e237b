"""Joining boxes with a subject's images: training images apart, what is missing named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.data.boxes import read_boxes
from cardiomegaly.data.images import ImageFolder
from cardiomegaly.evaluation.fitting import Cohort, Predicted
from cardiomegaly.reports.localise import Looking, localise
from cardiomegaly.reports.subjects import Subject

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


def make_subject(boxes: Path, parts: list[str]) -> Subject:
    """A subject of the boxed hearts, dealt to the parts in turn."""
    images = read_boxes(boxes).query("finding == 'Cardiomegaly'")["image"].to_list()
    table = pd.DataFrame({"image": images, "patient_id": range(len(images))})
    table["part"] = [parts[place % len(parts)] for place in range(len(images))]
    cohort = Cohort(table.assign(target=1))
    return Subject("made", cohort, {"made": Predicted(np.ones(len(table)), None)}, table)


def test_training_images_are_reported_apart(phantom_root: Path) -> None:
    boxes = phantom_root / "BBox_List_2017.csv"
    subject = make_subject(boxes, ["train", "val", "test"])
    found = localise(subject, {}, None, Looking(boxes, given=boxes))
    sizes = {table["part"].iloc[0]: table["n_images"].iloc[0] for table in found.summaries}
    counts = subject.images["part"].value_counts()
    assert sizes == {"training": counts["train"], "held out": counts["val"] + counts["test"]}
    assert set(found.images[0]["image"]) <= set(subject.images["image"])


def test_too_few_boxes_are_a_note(phantom_root: Path, tmp_path: Path) -> None:
    boxes = phantom_root / "BBox_List_2017.csv"
    subject = make_subject(boxes, ["test"])
    subject.images = subject.images.iloc[:1]
    assert localise(subject, {}, None, Looking(boxes)).notes == [
        "held out: 1 boxed image; the baselines need two."
    ]
    subject.images = subject.images.iloc[:0]
    found = localise(subject, {}, None, Looking(boxes))
    assert found.notes == ["No image of these predictions has a heart box."]
    assert not found.summaries


def test_given_boxes_must_cover_the_boxed_images(phantom_root: Path, tmp_path: Path) -> None:
    boxes, given = phantom_root / "BBox_List_2017.csv", tmp_path / "given.csv"
    given.write_text(HEADER + "other.png,Cardiomegaly,1,2,3,4\n")
    with pytest.raises(UserError, match=r"given_boxes: .* has no box of \d+ boxed images"):
        localise(make_subject(boxes, ["test"]), {}, None, Looking(boxes, given))


def test_image_folder_names_what_is_missing(phantom_root: Path, tmp_path: Path) -> None:
    folder = ImageFolder(phantom_root)
    name = next((phantom_root / "images").glob("*.png")).name
    assert folder.has(name) and folder.pixels([name, name], 32).shape == (2, 32, 32)
    with pytest.raises(UserError, match=r"1 of 2 images are not below .*, x\.png for one"):
        folder.pixels([name, "x.png"], 32)
    with pytest.raises(UserError, match=r"images: the folder .* does not exist"):
        ImageFolder(tmp_path / "none")

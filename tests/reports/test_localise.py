"""Joining boxes with the images of a run: training images by themselves, what is missing named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.data.boxes import read_boxes
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.reports.localise import Localisation, localise
from cardiomegaly.training.record import read_run

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


def judge(images: pd.DataFrame, boxes: Path | None, **words: Any) -> Localisation:
    given = {"runs": {}, "folder": None, "gradcam": False, "fraction": 0.5}
    return localise(images, boxes=boxes, **{**given, "device": "cpu", **words})


def boxed(boxes: Path, parts: list[str]) -> pd.DataFrame:
    """The boxed hearts of a list, dealt to the parts in turn."""
    images = read_boxes(boxes).query("finding == 'Cardiomegaly'")["image"].to_list()
    table = pd.DataFrame({"image": images, "patient_id": range(len(images))})
    return table.assign(part=[parts[place % len(parts)] for place in range(len(images))])


@pytest.fixture
def boxes(phantom_root: Path) -> Path:
    return phantom_root / "BBox_List_2017.csv"


def test_training_images_are_reported_by_themselves(boxes: Path) -> None:
    images = boxed(boxes, ["train", "val", "test"])
    result = judge(images, boxes, given_boxes=boxes)
    sizes = result.summary.groupby("part")["n_images"].first().to_dict()
    counts = images["part"].value_counts()
    assert sizes == {"training": counts["train"], "held out": counts["val"] + counts["test"]}
    assert set(result.images["image"]) == set(images["image"])


def test_too_few_boxes_are_a_note(boxes: Path) -> None:
    images = boxed(boxes, ["test"])
    result = judge(images.iloc[:1], boxes, given_boxes=boxes)
    assert result.notes == ["held out: 1 boxed image; the baselines need two"]
    result = judge(images.iloc[:0], boxes, given_boxes=boxes)
    assert result.notes == ["no image of these predictions has a heart box"]
    assert result.summary.empty


def test_given_boxes_must_cover_the_boxed_images(boxes: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.csv"
    given.write_text(HEADER + "other.png,Cardiomegaly,1,2,3,4\n")
    with pytest.raises(UserError, match=r"given_boxes: .* has no box of \d+ boxed images"):
        judge(boxed(boxes, ["test"]), boxes, given_boxes=given)


def test_maps_of_a_run_lie_on_every_boxed_image_at_hand(
    trained_run: Path, phantom_root: Path, boxes: Path
) -> None:
    images, run = boxed(boxes, ["train", "test"]), read_run(trained_run)
    folder = ImageFolder(phantom_root)
    del folder.files[Path(images["image"][0]).stem]
    result = judge(images, None, runs={"run": run}, folder=folder)
    assert result.notes == ["1 boxed images are not at hand"]
    rows = result.images[result.images["method"] == "attention"]
    assert sorted(rows["image"]) == sorted(images["image"][1:])
    assert set(result.maps) == {"attention"}
    assert sorted(result.maps["attention"]) == sorted(rows["image"])
    table = result.summary.query("part == 'held out' and metric == 'pointing'").set_index("method")
    pointing = result.pointing
    assert pointing is not None and pointing["method"] == "attention"
    assert pointing["value"] == rows.query("part == 'held out'")["pointing"].mean()
    assert pointing["blind"] == table["value"].drop("attention").max()


def test_an_image_that_cannot_be_read_is_a_note(
    trained_run: Path, phantom_root: Path, boxes: Path, tmp_path: Path
) -> None:
    images = boxed(boxes, ["test"])
    for name in images["image"]:
        (tmp_path / name).symlink_to(next(phantom_root.rglob(name)))
    broken = tmp_path / images["image"][0]
    broken.unlink()
    broken.write_bytes(b"no picture")
    result = judge(images, boxes, runs={"run": read_run(trained_run)}, folder=ImageFolder(tmp_path))
    assert len(result.notes) == 1 and str(broken) in result.notes[0]


def test_a_checkpoint_that_cannot_be_read_is_a_note(
    trained_run: Path, phantom_root: Path, boxes: Path, tmp_path: Path
) -> None:
    for item in trained_run.iterdir():
        if item.name != "checkpoints":
            (tmp_path / item.name).symlink_to(item)
    runs = {"cut": read_run(tmp_path), "run": read_run(trained_run)}
    images, folder = boxed(boxes, ["test"]), ImageFolder(phantom_root)
    result = judge(images, None, runs=runs, folder=folder)
    assert len(result.notes) == 1 and str(tmp_path / "checkpoints") in result.notes[0]
    assert "attention, run" in set(result.summary["method"])

"""The command: pictures, a sheet, a table and a page that says how the maps do."""

from __future__ import annotations

from pathlib import Path

import cv2
import pandas as pd
import pytest

from cardiomegaly import explain
from cardiomegaly.data.boxes import NUMBERS, read_boxes
from cardiomegaly.evaluation.localisation import blind_boxes, iobb
from tests.reports.test_pages import refuse_references


def test_images_are_explained(
    trained_run: Path, phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = read_boxes(phantom_root / "BBox_List_2017.csv")
    boxes = boxes[boxes["finding"] == "Cardiomegaly"].reset_index(drop=True)
    (tmp_path / "broken.png").write_text("hello")
    images = [phantom_root / "images" / boxes["image"][0], tmp_path / "broken.png"]
    images.append(next(p for p in (phantom_root / "images").iterdir() if p not in images))
    assert explain.main([
        f"model={trained_run}", f"input=[{','.join(map(str, images))}]",
        f"output={tmp_path / 'out'}", f"boxes={phantom_root / 'BBox_List_2017.csv'}",
    ]) == 0  # fmt: skip
    table = pd.read_csv(tmp_path / "out" / "explanations.csv")
    assert table["image"].tolist() == [str(image) for image in images]
    assert "is not a PNG, JPEG or DICOM file" in table["reason"][1]
    true = boxes[NUMBERS].to_numpy(float)
    blind = iobb(blind_boxes(true)["mean box"], true)[0]
    assert table["mean heart box energy"][0] == pytest.approx(blind)
    worse = (table["attention energy"] < blind) | (
        table["attention pointing"].astype(float) < table["mean heart box pointing"].astype(float)
    )
    assert bool(table["attention worse"][0]) == bool(worse[0])
    assert table["attention energy"].notna().tolist() == [True, False, False]
    for name in (f"0000_{images[0].name}", f"0002_{images[2].name}", "sheet.png"):
        assert cv2.imread(str(tmp_path / "out" / name)).shape[1] > 1000
    page = (tmp_path / "out" / "explanations.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "not for clinical use" in page
    refuse_references(page)
    said = capsys.readouterr().out
    assert "On the 1 images with a heart box, the peak of the attention lies in it" in said


def test_without_boxes_that_is_said(
    trained_run: Path, phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((phantom_root / "images").iterdir())
    assert explain.main([f"model={trained_run}", f"input={image}", f"output={tmp_path}"]) == 0
    assert "No heart box is known for these images" in capsys.readouterr().out

"""Reading NIH's box list: its odd header, its units, its mistakes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cardiomegaly import UserError
from cardiomegaly.config import FITS
from cardiomegaly.data.boxes import BOX_FRAME, find_boxes, read_boxes
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.data.images import fit_box, fit_image

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "boxes.csv"
    path.write_text(text)
    return path


def test_the_odd_header_is_understood(tmp_path: Path) -> None:
    found = read_boxes(write(tmp_path, HEADER + "a.png,Cardiomegaly,225.5,547,86.75,79,,,\n"))
    assert found.to_dict("records") == [
        {"image": "a.png", "finding": "Cardiomegaly", "x": 225.5, "y": 547.0,
         "width": 86.75, "height": 79.0}
    ]  # fmt: skip


def test_the_real_list(nih_sample: Path) -> None:
    found = read_boxes(nih_sample / "BBox_List_2017.csv")
    assert len(found) == 984
    hearts = found[found["finding"] == "Cardiomegaly"]
    assert len(hearts) == hearts["image"].nunique() == 146


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a readable CSV"),
        ("image,finding\na,b\n", "must begin with Image Index, .* got the columns image, finding"),
        (HEADER + "a.png,Mass,1,2,x,4,,,\n", r"line 2: a box needs .* got 1, 2, x, 4"),
        (HEADER + "a.png,Mass,1,2,3,4,,,\nb.png,Mass,1,2,0,4,,,\n", "line 3: .* got 1, 2, 0, 4"),
        (HEADER + "a.png,Mass,1000,2,30,4,,,\n", "line 2: .* an end within 1024"),
        (HEADER + "a.png,Mass,-3,2,30,4,,,\n", "line 2: a box needs x and y of at least 0"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_boxes(write(tmp_path, text))


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"box list .* does not exist"):
        read_boxes(tmp_path / "none.csv")


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (320, 320)])
def test_a_box_goes_where_its_pixels_go(fit: str, shape: tuple[int, int]) -> None:
    image = np.zeros(shape, np.uint8)
    x, y, width, height = 100, 120, 80, 60
    image[y : y + height, x : x + width] = 255
    rows, columns = np.nonzero(fit_image(image, 512, fit) > 127)
    drawn = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
    np.testing.assert_allclose(fit_box((x, y, width, height), *shape, 512, fit), drawn, atol=1.5)


def test_a_box_outside_what_is_cropped_is_cut_off() -> None:
    assert fit_box((0, 0, 200, 100), 100, 300, 100, "crop") == (0, 0, 100, 100)


def vindr(folder: Path) -> Path:
    """A folder with VinDr's table: two readers' boxes of one heart, one finding without a box."""
    cv2.imwrite(str(folder / "a.png"), np.zeros((100, 200), np.uint8))
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
    rows = [
        "a,Cardiomegaly,3,R8,50,20,150,80", "a,Cardiomegaly,3,R9,60,30,170,80",
        "a,No finding,14,R10,,,,", "gone,Cardiomegaly,3,R8,1,1,2,2",
    ]  # fmt: skip
    (folder / "train.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_the_boxes_of_several_readers(tmp_path: Path) -> None:
    path = find_boxes(vindr(tmp_path))
    assert path == tmp_path / "train.csv"
    found = read_boxes(path, ImageFolder(tmp_path, "pad"))
    scale = BOX_FRAME / 200  # 50 rows of black above
    assert found.to_dict("records") == [
        {"image": "a", "finding": "Cardiomegaly", "x": 55 * scale, "y": (25 + 50) * scale,
         "width": (160 - 55) * scale, "height": (80 - 25) * scale}
    ]  # fmt: skip


def test_boxes_in_pixels_of_the_images_need_these(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in pixels of the images, .* say images=FOLDER"):
        read_boxes(vindr(tmp_path) / "train.csv")


def test_a_table_without_boxes_is_no_list(tmp_path: Path) -> None:
    assert find_boxes(tmp_path) is None
    (tmp_path / "train.csv").write_text("Path,Cardiomegaly\n")
    assert find_boxes(tmp_path) is None

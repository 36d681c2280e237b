"""Reading NIH's box list: its odd header, its units, its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardiomegaly import UserError
from cardiomegaly.data.boxes import read_boxes

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

"""Boxes that radiologists drew: NIH's `BBox_List_2017.csv`, and VinDr-CXR's `train.csv`.

The header of NIH's, `Image Index,Finding Label,Bbox [x,y,w,h],,,`, names four columns as if they
were one cell split at its commas, and leaves three more empty; columns are told by their place.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.data.images import fit_box, read_image
from cardiomegaly.data.tables import read_csv

HEART = "Cardiomegaly"  # the finding whose boxes are boxes of hearts
NIH_LIST, VINDR_LIST = "BBox_List_2017.csv", "train.csv"
VINDR = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
BOX_FRAME = 1024  # pixels on each side of the images that the boxes were drawn on
NUMBERS = ["x", "y", "width", "height"]


def read_boxes(path: Path | str, folder: ImageFolder | None = None) -> pd.DataFrame:
    """Read a box list into one row a box.

    Args:
        path: of the list.
        folder: the images, needed for VinDr's boxes, which are in pixels of images of any size.

    Returns:
        Columns image, finding, x, y (upper left corner), width, height, in pixels of the
        1024 x 1024 image. Of VinDr's readers the mean box, of the images in the folder.

    Raises:
        UserError: no such file, or VinDr's without a folder.
        UserError: not such a list, or a box that is no number, is empty or leaves the image.
    """
    path = Path(path)
    raw = read_csv(path, "box list", f"; it is NIH's {NIH_LIST}, or VinDr's table")
    if set(VINDR) <= set(raw.columns):
        return _mean_of_readers(raw, path, folder)
    names = [str(name).strip() for name in raw.columns[:6]]
    if len(names) < 6 or names[:2] != ["Image Index", "Finding Label"]:
        raise UserError(
            f"box list {path} must begin with Image Index, Finding Label and the four numbers "
            f"x, y, w, h of a box, got the columns {', '.join(names)}"
        )
    table = raw.iloc[:, :6].set_axis(["image", "finding", *NUMBERS], axis=1)
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    numbers = table[NUMBERS]
    # Half a pixel of rounding beyond the border is none of the reader's business.
    right, lower = numbers["x"] + numbers["width"], numbers["y"] + numbers["height"]
    inside = (numbers[["x", "y"]].min(axis=1) >= -0.5) & (right <= BOX_FRAME + 0.5)
    good = inside & (lower <= BOX_FRAME + 0.5) & (numbers[["width", "height"]].min(axis=1) > 0)
    if not good.all():
        row = int((~good).to_numpy().argmax())
        raise UserError(
            f"box list {path}, line {row + 2}: a box needs x and y of at least 0, a width and "
            f"height over 0 and an end within {BOX_FRAME}, got {', '.join(raw.iloc[row, 2:6])}"
        )
    return table


def find_boxes(root: Path) -> Path | None:
    """The box list among the images: NIH's, or else VinDr's table; None where there is none."""
    nih = sorted(root.rglob(NIH_LIST))
    if nih:
        return nih[0]
    table = root / VINDR_LIST
    if not table.is_file():
        return None
    return table if set(VINDR) <= set(pd.read_csv(table, nrows=0).columns) else None


def _mean_of_readers(raw: pd.DataFrame, path: Path, folder: ImageFolder | None) -> pd.DataFrame:
    """VinDr's boxes as the network sees them, the mean of an image's readers."""
    if folder is None:
        raise UserError(
            f"box list {path}: its boxes are in pixels of the images, which are needed; say "
            "images=FOLDER"
        )
    corners = raw[list(VINDR[2:])].apply(pd.to_numeric, errors="coerce")
    drawn = raw[["image_id", "class_name"]].join(corners).dropna()  # "No finding" has no box
    drawn = drawn[[folder.has(image) for image in drawn["image_id"]]]
    mean = drawn.groupby(["image_id", "class_name"], sort=False).mean().reset_index()
    rows = []
    for image, finding, left, top, right, bottom in mean.itertuples(index=False):
        file = folder.find(image)
        assert file is not None  # noqa: S101  (it is in the folder)
        height, width = read_image(file.path).shape
        box = (left, top, right - left, bottom - top)
        rows.append((image, finding, *fit_box(box, height, width, BOX_FRAME, folder.fit)))
    return pd.DataFrame(rows, columns=["image", "finding", *NUMBERS])

"""NIH's list of boxes that radiologists drew, `BBox_List_2017.csv`.

Its header, `Image Index,Finding Label,Bbox [x,y,w,h],,,`, names four columns as if they were one
cell split at its commas, and leaves three more empty; columns are therefore told by their place.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cardiomegaly import UserError

BOX_FRAME = 1024  # pixels on each side of the images that the boxes were drawn on
NUMBERS = ["x", "y", "width", "height"]


def read_boxes(path: Path | str) -> pd.DataFrame:
    """Read a box list into one row a box.

    Returns:
        Columns image, finding, x, y (upper left corner), width, height, in pixels of the
        1024 x 1024 image.

    Raises:
        UserError: no such file.
        UserError: not such a list, or a box that is no number, is empty or leaves the image.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"box list {path} does not exist; it is NIH's BBox_List_2017.csv")
    try:
        raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"box list {path} is not a readable CSV: {error}") from error
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

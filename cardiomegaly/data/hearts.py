"""Where the heart lies in images: boxes that radiologists drew, or CheXmask's masks.

A training may draw its attention map there (`training.losses.attention_loss`), and look at the
region around the mean of them alone (`backbone.region=heart`).

Source of the masks: Gaggion et al., "CheXmask: a large-scale dataset of anatomical segmentation
masks for multi-center chest x-ray images", Scientific Data 2024; a table of each data set, one row
an image, in which a mask is a run-length code: pairs of a first pixel (counted from 1, row by row)
and a length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.data.boxes import BOX_FRAME, HEART, NUMBERS, find_boxes, read_boxes
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.data.images import Pixels, fit_image

INSIDE = 255
MASK, QUALITY, LEAST_QUALITY = "Heart", "Dice RCA (Mean)", 0.7  # what CheXmask's authors advise
IDENTIFIERS = ("Image Index", "image_id", "ImageID", "dicom_id", "Path")  # of its several tables
WIDENED = 1.5  # times the longer side of the mean heart's box: as wide as most chests
CELL = 32  # pixels of an image for one position of most networks' feature maps
Box = Sequence[float]


class Hearts:
    """Where the heart lies, of those images of which it is known.

    Args:
        root: folder of the images; NIH's box list or VinDr's table among them is used.
        fit: how an image becomes square, as in `images.fit_image`.
        images: those of which it is asked for.
        masks: CheXmask's table, which then counts before boxes; None without.

    Raises:
        UserError: a list or table cannot be read or is none.
    """

    def __init__(self, root: Path, fit: str, images: Sequence[str], masks: Path | None) -> None:
        self.fit = fit
        self.boxes: dict[str, Box] = {}
        self.masks: dict[str, tuple[str, int, int]] = {}  # code, height, width
        path = find_boxes(root)
        if path is not None:
            table = read_boxes(path, ImageFolder(root, fit))
            hearts = table[(table["finding"] == HEART) & table["image"].isin(images)]
            self.boxes = dict(zip(hearts["image"], hearts[NUMBERS].to_numpy(), strict=True))
        if masks is not None:
            self.masks = _read_masks(masks, images)

    def draw(self, image: str, size: int) -> Pixels:
        """The heart of an image as (size, size) `uint8`: 255 in it; 0 everywhere if not known."""
        if image in self.masks:
            return fit_image(_decode(*self.masks[image]), size, self.fit)
        drawn = np.zeros((size, size), np.uint8)
        if image in self.boxes:
            x, y, width, height = np.asarray(self.boxes[image]) * size / BOX_FRAME
            drawn[_span(y, height), _span(x, width)] = INSIDE
        return drawn

    def known(self, images: Sequence[str]) -> list[str]:
        """Those of the images whose heart is known."""
        return [image for image in images if image in self.masks or image in self.boxes]

    def region(self, images: Sequence[str], size: int) -> list[float]:
        """The square around the mean box of these images' hearts, wide enough for the chest.

        Args:
            images: at least one whose heart is known.
            size: height and width of an image in pixels; the edges are multiples of 32 of them.

        Returns:
            Upper, left, lower and right edge as shares of the image's height and width.
        """
        edges = []
        for image in self.known(images):
            rows, columns = np.nonzero(self.draw(image, size))
            edges.append((rows.min(), columns.min(), rows.max() + 1, columns.max() + 1))
        top, left, bottom, right = np.mean(edges, axis=0)
        cells = max(1, size // CELL)
        widened = round(WIDENED * max(bottom - top, right - left) / CELL)
        side = min(cells, max(1, widened))
        upper, leftmost = (
            int(np.clip(round(middle / CELL - side / 2), 0, cells - side))
            for middle in ((top + bottom) / 2, (left + right) / 2)
        )
        corners = (upper, leftmost, upper + side, leftmost + side)
        return [corner * CELL / size for corner in corners]


def _span(start: float, length: float) -> slice:
    return slice(round(start), max(round(start + length), round(start) + 1))


def _read_masks(path: Path, images: Sequence[str]) -> dict[str, tuple[str, int, int]]:
    """Codes, heights and widths of the images, in pieces: such a table may take gigabytes."""
    try:
        header = pd.read_csv(path, nrows=0).columns
        named = [name for name in IDENTIFIERS if name in header]
        columns = [*named[:1], QUALITY, MASK, "Height", "Width"]
        missing = [name for name in columns if name not in header]
        if not named or missing:
            raise UserError(
                f"data.heart_masks: {path} is no table of CheXmask's: it needs one of "
                f"{', '.join(IDENTIFIERS)}, and {', '.join(columns[-4:])}; got {', '.join(header)}"
            )
        found: dict[str, tuple[str, int, int]] = {}
        for rows in pd.read_csv(path, usecols=columns, chunksize=2000):
            good = rows[rows[named[0]].isin(images) & rows[MASK].notna()]
            good = good[good[QUALITY] >= LEAST_QUALITY]
            for row in good[[named[0], *columns[-3:]]].itertuples(index=False):
                found[row[0]] = (row[1], int(row[2]), int(row[3]))
    except (OSError, ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data.heart_masks: {path} cannot be read: {reason}") from error
    for image, code in found.items():
        try:
            _decode(*code)
        except ValueError as error:
            raise UserError(f"data.heart_masks: {path}, the heart of {image}: {error}") from error
    return found


def _decode(code: str, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width), 255 where the code says so.

    Raises:
        ValueError: it is no such code.
    """
    runs = np.array(code.split(), np.int64)
    first, length = runs[::2] - 1, runs[1::2]
    if len(runs) % 2 or (first < 0).any() or (length < 1).any():
        raise ValueError("a code is pairs of a first pixel, from 1, and a length, from 1")
    if not len(runs) or (first + length).max() > height * width:
        raise ValueError(f"it holds no pixel, or one beyond {height} x {width}")
    mask = np.zeros(height * width, np.uint8)
    for start, count in zip(first, length, strict=True):
        mask[start : start + count] = INSIDE
    return mask.reshape(height, width)

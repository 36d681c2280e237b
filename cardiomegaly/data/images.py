"""Image files decoded to grey pixels: PNG and JPEG of any depth, and DICOM.

A file is told by its first bytes, not by its name. The pixels are brought to the square that the
network takes by stretching, padding or cropping (`data.fit`).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardiomegaly import UserError
from cardiomegaly.data.dicom import (
    HEADER,
    MissingDecoderError,
    displayed_pixels,
    is_dicom,
    open_dicom,
)

END_MARKERS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}  # PNG and JPEG, start: end
TAIL = 1024  # bytes in which the end marker must stand: some writers append a few
SMALLEST = 16  # pixels of the shorter side
LARGEST = 80_000_000  # pixels; the largest detectors have 20 million
MOST_NAMED = 5  # files named in a message; the rest are counted

Pixels = NDArray[np.uint8]
Result = TypeVar("Result")


def is_image(path: str | Path) -> bool:
    """Whether the first bytes of a file are those of a PNG, a JPEG or a DICOM file.

    Raises:
        OSError: the file cannot be opened.
    """
    with Path(path).open("rb") as file:
        start = file.read(HEADER)
    return is_dicom(start) or any(start.startswith(marker) for marker in END_MARKERS)


def read_image(path: str | Path) -> Pixels:
    """Decode a PNG, JPEG or DICOM file of any depth to (H, W) `uint8`, grey.

    Deeper images keep the upper 8 of the bits in use, colours their luminance, alpha is dropped;
    DICOM as in `dicom.displayed_pixels`.

    Raises:
        UserError: none of these formats, too small, too large, truncated or damaged.
        MissingDecoderError: a package that DICOM needs is not installed.
        OSError: the file cannot be opened.
    """
    data = Path(path).read_bytes()
    if is_dicom(data):
        file = open_dicom(data, str(path))
        _check_size(str(path), file.Columns, file.Rows)
        return displayed_pixels(file, str(path))
    end = next((end for start, end in END_MARKERS.items() if data.startswith(start)), None)
    if end is None:
        raise UserError(f"{path} is not a PNG, JPEG or DICOM file")
    if end not in data[-TAIL:]:
        raise UserError(f"{path} is truncated")
    _check_header(str(path), data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{path} is damaged")
    return _upper_bits(image)


def fit_image(image: Pixels, size: int, fit: str) -> Pixels:
    """Bring (H, W) pixels to (size, size); a square image comes out alike by every `fit`.

    Shrinking averages areas, enlarging interpolates linearly.

    Args:
        image: grey pixels.
        size: height and width.
        fit: `stretch` changes the aspect, `pad` adds black at two sides, `crop` cuts two sides off.
    """
    height, width = image.shape
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if fit != "pad" or height == width:
        return _resize(image, size, size)
    longest = max(height, width)
    inner = _resize(image, *(max(1, round(side * size / longest)) for side in image.shape))
    padded = np.zeros((size, size), np.uint8)
    top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
    padded[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return padded


def fit_box(
    box: Sequence[float], height: int, width: int, size: int, fit: str
) -> tuple[float, float, float, float]:
    """Where a box of an image lies after `fit_image`, cut off at the border.

    Args:
        box: x, y (upper left corner), width, height in pixels of the image.
        height, width: of the image.
        size, fit: as in `fit_image`.
    """
    side = {"pad": max(height, width), "crop": min(height, width)}.get(fit)
    edges = []
    for start, extent, length in ((box[0], box[2], width), (box[1], box[3], height)):
        scale = size / (side or length)
        margin = (size - length * scale) / 2
        ends = (margin + start * scale, margin + (start + extent) * scale)
        edges.append([min(max(end, 0.0), size) for end in ends])
    (left, right), (top, bottom) = edges
    return left, top, right - left, bottom - top


def decode_image(path: str | Path, size: int, fit: str) -> Pixels:
    """Decode a file to (size, size) `uint8`, grey; see `read_image` and `fit_image`."""
    return fit_image(read_image(path), size, fit)


def decode_images(
    paths: Sequence[str], size: int, fit: str, workers: int | None = None
) -> Iterator[Pixels | UserError | OSError]:
    """Decode files as `decode_image`, in order; yields pixels or what is wrong with a file.

    Raises:
        MissingDecoderError: as `read_images`.
    """
    return read_images(paths, lambda image: fit_image(image, size, fit), workers)


def read_images(
    paths: Sequence[str], use: Callable[[Pixels], Result], workers: int | None = None
) -> Iterator[Result | UserError | OSError]:
    """Read files on threads and use their pixels there, in order.

    Args:
        paths: of the files.
        use: what is made of the pixels of one.
        workers: threads; None is one a core.

    Returns:
        What `use` gives for each, or what is wrong with the file.

    Raises:
        MissingDecoderError: a package that DICOM needs is not installed.
    """

    def read(path: str) -> Result | UserError | OSError:
        try:
            return use(read_image(path))
        except MissingDecoderError:
            raise
        except (UserError, OSError) as error:
            return error

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image a thread, not one image on all threads
    try:
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            yield from pool.map(read, paths)
    finally:
        cv2.setNumThreads(threads)


def name_some(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _upper_bits(image: NDArray[Any]) -> Pixels:
    """Keep 8 bits: files of 16 often use 12, so the brightest pixel says how many there are."""
    if image.dtype == np.uint8:
        return image
    return (image >> max(int(image.max()).bit_length() - 8, 0)).astype(np.uint8)


def _resize(image: Pixels, height: int, width: int) -> Pixels:
    shrinks = min(image.shape) > min(height, width)
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _check_header(path: str, data: bytes) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as header:
            width, height = header.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        width = height = LARGEST
    except (OSError, SyntaxError, ValueError):
        return  # OpenCV may still read it
    _check_size(path, width, height)


def _check_size(path: str, width: int, height: int) -> None:
    if width * height > LARGEST:
        raise UserError(f"{path} has more than {LARGEST:,} pixels")
    if min(width, height) < SMALLEST:
        raise UserError(f"{path} is {width} x {height} pixels; {SMALLEST} x {SMALLEST} are needed")

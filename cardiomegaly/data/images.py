"""Image files: found below a folder by their names, and decoded to grey pixels."""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from xxhash import xxh3_64_intdigest

from cardiomegaly import UserError

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg")
END_MARKERS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}  # PNG and JPEG, start: end
TAIL = 1024  # bytes in which the end marker must stand: some writers append a few
SMALLEST = 16  # pixels of the shorter side
LARGEST = 80_000_000  # pixels; the largest detectors have 20 million
BATCH = 32
MOST_NAMED = 5  # files named in a message; the rest are counted

Pixels = NDArray[np.uint8]


class ImageFile(NamedTuple):
    """A file as the walk met it; `official` where it lies in a folder called `images*`."""

    path: str
    bytes: int
    mtime_ns: int
    official: bool = False

    @property
    def key(self) -> int:
        """What a store knows the image by: a file that was changed is another image."""
        text = f"{self.path}|{self.bytes}|{self.mtime_ns}"
        return int(xxh3_64_intdigest(text.encode("utf-8", "surrogateescape")))


class ImageFolder:
    """The PNGs and JPEGs below a folder, by name.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"images: the folder {root} does not exist; say images=FOLDER")
        self.root = root
        self.files: dict[str, list[ImageFile]] = {}  # by name without suffix
        refused: list[str] = []
        for file in walk(root, refused):
            self.files.setdefault(_stem(file.path), []).append(file)
        if refused:
            log.warning(
                "%d entries below %s cannot be read and are left out: %s",
                len(refused), root, name_some(refused),
            )  # fmt: skip

    def find(self, image: str) -> ImageFile | None:
        """The file of an image, whatever its suffix; None where there is none.

        Of several files of that name, one in a folder called `images*` (as in NIH's archives) comes
        first, then one with the image's own suffix.

        Raises:
            UserError: that does not tell which one is meant.
        """

        def rank(file: ImageFile) -> tuple[bool, bool]:
            return file.official, file.path.endswith(os.sep + image)

        files = sorted(self.files.get(_stem(image), ()), key=rank, reverse=True)
        if len(files) > 1 and rank(files[0]) == rank(files[1]):
            raise UserError(
                f"{image} lies more than once below {self.root}, as {files[0].path} and "
                f"{files[1].path}; keep one of them"
            )
        return files[0] if files else None

    def has(self, image: str) -> bool:
        """Whether the image is there."""
        return _stem(image) in self.files

    def pixels(self, images: Sequence[str], size: int) -> Pixels:
        """Decode images to (n, size, size) `uint8`.

        Raises:
            UserError: an image is not there or cannot be read.
        """
        absent = [image for image in images if not self.has(image)]
        if absent:
            raise UserError(
                f"{len(absent)} of {len(images)} images are not below {self.root}, {absent[0]} for "
                "one; unpack them there"
            )
        paths = [file.path for file in map(self.find, images) if file is not None]
        decoded = list(decode_images(paths, size))
        for pixels in decoded:
            if isinstance(pixels, Exception):
                raise UserError(str(pixels)) from pixels
        return np.stack(decoded)  # type: ignore[arg-type]

    def batches(self, images: Sequence[str], size: int) -> Iterator[Pixels]:
        """Yield images as a predictor takes them, (B, 1, size, size) `uint8`."""
        for start in range(0, len(images), BATCH):
            yield self.pixels(images[start : start + BATCH], size)[:, None]


def walk(root: Path, refused: list[str]) -> Iterator[ImageFile]:
    """Yield every PNG and JPEG below `root`; every folder is entered once, links are followed.

    `refused` gets what cannot be read: dangling links, loops, pipes, folders without permission.
    """
    folders, entered = [(os.path.realpath(root), False)], set()
    while folders:
        folder, official = folders.pop()
        try:
            place = Path(folder).stat()
            if (place.st_dev, place.st_ino) in entered:
                continue
            entered.add((place.st_dev, place.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name, reverse=True)
        except OSError:
            refused.append(folder)
            continue
        for entry in entries:
            try:
                if entry.is_dir():
                    folders.append((entry.path, official or entry.name.startswith("images")))
                elif entry.name.lower().endswith(SUFFIXES):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield ImageFile(entry.path, status.st_size, status.st_mtime_ns, official)
                    else:
                        refused.append(entry.path)
            except OSError:
                refused.append(entry.path)


def decode_image(path: str | Path, size: int) -> Pixels:
    """Decode a PNG or JPEG of any depth and mode to (size, size) `uint8`, grey.

    16-bit images keep their upper 8 bits, colours their luminance, alpha is dropped. Shrinking
    averages areas, enlarging interpolates linearly.

    Raises:
        UserError: not a PNG or JPEG, too small, too large, truncated or damaged.
        OSError: the file cannot be opened.
    """
    data = Path(path).read_bytes()
    end = next((end for start, end in END_MARKERS.items() if data.startswith(start)), None)
    if end is None:
        raise UserError(f"{path} is not a PNG or JPEG file")
    if end not in data[-TAIL:]:
        raise UserError(f"{path} is truncated")
    _check_size(path, data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{path} is damaged")
    shrinks = min(image.shape) > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=method), np.uint8)


def decode_images(
    paths: Sequence[str], size: int, workers: int | None = None
) -> Iterator[Pixels | UserError | OSError]:
    """Decode on `workers` threads (None: one a core); yield pixels or what is wrong, in order."""

    def decode(path: str) -> Pixels | UserError | OSError:
        try:
            return decode_image(path, size)
        except (UserError, OSError) as error:
            return error

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image a thread, not one image on all threads
    try:
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            yield from pool.map(decode, paths)
    finally:
        cv2.setNumThreads(threads)


def name_some(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _check_size(path: str | Path, data: bytes) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as header:
            width, height = header.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        width = height = LARGEST
    except (OSError, SyntaxError, ValueError):
        return  # OpenCV may still read it
    if width * height > LARGEST:
        raise UserError(f"{path} has more than {LARGEST:,} pixels")
    if min(width, height) < SMALLEST:
        raise UserError(f"{path} is {width} x {height} pixels; {SMALLEST} x {SMALLEST} are needed")


def _stem(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]  # noqa: PTH119, PTH122 (112,120 times)

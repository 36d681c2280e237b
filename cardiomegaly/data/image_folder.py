"""The images below a folder, found by their names."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest

from cardiomegaly import UserError
from cardiomegaly.data.images import Pixels, decode_images, is_image, name_some

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
SUFFIX = re.compile(r"\.[A-Za-z]\w*$")  # a number after a point, as in a UID, is none
BATCH = 32


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
    """The PNG, JPEG and DICOM files below a folder, by name.

    Args:
        root: the folder.
        fit: how `pixels` brings an image to a square; see `images.fit_image`.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, root: Path, fit: str = "stretch") -> None:
        if not root.is_dir():
            raise UserError(f"images: the folder {root} does not exist; say images=FOLDER")
        self.root = root
        self.fit = fit
        self.files: dict[str, list[ImageFile]] = {}  # by name without suffix
        self._in_folders: dict[int, dict[str, list[ImageFile]]] = {}  # by the end of their path
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

        A name with folders (`patient1/study1/view1.jpg`) is the end of a path. Of several files of
        that name, one in a folder called `images*` (as in NIH's archives) comes first, then one
        with the image's own suffix.

        Raises:
            UserError: that does not tell which one is meant.
        """

        def rank(file: ImageFile) -> tuple[bool, bool]:
            return file.official, file.path.endswith(os.sep + image)

        files = self._named(image)
        if len(files) < 2:  # most of many thousand
            return files[0] if files else None
        files = sorted(files, key=rank, reverse=True)
        if rank(files[0]) == rank(files[1]):
            raise UserError(
                f"{image} lies more than once below {self.root}, as {files[0].path} and "
                f"{files[1].path}; keep one of them"
            )
        return files[0]

    def has(self, image: str) -> bool:
        """Whether the image is there."""
        return bool(self._named(image))

    def _named(self, image: str) -> list[ImageFile]:
        depth = image.count("/")
        if depth == 0:
            return self.files.get(_stem(image), [])
        if depth not in self._in_folders:
            ends = self._in_folders[depth] = {}
            for name, files in self.files.items():
                for file in files:
                    folders = Path(file.path).parts[-1 - depth : -1]
                    ends.setdefault("/".join([*folders, name]), []).append(file)
        folder, _, name = image.rpartition("/")
        return self._in_folders[depth].get(f"{folder}/{_stem(name)}", [])

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
        decoded = list(decode_images(paths, size, self.fit))
        for pixels in decoded:
            if isinstance(pixels, Exception):
                raise UserError(str(pixels)) from pixels
        return np.stack(decoded)  # type: ignore[arg-type]

    def batches(self, images: Sequence[str], size: int) -> Iterator[Pixels]:
        """Yield images as a predictor takes them, (B, 1, size, size) `uint8`."""
        for start in range(0, len(images), BATCH):
            yield self.pixels(images[start : start + BATCH], size)[:, None]


def walk(root: Path, refused: list[str]) -> Iterator[ImageFile]:
    """Yield every image below `root`; every folder is entered once, links are followed.

    An image has one of `SUFFIXES`, or a name without a suffix and the first bytes of an image, as
    DICOM files often have.

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
                elif not SUFFIX.search(entry.name) and entry.is_file() and is_image(entry.path):
                    status = entry.stat()
                    yield ImageFile(entry.path, status.st_size, status.st_mtime_ns, official)
            except OSError:
                refused.append(entry.path)


def _stem(path: str) -> str:
    """The name of a file without the suffix of an image; the points of a UID stay."""
    name = os.path.basename(path)  # noqa: PTH119 (112,120 times)
    return name[: name.rindex(".")] if name.lower().endswith(SUFFIXES) else name

"""The images that an evaluation looks at.

Images are decoded as the cache decodes them, so a network sees the pixels that it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.data.images import decode_image
from cardiomegaly.data.labels import find_images

Pixels = NDArray[np.uint8]
BATCH = 32


class ImageFolder:
    """The images below a folder, by file name.

    Raises:
        UserError: there is no such folder.
        UserError: a name occurs twice.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"images: the folder {root} does not exist; say images=FOLDER")
        self.root = root
        found = find_images(root)["path"]
        self.paths: dict[str, str] = dict(zip(found.index, found, strict=True))

    def has(self, image: str) -> bool:
        """Whether the image is there."""
        return Path(image).stem in self.paths

    def pixels(self, images: list[str], size: int) -> Pixels:
        """Decode images to (n, size, size) `uint8`.

        Raises:
            UserError: an image is not there.
        """
        absent = [image for image in images if not self.has(image)]
        if absent:
            raise UserError(
                f"{len(absent)} of {len(images)} images are not below {self.root}, {absent[0]} for "
                "one; unpack them there"
            )
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            with ThreadPoolExecutor() as pool:
                paths = [self.paths[Path(image).stem] for image in images]
                return np.stack(list(pool.map(partial(decode_image, size=size), paths)))
        finally:
            cv2.setNumThreads(threads)

    def batches(self, images: list[str], size: int) -> Iterator[Pixels]:
        """Yield images as a predictor takes them, (B, 1, size, size) `uint8`."""
        for start in range(0, len(images), BATCH):
            yield self.pixels(images[start : start + BATCH], size)[:, None]
